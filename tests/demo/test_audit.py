"""The audit has to see each thing that must not happen. Each test tells it a small ledger with one such thing in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from solders.pubkey import Pubkey

from keeper.demo.audit import Verdict, audit
from keeper.demo.ledger import PRICE, Entry, Ledger
from keeper.demo.summary import quantile, summarize
from keeper.domain.orders import OnchainStatus, Order, OrderType, Position, Side
from keeper.localnet.program import PROGRAM_ID
from keeper.venue.idl import PACKAGED, load_idl
from keeper.venue.program import CANCEL, EXECUTE, PLACE, RATCHET, Program

PROGRAM = Program(Pubkey.from_string(PROGRAM_ID), load_idl(PACKAGED["0.2"]))
MARKET, USER, KEEPER = (Pubkey([n] * 32) for n in (1, 2, 3))


def an_order(status: OnchainStatus = OnchainStatus.PENDING, **changes: object) -> Order:
    """A long stop loss at 90."""
    order = Order(
        address=PROGRAM.order_address(USER, 1),
        user=USER,
        market=MARKET,
        order_type=OrderType.STOP_LOSS,
        side=Side.LONG,
        size_1e6=1_000_000,
        price_1e6=0,
        stop_price_1e6=90,
        trailing_distance_ppm=0,
        leverage=1,
        status=status,
        created_at=0,
        expires_at=0,
        filled_size_1e6=0,
        order_id=1,
        slot=0,
    )
    return order._replace(**changes)  # type: ignore[arg-type]


@dataclass
class Chain:
    """A ledger in the making: one market, one order, a block of half a second a slot."""

    order: Order
    with_position: bool = True
    entries: list[Entry] = field(default_factory=list)

    def at(self, slot: int, name: str, price: int | None = None, error: str | None = None) -> Chain:
        """Add a transaction."""
        order = None if name == PRICE else self.order.address
        market = None if name == CANCEL else MARKET
        signature = f"{len(self.entries)}"
        self.entries.append(Entry(signature, slot, slot // 2, name, market, order, price, error))
        return self

    def audited(self, until: int) -> Verdict:
        """What the audit says, with the chain at that slot; prices are fresh for 10 s, which is 20 slots."""
        order = self.order
        position = PROGRAM.position_of(order, KEEPER)
        assert position is not None
        stands = order.status is OnchainStatus.FILLED and self.with_position
        found = Position(position, USER, MARKET, order.side, order.size_1e6, 90, 1, 0, until, 0, 0, 0)
        ledger = Ledger(
            by_market={MARKET: [entry for entry in self.entries if entry.market is not None]},
            by_order={order.address: [entry for entry in self.entries if entry.order is not None]},
            orders={order.address: order},
            positions={position: found} if stands else {},
            slot=until,
        )
        return audit(ledger, PROGRAM, KEEPER, max_price_age_s=10, slot_s=0.5)


def problems(verdict: Verdict, poor: Sequence[Pubkey] = ()) -> tuple[str, ...]:
    return summarize(verdict, {}, placed=1, poor=poor, seconds=1.0).problems


def test_a_fill_with_its_position_is_right() -> None:
    chain = Chain(an_order(OnchainStatus.FILLED)).at(1, PRICE, 100).at(2, PLACE).at(10, PRICE, 90).at(11, EXECUTE)
    verdict = chain.audited(20)
    assert (verdict.placed, verdict.triggered, verdict.executed, verdict.positions) == (1, 1, 1, 1)
    assert verdict.landed_slots == [1]
    assert problems(verdict) == ()


def test_a_fill_without_a_position_is_wrong() -> None:
    chain = Chain(an_order(OnchainStatus.FILLED), with_position=False)
    verdict = chain.at(1, PRICE, 90).at(2, PLACE).at(3, EXECUTE).audited(9)
    assert verdict.executed == 0
    assert any("a position that is not its" in problem for problem in problems(verdict))


def test_a_second_execution_is_a_duplicate() -> None:
    chain = Chain(an_order(OnchainStatus.FILLED)).at(1, PRICE, 90).at(2, PLACE).at(3, EXECUTE).at(4, EXECUTE)
    verdict = chain.audited(9)
    assert verdict.duplicates == 1
    assert any("executed again" in problem for problem in problems(verdict))


def test_an_execution_above_the_stop_is_wrong() -> None:
    chain = Chain(an_order(OnchainStatus.FILLED)).at(1, PRICE, 91).at(2, PLACE).at(3, EXECUTE)
    assert any("condition did not hold" in problem for problem in problems(chain.audited(9)))


def test_an_execution_on_a_dead_price_is_wrong() -> None:
    chain = Chain(an_order(OnchainStatus.FILLED)).at(1, PRICE, 90).at(2, PLACE).at(60, EXECUTE)
    assert any("on a price 30 s old" in problem for problem in problems(chain.audited(70)))


def test_a_condition_that_held_and_led_to_nothing_is_lost() -> None:
    verdict = Chain(an_order()).at(1, PRICE, 100).at(2, PLACE).at(10, PRICE, 90).audited(15)
    assert (verdict.triggered, verdict.lost) == (1, 1)


def test_a_condition_that_held_for_a_moment_is_not() -> None:
    verdict = Chain(an_order()).at(1, PRICE, 100).at(2, PLACE).at(10, PRICE, 90).at(13, PRICE, 91).audited(99)
    assert (verdict.triggered, verdict.lost, verdict.moved_back, verdict.resting) == (0, 0, 1, 1)


def test_a_dead_price_makes_nothing_due() -> None:
    verdict = Chain(an_order()).at(1, PRICE, 90).at(30, PLACE).audited(99)
    assert (verdict.triggered, verdict.lost, verdict.resting) == (0, 0, 1)


@pytest.mark.parametrize(("error", "failed"), [("InsufficientCollateral", 1), ("ConditionNotMet", 0)])
def test_a_refused_fill_is_failed_by_name_unless_the_price_was_the_reason(error: str, failed: int) -> None:
    chain = Chain(an_order()).at(1, PRICE, 100).at(2, PLACE).at(10, PRICE, 90).at(10, PRICE, 91)
    verdict = chain.at(10, EXECUTE, error=error).audited(15)
    assert verdict.refusals == {error: 1}
    assert list(verdict.failed.values()) == [error] * failed
    expected = [chain.order.address] if failed else []
    assert problems(verdict, expected) == ("nothing was executed",)


def test_an_unexpected_refusal_is_a_problem() -> None:
    chain = Chain(an_order()).at(1, PRICE, 90).at(2, PLACE).at(3, EXECUTE, error="InsufficientCollateral")
    assert any("should have been refused" in problem for problem in problems(chain.audited(9)))


def test_a_cancelled_order_is_neither_triggered_nor_lost() -> None:
    chain = Chain(an_order(OnchainStatus.CANCELLED)).at(1, PRICE, 100).at(2, PLACE).at(5, CANCEL).at(10, PRICE, 90)
    verdict = chain.audited(30)
    assert (verdict.triggered, verdict.cancelled, verdict.lost) == (0, 1, 0)


def test_a_trailing_stop_is_judged_by_the_stop_it_had() -> None:
    """Its first stop is 90, and 99 after the ratchet at 110; the account shows the last one only."""
    order = an_order(
        OnchainStatus.FILLED, order_type=OrderType.TRAILING_STOP, trailing_distance_ppm=100_000, stop_price_1e6=99
    )
    chain = Chain(order).at(1, PRICE, 100).at(2, PLACE).at(5, PRICE, 95).at(8, PRICE, 110).at(9, RATCHET)
    verdict = chain.at(12, PRICE, 99).at(13, EXECUTE).audited(20)
    assert problems(verdict) == ()
    assert verdict.ratchets == 1
    early = Chain(order).at(1, PRICE, 100).at(2, PLACE).at(5, PRICE, 95).at(6, EXECUTE).audited(20)
    assert any("condition did not hold" in problem for problem in problems(early))


def test_quantiles_are_of_the_values() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(list(range(1, 101)), 0.99) == 99
