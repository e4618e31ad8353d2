"""Fills and ratchets against a model in Python, over the whole range of the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.transaction_metadata import TransactionMetadata

from tests.program.program_vm import START, Vm

U64_MAX = 2**64 - 1
# Each example runs a few transactions in the VM; the seeds are fixed so that a run is the same anywhere.
BOUNDED = settings(
    derandomize=True,
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SIDES = st.sampled_from(["Long", "Short"])
AMOUNTS = st.one_of(
    st.integers(1, U64_MAX), st.integers(1, 1_000), st.integers(1, 10**12), st.integers(U64_MAX - 9, U64_MAX)
)
SIZES = st.one_of(st.integers(1, 10**9), st.integers(1, 100))


def met(order: Mapping[str, Any], price: int) -> bool:
    trigger = order["price"] if order["order_type"] == "Limit" else order["stop_price"]
    rises = (order["order_type"] == "TakeProfit") == (order["side"] == "Long")
    return bool(price >= trigger if rises else price <= trigger)


def fill(order: Mapping[str, Any], price: int, maintenance_bps: int, books: Mapping[str, int]) -> dict[str, int] | str:
    """Return the fields of the position, or the name of the refusal."""
    notional = order["size"] * price // 10**6
    margin = notional // order["leverage"]
    maintenance = notional * maintenance_bps // 10**4
    per_unit = price * maintenance_bps // 10**4
    distance = max(price // order["leverage"] - per_unit, 0)
    liquidation = price - distance if order["side"] == "Long" else price + distance
    if max(notional, maintenance, per_unit, liquidation) > U64_MAX:
        return "MathOverflow"
    if margin > books["available_margin"]:
        return "InsufficientCollateral"
    return {
        "initial_margin": margin,
        "maintenance_margin": min(maintenance, margin),
        "liquidation_price": liquidation,
        "entry_price": price,
        "size": order["size"],
    }


@BOUNDED
@given(
    order=st.fixed_dictionaries(
        {
            "order_type": st.sampled_from(["StopLoss", "TakeProfit", "StopLimit", "Limit", "TrailingStop"]),
            "side": SIDES,
            "size": SIZES,
            "leverage": st.integers(1, 255),
            "price": AMOUNTS,
            "stop_price": AMOUNTS,
        }
    ),
    price=AMOUNTS,
    at_trigger=st.booleans(),
    collateral=AMOUNTS,
    maintenance_bps=st.integers(0, 65_535),
)
def test_a_fill_is_what_the_model_says(
    vm: Vm, order: dict[str, Any], price: int, at_trigger: bool, collateral: int, maintenance_bps: int
) -> None:
    if at_trigger:
        price = order["price"] if order["order_type"] == "Limit" else order["stop_price"]
    user = vm.trader(collateral)
    key = vm.placed(user, stop_price=1)
    # By hand, past what place_order would refuse: execution trusts no bound that it can check itself.
    vm.patch(key, "Order", **order)
    vm.patch(vm.market_at(), "Market", maintenance_margin_ratio=maintenance_bps)
    assert vm.set_price(price).error is None
    books_key = vm.user_account_at(user.pubkey())
    books = vm.read("UserAccount", books_key)

    outcome = vm.execute(key)

    expected = fill(order, price, maintenance_bps, books) if met(order, price) else "ConditionNotMet"
    if isinstance(expected, str):
        assert f"Error Code: {expected}." in outcome.said[-1]
        return
    assert outcome.error is None, outcome.logs
    position = vm.read("Position", vm.position_at(key))
    assert {name: position[name] for name in expected} == expected
    margin, maintenance = expected["initial_margin"], expected["maintenance_margin"]
    assert vm.read("UserAccount", books_key) == books | {
        "available_margin": books["available_margin"] - margin,
        "initial_margin_requirement": margin,
        "maintenance_margin_requirement": maintenance,
        "total_positions": 1,
        "last_activity": START,
    }


@BOUNDED
@given(side=SIDES, distance=st.integers(1, 10**6), old=AMOUNTS, price=AMOUNTS)
def test_a_ratchet_is_what_the_model_says(vm: Vm, side: str, distance: int, old: int, price: int) -> None:
    key = vm.placed(
        vm.fund(Keypair()), order_type="TrailingStop", side=side, trailing_distance=distance, stop_price=old
    )
    assert vm.set_price(price).error is None
    offset = -(-price * distance // 10**6)
    new = price - offset if side == "Long" else price + offset
    outcome = vm.ratchet(key)
    if new > U64_MAX:
        assert "Error Code: MathOverflow." in outcome.said[-1]
    elif new > old if side == "Long" else new < old:
        assert outcome.error is None
        assert vm.read("Order", key)["stop_price"] == new
    else:
        assert "Error Code: ConditionNotMet." in outcome.said[-1]


@BOUNDED
@given(oracle=AMOUNTS, price=st.integers(0, U64_MAX), near=st.integers(-2, 2), edge=st.sampled_from([0, 9, 11]))
def test_the_limit_band_is_what_the_model_says(vm: Vm, oracle: int, price: int, near: int, edge: int) -> None:
    if edge:
        price = min(max(oracle * edge // 10 + near, 0), U64_MAX)
    assert vm.set_price(oracle).error is None
    outcome = vm.place(vm.fund(Keypair()), order_type="Limit", price=price)
    if oracle * 11 // 10 > U64_MAX:
        expected = "MathOverflow"
    elif price * 10 > oracle * 11:
        expected = "PriceTooHigh"
    elif price * 10 < oracle * 9:
        expected = "PriceTooLow"
    else:
        assert outcome.error is None
        return
    assert f"Error Code: {expected}." in outcome.said[-1]


@pytest.fixture(scope="module")
def lenient() -> Vm:
    """A VM that takes any address for a signer's."""
    return Vm(Pubkey.new_unique(), LiteSVM().with_sigverify(False))


@BOUNDED
@given(key=st.binary(min_size=32, max_size=32).filter(any), zeros=st.integers(0, 31))
@example(key=b"\xff" * 32, zeros=0)
@example(key=bytes(31) + b"\x01", zeros=0)
@example(key=bytes(31) + b"\x3a", zeros=0)
def test_a_log_names_any_address_in_base58(lenient: Vm, key: bytes, zeros: int) -> None:
    user = Pubkey(bytes(zeros) + key[zeros:])
    assume(lenient.account(user) is None)
    lenient.svm.airdrop(user, 10**9)
    accounts = {"user_account": lenient.user_account_at(user), "authority": user}
    instruction = lenient.instruction("create_user_account", accounts, {"account_index": 0})
    result = lenient.send_unsigned(instruction)
    assert isinstance(result, TransactionMetadata)
    assert f"Program log: User account created: 0 for user {user}" in result.logs()
