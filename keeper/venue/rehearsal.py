"""Would it succeed now? Asked of a node, with nothing signed and nothing at stake."""

from __future__ import annotations

from dataclasses import dataclass

from solders.hash import Hash
from solders.message import Message
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import AttemptKind
from keeper.domain.orders import Order
from keeper.solana.client import ChainClient
from keeper.venue.program_errors import ProgramFailure
from keeper.venue.venue import Venue


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a node said as of `slot`. `failure` is None when it would succeed; `units` are compute units."""

    slot: int
    units: int
    logs: tuple[str, ...]
    failure: ProgramFailure | None


async def rehearse(client: ChainClient, venue: Venue, kind: AttemptKind, order: Order) -> Rehearsed:
    """Simulate the transaction that the keeper would send, without its signature.

    With a blockhash of the node's own and the default compute limit, so that neither an old blockhash nor a limit that
    was learnt too low is taken for the program's word. A failure without an `instruction` is the runtime's and says
    nothing of the order. Raises ChainError when no node answers.
    """
    message = Message.new_with_blockhash([venue.instruction(kind, order)], venue.keeper, Hash.default())
    wire = bytes(VersionedTransaction.populate(message, [Signature.default()]))
    result = await client.simulate(wire, sig_verify=False, replace_blockhash=True)
    failure = None if result.err is None else venue.failure(result.err, wire, result.logs)
    return Rehearsed(result.slot, result.units, result.logs, failure)
