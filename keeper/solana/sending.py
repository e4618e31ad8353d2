"""Signed bytes to every healthy endpoint: on the wire at once, the replies when somebody waits for them."""

from __future__ import annotations

from collections.abc import Sequence

from keeper.solana.pool import BegunBroadcast, RpcPool
from keeper.solana.rpc import Call, Reply


class Sending:
    """A request that was written to every endpoint with a free connection. `replies` writes it to the others, too."""

    def __init__(self, pool: RpcPool, calls: Sequence[Call], deadline_s: float | None) -> None:
        self._pool = pool
        self._calls = calls
        self._deadline_s = deadline_s
        self._begun: BegunBroadcast | None = pool.begin(calls)

    async def replies(self) -> list[Reply]:
        """One a transaction: a signature, Rejected, or an error that means "unknown"."""
        return await self._pool.broadcast(self._calls, deadline_s=self._deadline_s, begun=self._begun)
