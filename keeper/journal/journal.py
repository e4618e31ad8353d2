"""The journal: what the keeper intends, did and learnt, durable before it acts on it (promises 1, 2 and 5)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

import anyio

from keeper.domain.errors import JournalError
from keeper.journal.machine import REAL, Machine
from keeper.journal.ops import Note, Op
from keeper.journal.retention import Pruned, Retention
from keeper.journal.sqlite import files
from keeper.journal.sqlite.lock import writer_lock
from keeper.journal.sqlite.queries import Queries
from keeper.journal.sqlite.store import SqliteStore
from keeper.journal.writer import GroupDone, Writer

P = ParamSpec("P")
T = TypeVar("T")

_READERS: Final = 2
_MAX_CALLERS: Final = 8_192
_MAX_NOTES: Final = 65_536


def _absolute(path: Path | str) -> Path:
    return Path(path).absolute()


def _query(
    method: Callable[Concatenate[Queries, P], T],
) -> Callable[Concatenate[Journal, P], Coroutine[Any, Any, T]]:
    """A query as a coroutine: it runs in a thread, on a reader's connection."""

    @functools.wraps(method)
    async def run(self: Journal, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.read(lambda queries: method(queries, *args, **kwargs))

    return run


class Journal:
    """One journal file, open. Make it with `Journal.open`.

    `commit` returns when its operations are fsynced. `post` notes what nobody waits for. Queries run on read-only
    connections of their own and never hold up the writer; one that begins after a commit returned sees it.
    Lives in one asyncio event loop, and no call blocks it but `commit_now`.
    """

    def __init__(
        self,
        path: Path,
        *,
        retention: Retention,
        max_notes: int,
        on_group: Callable[[GroupDone], None] | None,
        inline_below_s: float,
        machine: Machine,
    ) -> None:
        self._path = path
        self._machine = machine
        self._inline_below_s = inline_below_s
        self._max_notes = max_notes
        self.retention = retention
        self._on_group = on_group
        self._writer: Writer | None = None
        self._callers = anyio.Semaphore(_MAX_CALLERS, fast_acquire=True)
        self._readers: queue.LifoQueue[Queries] = queue.LifoQueue()
        self._reading = anyio.CapacityLimiter(_READERS)
        self._changed = asyncio.Event()
        self._group_done = asyncio.Event()
        self._last_change_id = 0
        self._notes_dropped = 0

    def __repr__(self) -> str:
        if self._writer is None:
            return f"<Journal {self._path} read-only>"
        health = "healthy" if self.healthy else "UNHEALTHY"
        return f"<Journal {self._path} {health}, {self.waiting_callers} callers, {self.waiting_notes} notes wait>"

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        path: Path | str,
        *,
        retention: Retention | None = None,
        read_only: bool = False,
        max_notes: int = _MAX_NOTES,
        on_group: Callable[[GroupDone], None] | None = None,
        inline_below_s: float = 0.0,
        machine: Machine = REAL,
    ) -> AsyncIterator[Journal]:
        """Open the journal, and on leaving write what waits and let go of it.

        A writer locks it, creates it when it is missing and migrates it. `read_only` is for the commands beside a
        running keeper: no lock, no writes. `on_group` is told of every group, on the loop; it must be quick.
        `max_notes` bounds the posted notes in memory. `inline_below_s`: `commit_now` does its work while the slowest
        of the last five commits took no longer; 0 means never. `machine` is what it runs on.

        Raises JournalBusy, JournalVersion, or JournalError with the reason and what to do.
        """
        journal = cls(
            _absolute(path),
            retention=retention or Retention(),
            max_notes=max_notes,
            on_group=on_group,
            inline_below_s=inline_below_s,
            machine=machine,
        )
        async with contextlib.AsyncExitStack() as stack:
            if not read_only:
                await stack.enter_async_context(journal._writing())
            await stack.enter_async_context(journal._reading_connections())
            journal._last_change_id = await journal.read(Queries.last_change_id)
            yield journal

    @contextlib.asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        await self._machine.in_thread(files.create, self._path)
        # Everything the writer does lies inside the lock: it is taken first and let go of last.
        with writer_lock(self._path):
            open_store = functools.partial(SqliteStore, self._path, machine=self._machine)
            self._writer = await self._machine.in_thread(
                functools.partial(
                    Writer,
                    open_store,
                    loop=asyncio.get_running_loop(),
                    max_notes=self._max_notes,
                    on_group=self._group,
                    inline_below_s=self._inline_below_s,
                    machine=self._machine,
                )
            )
            self._writer.start()
            try:
                yield
            finally:
                # Shielded: a cancelled keeper still writes down what it knows.
                with anyio.CancelScope(shield=True):
                    await self._machine.in_thread(self._writer.close)
            if self.waiting_notes:
                raise JournalError(f"{self.waiting_notes} notes were lost on closing. {self.problem}")

    @contextlib.asynccontextmanager
    async def _reading_connections(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            while not self._readers.empty():
                self._readers.get_nowait().close()

    # --- writing

    def _the_writer(self) -> Writer:
        if self._writer is None:
            raise JournalError(f"The journal {self._path} is open for reading only.")
        return self._writer

    async def commit(self, *ops: Op) -> None:
        """Make the operations durable, all or none; when this returns they survive a power cut.

        Raises DuplicateAttempt or JournalConflict for a refused operation; then nothing of this call was written
        and other callers are not affected. Raises JournalError for what can't be kept, and when the disk fails:
        then nothing is visible and nothing may be sent on the strength of it, but the group may have reached
        the disk, so that a journal opened after a crash can hold it. For an attempt that never left this is
        harmless: it is resolved like any other.

        A caller that is cancelled while it waits leaves the group as it is: its operations commit or not.
        """
        if not ops:
            return
        writer = self._the_writer()
        async with self._callers:
            await writer.submit(ops)

    async def write(self, *ops: Op) -> None:
        """`commit` without an fsync of its own: written when this returns, durable with the next commit.

        A crash of the keeper takes nothing of it, a power cut may. For what the chain tells again at a restart.
        """
        writer = self._the_writer()
        async with self._callers:
            await writer.submit(ops, durable=False)

    @property
    def quick(self) -> bool:
        """Whether `commit_now` would do its work now."""
        return self._writer is not None and self._writer.quick

    def commit_now(self, *ops: Op) -> bool:
        """`commit` on this thread, for a few operations that are in a hurry: durable when it returns, one fsync later.

        False, and nothing done, while the writer writes, callers wait, or the disk was slow lately: then `commit`.
        Raises what `commit` raises. The one call that blocks the loop (docs/decisions/0010).
        """
        return self._the_writer().commit_now(ops)

    def post(self, note: Note) -> bool:
        """Note something nobody waits for; it is written with the next group, or within about 50 ms.

        Notes on one order are merged while they wait. Notes and commits of one order take effect in the order of
        the calls. False, and counted in `notes_dropped`, when `max_notes` orders wait: await `room` in bulk loads.
        """
        kept = self._the_writer().post(note)
        self._notes_dropped += not kept
        return kept

    async def room(self) -> None:
        """Return when at most half of the room for posted notes is taken."""
        while self.waiting_notes > self._max_notes // 2:
            done = self._group_done
            if self.waiting_notes > self._max_notes // 2:
                await done.wait()

    async def flush(self) -> None:
        """Return when everything posted before is written. Raises JournalError when the disk fails."""
        await self._the_writer().submit(())

    def _group(self, done: GroupDone, last_change_id: int) -> None:
        woken, self._group_done = self._group_done, asyncio.Event()
        woken.set()
        if last_change_id != self._last_change_id:
            self._last_change_id = last_change_id
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
        if self._on_group is not None:
            self._on_group(done)

    # --- health

    @property
    def path(self) -> Path:
        """Where the journal is."""
        return self._path

    @property
    def healthy(self) -> bool:
        """Whether the last write succeeded. While it is False nothing may be sent."""
        return self.problem is None

    @property
    def problem(self) -> str | None:
        """Why the last write failed, and what to do; None while the journal is healthy."""
        return None if self._writer is None else self._writer.problem

    @property
    def waiting_notes(self) -> int:
        """Posted notes that are not written yet."""
        return 0 if self._writer is None else self._writer.waiting_notes

    @property
    def waiting_callers(self) -> int:
        """Callers whose operations wait for the next group."""
        return 0 if self._writer is None else self._writer.waiting_callers

    @property
    def notes_dropped(self) -> int:
        """Posted notes that found no room, since the start."""
        return self._notes_dropped

    @property
    def notes_refused(self) -> int:
        """Posted notes that the journal could not keep (an unknown order, a number that does not fit)."""
        return 0 if self._writer is None else self._writer.notes_refused

    # --- changes, for streams and long polls

    @property
    def last_change_id(self) -> int:
        """The newest committed change's id, as this process knows it."""
        return self._last_change_id

    async def changed(self, after: int) -> int:
        """Wait until there is a change with a higher id than `after`; the newest one's id.

        Any number may wait: a change costs the writer one wake-up of the loop, however many do.
        """
        while self._last_change_id <= after:
            await self._changed.wait()
        return self._last_change_id

    # --- upkeep

    async def prune(self, *, now: float | None = None) -> Pruned:
        """Remove what retention no longer keeps, in small steps between groups, so that commits hardly wait."""
        total = Pruned()
        while True:
            step = cast(Pruned, await self._the_writer().upkeep(lambda store: store.prune(self.retention, now)))
            total += step
            if step.done:
                return total

    # --- reading

    async def read(self, work: Callable[[Queries], T]) -> T:
        """Run queries in a reader's thread. Raises JournalError when the file can't be read."""
        found: T = await self._machine.in_thread(self._read, work, limiter=self._reading)
        return found

    def _read(self, work: Callable[[Queries], T]) -> T:
        with files.translated(self._path):
            try:
                queries = self._readers.get_nowait()
            except queue.Empty:
                queries = Queries(files.open_reader(self._path))
            try:
                return work(queries)
            finally:
                self._readers.put(queries)

    order = _query(Queries.order)
    orders = _query(Queries.orders)
    seen_orders = _query(Queries.seen_orders)
    counts_by_state = _query(Queries.counts_by_state)
    attempt = _query(Queries.attempt)
    open_attempts = _query(Queries.open_attempts)
    tried_since = _query(Queries.tried_since)
    attempts_of = _query(Queries.attempts_of)
    explained = _query(Queries.explained)
    last_attempt_number = _query(Queries.last_attempt_number)
    executions = _query(Queries.executions)
    failures = _query(Queries.failures)
    changes_of = _query(Queries.changes_of)
    changes_after = _query(Queries.changes_after)
    prepared = _query(Queries.prepared)
    prepared_by_key = _query(Queries.prepared_by_key)
    prepared_of = _query(Queries.prepared_of)
    spent = _query(Queries.spent)
    meta = _query(Queries.meta)
