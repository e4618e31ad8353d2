"""Fates, budgets, pauses and fees: what an impossible order can cost is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.app.program import load_program
from keeper.config.settings import ProgramSettings
from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.orders import REVISION_0_2, Order, OrderType
from keeper.execution.consequences import following, ops_of
from keeper.execution.drafting import FeePolicy, FeeRules
from keeper.execution.fates import FREE_OF_CHARGE, POLICIES, Next
from keeper.execution.orders import Orders
from keeper.execution.purse import fee_of
from keeper.execution.tries import RetryLimits, Tries
from keeper.journal.ops import Op
from keeper.triggers.book import Book
from keeper.venue.fates import fate_of
from keeper.venue.program_errors import ProgramFailure
from keeper.venue.venue import Venue
from tests.journal.journal_making import make_order

OURS = Pubkey.from_string("QuantDeskPerpDex111111111111111111111111111")
OTHER = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
ORDER = Pubkey.new_unique()


def test_every_fate_has_a_policy() -> None:
    assert set(POLICIES) == set(Fate)


@pytest.mark.parametrize(
    ("name", "fate", "following"),
    [
        ("OrderNotPending", Fate.LOST_RACE, Next.STOP),
        ("ConditionNotMet", Fate.PRICE_MOVED_BACK, Next.NEXT_PRICE),
        ("PriceStale", Fate.PRICE_STALE, Next.NEXT_PRICE),
        ("MarketInactive", Fate.MARKET_PAUSED, Next.NEXT_PRICE),
        ("OrderExpired", Fate.EXPIRED_ORDER, Next.STOP),
        ("InsufficientCollateral", Fate.CANNOT_PAY, Next.ACCOUNT_CHANGE),
        ("MaxPositionsReached", Fate.CANNOT_PAY, Next.ACCOUNT_CHANGE),
        ("AccountNotInitialized", Fate.CANNOT_PAY, Next.ACCOUNT_CHANGE),
        ("ComputationalBudgetExceeded", Fate.TRANSIENT, Next.BACK_OFF),
        ("ConstraintSeeds", Fate.MISCONFIGURED, Next.OPERATOR),
        ("NeverHeardOf", Fate.REFUSED, Next.OPERATOR),
    ],
)
def test_the_error_table(name: str, fate: Fate, following: Next) -> None:
    assert fate_of(name, OURS, OURS) is fate
    assert POLICIES[fate].next is following


def test_our_names_mean_nothing_in_another_program() -> None:
    assert fate_of("OrderNotPending", OTHER, OURS) is Fate.REFUSED


def test_every_error_of_the_idl_that_a_fill_can_meet_has_a_fate_of_its_own() -> None:
    """A new error in the IDL should be looked at, not fall through to REFUSED unseen."""
    program = load_program(ProgramSettings())
    looked_at = {
        # refused for good: the order, or the market, is not what it must be
        "InvalidLeverage", "InvalidSize", "InvalidPrice", "InvalidStopPrice", "InvalidTrailingDistance",
        "PositionTooLarge", "PriceTooHigh", "PriceTooLow", "OrderExpirationTooLong", "UnauthorizedUser",
        "InvalidOrderType", "OrderStillPending", "MathOverflow", "UserAccountInactive",
    }  # fmt: skip
    refused = {name for name in program.idl.errors.values() if fate_of(name, program.id, program.id) is Fate.REFUSED}
    assert refused <= looked_at


@pytest.mark.parametrize("fate", [Fate.PRICE_MOVED_BACK, Fate.PRICE_STALE, Fate.MARKET_PAUSED, Fate.LOST_RACE])
def test_what_is_nobodys_fault_costs_no_budget(fate: Fate) -> None:
    assert not POLICIES[fate].costs_budget


def test_the_keepers_own_poverty_is_not_the_orders_fault() -> None:
    for name in FREE_OF_CHARGE:
        assert fate_of(name, OTHER, OURS) is Fate.TRANSIENT


def limits(**changes: Any) -> RetryLimits:
    usual = {"budget": 5, "first_pause_s": 1.0, "longest_pause_s": 60.0, "attempts_per_hour": 30}
    return RetryLimits(**{**usual, **changes})


def rules(**changes: Any) -> FeeRules:
    usual = {
        "default_unit_limit": 120_000,
        "unit_margin": 0.15,
        "unit_price_micro_lamports": 1_000,
        "percentile": None,
        "retry_factor": 1.5,
        "cap_lamports": 1_000_000,
    }
    return FeeRules(**{**usual, **changes})


def test_a_budget_is_used_up_and_given_back() -> None:
    tries, three = Tries(), limits(budget=3)
    left = []
    for _ in range(4):
        tries.used += 1
        left.append(tries.left(three))
    assert left == [2, 1, 0, 0]
    tries.reset()
    assert tries.left(three) == 3


def test_numbers_never_come_twice() -> None:
    tries = Tries(made=7, used=2)
    tries.recent.append(0.0)
    tries.undo()
    assert (tries.made, len(tries.recent)) == (7, 0)
    tries.reset()
    assert (tries.made, tries.used) == (7, 0)


def test_pauses_grow_to_a_bound() -> None:
    tries = Tries()
    pauses = []
    for _ in range(200):
        tries.used += 1
        pauses.append(tries.pause_s(limits(budget=50, first_pause_s=1, longest_pause_s=60)))
    assert pauses[0] <= 1.2
    assert max(pauses) <= 72
    assert min(pauses[19:]) >= 48


def test_9_the_hourly_ceiling_holds_whatever_the_errors_are() -> None:
    tries, ten = Tries(), limits(attempts_per_hour=10)
    made = 0
    for second in range(7200):
        if tries.ceiling_pause_s(ten, float(second)) == 0:
            tries.recent.append(float(second))
            made += 1
    assert made == 20


@given(
    number=st.integers(1, 200),
    price=st.integers(0, 10**9),
    cap=st.integers(10_000, 10**7),
    units=st.integers(0, 1_400_000),
    signatures=st.sampled_from([1, 2]),
)
def test_23_no_transaction_costs_more_than_its_cap(
    number: int, price: int, cap: int, units: int, signatures: int
) -> None:
    fees = FeePolicy(rules(unit_price_micro_lamports=price, cap_lamports=cap))
    fees.learn_units(AttemptKind.EXECUTE, OrderType.LIMIT, units)
    more = 10_000 * (signatures - 1)
    budget = fees.budget(AttemptKind.EXECUTE, OrderType.LIMIT, number, number - 1, more, signatures)
    attempt = attempt_of(budget.unit_limit, budget.unit_price_micro_lamports)
    assert fee_of(attempt._replace(wire=bytes([signatures]))) <= cap
    alone = fees.budget(AttemptKind.EXECUTE, OrderType.LIMIT, number, number - 1)
    assert budget.unit_limit == min(1_400_000, alone.unit_limit + more)


def test_23_the_unit_limit_is_the_most_seen_plus_a_margin() -> None:
    fees = FeePolicy(rules(default_unit_limit=120_000, unit_margin=0.1))
    assert fees.unit_limit(AttemptKind.EXECUTE, OrderType.LIMIT) == 120_000
    for units in (10_000, 20_000, 15_000):
        fees.learn_units(AttemptKind.EXECUTE, OrderType.LIMIT, units)
    assert fees.unit_limit(AttemptKind.EXECUTE, OrderType.LIMIT) == 22_000 + 30_000
    assert fees.unit_limit(AttemptKind.RATCHET, OrderType.LIMIT) == 120_000


def test_23_a_retry_asks_for_at_least_the_default() -> None:
    """An order whose addresses take long to find fails by the limit learnt from others; it must not do so twice."""
    fees = FeePolicy(rules(default_unit_limit=120_000, unit_margin=0.1))
    fees.learn_units(AttemptKind.EXECUTE, OrderType.LIMIT, 20_000)
    assert fees.budget(AttemptKind.EXECUTE, OrderType.LIMIT, 1, 0).unit_limit == 52_000
    assert fees.budget(AttemptKind.EXECUTE, OrderType.LIMIT, 2, 1).unit_limit > 120_000


def test_the_price_rises_with_failures_and_not_with_ratchets() -> None:
    fees = FeePolicy(rules(unit_price_micro_lamports=1_000, retry_factor=2))
    prices = [
        fees.budget(AttemptKind.EXECUTE, OrderType.TRAILING_STOP, number, failed).unit_price_micro_lamports
        for number, failed in ((1, 0), (11, 0), (12, 1), (13, 2))
    ]
    assert prices == [1_000, 1_000, 2_000, 4_000]


def test_two_attempts_at_an_order_are_never_the_same_transaction() -> None:
    for cap in (5_000, 5_010, 1_000_000):
        fees = FeePolicy(rules(unit_price_micro_lamports=0, cap_lamports=cap))
        budgets = [fees.budget(AttemptKind.EXECUTE, OrderType.LIMIT, n, n - 1) for n in range(1, 6)]
        assert len(set(budgets)) == 5


def test_9_attempts_from_before_the_start_count_for_the_ceiling_until_they_are_an_hour_old() -> None:
    three = limits(attempts_per_hour=3)
    tries = Tries(made=40)
    tries.recent.extend([-3_000.0, -1_000.0, 0.0])
    assert tries.ceiling_pause_s(three, 0.0) == pytest.approx(600)
    assert tries.ceiling_pause_s(three, 601.0) == 0
    tries.recent.append(601.0)
    assert tries.ceiling_pause_s(three, 601.0) == pytest.approx(2_000 - 1, abs=1)


def attempt_of(units: int, unit_price_micro_lamports: int = 1_000) -> Attempt:
    return Attempt(
        signature=Signature.new_unique(),
        kind=AttemptKind.EXECUTE,
        order=ORDER,
        wire=b"\x01",
        blockhash="",
        last_valid_block_height=0,
        state=AttemptState.SIGNED,
        number=1,
        signed_at=0.0,
        unit_limit=units,
        unit_price_micro_lamports=unit_price_micro_lamports,
    )


def test_an_end_says_nothing_of_an_order_that_was_made_at_the_address_since_the_last_run() -> None:
    """After a restart the record is of the order that the journal knows, and the account is another one's already."""
    orders, tried = Orders(Book(REVISION_0_2, 1_000), RetryLimits(5, 1.0, 1.0, 30)), make_order(slot=50)
    record = orders.record(tried.address, tried)
    venue = Venue(load_program(ProgramSettings()), OTHER)
    failure = ProgramFailure("InsufficientCollateral", None, None, None, "", Fate.CANNOT_PAY)

    def ops(order: Order) -> list[Op]:
        end = following(orders, venue, tried.address, record.generation, Fate.CANNOT_PAY, failure, order, 60)
        return ops_of(end)

    assert ops(tried._replace(slot=60))
    assert ops(tried._replace(slot=60, created_at=tried.created_at + 5)) == []
