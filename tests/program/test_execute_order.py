"""execute_conditional_order: a fill with its position, or nothing at all."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.program.program_vm import COLLATERAL, IDL, START, USDC, Vm, assert_refused

U64_MAX = 2**64 - 1
TRIGGER = 95 * USDC

# How an order with its trigger at TRIGGER is placed, and the side of the trigger on which it fills.
BELOW, ABOVE = -1, 1
EXECUTABLE: list[tuple[dict[str, Any], int]] = [
    ({"order_type": "StopLoss", "side": "Long", "stop_price": TRIGGER}, BELOW),
    ({"order_type": "StopLoss", "side": "Short", "stop_price": TRIGGER}, ABOVE),
    ({"order_type": "TakeProfit", "side": "Long", "stop_price": TRIGGER}, ABOVE),
    ({"order_type": "TakeProfit", "side": "Short", "stop_price": TRIGGER}, BELOW),
    ({"order_type": "StopLimit", "side": "Long", "stop_price": TRIGGER, "price": 1}, BELOW),
    ({"order_type": "StopLimit", "side": "Short", "stop_price": TRIGGER, "price": 1}, ABOVE),
    ({"order_type": "Limit", "side": "Long", "price": TRIGGER, "stop_price": 1}, BELOW),
    ({"order_type": "Limit", "side": "Short", "price": TRIGGER, "stop_price": 1}, ABOVE),
    ({"order_type": "TrailingStop", "side": "Long", "stop_price": TRIGGER, "trailing_distance": 1}, BELOW),
    ({"order_type": "TrailingStop", "side": "Short", "stop_price": TRIGGER, "trailing_distance": 1}, ABOVE),
]
STOP_LOSS = {"order_type": "StopLoss", "side": "Long", "stop_price": 100 * USDC}


@pytest.mark.parametrize("distance", [-1, 0, 1])
@pytest.mark.parametrize(("terms", "fills"), EXECUTABLE, ids=str)
def test_every_type_fills_at_its_trigger_and_beyond(vm: Vm, terms: dict[str, Any], fills: int, distance: int) -> None:
    user = vm.trader()
    order = vm.placed(user, **terms)
    vm.set_price(TRIGGER + distance)
    outcome = vm.execute(order)
    if distance and distance != fills:
        assert_refused(outcome, "ConditionNotMet")
        assert vm.account(vm.position_at(order)) is None
        return
    assert outcome.said == [
        "Instruction: ExecuteConditionalOrder",
        f"Conditional order executed: {order} at price {TRIGGER + distance}",
    ]
    assert vm.read("Order", order)["status"] == "Filled"
    assert vm.read("Position", vm.position_at(order))["side"] == terms["side"]


@pytest.mark.parametrize("side", ["Long", "Short"])
@pytest.mark.parametrize("order_type", ["Market", "PostOnly", "IOC", "FOK", "Iceberg", "TWAP", "Bracket"])
def test_no_other_type_is_ever_met(vm: Vm, order_type: str, side: str) -> None:
    terms = {"order_type": order_type, "side": side, "price": 100 * USDC, "stop_price": 100 * USDC}
    order = vm.placed(vm.trader(), **terms)
    for price in (1, 100 * USDC, U64_MAX):
        vm.set_price(price)
        assert_refused(vm.execute(order), "ConditionNotMet")


def test_a_fill_moves_order_position_and_books_together(vm: Vm) -> None:
    user = vm.trader()
    order = vm.placed(user, **STOP_LOSS, order_id=7)
    books, placed = vm.user_account_at(user.pubkey()), vm.read("Order", order)
    before = vm.read("UserAccount", books)
    vm.at(START + 20)
    vm.set_price(99 * USDC)
    vm.at(START + 30)
    outcome = vm.execute(order)
    assert outcome.error is None
    assert outcome.units < 60_000  # about 20,000, and 1,500 for each bump that a search passes over

    position, margin, maintenance = vm.position_at(order), 99 * USDC, 99 * USDC * 5 * 300 // 10_000
    assert vm.read("Order", order) == placed | {"status": "Filled", "filled_size": 5_000_000}
    assert vm.read("UserAccount", books) == before | {
        "total_positions": 1,
        "available_margin": COLLATERAL - margin,
        "initial_margin_requirement": margin,
        "maintenance_margin_requirement": maintenance,
        "last_activity": START + 30,
    }
    fields = vm.read("Position", position)
    assert len(vm.data(position)) == 407
    seeds = [b"position", bytes(order)]
    assert Pubkey.find_program_address(seeds, vm.program) == (position, fields.pop("bump"))
    assert fields == {
        "user_account": books,
        "user": user.pubkey(),
        "market": vm.market_at(),
        "position_index": 0,
        "side": "Long",
        "status": "Open",
        "size": 5_000_000,
        "entry_price": 99 * USDC,
        "current_price": 99 * USDC,
        # A fifth of the price is margin; the market keeps 3 % of the price of it.
        "liquidation_price": 99 * USDC - 99 * USDC // 5 + 99 * USDC * 3 // 100,
        "unrealized_pnl": 0,
        "realized_pnl": 0,
        "funding_rate": 0,
        "last_funding_update": START + 30,
        "total_funding_paid": 0,
        "initial_margin": margin,
        "maintenance_margin": maintenance,
        "leverage": 5,
        "margin": margin,
        "total_collateral_value": 0,
        "collateral_accounts": [Pubkey.default()] * 5,
        "opened_at": START + 30,
        "closed_at": 0,
        "last_updated": START + 30,
        "created_at": START + 30,
    }


def test_a_fill_emits_its_event(vm: Vm) -> None:
    user = vm.trader()
    order = vm.placed(user, **STOP_LOSS)
    outcome = vm.execute(order)
    [event] = [base64.b64decode(line[14:]) for line in outcome.logs if line.startswith("Program data: ")]
    assert event[:8] == bytes(IDL.events["OrderFilled"]["discriminator"])
    fields, end = IDL.decode_struct("OrderFilled", event)
    assert end == len(event)
    assert fields == {
        "order": order,
        "position": vm.position_at(order),
        "user": user.pubkey(),
        "market": vm.market_at(),
        "side": "Long",
        "size": 5_000_000,
        "price": 100 * USDC,
        "margin": 100 * USDC,
    }


def test_the_executor_pays_the_rent_and_nobody_else(vm: Vm) -> None:
    user = vm.trader()
    order = vm.placed(user, **STOP_LOSS)
    wallets = [vm.executor.pubkey(), user.pubkey(), vm.user_account_at(user.pubkey())]
    before = [vm.svm.get_balance(w) or 0 for w in wallets]
    assert vm.execute(order).error is None
    rent = vm.svm.minimum_balance_for_rent_exemption(407)
    assert [vm.svm.get_balance(w) or 0 for w in wallets] == [before[0] - rent, before[1], before[2]]


def test_an_executor_who_cannot_pay_the_rent_changes_nothing(vm: Vm) -> None:
    order = vm.placed(vm.trader(), **STOP_LOSS)
    vm.executor = Keypair()
    vm.svm.airdrop(vm.executor.pubkey(), 1_000_000)
    outcome = vm.execute(order)
    assert outcome.code == 1
    assert any("insufficient lamports" in line for line in outcome.logs)


@pytest.mark.parametrize("held", [1, 3_723_599, 3_723_600, 10_000_000])
def test_lamports_at_the_positions_address_do_not_keep_it_from_being(vm: Vm, held: int) -> None:
    """Else anyone could block anyone's stop loss for the price of one lamport."""
    order = vm.placed(vm.trader(), **STOP_LOSS)
    vm.put(vm.position_at(order), b"", owner=Pubkey.default(), lamports=held)
    assert vm.execute(order).error is None
    assert vm.read("Position", vm.position_at(order))["size"] == 5_000_000
    assert vm.svm.get_balance(vm.position_at(order)) == max(held, 3_723_600)


def test_an_order_fills_once(vm: Vm) -> None:
    order = vm.placed(vm.trader(), **STOP_LOSS)
    assert vm.execute(order).error is None
    assert_refused(vm.execute(order), "OrderNotPending")


def test_two_fills_in_one_transaction_are_none(vm: Vm) -> None:
    order = vm.placed(vm.trader(), **STOP_LOSS)
    execute = vm.instruction("execute_conditional_order", vm.execution_accounts(order))
    assert_refused(vm.send(execute, execute, signers=[vm.executor]), "OrderNotPending")
    assert vm.account(vm.position_at(order)) is None


@pytest.mark.parametrize("status", ["Filled", "Cancelled", "Expired", "PartiallyFilled", "Rejected"])
def test_an_order_that_is_not_pending_is_refused_before_all_else(vm: Vm, status: str) -> None:
    order = vm.placed(vm.trader(), **STOP_LOSS, expires_at=START + 10)
    vm.patch(order, "Order", status=status)
    vm.patch(vm.market_at(), "Market", is_active=False)
    vm.at(START + 1_000)
    assert_refused(vm.execute(order), "OrderNotPending")


def test_the_second_of_the_expiry_still_belongs_to_the_order(vm: Vm) -> None:
    order = vm.placed(vm.trader(), **STOP_LOSS, expires_at=START + 60)
    vm.at(START + 60)
    assert vm.execute(order).error is None
    assert vm.read("Order", order)["status"] == "Filled"


def test_past_its_expiry_an_order_is_put_away_without_a_position(vm: Vm) -> None:
    """Whatever else is wrong: the market, its price, the user's missing account."""
    user = vm.fund(Keypair())
    order = vm.placed(user, **STOP_LOSS, expires_at=START + 60)
    before = vm.read("Order", order)
    vm.patch(vm.market_at(), "Market", is_active=False)
    vm.at(START + 1_000)
    outcome = vm.execute(order)
    assert outcome.error is None
    assert outcome.said == ["Instruction: ExecuteConditionalOrder", f"Order expired: {order}"]
    assert vm.read("Order", order) == before | {"status": "Expired"}
    assert vm.account(vm.position_at(order)) is None


def test_an_inactive_market_fills_nothing(vm: Vm) -> None:
    order = vm.placed(vm.trader(), **STOP_LOSS)
    vm.patch(vm.market_at(), "Market", is_active=False)
    assert_refused(vm.execute(order), "MarketInactive")


def test_a_price_serves_for_300_seconds(vm: Vm) -> None:
    order = vm.placed(vm.trader(), **STOP_LOSS)
    vm.at(START + 301)
    assert_refused(vm.execute(order), "PriceStale")
    vm.at(START + 300)
    assert vm.execute(order).error is None


def test_a_stale_price_is_said_before_a_condition_that_it_does_not_meet(vm: Vm) -> None:
    order = vm.placed(vm.trader(), **STOP_LOSS | {"stop_price": 1})
    vm.at(START + 301)
    assert_refused(vm.execute(order), "PriceStale")


def test_a_market_that_was_never_priced_fills_nothing(vm: Vm) -> None:
    order = vm.placed(vm.trader(), **STOP_LOSS)
    vm.patch(vm.market_at(), "Market", last_oracle_price=0, last_oracle_update=0)
    assert_refused(vm.execute(order), "PriceStale")


def test_a_price_from_a_clock_that_ran_ahead_is_fresh(vm: Vm) -> None:
    order = vm.placed(vm.trader(), **STOP_LOSS)
    vm.at(START - 1_000)
    assert vm.execute(order).error is None


def test_margin_to_the_last_unit(vm: Vm) -> None:
    """5 at 100 with 5x leverage takes 100 of collateral."""
    user = vm.trader(100 * USDC - 1)
    order = vm.placed(user, **STOP_LOSS)
    assert_refused(vm.execute(order), "InsufficientCollateral")
    assert vm.deposit(user, 1).error is None
    assert vm.execute(order).error is None
    assert vm.read("UserAccount", vm.user_account_at(user.pubkey()))["available_margin"] == 0


def test_positions_up_to_the_accounts_maximum(vm: Vm) -> None:
    user = vm.trader()
    vm.patch(vm.user_account_at(user.pubkey()), "UserAccount", max_positions=2)
    orders = [vm.placed(user, **STOP_LOSS, order_id=n) for n in range(3)]
    assert [vm.execute(o).error for o in orders[:2]] == [None, None]
    assert [vm.read("Position", vm.position_at(o))["position_index"] for o in orders[:2]] == [0, 1]
    assert_refused(vm.execute(orders[2]), "MaxPositionsReached")


def test_an_inactive_user_account_fills_nothing(vm: Vm) -> None:
    user = vm.trader()
    order = vm.placed(user, **STOP_LOSS)
    vm.patch(vm.user_account_at(user.pubkey()), "UserAccount", is_active=False)
    assert_refused(vm.execute(order), "UserAccountInactive")


def test_a_user_without_an_account_is_not_filled(vm: Vm) -> None:
    order = vm.placed(vm.fund(Keypair()), **STOP_LOSS)
    assert_refused(vm.execute(order), "AccountNotInitialized", account="user_account")


@pytest.mark.parametrize(
    ("price", "terms"),
    [
        (U64_MAX, {"order_type": "TakeProfit", "size": 1_000_000_000}),  # the notional
        (U64_MAX, {"order_type": "TakeProfit", "side": "Short", "size": 1, "stop_price": U64_MAX}),  # liquidation
    ],
)
def test_a_fill_beyond_the_numbers_is_refused(vm: Vm, price: int, terms: dict[str, Any]) -> None:
    order = vm.placed(vm.trader(), **{"stop_price": 1, **terms})
    vm.set_price(price)
    assert_refused(vm.execute(order), "MathOverflow")


@pytest.mark.parametrize("name", ["initial_margin_requirement", "maintenance_margin_requirement"])
def test_books_beyond_the_numbers_are_refused(vm: Vm, name: str) -> None:
    user = vm.trader()
    order = vm.placed(user, **STOP_LOSS)
    vm.patch(vm.user_account_at(user.pubkey()), "UserAccount", **{name: U64_MAX})
    assert_refused(vm.execute(order), "MathOverflow")


def test_an_order_of_no_leverage_does_not_divide_by_it(vm: Vm) -> None:
    order = vm.placed(vm.trader(), **STOP_LOSS)
    vm.patch(order, "Order", leverage=0)
    assert_refused(vm.execute(order), "InvalidLeverage")


def test_the_liquidation_price_never_lies_beyond_the_entry(vm: Vm) -> None:
    """At 20x the margin is 5 % of the price; a market that keeps 60 % of it leaves no distance at all."""
    vm.patch(vm.market_at(), "Market", maintenance_margin_ratio=6_000)
    for order_id, side in enumerate(("Long", "Short")):
        terms = STOP_LOSS | {"side": side, "leverage": 20, "order_id": order_id}
        order = vm.placed(vm.trader(), **terms)
        assert vm.execute(order).error is None
        fields = vm.read("Position", vm.position_at(order))
        assert fields["liquidation_price"] == fields["entry_price"]
        assert fields["maintenance_margin"] == fields["initial_margin"]
