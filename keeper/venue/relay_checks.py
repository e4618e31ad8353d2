"""Is this signed transaction the one that its user was given? Pure, and it trusts nothing.

A relayed transaction runs with its user's signature and through the keeper's endpoints, so the keeper relays only
what it prepared itself. Wallets may change the compute budget and add Lighthouse assertions, so messages are not
compared whole; everything that can touch an account or money is.

solders panics on some malformed input with an exception that is no `Exception`; none of that leaves this module.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from solders.compute_budget import ID as COMPUTE_BUDGET
from solders.instruction import CompiledInstruction
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.domain.errors import ChainError
from keeper.solana.transactions import MOST_UNITS
from keeper.venue.program import SYSTEM_PROGRAM

MAX_WIRE_BYTES: Final = 1232
"""The most that one network packet carries; nodes drop what is larger."""

LIGHTHOUSE: Final = Pubkey.from_string("L2TExMFKdjpN9kozasaurPirfHy9P8sbXoAN1qA3S95")
"""The program whose assertions wallets inject, to make a transaction fail when it isn't what they simulated."""

# Lighthouse's two instructions that are no assertions write and close accounts of its own.
_LIGHTHOUSE_FIRST_ASSERTION: Final = 2
_ADVANCE_NONCE: Final = struct.pack("<I", 4)

_HEAP_FRAME, _UNIT_LIMIT, _UNIT_PRICE, _DATA_SIZE = 1, 2, 3, 4
_BUDGET_WIDTHS: Final = {_UNIT_LIMIT: 4, _UNIT_PRICE: 8, _DATA_SIZE: 4}

# What the runtime grants when a transaction names no limit, and the most that it grants at all.
_DEFAULT_UNITS_PER_INSTRUCTION: Final = 200_000


class RelayRefused(ChainError):
    """The signed transaction is not what was prepared. `code` is stable, the message a sentence for its user."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """How far a wallet may move what is its own to choose.

    `priority_fee_lamports` bounds unit limit x unit price, so that no wallet empties its user by a slip.
    """

    priority_fee_lamports: int = 10_000_000
    unit_limit: int = MOST_UNITS
    assertions: int = 4


@dataclass(frozen=True, slots=True)
class _Meta:
    key: Pubkey
    signer: bool
    writable: bool


@dataclass(frozen=True, slots=True)
class _Instruction:
    program: Pubkey
    data: bytes
    accounts: tuple[_Meta, ...]


AnyMessage = Message | MessageV0


def check_relayed(
    wire: bytes, *, prepared: bytes, user: Pubkey, program_id: Pubkey, keeper: Pubkey | None, limits: RelayLimits
) -> Signature:
    """The signature of `wire`, if it is the `prepared` message, signed by `user` and changed only where it may be.

    `prepared` is the message that was handed out, from the journal. Raises RelayRefused, and nothing else.
    """
    try:
        transaction = _decoded(wire)
        _check_signature(transaction, user)
        message = transaction.message
        _check_message(message, prepared, keeper)
        _check_instructions(_instructions(message), _the_prepared(prepared, program_id), program_id, limits)
        _check_writable(message, prepared)
        return transaction.signatures[0]
    except RelayRefused:
        raise
    except Exception as e:
        _refuse_undecodable(e)
    except BaseException as e:
        # A Rust panic comes as a BaseException; interrupts and cancellation come as others and must pass.
        if type(e).__module__ != "pyo3_runtime":
            raise
        _refuse_undecodable(e)


def _refuse_undecodable(error: BaseException) -> NoReturn:
    raise RelayRefused("undecodable", "The bytes are not a Solana transaction.") from error


def _decoded(wire: bytes) -> VersionedTransaction:
    if len(wire) > MAX_WIRE_BYTES:
        raise RelayRefused(
            "too_large", f"The transaction has {len(wire)} bytes; the network carries at most {MAX_WIRE_BYTES}."
        )
    transaction = VersionedTransaction.from_bytes(wire)
    if bytes(transaction) != wire:
        # from_bytes ignores what follows the transaction, and takes lengths in longer forms than needed.
        raise RelayRefused("not_canonical", "The bytes hold more than one transaction in its canonical encoding.")
    if isinstance(transaction.message, MessageV0) and transaction.message.address_table_lookups:
        raise RelayRefused("lookup_table", "The transaction uses an address lookup table, which can change later.")
    try:
        transaction.sanitize()
    except Exception as e:
        raise RelayRefused("unsanitary", "The transaction's indices and counts don't fit together.") from e
    keys = transaction.message.account_keys
    if len(set(keys)) != len(keys):
        raise RelayRefused("duplicate_account", "The transaction lists an account twice.")
    return transaction


def _check_signature(transaction: VersionedTransaction, user: Pubkey) -> None:
    header = transaction.message.header
    if header.num_required_signatures != 1 or len(transaction.signatures) != 1:
        raise RelayRefused("signers", "The order's user has to be the only signer.")
    if transaction.message.account_keys[0] != user:
        raise RelayRefused("fee_payer", f"The fee payer is not the order's user, {user}.")
    if transaction.signatures[0] == Signature.default():
        raise RelayRefused("not_signed", "The transaction is not signed.")
    results = transaction.verify_with_results()
    # Exactly one: all([]) is True.
    if len(results) != 1 or not results[0]:
        raise RelayRefused("bad_signature", f"The signature is not {user}'s for this transaction.")


def _check_message(message: AnyMessage, prepared: bytes, keeper: Pubkey | None) -> None:
    if keeper is not None and keeper in message.account_keys:
        raise RelayRefused("keeper_account", "The transaction names the keeper's own account.")
    keys = message.account_keys
    if any(
        keys[ix.program_id_index] == SYSTEM_PROGRAM and bytes(ix.data)[:4] == _ADVANCE_NONCE
        for ix in message.instructions
    ):
        raise RelayRefused("durable_nonce", "The transaction uses a durable nonce, so that it would never expire.")
    if message.recent_blockhash != Message.from_bytes(prepared).recent_blockhash:
        # Until when another blockhash can land is not known, and without that no attempt ever ends.
        raise RelayRefused("blockhash_changed", "The blockhash is not the prepared one.")


def _check_instructions(
    instructions: Sequence[_Instruction], expected: Sequence[_Instruction], program_id: Pubkey, limits: RelayLimits
) -> None:
    ours = [ix for ix in instructions if ix.program == program_id]
    budget = [ix for ix in instructions if ix.program == COMPUTE_BUDGET]
    assertions = [ix for ix in instructions if ix.program == LIGHTHOUSE]
    if len(ours) + len(budget) + len(assertions) != len(instructions):
        known = {program_id, COMPUTE_BUDGET, LIGHTHOUSE}
        stranger = next(ix.program for ix in instructions if ix.program not in known)
        raise RelayRefused("foreign_instruction", f"The transaction has an instruction of {stranger}.")
    if len(ours) != len(expected):
        raise RelayRefused(
            "instruction_count",
            f"The transaction has {len(ours)} instructions of the program, and {len(expected)} were prepared.",
        )
    for found, one in zip(ours, expected, strict=True):
        _check_ours(found, one)
    _check_budget(budget, len(ours) + len(assertions), limits)
    _check_assertions(assertions, limits)


def _check_ours(found: _Instruction, expected: _Instruction) -> None:
    if found.data[:8] != expected.data[:8]:
        raise RelayRefused("other_instruction", "The transaction calls another instruction than the prepared one.")
    if found.data != expected.data:
        raise RelayRefused("arguments_changed", "The order's arguments are not the prepared ones.")
    if [meta.key for meta in found.accounts] != [meta.key for meta in expected.accounts]:
        raise RelayRefused("accounts_changed", "The instruction's accounts are not the prepared ones.")
    if found.accounts != expected.accounts:
        raise RelayRefused("flags_changed", "An account is signer or writable where it was not prepared so.")


def _check_budget(budget: Sequence[_Instruction], others: int, limits: RelayLimits) -> None:
    values: dict[int, int] = {}
    for ix in budget:
        kind = ix.data[0] if ix.data else _HEAP_FRAME
        width = _BUDGET_WIDTHS.get(kind)
        if width is None or len(ix.data) != 1 + width or ix.accounts or kind in values:
            raise RelayRefused("compute_budget", "A compute budget instruction is malformed, repeated or not allowed.")
        values[kind] = int.from_bytes(ix.data[1:], "little")
    units = values.get(_UNIT_LIMIT, min(MOST_UNITS, _DEFAULT_UNITS_PER_INSTRUCTION * others))
    if units > limits.unit_limit:
        raise RelayRefused("unit_limit", f"The compute unit limit is above {limits.unit_limit}.")
    fee = -(-values.get(_UNIT_PRICE, 0) * units // 1_000_000)
    if fee > limits.priority_fee_lamports:
        raise RelayRefused(
            "priority_fee", f"The priority fee is {fee} lamports; at most {limits.priority_fee_lamports} are relayed."
        )


def _check_assertions(assertions: Sequence[_Instruction], limits: RelayLimits) -> None:
    if len(assertions) > limits.assertions:
        raise RelayRefused("assertion_count", f"The transaction has more than {limits.assertions} assertions.")
    if any(not ix.data or ix.data[0] < _LIGHTHOUSE_FIRST_ASSERTION for ix in assertions):
        raise RelayRefused("not_an_assertion", "A Lighthouse instruction writes an account instead of asserting one.")


def _check_writable(message: AnyMessage, prepared: bytes) -> None:
    """What came in with an assertion may be read and no more. Flags hold for the whole message."""
    allowed = {meta.key for meta in _metas(Message.from_bytes(prepared)) if meta.writable}
    if any(meta.writable and meta.key not in allowed for meta in _metas(message)):
        raise RelayRefused("writable_account", "The transaction could write an account that was not prepared.")


def _the_prepared(prepared: bytes, program_id: Pubkey) -> list[_Instruction]:
    return [ix for ix in _instructions(Message.from_bytes(prepared)) if ix.program == program_id]


def _metas(message: AnyMessage) -> list[_Meta]:
    """Every account with its flags, which the header encodes by the order of the keys."""
    header, keys = message.header, message.account_keys
    signers = header.num_required_signatures
    writable_signers = signers - header.num_readonly_signed_accounts
    writable_others = len(keys) - header.num_readonly_unsigned_accounts
    return [
        _Meta(key, i < signers, i < writable_signers if i < signers else i < writable_others)
        for i, key in enumerate(keys)
    ]


def _instructions(message: AnyMessage) -> list[_Instruction]:
    metas = _metas(message)
    compiled: Sequence[CompiledInstruction] = message.instructions
    return [
        _Instruction(metas[ix.program_id_index].key, bytes(ix.data), tuple(metas[i] for i in bytes(ix.accounts)))
        for ix in compiled
    ]
