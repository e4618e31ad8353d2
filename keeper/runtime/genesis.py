"""A journal belongs to one chain."""

from __future__ import annotations

from typing import Final

from keeper.domain.errors import ChainError, Misconfigured
from keeper.journal import Journal, SetMeta
from keeper.solana.client import ChainClient

GENESIS: Final = "genesis_hash"
"""Where the journal remembers which chain it belongs to."""


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


def refuse_another_chain(journal: str, known: str | None, genesis: str | None) -> None:
    """Misconfigured when this journal knows a chain, and it is another one."""
    if known not in (None, genesis):
        raise Misconfigured(
            f"The journal {journal} belongs to another chain (genesis {known}, this one is {genesis}).",
            remedy="Give each chain a journal of its own: set journal.path, or journal.url.",
        )
