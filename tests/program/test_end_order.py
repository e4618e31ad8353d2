"""cancel_order and close_order."""

from __future__ import annotations

import pytest
from solders.system_program import TransferParams, transfer

from tests.program.program_vm import START, SYSTEM, USDC, Vm, assert_refused

ENDED = ["Filled", "Cancelled", "Expired", "PartiallyFilled", "Rejected"]


def test_a_user_cancels_a_pending_order(vm: Vm) -> None:
    user = vm.trader()
    order = vm.placed(user, stop_price=1)
    before = vm.read("Order", order)
    outcome = vm.end("cancel_order", user, order)
    assert outcome.said == ["Instruction: CancelOrder", f"Order cancelled: {order}"]
    assert vm.read("Order", order) == before | {"status": "Cancelled"}


@pytest.mark.parametrize("status", ENDED)
def test_an_order_that_is_not_pending_cannot_be_cancelled(vm: Vm, status: str) -> None:
    user = vm.trader()
    order = vm.placed(user, stop_price=1)
    vm.patch(order, "Order", status=status)
    assert_refused(vm.end("cancel_order", user, order), "OrderNotPending")


@pytest.mark.parametrize("name", ["cancel_order", "close_order"])
def test_nobody_else_ends_an_order(vm: Vm, name: str) -> None:
    user, stranger = vm.trader(), vm.trader()
    order = vm.placed(user, stop_price=1)
    vm.patch(order, "Order", status="Pending" if name == "cancel_order" else "Cancelled")
    assert_refused(vm.end(name, stranger, order), "UnauthorizedUser")


@pytest.mark.parametrize("status", ENDED)
def test_closing_gives_the_rent_back(vm: Vm, status: str) -> None:
    user = vm.trader()
    before = vm.svm.get_balance(user.pubkey())
    order = vm.placed(user, stop_price=1)
    vm.patch(order, "Order", status=status)
    outcome = vm.end("close_order", user, order)
    assert outcome.said == ["Instruction: CloseOrder", f"Order closed: {order}"]
    assert vm.account(order) is None
    assert vm.svm.get_balance(user.pubkey()) == before


def test_a_pending_order_cannot_be_closed(vm: Vm) -> None:
    user = vm.trader()
    order = vm.placed(user, stop_price=1)
    assert_refused(vm.end("close_order", user, order), "OrderStillPending")


def test_an_order_is_closed_once(vm: Vm) -> None:
    user = vm.trader()
    order = vm.placed(user, stop_price=1)
    vm.end("cancel_order", user, order)
    close = vm.instruction("close_order", {"order": order, "user": user.pubkey()})
    # Twice in one transaction: the second finds nothing there.
    assert_refused(vm.send(close, close, signers=[user]), "AccountNotInitialized", account="order")


def test_lamports_that_arrive_after_the_close_revive_no_order(vm: Vm) -> None:
    user = vm.trader()
    order = vm.placed(user, stop_price=1)
    assert vm.end("cancel_order", user, order).error is None
    close = vm.instruction("close_order", {"order": order, "user": user.pubkey()})
    rent = vm.svm.minimum_balance_for_rent_exemption(0)
    pay = transfer(TransferParams(from_pubkey=user.pubkey(), to_pubkey=order, lamports=rent))
    assert vm.send(close, pay, signers=[user]).error is None
    revived = vm.account(order)
    assert revived is not None
    assert (revived.owner, revived.lamports, bytes(revived.data)) == (SYSTEM, rent, b"")
    assert vm.placed(user, stop_price=2) == order


def test_a_closed_id_can_be_placed_again_but_fills_only_once(vm: Vm) -> None:
    """The position outlives its order, so a second order at the same address has nowhere to fill."""
    user = vm.trader()
    order = vm.placed(user, stop_price=100 * USDC)
    assert vm.execute(order).error is None
    position = vm.data(vm.position_at(order))
    assert vm.end("close_order", user, order).error is None
    assert vm.placed(user, stop_price=100 * USDC) == order
    vm.at(START + 1)
    outcome = vm.execute(order)
    assert outcome.code == 0
    assert any("already in use" in line for line in outcome.logs)
    assert vm.data(vm.position_at(order)) == position
    assert vm.read("Order", order)["status"] == "Pending"
