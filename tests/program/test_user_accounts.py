"""create_user_account and deposit_collateral."""

from __future__ import annotations

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.program.program_vm import START, USDC, Vm, assert_refused

U64_MAX = 2**64 - 1


@pytest.mark.parametrize("index", [0, 1, 258, 65_535])
def test_a_new_account_is_empty_and_active(vm: Vm, index: int) -> None:
    user = vm.fund(Keypair())
    outcome = vm.create_user_account(user, index)
    assert outcome.said == [
        "Instruction: CreateUserAccount",
        f"User account created: {index} for user {user.pubkey()}",
    ]
    key = vm.user_account_at(user.pubkey(), index)
    fields = vm.read("UserAccount", key)
    assert len(vm.data(key)) == 144
    assert Pubkey.find_program_address(
        [b"user_account", bytes(user.pubkey()), index.to_bytes(2, "little")], vm.program
    ) == (key, fields.pop("bump"))
    nonzero = {name: value for name, value in fields.items() if value}
    assert nonzero.pop("account_index", 0) == index
    assert nonzero == {
        "authority": user.pubkey(),
        "max_positions": 50,
        "account_health": 10_000,
        "liquidation_threshold": 2_000,
        "max_leverage": 1_000,
        "created_at": START,
        "last_activity": START,
        "is_active": True,
    }


def test_an_account_exists_once(vm: Vm) -> None:
    outcome = vm.create_user_account(vm.trader())
    assert outcome.code == 0
    assert any("already in use" in line for line in outcome.logs)


def test_a_deposit_is_credited_and_moves_no_lamports(vm: Vm) -> None:
    user = vm.trader(0)
    key = vm.user_account_at(user.pubkey())
    vm.at(START + 9)
    before, lamports = vm.read("UserAccount", key), vm.svm.get_balance(key)
    outcome = vm.deposit(user, 5 * USDC)
    assert outcome.said == [
        "Instruction: DepositCollateral",
        f"Collateral deposited: 5000000 for user {user.pubkey()}",
    ]
    credited = {"total_collateral": 5 * USDC, "available_margin": 5 * USDC, "last_activity": START + 9}
    assert vm.read("UserAccount", key) == before | credited
    assert vm.svm.get_balance(key) == lamports


def test_deposits_add_up_to_the_last_unit(vm: Vm) -> None:
    user = vm.trader(1)
    assert vm.deposit(user, U64_MAX - 1).error is None
    assert vm.read("UserAccount", vm.user_account_at(user.pubkey()))["available_margin"] == U64_MAX
    assert_refused(vm.deposit(user, 1), "MathOverflow")


def test_a_deposit_of_nothing_is_refused(vm: Vm) -> None:
    assert_refused(vm.deposit(vm.trader(), 0), "InvalidSize")


def test_only_the_authority_deposits(vm: Vm) -> None:
    user, stranger = vm.trader(), vm.trader()
    accounts = {"user_account": vm.user_account_at(user.pubkey()), "authority": stranger.pubkey()}
    outcome = vm.send(vm.instruction("deposit_collateral", accounts, {"amount": 1}), signers=[stranger])
    assert_refused(outcome, "ConstraintHasOne", account="user_account")


def test_the_address_may_hold_lamports_already(vm: Vm) -> None:
    """Anyone can foresee an address and send lamports to it; that must not keep its owner out."""
    rent = vm.svm.minimum_balance_for_rent_exemption(144)
    for held in (1, rent - 1, rent, rent + 1):
        user = vm.fund(Keypair())
        key = vm.user_account_at(user.pubkey())
        vm.put(key, b"", owner=Pubkey.default(), lamports=held)
        wallet = vm.svm.get_balance(user.pubkey()) or 0
        assert vm.create_user_account(user).error is None
        assert vm.svm.get_balance(key) == max(held, rent)
        assert vm.svm.get_balance(user.pubkey()) == wallet - max(rent - held, 0)
        assert vm.read("UserAccount", key)["authority"] == user.pubkey()
