"""A failed transaction, named: which instruction, which program, which error.

Two programs in one transaction can share an error number, so a number alone says nothing: the name comes
from the IDL only when the failing instruction's program is ours, and the logs, when there are any, say which
program really failed inside it (a CPI into the system program, say). An Anchor program logs its errors' names: that is
its own word, and goes before the IDL's table, which may be another build's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import Fate
from keeper.venue.fates import fate_of
from keeper.venue.idl import Idl
from keeper.venue.program import SYSTEM_PROGRAM

# Anchor's own errors that a keeper meets; they are below 6000 and belong to any Anchor program.
ANCHOR_ERRORS: Final[Mapping[int, str]] = {
    100: "InstructionMissing",
    101: "InstructionFallbackNotFound",
    102: "InstructionDidNotDeserialize",
    103: "InstructionDidNotSerialize",
    2000: "ConstraintMut",
    2001: "ConstraintHasOne",
    2002: "ConstraintSigner",
    2003: "ConstraintRaw",
    2004: "ConstraintOwner",
    2005: "ConstraintRentExempt",
    2006: "ConstraintSeeds",
    2012: "ConstraintAddress",
    3000: "AccountDiscriminatorAlreadySet",
    3001: "AccountDiscriminatorNotFound",
    3002: "AccountDiscriminatorMismatch",
    3003: "AccountDidNotDeserialize",
    3004: "AccountDidNotSerialize",
    3005: "AccountNotEnoughKeys",
    3006: "AccountNotMutable",
    3007: "AccountOwnedByWrongProgram",
    3008: "InvalidProgramId",
    3009: "InvalidProgramExecutable",
    3010: "AccountNotSigner",
    3011: "AccountNotSystemOwned",
    3012: "AccountNotInitialized",
    4100: "DeclaredProgramIdMismatch",
}

_SYSTEM_ERRORS: Final[Mapping[int, str]] = {
    0: "AccountAlreadyInUse",
    1: "ResultWithNegativeLamports",
    2: "InvalidProgramId",
    3: "InvalidAccountDataLength",
}

_SAID: Final = re.compile(r"Error Code: (\w+)\. Error Number: (\d+)\.")
_FAILED: Final = re.compile(r"^Program (\w+) failed: (.*)$")


@dataclass(frozen=True, slots=True)
class ProgramFailure:
    """Why a transaction failed.

    `name` is the error's name (IDL, Anchor, the system program, or the runtime's own word such as
    `InsufficientFundsForFee`). `program` is the failing program, None when no instruction failed.
    `code` is the custom number when there is one. `detail` is one line from the logs, for people.
    `fate` is what it means for the attempt.
    """

    name: str
    program: Pubkey | None
    code: int | None
    instruction: int | None
    detail: str = ""
    fate: Fate = Fate.REFUSED


def name_failure(
    err: object,
    programs: Sequence[Pubkey],
    ours: Pubkey,
    idl: Idl,
    logs: Sequence[str] = (),
    said: Mapping[int, str] = MappingProxyType({}),
) -> ProgramFailure:
    """Name a transaction error in the RPC's JSON shape (`{"InstructionError": [2, {"Custom": 6013}]}`).

    `programs` are the program ids of the transaction's instructions in order (`programs_of`); `said` are the names that
    our program has logged before, for where a node has no logs.
    """
    detail = _detail(logs)
    program: Pubkey | None = None
    code: int | None = None
    instruction: int | None = None
    match err:
        case {"InstructionError": [int(index), inner]}:
            instruction = index
            program = _failing_program(logs) or (programs[index] if index < len(programs) else None)
            name, code = _instruction_error(inner, program, ours, idl)
            if program == ours and code is not None:
                name = said_in(logs).get(code) or said.get(code, name)
        case str(word):
            name = word
        case {**variant} if variant:
            name = str(next(iter(variant)))
        case _:
            name, detail = "UnknownError", detail or repr(err)[:200]
    return ProgramFailure(name, program, code, instruction, detail, fate_of(name, program, ours))


def _instruction_error(inner: Any, program: Pubkey | None, ours: Pubkey, idl: Idl) -> tuple[str, int | None]:
    match inner:
        case {"Custom": int(code)}:
            if program == ours:
                return idl.errors.get(code) or ANCHOR_ERRORS.get(code, f"Custom{code}"), code
            if program == SYSTEM_PROGRAM:
                return _SYSTEM_ERRORS.get(code, f"Custom{code}"), code
            return f"Custom{code}", code
        case str(word):
            return word, None
        case {**variant} if variant:
            return str(next(iter(variant))), None
        case _:
            return "UnknownInstructionError", None


def said_in(logs: Sequence[str]) -> dict[int, str]:
    """The names that programs logged for their errors, by number, up to where the first of them failed."""
    found: dict[int, str] = {}
    for line in logs:
        if _FAILED.match(line):
            break
        if match := _SAID.search(line):
            found[int(match[2])] = match[1]
    return found


def _failing_program(logs: Sequence[str]) -> Pubkey | None:
    """The innermost program that failed is the first one that the logs say failed."""
    for line in logs:
        match = _FAILED.match(line)
        if match:
            try:
                return Pubkey.from_string(match[1])
            except ValueError:
                return None
    return None


def _detail(logs: Sequence[str]) -> str:
    for line in logs:
        if "Error Message:" in line or "panicked" in line:
            return line.removeprefix("Program log: ")[:300]
    for line in logs:
        match = _FAILED.match(line)
        if match:
            return match[2][:300]
    return ""


def programs_of(wire: bytes) -> tuple[Pubkey, ...]:
    """The program ids of a transaction's instructions, in order, from its wire bytes."""
    message = VersionedTransaction.from_bytes(wire).message
    keys = message.account_keys
    return tuple(keys[ix.program_id_index] for ix in message.instructions)
