"""The audit: what should have happened, replayed from the ledger, against what did. Pure.

Nothing that the keeper says is asked. Prices, placements, ratchets and fills are taken from the chain's transactions in
their order; the trigger rules are the demo's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from solders.pubkey import Pubkey

from keeper.demo.ledger import PRICE, Entry, Ledger
from keeper.demo.rules import met, trailed_stop
from keeper.domain.orders import OnchainStatus, Order, OrderType
from keeper.venue.program import CANCEL, EXECUTE, PLACE, RATCHET, Program

DUE_SLOTS: Final = 5
"""A condition that held for so many slots, under a fresh price, has to have led to an execution."""

_THE_PRICE: Final = frozenset({"ConditionNotMet", "PriceStale"})
"""Refusals after which an order rests: the price was not, or no longer, one to fill at."""

_CLOCK_SLACK_S: Final = 2
"""The chain's clock has whole seconds, and an execution may land a slot after its decision."""


@dataclass(slots=True)
class Verdict:
    """The audit's findings. Orders are counted unless a name says otherwise.

    `triggered`: filled, refused, or met long enough that they had to be filled. `failed` are those whose last attempt
    the program refused for another reason than the price, by error name. `lost` were met long enough, and nothing on
    chain says why they are not filled. `moved_back` were met
    for a moment only, and rest. `refusals` counts attempts that the program refused, by error name. `wrong` are
    sentences about what must not happen.
    """

    placed: int = 0
    triggered: int = 0
    executed: int = 0
    positions: int = 0
    duplicates: int = 0
    lost: int = 0
    cancelled: int = 0
    resting: int = 0
    moved_back: int = 0
    ratchets: int = 0
    failed: dict[Pubkey, str] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    landed_slots: list[int] = field(default_factory=list)
    """For each fill, the slots between the price that met its condition and the execution."""
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Resting:
    """An order in the replay, with its stop as the chain had it at this point."""

    order: Order
    trigger_1e6: int
    met_since: int | None = None
    met_slots: int = 0
    ever_met: bool = False
    due: bool = False


def audit(ledger: Ledger, program: Program, keeper: Pubkey, *, max_price_age_s: int, slot_s: float) -> Verdict:
    """Replay every market, then judge every order by its replay, its account, its history and its position."""
    verdict = Verdict()
    seen: dict[Pubkey, _Resting] = {}
    for market in ledger.by_market:
        replay = _Replay(ledger, verdict, max_price_age_s, int(max_price_age_s / slot_s))
        replay.run(_with_cancels(ledger, market))
        seen |= replay.seen
    for address in ledger.by_order:
        _judge(address, ledger, seen.get(address), program, keeper, verdict)
    verdict.positions = len(ledger.positions)
    return verdict


def _with_cancels(ledger: Ledger, market: Pubkey) -> list[Entry]:
    """A market's history. `cancel_order` names no market, so cancels come from the orders' own histories; they are put
    at the end of their slot.
    """
    cancels = [
        entry
        for address, history in ledger.by_order.items()
        if address in ledger.orders and ledger.orders[address].market == market
        for entry in history
        if entry.name == CANCEL
    ]
    return sorted([*ledger.by_market[market], *cancels], key=lambda entry: entry.slot)


class _Replay:
    """One market, played from its first transaction to its last."""

    def __init__(self, ledger: Ledger, verdict: Verdict, max_age_s: int, fresh_slots: int) -> None:
        self._ledger = ledger
        self._verdict = verdict
        self._max_age_s = max_age_s
        self._fresh_slots = fresh_slots
        self._price: Entry | None = None
        self._slot = 0
        self._pending: dict[Pubkey, _Resting] = {}
        self.seen: dict[Pubkey, _Resting] = {}

    def run(self, history: Iterable[Entry]) -> None:
        for entry in history:
            self._advance(entry.slot)
            if entry.error is not None:
                if entry.name == EXECUTE:
                    self._verdict.refusals[entry.error] += 1
            elif entry.name == PRICE:
                self._price = entry
            elif entry.order is not None:
                self._order_entry(entry, entry.order)
        self._advance(self._ledger.slot)

    def _advance(self, slot: int) -> None:
        """Let the present price stand until `slot`, for every order that it meets."""
        if self._price is not None:
            fresh_until = self._price.slot + self._fresh_slots
            if self._slot < fresh_until:
                for resting in self._pending.values():
                    self._stand(resting, min(slot, fresh_until) - self._slot)
        self._slot = slot

    def _stand(self, resting: _Resting, span: int) -> None:
        assert self._price is not None
        assert self._price.price_1e6 is not None
        order = resting.order
        if not met(order.order_type, order.side, resting.trigger_1e6, self._price.price_1e6):
            resting.met_since, resting.met_slots = None, 0
            return
        if resting.met_since is None:
            resting.met_since = self._slot
        resting.ever_met = True
        resting.met_slots += span
        resting.due = resting.due or resting.met_slots >= DUE_SLOTS

    def _order_entry(self, entry: Entry, address: Pubkey) -> None:
        if entry.name == PLACE:
            self._placed(address)
            return
        resting = self._pending.get(address)
        if resting is None:
            if entry.name == EXECUTE:
                self._verdict.wrong.append(f"{address} was executed again ({entry.signature})")
            return
        if entry.name == RATCHET:
            self._ratcheted(entry, resting)
            return
        if entry.name == EXECUTE:
            self._executed(entry, resting)
        del self._pending[address]

    def _placed(self, address: Pubkey) -> None:
        order = self._ledger.orders.get(address)
        if order is None:
            self._verdict.wrong.append(f"the account of {address} is gone")
            return
        trigger = order.price_1e6 if order.order_type is OrderType.LIMIT else order.stop_price_1e6
        if order.order_type is OrderType.TRAILING_STOP and self._price is not None:
            # The account shows the last stop; the first is where the price at the placing put it.
            assert self._price.price_1e6 is not None
            trigger = trailed_stop(order.side, _worst_stop(order), order.trailing_distance_ppm, self._price.price_1e6)
        self._pending[address] = self.seen[address] = _Resting(order, trigger)

    def _ratcheted(self, entry: Entry, resting: _Resting) -> None:
        assert self._price is not None
        assert self._price.price_1e6 is not None
        order, before = resting.order, resting.trigger_1e6
        resting.trigger_1e6 = trailed_stop(order.side, before, order.trailing_distance_ppm, self._price.price_1e6)
        self._verdict.ratchets += 1
        if resting.trigger_1e6 == before:
            self._verdict.wrong.append(f"a ratchet of {order.address} moved nothing ({entry.signature})")

    def _executed(self, entry: Entry, resting: _Resting) -> None:
        order, price = resting.order, self._price
        if (
            price is None
            or price.price_1e6 is None
            or not met(order.order_type, order.side, resting.trigger_1e6, price.price_1e6)
        ):
            self._verdict.wrong.append(f"{order.address} was executed although its condition did not hold")
            return
        age_s = entry.time_s - price.time_s
        if age_s > self._max_age_s + _CLOCK_SLACK_S:
            self._verdict.wrong.append(f"{order.address} was executed on a price {age_s} s old")
        met_since = resting.met_since if resting.met_since is not None else entry.slot
        self._verdict.landed_slots.append(entry.slot - met_since)


def _judge(
    address: Pubkey, ledger: Ledger, replayed: _Resting | None, program: Program, keeper: Pubkey, verdict: Verdict
) -> None:
    order, history = ledger.orders.get(address), ledger.by_order[address]
    if order is None or replayed is None:
        verdict.wrong.append(f"{address} was accepted over HTTP and is not on chain")
        return
    verdict.placed += 1
    executions = [entry for entry in history if entry.name == EXECUTE and entry.error is None]
    verdict.duplicates += max(0, len(executions) - 1)
    refusal = _last_refusal(history)
    if order.status is OnchainStatus.FILLED:
        verdict.triggered += 1
        if len(executions) == 1 and _has_position(order, ledger, program, keeper):
            verdict.executed += 1
        else:
            verdict.wrong.append(f"{address} is filled with {len(executions)} executions or a position that is not its")
    elif order.status is OnchainStatus.CANCELLED:
        verdict.cancelled += 1
    elif refusal is not None and refusal not in _THE_PRICE:
        verdict.triggered += 1
        verdict.failed[address] = refusal
    elif replayed.due:
        verdict.triggered += 1
        verdict.lost += 1
    else:
        verdict.resting += 1
        verdict.moved_back += replayed.ever_met


def _last_refusal(history: list[Entry]) -> str | None:
    """The error of the last attempt at an order; None without a failed attempt."""
    return next((entry.error for entry in reversed(history) if entry.name == EXECUTE), None)


def _has_position(order: Order, ledger: Ledger, program: Program, keeper: Pubkey) -> bool:
    address = program.position_of(order, keeper)
    position = None if address is None else ledger.positions.get(address)
    return position is not None and (position.user, position.market, position.side, position.size_1e6) == (
        order.user,
        order.market,
        order.side,
        order.size_1e6,
    )


def _worst_stop(order: Order) -> int:
    """A stop that any price improves."""
    return 0 if order.side == 0 else 2**64 - 1
