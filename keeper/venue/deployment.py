"""Is the program there, and is this IDL its IDL? Asked once, before anything is sent.

An IDL that belongs to another revision would build transactions that fail, or worse, fills without positions.
So each instruction that the keeper uses is simulated with accounts that can't be right: the program answers with
some error about the accounts when it knows the instruction, and with InstructionFallbackNotFound (Anchor 101)
when it does not. Another program answers with errors of its own, or with none: at least one of the answers has to be
an error that the IDL or Anchor has a name for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.domain.errors import ChainError, Misconfigured
from keeper.solana.client import ChainClient, Simulation, memcmp
from keeper.venue.program import CANCEL, EXECUTE, PLACE, RATCHET, Program
from keeper.venue.program_errors import ANCHOR_ERRORS, ProgramFailure, name_failure, said_in
from keeper.venue.venue import MARKET_DISCRIMINATOR

_UNKNOWN: Final = "The program at {program} has no instruction {name}; the IDL {version} has."
_SHORT: Final = "The program at {program} wants more arguments for {name} than the IDL {version} has."
_FEW: Final = "The program at {program} wants more accounts for {name} than the IDL {version} gives."
_MISMATCHES: Final[Mapping[str, str]] = {
    "InstructionFallbackNotFound": _UNKNOWN,
    "InstructionMissing": _UNKNOWN,
    "InstructionDidNotDeserialize": _SHORT,
    "AccountNotEnoughKeys": _FEW,
    "NotEnoughAccountKeys": _FEW,
}
"""What an error about the call itself says, by its name. Any other comes from a program that knows the instruction."""
_PAYER_CANT_PAY: Final = frozenset({"AccountNotFound", "InsufficientFundsForFee", "InsufficientFundsForRent"})


async def check_program(client: ChainClient, program: Program) -> None:
    """Misconfigured when there is no executable program at the address."""
    try:
        _, (account,) = await client.accounts([program.id])
    except ChainError as e:
        raise Misconfigured(
            f"The chain can't be reached: {e}.", remedy="Check rpc.url, and that the node is up."
        ) from e
    if account is None:
        raise Misconfigured(
            f"There is no program at {program.id} on this cluster.", remedy="Check program.id and rpc.url."
        )
    if not account.executable:
        raise Misconfigured(f"The account {program.id} is not a program.", remedy="Check program.id.")


async def check_idl(client: ChainClient, program: Program, payer: Pubkey) -> None:
    """Misconfigured, naming the instruction, when the deployed program does not know what the IDL describes, or is
    another one.

    Nothing is found out while `payer` can't pay a fee, because a node simulates nothing for it then; nothing can be
    sent either.
    """
    known = {*ANCHOR_ERRORS.values(), *program.idl.errors.values()}
    answers: dict[str, str] = {}
    recognised = False
    for name in _used(program):
        failure = await _answer(client, program, name, payer)
        if failure is None:
            answers[name] = "success"
            continue
        if failure.program is None and failure.name in _PAYER_CANT_PAY:
            return
        answers[name] = failure.name
        recognised = recognised or (failure.program == program.id and failure.name in known)
        wrong = _MISMATCHES.get(failure.name)
        if wrong is not None:
            raise Misconfigured(
                wrong.format(program=program.id, name=name, version=program.idl.version),
                remedy="Give the IDL of the deployed revision (program.idl).",
            )
    if not recognised:
        said = ", ".join(f"{name} with {answer}" for name, answer in answers.items())
        raise Misconfigured(
            f"The program at {program.id} is not the one that the IDL {program.idl.version} describes: it answers "
            f"{said}.",
            remedy="Check program.id.",
        )


async def misnamed(client: ChainClient, program: Program, payer: Pubkey) -> list[str]:
    """The errors that the IDL's table has another name for than the program logs, in words, of those that can be
    provoked: a `place_order` without a leverage, or without a size, simulated. None are found where there is no
    market, or where the node gives no logs.
    """
    found: list[str] = []
    _, markets = await client.program_accounts(program.id, [memcmp(0, MARKET_DISCRIMINATOR)])
    if not markets:
        return found
    for given in ("size", "leverage"):
        arguments = {name: int(name == given) for name, _ in program.idl.instruction(PLACE).args}
        wanted = program.instruction(PLACE, arguments, {"market": markets[0].address, "user": payer})
        for code, name in said_in((await _simulated(client, wanted, payer)).logs).items():
            known = program.idl.errors.get(code, ANCHOR_ERRORS.get(code))
            if known != name:
                found.append(f"{code} is {name}, and the IDL calls it {known or 'nothing'}")
    return found


async def _answer(client: ChainClient, program: Program, name: str, payer: Pubkey) -> ProgramFailure | None:
    """How the program ends this instruction, with accounts that can't be right; None when it succeeds all the same."""
    definition = program.idl.instruction(name)
    metas = [
        AccountMeta(
            payer if account.signer else account.address or Keypair().pubkey(), account.signer, account.writable
        )
        for account in definition.accounts
    ]
    # Zeros of exactly the described length: a program that wants more arguments says so before all else.
    data = program.coder.encode(name, {argument: 0 for argument, _ in definition.args})
    try:
        result = await _simulated(client, Instruction(program.id, data, metas), payer)
    except ChainError as e:
        raise Misconfigured(
            f"The IDL can't be checked against the program: {e}.", remedy="Check that the node simulates."
        ) from e
    if result.err is None:
        return None
    return name_failure(result.err, [program.id], program.id, program.idl, result.logs)


async def _simulated(client: ChainClient, instruction: Instruction, payer: Pubkey) -> Simulation:
    message = Message.new_with_blockhash([instruction], payer, Hash.default())
    unsigned = VersionedTransaction.populate(message, [Signature.default()])
    return await client.simulate(bytes(unsigned), sig_verify=False, replace_blockhash=True)


def _used(program: Program) -> Iterator[str]:
    yield from (EXECUTE, PLACE, CANCEL)
    if program.can_ratchet:
        yield RATCHET
