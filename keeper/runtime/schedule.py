"""Things that happen now and then. APScheduler keeps the time; its jobs only post a tick.

A job of APScheduler 3 that raises is swallowed by it. So no job here does any work: it wakes a loop in the
keeper's own task group, where an error is seen. A loop that is slower than its ticks gets one, not a queue.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from keeper.domain.errors import ChainError, JournalError


class Schedule:
    """Ticks by name, while it is entered."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(timezone="UTC")

    def __repr__(self) -> str:
        return f"Schedule({', '.join(job.id for job in self._scheduler.get_jobs())})"

    async def __aenter__(self) -> Self:
        self._scheduler.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scheduler.shutdown(wait=False)

    async def ticks(self, name: str, *, every_s: float) -> AsyncIterator[None]:
        """One tick at once, then one every `every_s` seconds, until the reader stops."""
        due = anyio.Event()

        async def post() -> None:  # APScheduler would call a plain function in a thread, where no event may be set
            due.set()

        self._scheduler.add_job(post, "interval", seconds=every_s, id=name, coalesce=True)
        while True:
            yield
            await due.wait()
            due = anyio.Event()

    def every(self, every_s: float, work: Callable[[], Awaitable[object]], name: str, tasks: TaskGroup) -> None:
        """Do `work` at each tick, in a task of its own. What a node or the disk refuses is tried again at the next."""
        tasks.start_soon(self._every, every_s, work, name, name=name)

    async def _every(self, every_s: float, work: Callable[[], Awaitable[object]], name: str) -> None:
        async for _ in self.ticks(name, every_s=every_s):
            with contextlib.suppress(ChainError, JournalError):  # counted where it happened; health shows what lasts
                await work()
