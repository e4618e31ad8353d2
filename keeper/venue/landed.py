"""What landed transactions asked of the program: which instruction, by whom, and on which accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.solana.history import Touch
from keeper.venue.program import Program
from keeper.venue.program_errors import name_failure, programs_of


class Step(NamedTuple):
    """One instruction of the program's in a landed transaction. `accounts` are by the IDL's names; those that came
    through a lookup table are left out. `data` is what the program was given, `error` is None when it succeeded.
    """

    slot: int
    signature: Signature
    instruction: str
    payer: Pubkey
    accounts: Mapping[str, Pubkey]
    data: bytes
    error: str | None


def steps_of(program: Program, touch: Touch) -> list[Step]:
    """The program's instructions in a transaction, in their order; none when its bytes are not known, or of a version
    that can't be taken apart here (1: solders 0.26 does not read it).
    """
    try:
        message = VersionedTransaction.from_bytes(touch.wire).message
    except ValueError:
        return []
    keys = message.account_keys
    error = None
    if touch.err is not None:
        error = name_failure(touch.err, programs_of(touch.wire), program.id, program.idl, touch.logs).name
    known = {definition.discriminator: definition for definition in program.idl.instructions.values()}
    found: list[Step] = []
    for called in message.instructions:
        definition = known.get(bytes(called.data[:8]))
        if keys[called.program_id_index] != program.id or definition is None:
            continue
        pairs = zip(definition.accounts, bytes(called.accounts), strict=False)
        accounts = {account.name: keys[index] for account, index in pairs if index < len(keys)}
        data = bytes(called.data)
        found.append(Step(touch.slot, touch.signature, definition.name, keys[0], accounts, data, error))
    return found
