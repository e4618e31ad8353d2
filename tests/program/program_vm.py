"""The reference program in a Solana VM, spoken to by way of its IDL and nothing else.

Instructions are encoded, accounts decoded and addresses derived from the IDL's JSON, so a test that passes
says that the program and its IDL agree.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from solders.account import Account
from solders.clock import Clock
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import Transaction
from solders.transaction_metadata import FailedTransactionMetadata, TransactionMetadata
from solders.transaction_status import (
    InstructionErrorCustom,
    TransactionErrorInstructionError,
    TransactionErrorType,
)

from keeper.localnet.program import PROGRAM_SO
from keeper.venue.idl import PACKAGED

SYSTEM = Pubkey.default()
START = 1_795_000_000
USDC = 1_000_000
COLLATERAL = 1_000_000 * USDC
DEFAULT_ARGS: Mapping[str, Any] = {
    "order_id": 0,
    "order_type": "StopLoss",
    "side": "Long",
    "size": 5_000_000,
    "price": 0,
    "stop_price": 0,
    "trailing_distance": 0,
    "leverage": 5,
    "expires_at": 0,
    "hidden_size": 0,
    "display_size": 0,
    "time_in_force": "GTC",
    "target_price": 0,
    "twap_duration": 0,
    "twap_interval": 0,
}

_NUMBERS = {"u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q", "i64": "<q", "bool": "<?"}


class Idl:
    """The part of an Anchor 0.30 IDL that a client needs."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.instructions = {i["name"]: i for i in raw["instructions"]}
        self.accounts = {a["name"]: a for a in raw["accounts"]}
        self.events = {e["name"]: e for e in raw["events"]}
        self.errors = {e["name"]: e for e in raw["errors"]}
        self.types = {t["name"]: t["type"] for t in raw["types"]}

    def encode(self, kind: Any, value: Any) -> bytes:
        match kind:
            case "pubkey":
                return bytes(value)
            case "string":
                data = value if isinstance(value, bytes) else value.encode()
                return struct.pack("<I", len(data)) + data
            case str():
                return struct.pack(_NUMBERS[kind], value)
            case {"defined": {"name": name}}:
                return bytes([value if isinstance(value, int) else self.variants(name).index(value)])
        raise AssertionError(kind)

    def decode(self, kind: Any, data: bytes, at: int) -> tuple[Any, int]:
        match kind:
            case "pubkey":
                return Pubkey(data[at : at + 32]), at + 32
            case "string":
                end = at + 4 + struct.unpack_from("<I", data, at)[0]
                return data[at + 4 : end].decode(), end
            case str():
                return struct.unpack_from(_NUMBERS[kind], data, at)[0], at + struct.calcsize(_NUMBERS[kind])
            case {"option": inner}:
                return self.decode(inner, data, at + 1) if data[at] else (None, at + 1)
            case {"array": [inner, count]}:
                items = []
                for _ in range(count):
                    item, at = self.decode(inner, data, at)
                    items.append(item)
                return items, at
            case {"defined": {"name": name}}:
                return self.variants(name)[data[at]], at + 1
        raise AssertionError(kind)

    def variants(self, name: str) -> list[str]:
        return [v["name"] for v in self.types[name]["variants"]]

    def decode_struct(self, name: str, data: bytes) -> tuple[dict[str, Any], int]:
        """Return the fields after the discriminator, and where they end."""
        fields, at = {}, 8
        for item in self.types[name]["fields"]:
            fields[item["name"]], at = self.decode(item["type"], data, at)
        return fields, at

    def offset(self, name: str, wanted: str, data: bytes) -> int:
        at = 8
        for item in self.types[name]["fields"]:
            if item["name"] == wanted:
                return at
            _, at = self.decode(item["type"], data, at)
        raise AssertionError(wanted)


IDL = Idl(json.loads(PACKAGED["0.2"].read_text()))


def custom_code(error: TransactionErrorType) -> int | None:
    """The number of a program's own error; None for the runtime's."""
    if isinstance(error, TransactionErrorInstructionError) and isinstance(error.err, InstructionErrorCustom):
        return error.err.code
    return None


@dataclass(frozen=True)
class Outcome:
    """What became of one transaction."""

    code: int | None  # of a custom error
    error: object  # None where it succeeded
    logs: tuple[str, ...]
    units: int

    @cached_property
    def said(self) -> list[str]:
        return [line.removeprefix("Program log: ") for line in self.logs if line.startswith("Program log: ")]


@dataclass
class Vm:
    """A VM with the program, a market priced at 100 and whatever a test adds."""

    program: Pubkey
    svm: LiteSVM = field(default_factory=LiteSVM, repr=False)
    payer: Keypair = field(default_factory=Keypair, repr=False)
    authority: Keypair = field(default_factory=Keypair, repr=False)
    executor: Keypair = field(default_factory=Keypair, repr=False)

    def __post_init__(self) -> None:
        self.svm.add_program_from_file(self.program, PROGRAM_SO)
        self.at(START)
        for wallet in (self.payer, self.authority, self.executor):
            self.fund(wallet)

    # The world around the program.

    def at(self, unix_timestamp: int) -> None:
        self.svm.set_clock(Clock(1, 0, 0, 0, unix_timestamp))

    def fund(self, wallet: Keypair) -> Keypair:
        self.svm.airdrop(wallet.pubkey(), 100_000_000_000)
        return wallet

    def account(self, key: Pubkey) -> Account | None:
        account = self.svm.get_account(key)
        return account if account is not None and (account.lamports or account.data) else None

    def data(self, key: Pubkey) -> bytes:
        account = self.account(key)
        assert account is not None
        return bytes(account.data)

    def put(self, key: Pubkey, data: bytes, owner: Pubkey | None = None, lamports: int | None = None) -> None:
        held = self.svm.minimum_balance_for_rent_exemption(len(data)) if lamports is None else lamports
        self.svm.set_account(key, Account(held, data, self.program if owner is None else owner))

    def patch(self, key: Pubkey, type_name: str, **values: Any) -> None:
        """Overwrite fields of an account where no instruction would."""
        data = bytearray(self.data(key))
        kinds = {f["name"]: f["type"] for f in IDL.types[type_name]["fields"]}
        for name, value in values.items():
            at = IDL.offset(type_name, name, bytes(data))
            new = IDL.encode(kinds[name], value)
            data[at : at + len(new)] = new
        self.put(key, bytes(data))

    def read(self, type_name: str, key: Pubkey) -> dict[str, Any]:
        data = self.data(key)
        assert data[:8] == bytes(IDL.accounts[type_name]["discriminator"])
        return IDL.decode_struct(type_name, data)[0]

    # Addresses.

    def address(self, *seeds: bytes) -> Pubkey:
        return Pubkey.find_program_address(list(seeds), self.program)[0]

    def market_at(self, base: str = "SOL", quote: str = "USDC") -> Pubkey:
        return self.address(b"market", base.encode(), quote.encode())

    def order_at(self, user: Pubkey, order_id: int = 0) -> Pubkey:
        return self.address(b"order", bytes(user), struct.pack("<Q", order_id))

    def position_at(self, order: Pubkey) -> Pubkey:
        return self.address(b"position", bytes(order))

    def user_account_at(self, user: Pubkey, index: int = 0) -> Pubkey:
        return self.address(b"user_account", bytes(user), struct.pack("<H", index))

    # Transactions.

    def instruction(
        self,
        name: str,
        accounts: Mapping[str, Pubkey],
        args: Mapping[str, Any] | None = None,
        *,
        without: Sequence[tuple[str, str]] = (),
        data: bytes | None = None,
    ) -> Instruction:
        """Build one from the IDL. `without` takes a flag off an account: ("order", "writable")."""
        spec = IDL.instructions[name]
        metas = []
        for item in spec["accounts"]:
            key = accounts.get(item["name"]) or Pubkey.from_string(item["address"])
            signer, writable = (item.get(f, False) and (item["name"], f) not in without for f in ("signer", "writable"))
            metas.append(AccountMeta(key, signer, writable))
        if data is None:
            given = args or {}
            assert given.keys() == {a["name"] for a in spec["args"]}
            data = bytes(spec["discriminator"]) + b"".join(
                IDL.encode(a["type"], given[a["name"]]) for a in spec["args"]
            )
        return Instruction(self.program, data, metas)

    def send(self, *instructions: Instruction, signers: Sequence[Keypair] = ()) -> Outcome:
        """Send them in one transaction, signed by those of `signers` that it asks for."""
        self.svm.expire_blockhash()
        message = Message(list(instructions), self.payer.pubkey())
        wanted = set(message.account_keys[: message.header.num_required_signatures])
        known = {k.pubkey(): k for k in (self.payer, *signers)}
        transaction = Transaction([known[k] for k in wanted], message, self.svm.latest_blockhash())
        before = self.states(message.account_keys)
        result = self.svm.send_transaction(transaction)
        if not isinstance(result, FailedTransactionMetadata):
            return Outcome(None, None, tuple(result.logs()), result.compute_units_consumed())
        assert self.states(message.account_keys) == before, "a failed transaction changed an account"
        error, meta = result.err(), result.meta()
        return Outcome(custom_code(error), error, tuple(meta.logs()), meta.compute_units_consumed())

    def send_unsigned(self, instruction: Instruction) -> TransactionMetadata | FailedTransactionMetadata:
        """Send it in the name of wallets whose keys nobody has, in a VM that does not look at signatures."""
        self.svm.expire_blockhash()
        blockhash = self.svm.latest_blockhash()
        message = Message.new_with_blockhash([instruction], self.payer.pubkey(), blockhash)
        signatures = [Signature.new_unique() for _ in range(message.header.num_required_signatures)]
        return self.svm.send_transaction(Transaction.populate(message, signatures))

    def states(self, keys: Sequence[Pubkey]) -> dict[Pubkey, Account | None]:
        """Return every account but the one that pays the fee."""
        return {key: self.svm.get_account(key) for key in keys if key != self.payer.pubkey()}

    # The instructions, each with the accounts that it should have unless told otherwise.

    def initialize_market(self, base: str = "SOL", quote: str = "USDC", **changes: Any) -> Outcome:
        args = {
            "base_asset": base,
            "quote_asset": quote,
            "initial_price": 100 * USDC,
            "max_leverage": 20,
            "initial_margin_ratio": 500,
            "maintenance_margin_ratio": 300,
        } | changes
        accounts = {"market": self.market_at(base, quote), "authority": self.authority.pubkey()}
        return self.send(self.instruction("initialize_market", accounts, args), signers=[self.authority])

    def set_price(self, price: int, market: Pubkey | None = None) -> Outcome:
        accounts = {
            "market": market or self.market_at(),
            "price_feed": SYSTEM,
            "authority": self.authority.pubkey(),
        }
        return self.send(
            self.instruction("update_oracle_price", accounts, {"new_price": price}), signers=[self.authority]
        )

    def create_user_account(self, user: Keypair, index: int = 0) -> Outcome:
        accounts = {"user_account": self.user_account_at(user.pubkey(), index), "authority": user.pubkey()}
        return self.send(self.instruction("create_user_account", accounts, {"account_index": index}), signers=[user])

    def deposit(self, user: Keypair, amount: int) -> Outcome:
        accounts = {"user_account": self.user_account_at(user.pubkey()), "authority": user.pubkey()}
        return self.send(self.instruction("deposit_collateral", accounts, {"amount": amount}), signers=[user])

    def place(self, user: Keypair, **changes: Any) -> Outcome:
        args = {**DEFAULT_ARGS, **changes}
        accounts = {
            "market": self.market_at(),
            "order": self.order_at(user.pubkey(), args["order_id"]),
            "user": user.pubkey(),
        }
        return self.send(self.instruction("place_order", accounts, args), signers=[user])

    def end(self, name: str, user: Keypair, order: Pubkey) -> Outcome:
        return self.send(self.instruction(name, {"order": order, "user": user.pubkey()}), signers=[user])

    def execution_accounts(self, order: Pubkey) -> dict[str, Pubkey]:
        fields = self.read("Order", order)
        return {
            "market": fields["market"],
            "order": order,
            "position": self.position_at(order),
            "user_account": self.user_account_at(fields["user"]),
            "executor": self.executor.pubkey(),
        }

    def execute(self, order: Pubkey, **accounts: Pubkey) -> Outcome:
        named = self.execution_accounts(order) | accounts
        return self.send(self.instruction("execute_conditional_order", named), signers=[self.executor])

    def ratchet(self, order: Pubkey, **accounts: Pubkey) -> Outcome:
        named = {"market": self.market_at(), "order": order, "executor": self.executor.pubkey()} | accounts
        return self.send(self.instruction("update_trailing_stop", named), signers=[self.executor])

    # What most tests begin with.

    def trader(self, collateral: int = COLLATERAL) -> Keypair:
        user = self.fund(Keypair())
        assert self.create_user_account(user).error is None
        if collateral:
            assert self.deposit(user, collateral).error is None
        return user

    def placed(self, user: Keypair, **changes: Any) -> Pubkey:
        outcome = self.place(user, **changes)
        assert outcome.error is None, outcome.logs
        return self.order_at(user.pubkey(), changes.get("order_id", 0))


ANCHOR_ERRORS = {
    "InstructionFallbackNotFound": (101, "Fallback functions are not supported"),
    "InstructionDidNotDeserialize": (102, "The program could not deserialize the given instruction"),
    "ConstraintMut": (2000, "A mut constraint was violated"),
    "ConstraintHasOne": (2001, "A has one constraint was violated"),
    "ConstraintSeeds": (2006, "A seeds constraint was violated"),
    "AccountDiscriminatorNotFound": (3001, "No discriminator was found on the account"),
    "AccountDiscriminatorMismatch": (3002, "Account discriminator did not match what was expected"),
    "AccountDidNotDeserialize": (3003, "Failed to deserialize the account"),
    "AccountDidNotSerialize": (3004, "Failed to serialize the account"),
    "AccountNotEnoughKeys": (3005, "Not enough account keys given to the instruction"),
    "AccountOwnedByWrongProgram": (3007, "The given account is owned by a different program than expected"),
    "InvalidProgramId": (3008, "Program ID was not as expected"),
    "AccountNotSigner": (3010, "The given account did not sign"),
    "AccountNotInitialized": (3012, "The program expected this account to be already initialized"),
}


def assert_refused(outcome: Outcome, name: str, *, account: str | None = None) -> None:
    """Check the number and the whole log line, in the form that Anchor gives this kind of error.

    That nothing changed is checked by `Vm.send`, of every failed transaction.
    """
    if name in ANCHOR_ERRORS:
        number, message = ANCHOR_ERRORS[name]
    else:
        number, message = IDL.errors[name]["code"], IDL.errors[name]["msg"]
    where = f"caused by account: {account}" if account else r"(thrown in [a-z_]+\.c:[0-9]+|occurred)"
    pattern = f"AnchorError {where}. Error Code: {name}. Error Number: {number}. Error Message: {message}."
    assert outcome.code == number, (name, outcome.error, outcome.logs)
    assert any(re.fullmatch(pattern, line) for line in outcome.said), (pattern, outcome.said)
