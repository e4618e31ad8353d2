"""A start holds the pool to one chain, and the journal to that chain and one program."""

from __future__ import annotations

from solders.pubkey import Pubkey

from keeper.domain.errors import ChainError, Misconfigured
from keeper.journal import GENESIS, PROGRAM, Journal, SetMeta, refuse_anothers
from keeper.solana.client import ChainClient


async def hold_to_genesis(client: ChainClient, expected: str | None) -> str:
    """Hold the pool to one chain; its genesis hash. Misconfigured when it is not the `expected` one."""
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
    await client.pool.hold_to(genesis)
    return genesis


async def hold_journal_to(journal: Journal, genesis: str, program: Pubkey) -> None:
    """Misconfigured when the journal is of another chain, where the open attempts would look as if they never landed;
    or of another program, whose orders would look as if they were gone.
    """
    known = {key: await journal.meta(key) for key in (GENESIS, PROGRAM)}
    refuse_anothers(journal.name, known, genesis, str(program))
    if None in known.values():
        await journal.commit(SetMeta(GENESIS, genesis), SetMeta(PROGRAM, str(program)))
