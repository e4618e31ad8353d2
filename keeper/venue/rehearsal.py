"""Would it succeed now? Asked of a node, with nothing signed and nothing at stake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.message import Message
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import AttemptKind, Fate
from keeper.domain.orders import Order
from keeper.domain.prices import Crank
from keeper.solana.client import ChainClient
from keeper.solana.simulation import simulate_for
from keeper.solana.transactions import MOST_UNITS, SIGNATURE_FEE_LAMPORTS, Tip
from keeper.venue.program_errors import ProgramFailure
from keeper.venue.venue import Venue

KEY_DRAINED: Final = "KeyDrained"
"""The keeper's own word for a transaction that would cost its key more than the fee, the rent and the tip."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a node said as of `slot`. `failure` is None when it would succeed; `units` are compute units.

    `refused`: the program itself failed, or it would take more from the keeper's key than it may. Any other failure is
    the node's or the runtime's word, and says nothing of the order.
    """

    slot: int
    units: int
    logs: tuple[str, ...]
    failure: ProgramFailure | None
    refused: bool


async def rehearse(
    client: ChainClient,
    venue: Venue,
    kind: AttemptKind,
    order: Order,
    *,
    as_of: int | None = None,
    crank: Crank | None = None,
    tip: Tip | None = None,
    may_cost_lamports: int | None = None,
) -> Rehearsed:
    """Simulate the transaction that the keeper would send, without its signatures, at or after slot `as_of`. It may
    take `may_cost_lamports` from the keeper's key, beside the tip and the fee for its signatures: one that takes more
    fails by the name of KeyDrained. None: whatever it takes is no failure.

    With a blockhash of the node's own and all the compute units there are, so that neither an old blockhash nor a limit
    that is too low is taken for the program's word. BehindNode when no node has reached `as_of`; another ChainError
    when none answers.
    """
    instructions = [set_compute_unit_limit(MOST_UNITS), *venue.instructions(kind, order, crank, tip)]
    message = Message.new_with_blockhash(instructions, venue.keeper, Hash.default())
    unsigned = [Signature.default()] * message.header.num_required_signatures
    wire = bytes(VersionedTransaction.populate(message, unsigned))
    result, lost = await simulate_for(client.pool, wire, venue.keeper, min_context_slot=as_of)
    failure = None if result.err is None else venue.failure(result.err, wire, result.logs)
    refused = failure is not None and failure.program == venue.id
    may_lose = (may_cost_lamports or 0) + (0 if tip is None else tip.lamports) + len(unsigned) * SIGNATURE_FEE_LAMPORTS
    if may_cost_lamports is not None and lost is not None and lost > may_lose:
        detail = f"it would take {lost} lamports from the keeper's key, and may take {may_lose}"
        failure, refused = ProgramFailure(KEY_DRAINED, None, None, None, detail, Fate.DRAINS_KEY), True
    return Rehearsed(result.slot, result.units, result.logs, failure, refused)
