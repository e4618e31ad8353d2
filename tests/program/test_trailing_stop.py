"""update_trailing_stop: the ratchet."""

from __future__ import annotations

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.program.program_vm import IDL, START, USDC, Vm, assert_refused


def trailing(vm: Vm, side: str, **terms: int) -> Pubkey:
    return vm.placed(vm.trader(), order_type="TrailingStop", side=side, trailing_distance=50_000, **terms)


@pytest.mark.parametrize(("side", "price", "first", "second"), [("Long", 110, 95, 104.5), ("Short", 90, 105, 94.5)])
def test_the_stop_follows_the_price_in_the_orders_favour(
    vm: Vm, side: str, price: int, first: float, second: float
) -> None:
    order = trailing(vm, side)
    before = vm.read("Order", order)
    vm.set_price(price * USDC)
    outcome = vm.ratchet(order)
    old, new = int(first * USDC), int(second * USDC)
    assert outcome.said == [
        "Instruction: UpdateTrailingStop",
        f"Trailing stop updated: {order} from {old} to {new}",
    ]
    assert before["stop_price"] == old
    assert vm.read("Order", order) == before | {"stop_price": new}


@pytest.mark.parametrize(("side", "against"), [("Long", -1), ("Short", 1)])
@pytest.mark.parametrize("steps", [0, 1, 5 * USDC])
def test_the_stop_never_falls_back(vm: Vm, side: str, against: int, steps: int) -> None:
    order = trailing(vm, side)
    vm.set_price(100 * USDC + against * steps)
    assert_refused(vm.ratchet(order), "ConditionNotMet")


@pytest.mark.parametrize("side", ["Long", "Short"])
def test_the_ratcheted_stop_is_the_one_that_triggers(vm: Vm, side: str) -> None:
    order = trailing(vm, side)
    far, between = (120, 113) if side == "Long" else (80, 85)
    vm.set_price(far * USDC)
    assert_refused(vm.execute(order), "ConditionNotMet")
    assert vm.ratchet(order).error is None
    vm.set_price(between * USDC)  # short of the first stop, beyond the second
    assert vm.execute(order).error is None
    assert vm.read("Position", vm.position_at(order))["entry_price"] == between * USDC


def test_a_stop_given_on_the_far_side_waits_for_the_price(vm: Vm) -> None:
    order = trailing(vm, "Long", stop_price=99 * USDC)
    vm.set_price(104 * USDC)
    assert_refused(vm.ratchet(order), "ConditionNotMet")  # 98.8
    vm.set_price(105 * USDC)
    assert vm.ratchet(order).error is None
    assert vm.read("Order", order)["stop_price"] == 99_750_000


@pytest.mark.parametrize("order_type", [t for t in IDL.variants("OrderType") if t != "TrailingStop"])
def test_only_trailing_stops_trail(vm: Vm, order_type: str) -> None:
    order = vm.placed(vm.trader(), order_type=order_type, price=100 * USDC, stop_price=1, trailing_distance=1)
    assert_refused(vm.ratchet(order), "InvalidOrderType")


@pytest.mark.parametrize("status", ["Filled", "Cancelled", "Expired", "PartiallyFilled", "Rejected"])
def test_only_pending_orders_trail(vm: Vm, status: str) -> None:
    order = trailing(vm, "Long")
    vm.patch(order, "Order", status=status)
    vm.set_price(110 * USDC)
    assert_refused(vm.ratchet(order), "OrderNotPending")


def test_expired_orders_do_not_trail(vm: Vm) -> None:
    order = trailing(vm, "Long", expires_at=START + 10)
    vm.set_price(110 * USDC)
    vm.at(START + 11)
    assert_refused(vm.ratchet(order), "OrderExpired")
    vm.at(START + 10)
    assert vm.ratchet(order).error is None


def test_a_stale_price_moves_nothing(vm: Vm) -> None:
    order = trailing(vm, "Long")
    vm.set_price(110 * USDC)
    vm.at(START + 301)
    assert_refused(vm.ratchet(order), "PriceStale")


def test_an_inactive_market_moves_nothing(vm: Vm) -> None:
    order = trailing(vm, "Long")
    vm.patch(vm.market_at(), "Market", is_active=False)
    assert_refused(vm.ratchet(order), "MarketInactive")


def test_a_stop_beyond_the_numbers_is_refused(vm: Vm) -> None:
    order = trailing(vm, "Short")
    vm.set_price(2**64 - 1)
    assert_refused(vm.ratchet(order), "MathOverflow")


def test_anyone_may_move_it_and_pays_no_rent(vm: Vm) -> None:
    order = trailing(vm, "Long")
    vm.set_price(110 * USDC)
    stranger = Keypair()  # without a lamport
    accounts = {"market": vm.market_at(), "order": order, "executor": stranger.pubkey()}
    assert vm.send(vm.instruction("update_trailing_stop", accounts), signers=[stranger]).error is None
