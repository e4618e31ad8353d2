"""A recent blockhash, always at hand, so that no order waits a round trip for one."""

from __future__ import annotations

import contextlib
import time

import anyio
from anyio.abc import TaskStatus

from keeper.errors import ChainError, Transient
from keeper.solana.client import Blockhash, ChainClient
from keeper.telemetry.turns import Turns


class Blockhashes:
    """Keeps the latest confirmed blockhash, fetched every `refresh_every_s`.

    `current` refuses one older than `max_age_s`: signing with it would shorten the time to land, and a node
    that gives none is a node that may not take the transaction either.
    """

    def __init__(self, client: ChainClient, *, refresh_every_s: float = 2.0, max_age_s: float = 20.0) -> None:
        self._client = client
        self._refresh_every_s = refresh_every_s
        self._max_age_s = max_age_s
        self._latest: Blockhash | None = None
        self._fetched_at = 0.0
        self.turns = Turns("blockhashes")

    def __repr__(self) -> str:
        return f"Blockhashes(latest={self._latest})"

    def current(self) -> Blockhash:
        """The latest blockhash. Transient when there is none fresh enough."""
        if self._latest is None or time.monotonic() - self._fetched_at > self._max_age_s:
            raise Transient("no recent blockhash: the RPC endpoints have not given one lately")
        return self._latest

    async def refresh(self) -> Blockhash:
        """Fetch one now."""
        self._latest = await self._client.latest_blockhash()
        self._fetched_at = time.monotonic()
        return self._latest

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep it fresh. Ready when the first was asked for, answered or not: `current` tells which."""
        started = False
        while True:
            await self.turns.turn()
            # The pool counts a failure; `current` refuses once the last one is too old.
            with contextlib.suppress(ChainError):
                await self.refresh()
            if not started:
                started = True
                task_status.started()
            await anyio.sleep(self._refresh_every_s)
