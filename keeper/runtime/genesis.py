"""A start holds the journal and the pool to one chain."""

from __future__ import annotations

from keeper.domain.errors import ChainError, Misconfigured
from keeper.journal import GENESIS, Journal, SetMeta, refuse_another_chain
from keeper.solana.client import ChainClient


async def hold_to_genesis(client: ChainClient, journal: Journal, expected: str | None) -> str:
    """Hold the journal and the pool to one chain; its genesis hash. Misconfigured when they are of different ones: on
    another chain the open attempts would look as if they never landed.
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
    known = await journal.meta(GENESIS)
    refuse_another_chain(journal.name, known, genesis)
    if known is None:
        await journal.commit(SetMeta(GENESIS, genesis))
    await client.pool.hold_to(genesis)
    return genesis
