"""A start holds the journal to one chain and one program, and the pool to the chain."""

from __future__ import annotations

from solders.pubkey import Pubkey

from keeper.domain.errors import ChainError, Misconfigured
from keeper.journal import GENESIS, PROGRAM, Journal, SetMeta, refuse_anothers
from keeper.solana.client import ChainClient


async def hold_to_genesis(client: ChainClient, journal: Journal, expected: str | None, program: Pubkey) -> str:
    """Hold the journal and the pool to one chain; its genesis hash. Misconfigured when they are of different ones: on
    another chain the open attempts would look as if they never landed; or when the journal is of another program, whose
    orders would look as if they were gone.
    """
    try:
        genesis = await client.genesis_hash()
    except ChainError as e:
        raise Misconfigured(
            f"The chain can't be reached: {e}.", remedy="Check rpc.url, and that the node is up."
        ) from e
    if expected not in (None, genesis):
        raise Misconfigured(
            f"The endpoint is on another cluster: its genesis hash is {genesis}, and rpc.genesis wants {expected}.",
            remedy="Check rpc.url, or rpc.genesis.",
        )
    known = {key: await journal.meta(key) for key in (GENESIS, PROGRAM)}
    refuse_anothers(journal.name, known, genesis, str(program))
    if None in known.values():
        await journal.commit(SetMeta(GENESIS, genesis), SetMeta(PROGRAM, str(program)))
    await client.pool.hold_to(genesis)
    return genesis
