"""Each account of each instruction, wrong in one way at a time.

`calls` holds one transaction of every instruction that would succeed. A test spoils one thing in it: a flag,
an address, an owner, the data. That the unspoilt ones do succeed is a test too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.program.program_vm import DEFAULT_ARGS, IDL, SYSTEM, USDC, Outcome, Vm, assert_refused

INSTRUCTIONS = list(IDL.instructions)
TYPES = {"market": "Market", "order": "Order", "user_account": "UserAccount"}
CREATED = {("initialize_market", "market"), ("create_user_account", "user_account"), ("place_order", "order")}


class Calls:
    """A world in which every instruction can succeed."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.user, self.newcomer = vm.trader(), vm.fund(Keypair())
        self.signers = [self.user, self.newcomer, vm.authority, vm.executor]
        place = {"stop_price": 100 * USDC}
        pending, ended = (vm.placed(self.user, order_id=n, **place) for n in (0, 1))
        assert vm.end("cancel_order", self.user, ended).error is None
        trail = vm.placed(self.user, order_id=2, order_type="TrailingStop", stop_price=1, trailing_distance=1)
        user, executor, authority = self.user.pubkey(), vm.executor.pubkey(), vm.authority.pubkey()
        books = vm.user_account_at(user)
        self.accounts: dict[str, dict[str, Pubkey]] = {
            "initialize_market": {"market": vm.market_at("A", "B"), "authority": authority},
            "update_oracle_price": {
                "market": vm.market_at(),
                "price_feed": Pubkey.new_unique(),
                "authority": authority,
            },
            "create_user_account": {
                "user_account": vm.user_account_at(self.newcomer.pubkey(), 3),
                "authority": self.newcomer.pubkey(),
            },
            "deposit_collateral": {"user_account": books, "authority": user},
            "place_order": {"market": vm.market_at(), "order": vm.order_at(user, 9), "user": user},
            "cancel_order": {"order": pending, "user": user},
            "close_order": {"order": ended, "user": user},
            "execute_conditional_order": vm.execution_accounts(pending),
            "update_trailing_stop": {"market": vm.market_at(), "order": trail, "executor": executor},
        }
        self.args: dict[str, dict[str, Any]] = {
            "initialize_market": {
                "base_asset": "A",
                "quote_asset": "B",
                "initial_price": 1,
                "max_leverage": 1,
                "initial_margin_ratio": 1,
                "maintenance_margin_ratio": 1,
            },
            "update_oracle_price": {"new_price": 1},
            "create_user_account": {"account_index": 3},
            "deposit_collateral": {"amount": 1},
            "place_order": {**DEFAULT_ARGS, **place, "order_id": 9},
        }

    def build(self, name: str, replaced: Mapping[str, Pubkey] | None = None, **options: Any) -> Instruction:
        accounts = self.accounts[name] | dict(replaced or {})
        return self.vm.instruction(name, accounts, self.args.get(name), **options)

    def send(self, name: str, replaced: Mapping[str, Pubkey] | None = None, **options: Any) -> Outcome:
        return self.vm.send(self.build(name, replaced, **options), signers=self.signers)


@pytest.fixture
def calls(vm: Vm) -> Calls:
    return Calls(vm)


def flagged(flag: str) -> list[tuple[str, str]]:
    return [(n, a["name"]) for n, i in IDL.instructions.items() for a in i["accounts"] if a.get(flag)]


def loaded() -> list[tuple[str, str]]:
    """Every account that an instruction reads as one of the program's types."""
    pairs = [(n, a["name"]) for n, i in IDL.instructions.items() for a in i["accounts"] if a["name"] in TYPES]
    return [pair for pair in pairs if pair not in CREATED]


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_unspoilt_it_succeeds(calls: Calls, name: str) -> None:
    outcome = calls.send(name)
    assert outcome.error is None, outcome.logs
    assert outcome.units < 60_000  # about 20,000, and 1,500 for each bump that a search passes over


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_accounts_and_data_beyond_what_it_takes_are_ignored(calls: Calls, name: str) -> None:
    """Repeated ones too, which the VM passes as references to their first appearance."""
    plain = calls.build(name)
    more = [AccountMeta(Pubkey.new_unique(), is_signer=False, is_writable=False) for _ in range(9)]
    metas = [*plain.accounts, *more, plain.accounts[0], more[-1]]
    outcome = calls.vm.send(Instruction(calls.vm.program, plain.data + b"more", metas), signers=calls.signers)
    assert outcome.error is None, outcome.logs


def test_an_account_may_stand_in_two_places(calls: Calls) -> None:
    """The second is a reference to the first in what the VM passes, flags and all."""
    authority = calls.vm.authority.pubkey()
    assert calls.send("update_oracle_price", {"price_feed": authority}).error is None
    calls.vm.patch(calls.vm.market_at(), "Market", authority=calls.vm.market_at())
    refused = calls.send("update_oracle_price", {"authority": calls.vm.market_at()}, without=[("authority", "signer")])
    assert_refused(refused, "AccountNotSigner", account="authority")


@pytest.mark.parametrize(("name", "account"), flagged("signer"))
def test_who_must_sign(calls: Calls, name: str, account: str) -> None:
    assert_refused(calls.send(name, without=[(account, "signer")]), "AccountNotSigner", account=account)


@pytest.mark.parametrize(("name", "account"), flagged("writable"))
def test_what_must_be_writable(calls: Calls, name: str, account: str) -> None:
    assert_refused(calls.send(name, without=[(account, "writable")]), "ConstraintMut", account=account)


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_a_missing_account_is_named(calls: Calls, name: str) -> None:
    plain = calls.build(name)
    for count, item in enumerate(IDL.instructions[name]["accounts"]):
        short = Instruction(calls.vm.program, plain.data, plain.accounts[:count])
        outcome = calls.vm.send(short, signers=calls.signers)
        assert_refused(outcome, "AccountNotEnoughKeys", account=item["name"])


@pytest.mark.parametrize("name", [n for n in INSTRUCTIONS if IDL.instructions[n]["args"]])
def test_arguments_cut_short_do_not_deserialize(calls: Calls, name: str) -> None:
    plain = calls.build(name)
    for length in range(8, len(plain.data)):
        cut = Instruction(calls.vm.program, plain.data[:length], plain.accounts)
        assert_refused(calls.vm.send(cut, signers=calls.signers), "InstructionDidNotDeserialize")


@pytest.mark.parametrize("data", [b"", b"1234567", bytes(8), b"open_position"])
def test_an_unknown_instruction_is_refused(vm: Vm, data: bytes) -> None:
    outcome = vm.send(Instruction(vm.program, data, []))
    assert_refused(outcome, "InstructionFallbackNotFound")
    assert len(outcome.said) == 1


@pytest.mark.parametrize(
    "name", [n for n, i in IDL.instructions.items() if i["accounts"][-1]["name"] == "system_program"]
)
def test_the_system_program_is_the_system_program(calls: Calls, name: str) -> None:
    outcome = calls.send(name, {"system_program": calls.vm.program})
    assert_refused(outcome, "InvalidProgramId", account="system_program")


@pytest.mark.parametrize(("name", "account"), loaded())
def test_an_account_that_is_not_there(calls: Calls, name: str, account: str) -> None:
    calls.vm.svm.set_account(calls.accounts[name][account], Account(0, b"", SYSTEM))
    assert_refused(calls.send(name), "AccountNotInitialized", account=account)


@pytest.mark.parametrize(("name", "account"), loaded())
def test_an_account_of_another_program(calls: Calls, name: str, account: str) -> None:
    key, stranger = calls.accounts[name][account], Pubkey.new_unique()
    calls.vm.put(key, calls.vm.data(key), owner=stranger)
    outcome = calls.send(name)
    assert_refused(outcome, "AccountOwnedByWrongProgram", account=account)
    assert outcome.said[-4:] == ["Left:", str(stranger), "Right:", str(calls.vm.program)]


@pytest.mark.parametrize(("name", "account"), loaded())
def test_an_account_of_another_type(calls: Calls, name: str, account: str) -> None:
    key = calls.accounts[name][account]
    calls.vm.put(key, bytes(IDL.accounts["Position"]["discriminator"]) + calls.vm.data(key)[8:])
    assert_refused(calls.send(name), "AccountDiscriminatorMismatch", account=account)


@pytest.mark.parametrize(("name", "account"), loaded())
def test_an_account_too_short_for_its_type(calls: Calls, name: str, account: str) -> None:
    key = calls.accounts[name][account]
    data = calls.vm.data(key)
    calls.vm.put(key, data[:7])
    assert_refused(calls.send(name), "AccountDiscriminatorNotFound", account=account)
    _, end = IDL.decode_struct(TYPES[account], data)
    for length in (8, 11, end - 1):
        calls.vm.put(key, data[:length])
        assert_refused(calls.send(name), "AccountDidNotDeserialize", account=account)


@pytest.mark.parametrize(("field", "value"), [("order_type", 12), ("side", 2), ("status", 6), ("time_in_force", 5)])
@pytest.mark.parametrize("name", [n for n, a in loaded() if a == "order"])
def test_an_order_with_an_unknown_variant(calls: Calls, name: str, field: str, value: int) -> None:
    calls.vm.patch(calls.accounts[name]["order"], "Order", **{field: value})
    assert_refused(calls.send(name), "AccountDidNotDeserialize", account="order")


def test_an_order_with_a_parent_is_not_one_that_this_program_wrote(calls: Calls) -> None:
    key = calls.accounts["cancel_order"]["order"]
    data = bytearray(calls.vm.data(key))
    data[158] = 1
    calls.vm.put(key, bytes(data))
    assert_refused(calls.send("cancel_order"), "AccountDidNotDeserialize", account="order")


@pytest.mark.parametrize(("name", "account"), loaded())
def test_an_account_that_lies_where_its_seeds_do_not_say(calls: Calls, name: str, account: str) -> None:
    """A faithful copy at another address, and the right one with another bump."""
    key, copy = calls.accounts[name][account], Pubkey.new_unique()
    calls.vm.put(copy, calls.vm.data(key))
    replaced = {account: copy}
    if (name, account) == ("execute_conditional_order", "order"):
        replaced["position"] = calls.vm.position_at(copy)
    outcome = calls.send(name, replaced)
    assert_refused(outcome, "ConstraintSeeds", account=account)
    assert outcome.said[-4:] == ["Left:", str(copy), "Right:", str(key)]


@pytest.mark.parametrize(("name", "account"), [*sorted(CREATED), ("execute_conditional_order", "position")])
def test_an_account_that_would_be_created_elsewhere(calls: Calls, name: str, account: str) -> None:
    elsewhere = Pubkey.new_unique()
    outcome = calls.send(name, {account: elsewhere})
    assert_refused(outcome, "ConstraintSeeds", account=account)
    assert outcome.said[-4:] == ["Left:", str(elsewhere), "Right:", str(calls.accounts[name][account])]


@pytest.mark.parametrize("name", ["execute_conditional_order", "update_trailing_stop"])
def test_an_order_belongs_to_its_market(calls: Calls, name: str) -> None:
    """Where 0.1 would have filled at another market's price."""
    vm = calls.vm
    assert vm.initialize_market("EVIL", "USDC").error is None
    evil = vm.market_at("EVIL", "USDC")
    assert vm.set_price(1, evil).error is None
    outcome = calls.send(name, {"market": evil})
    assert_refused(outcome, "ConstraintHasOne", account="order")
    assert outcome.said[-4:] == ["Left:", str(vm.market_at()), "Right:", str(evil)]


@pytest.mark.parametrize("index", [0, 1])
def test_a_fill_draws_on_the_users_own_account_0(calls: Calls, index: int) -> None:
    vm = calls.vm
    other = vm.trader() if index == 0 else calls.user
    if index:
        assert vm.create_user_account(calls.user, index).error is None
    wrong = vm.user_account_at(other.pubkey(), index)
    outcome = calls.send("execute_conditional_order", {"user_account": wrong})
    assert_refused(outcome, "ConstraintSeeds", account="user_account")


def test_a_fill_creates_the_orders_own_position(calls: Calls) -> None:
    another = calls.vm.position_at(calls.accounts["close_order"]["order"])
    outcome = calls.send("execute_conditional_order", {"position": another})
    assert_refused(outcome, "ConstraintSeeds", account="position")
