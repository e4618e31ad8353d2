"""place_order: what it stores, and every thing that it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.program.program_vm import DEFAULT_ARGS, IDL, START, USDC, Vm, assert_refused

U64_MAX, DAY = 2**64 - 1, 86_400
ORDER_TYPES = IDL.variants("OrderType")


@pytest.mark.parametrize("side", ["Long", "Short"])
@pytest.mark.parametrize("order_type", ORDER_TYPES)
def test_an_order_is_stored_as_it_was_given(vm: Vm, order_type: str, side: str) -> None:
    user = vm.fund(Keypair())
    order_id = 2**63 + 5
    args = {
        "order_id": order_id,
        "order_type": order_type,
        "side": side,
        "size": 1_000_000_000,
        "price": 101 * USDC,
        "stop_price": 99 * USDC,
        "trailing_distance": 1_000_000,
        "leverage": 20,
        "expires_at": START + 30 * DAY,
        "hidden_size": 1,
        "display_size": 2,
        "time_in_force": "GTD",
        "target_price": 3,
        "twap_duration": 4,
        "twap_interval": U64_MAX,
    }
    outcome = vm.place(user, **args)
    assert outcome.said == [
        "Instruction: PlaceOrder",
        f"Order placed: {order_type} 1000000000 {side} at 20x leverage",
    ]
    order = vm.order_at(user.pubkey(), order_id)
    fields = vm.read("Order", order)
    seeds = [b"order", bytes(user.pubkey()), order_id.to_bytes(8, "little")]
    assert Pubkey.find_program_address(seeds, vm.program) == (order, fields.pop("bump"))
    assert fields == args | {
        "user": user.pubkey(),
        "market": vm.market_at(),
        "status": "Pending",
        "created_at": START,
        "filled_size": 0,
        "parent_order": None,
    }


def test_an_order_takes_183_bytes_and_its_id_ends_them(vm: Vm) -> None:
    order = vm.placed(vm.fund(Keypair()), stop_price=1, order_id=0x0807060504030201)
    assert len(vm.data(order)) == 183
    assert vm.data(order)[175:] == bytes(range(1, 9))
    assert vm.svm.get_balance(order) == vm.svm.minimum_balance_for_rent_exemption(183)


def test_a_wallet_has_any_number_of_orders(vm: Vm) -> None:
    user = vm.fund(Keypair())
    orders = {vm.placed(user, order_id=n, stop_price=n + 1) for n in range(5)}
    assert sorted(vm.read("Order", o)["stop_price"] for o in orders) == [1, 2, 3, 4, 5]


def test_an_id_that_is_taken_fails_in_the_system_program(vm: Vm) -> None:
    user = vm.fund(Keypair())
    order = vm.placed(user, stop_price=1)
    outcome = vm.place(user, stop_price=2)
    assert outcome.code == 0
    assert f"Allocate: account Address {{ address: {order}, base: None }} already in use" in outcome.logs


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("InvalidSize", {"size": 0}),
    ("PositionTooLarge", {"size": 1_000_000_001}),
    ("PositionTooLarge", {"size": U64_MAX}),
    ("InvalidLeverage", {"leverage": 0}),
    ("InvalidLeverage", {"leverage": 21}),
    ("PriceTooHigh", {"order_type": "Limit", "price": 110 * USDC + 1}),
    ("PriceTooLow", {"order_type": "Limit", "price": 90 * USDC - 1}),
    ("PriceTooLow", {"order_type": "Limit", "price": 0}),
    ("InvalidStopPrice", {"order_type": "StopLoss", "stop_price": 0}),
    ("InvalidStopPrice", {"order_type": "TakeProfit", "stop_price": 0}),
    ("InvalidStopPrice", {"order_type": "StopLimit", "stop_price": 0, "price": 100 * USDC}),
    ("InvalidStopPrice", {"order_type": "Bracket", "stop_price": 0}),
    ("InvalidTrailingDistance", {"order_type": "TrailingStop", "trailing_distance": 0}),
    ("InvalidTrailingDistance", {"order_type": "TrailingStop", "trailing_distance": 1_000_001}),
    ("InvalidTrailingDistance", {"order_type": "TrailingStop", "trailing_distance": U64_MAX}),
    ("OrderExpired", {"expires_at": START - 1}),
    ("OrderExpired", {"expires_at": -(2**63)}),
    ("OrderExpirationTooLong", {"expires_at": START + 30 * DAY + 1}),
    ("OrderExpirationTooLong", {"expires_at": 2**63 - 1}),
]


@pytest.mark.parametrize(("error", "changes"), REFUSED, ids=str)
def test_what_is_refused(vm: Vm, error: str, changes: dict[str, Any]) -> None:
    user = vm.fund(Keypair())
    assert_refused(vm.place(user, **{"stop_price": 95 * USDC, **changes}), error)
    assert vm.account(vm.order_at(user.pubkey())) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"order_type": "Limit", "price": 110 * USDC},
        {"order_type": "Limit", "price": 90 * USDC},
        {"order_type": "StopLimit", "stop_price": 1, "price": 500 * USDC},
        {"stop_price": U64_MAX},
        {"order_type": "TrailingStop", "trailing_distance": 1},
        {"expires_at": START},
        {"size": 1, "leverage": 1},
    ],
    ids=str,
)
def test_what_is_just_allowed(vm: Vm, changes: dict[str, Any]) -> None:
    assert vm.place(vm.fund(Keypair()), **{"stop_price": 1, **changes}).error is None


def test_the_limit_band_is_exact_at_odd_prices(vm: Vm) -> None:
    vm.set_price(15)  # 13.5 to 16.5
    user = vm.fund(Keypair())
    assert_refused(vm.place(user, order_type="Limit", price=17), "PriceTooHigh")
    assert_refused(vm.place(user, order_type="Limit", price=13), "PriceTooLow")
    assert vm.place(user, order_type="Limit", price=16, order_id=1).error is None
    assert vm.place(user, order_type="Limit", price=14, order_id=2).error is None


def test_an_inactive_market_takes_no_orders(vm: Vm) -> None:
    vm.patch(vm.market_at(), "Market", is_active=False)
    assert_refused(vm.place(vm.fund(Keypair()), stop_price=1), "MarketInactive")


def test_a_market_without_a_price_takes_stops_only(vm: Vm) -> None:
    vm.patch(vm.market_at(), "Market", last_oracle_price=0, last_oracle_update=0)
    user = vm.fund(Keypair())
    assert vm.place(user, stop_price=1).error is None
    assert_refused(vm.place(user, order_id=1, order_type="Limit", price=1), "PriceTooHigh")
    assert_refused(vm.place(user, order_id=1, order_type="Limit", price=0), "InvalidPrice")
    assert_refused(vm.place(user, order_id=1, order_type="TrailingStop", trailing_distance=9), "PriceStale")


def test_an_old_price_only_matters_to_a_stop_that_is_made_from_it(vm: Vm) -> None:
    user = vm.fund(Keypair())
    vm.at(START + 301)
    assert vm.place(user, order_type="Limit", price=100 * USDC).error is None
    trailing = {"order_type": "TrailingStop", "trailing_distance": 50_000, "order_id": 1}
    assert_refused(vm.place(user, **trailing), "PriceStale")
    assert vm.place(user, **trailing, stop_price=7).error is None
    assert vm.read("Order", vm.order_at(user.pubkey(), 1))["stop_price"] == 7


@pytest.mark.parametrize(
    ("side", "distance", "stop"),
    [
        ("Long", 50_000, 95_000_002),
        ("Short", 50_000, 105_000_004),
        ("Long", 1, 99_999_902),  # 100.000003 units away, rounded up to 101
        ("Short", 1, 100_000_104),
        ("Long", 1_000_000, 0),
        ("Short", 1_000_000, 200_000_006),
    ],
)
def test_a_trailing_stop_begins_its_distance_away(vm: Vm, side: str, distance: int, stop: int) -> None:
    vm.set_price(100_000_003)
    order = vm.placed(vm.fund(Keypair()), order_type="TrailingStop", side=side, trailing_distance=distance)
    fields = vm.read("Order", order)
    assert (fields["stop_price"], fields["trailing_distance"]) == (stop, distance)


def test_a_trailing_stop_beyond_the_numbers_is_refused(vm: Vm) -> None:
    vm.set_price(U64_MAX)
    trailing = {"order_type": "TrailingStop", "side": "Short", "trailing_distance": 1}
    assert_refused(vm.place(vm.fund(Keypair()), **trailing), "MathOverflow")
    assert vm.place(vm.fund(Keypair()), **trailing | {"side": "Long"}).error is None


@pytest.mark.parametrize(
    ("field", "beyond"), [("order_type", 12), ("side", 2), ("time_in_force", 5), ("order_type", 255)]
)
def test_an_enumeration_beyond_its_last_does_not_deserialize(vm: Vm, field: str, beyond: int) -> None:
    user = vm.fund(Keypair())
    assert_refused(vm.place(user, **{"stop_price": 1, field: beyond}), "InstructionDidNotDeserialize")


def test_the_user_must_afford_the_rent(vm: Vm) -> None:
    user = Keypair()
    vm.svm.airdrop(user.pubkey(), 1_000_000)
    outcome = vm.place(user, stop_price=1)
    assert outcome.code == 1
    assert any("insufficient lamports" in line for line in outcome.logs)


def test_the_arguments_are_those_of_0_1_behind_an_id() -> None:
    assert [a["name"] for a in IDL.instructions["place_order"]["args"]] == list(DEFAULT_ARGS)
