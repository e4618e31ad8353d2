"""The journal: what the keeper intends, did and learnt, durable before it acts on it (promises 1, 2 and 5)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

import anyio

from keeper.domain.errors import (
    HandedOver,
    JournalAway,
    JournalBusy,
    JournalError,
    JournalVersion,
    LeaseLost,
    ShareMoved,
    StandBy,
)
from keeper.domain.reports import GroupDone
from keeper.journal.homes import home_of
from keeper.journal.looking import Holder
from keeper.journal.machine import REAL, Machine
from keeper.journal.ops import Note, Op
from keeper.journal.queries import Queries
from keeper.journal.retention import Pruned, Retention
from keeper.journal.store import Home
from keeper.journal.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")

_READERS: Final = 2
_ASK_AGAIN_S: Final = 0.05
_MAX_CALLERS: Final = 8_192
_MAX_NOTES: Final = 65_536


def _query(method: Callable[Concatenate[Queries, P], T]) -> Callable[Concatenate[Reader, P], Coroutine[Any, Any, T]]:
    """A query as a coroutine: it runs in a thread, on a reader's connection."""

    @functools.wraps(method)
    async def run(self: Reader, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.read(lambda queries: method(queries, *args, **kwargs))

    return run


class Reader:
    """A journal, to be asked: by the keeper that writes it, or by a command beside that. No lock, no writes.

    Queries run on read-only connections of their own and never hold up the writer. `place`: a path, or a home.
    """

    def __init__(self, place: Path | str | Home, machine: Machine = REAL) -> None:
        self.home: Final = home_of(place, machine)
        self._machine = machine
        self._readers: queue.LifoQueue[Queries] = queue.LifoQueue()
        self._reading = anyio.CapacityLimiter(_READERS)
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return f"<Reader {self.name}>"

    @property
    def name(self) -> str:
        """Which journal it is, for people."""
        return self.home.name

    def close(self) -> None:
        """Close the connections. What is being read is read to its end; who asks from now on gets a JournalError."""
        self._closed.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._readers.get_nowait().close()

    async def read(self, work: Callable[[Queries], T]) -> T:
        """Run queries in a reader's thread. Raises JournalError when the journal can't be read."""
        found: T = await self._machine.in_thread(self._read, work, limiter=self._reading)
        return found

    def _read(self, work: Callable[[Queries], T]) -> T:
        with self.home.translated():
            if self._closed.is_set():
                raise JournalError("The journal is closed.")
            try:
                queries = self._readers.get_nowait()
            except queue.Empty:
                queries = self.home.open_queries()
            try:
                return work(queries)
            finally:
                self._readers.put(queries)
                if self._closed.is_set():
                    self.close()

    order = _query(Queries.order)
    orders = _query(Queries.orders)
    orders_at = _query(Queries.orders_at)
    seen_orders = _query(Queries.seen_orders)
    expired_orders = _query(Queries.expired_orders)
    tried_orders = _query(Queries.tried_orders)
    counts_by_state = _query(Queries.counts_by_state)
    open_attempts = _query(Queries.open_attempts)
    tried_since = _query(Queries.tried_since)
    attempts_of = _query(Queries.attempts_of)
    explained = _query(Queries.explained)
    executions = _query(Queries.executions)
    failures = _query(Queries.failures)
    changes_of = _query(Queries.changes_of)
    changes_after = _query(Queries.changes_after)
    prepared = _query(Queries.prepared)
    prepared_by_key = _query(Queries.prepared_by_key)
    prepared_of = _query(Queries.prepared_of)
    spent = _query(Queries.spent)
    meta = _query(Queries.meta)


class Followed(Reader):
    """A journal whose changes can be waited for. Lives in one asyncio event loop."""

    def __init__(self, place: Path | str | Home, machine: Machine = REAL) -> None:
        super().__init__(place, machine)
        self._changed = asyncio.Event()
        self._last_change_id = 0

    @property
    def leases(self) -> tuple[Holder, ...]:
        """Who held what a moment ago; none for a journal that is a file."""
        return self.home.held

    @property
    def last_change_id(self) -> int:
        """The newest committed change's id, as this process knows it."""
        return self._last_change_id

    async def changed(self, after: int) -> int:
        """Wait until there is a change with a higher id than `after`; the newest one's id.

        Any number may wait: a change costs one wake-up of the loop, however many do.
        """
        while self._last_change_id <= after:
            await self._changed.wait()
        return self._last_change_id

    async def holders(self) -> list[Holder]:
        """Who holds what now: it asks. JournalError when it can't."""
        found: list[Holder] = await self._machine.in_thread(self.home.holders)
        return found

    async def commit(self, *ops: Op) -> None:
        """StandBy: who only follows a journal may not write to it."""
        raise StandBy(f"This keeper stands by, and may not write to {self.name}.")

    write = commit

    async def follow(self) -> None:
        """Ask for other keepers' changes until cancelled, twenty times a second."""
        while True:
            try:
                self._moved(await self.read(Queries.last_change_id))
                self.unread = None
            except JournalError as error:
                self.unread = str(error)
            await anyio.sleep(_ASK_AGAIN_S)

    unread: str | None = None
    """Why `follow` could not read it at the last try."""

    def _moved(self, last_change_id: int) -> None:
        if last_change_id > self._last_change_id:
            self._last_change_id = last_change_id
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()


class Observed(Followed):
    """Another keeper's journal, as who stands by sees it: it is asked for news twenty times a second.

    No LISTEN: it would cost the holder a lock of the whole database at each commit, and a pooler in transaction mode
    loses it.
    """


class Journal(Followed):
    """One journal, open for writing. Make it with `Journal.open`.

    `commit` returns when its operations are fsynced, and a query that begins after that sees them. `post` notes what
    nobody waits for. Lives in one asyncio event loop, and no call blocks it but `Writer.commit_now`.
    """

    writer: Writer
    """A caller in a hurry asks it itself (`Writer.quick`, `Writer.commit_now`)."""

    def __init__(
        self,
        place: Path | str | Home,
        retention: Retention,
        on_group: Callable[[GroupDone], None] | None,
        machine: Machine,
    ) -> None:
        super().__init__(place, machine)
        self.retention = retention
        self._on_group = on_group
        self._callers = anyio.Semaphore(_MAX_CALLERS, fast_acquire=True)
        self._handing_over = False

    def __repr__(self) -> str:
        health = "healthy" if self.healthy else "UNHEALTHY"
        return f"<Journal {self.name} {health}, {self.waiting_callers} callers, {self.waiting_notes} notes wait>"

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        place: Path | str | Home,
        *,
        retention: Retention | None = None,
        max_notes: int = _MAX_NOTES,
        on_group: Callable[[GroupDone], None] | None = None,
        inline_below_s: float = 0.0,
        machine: Machine = REAL,
        on_stand_by: Callable[[str], None] | None = None,
    ) -> AsyncIterator[Journal]:
        """Lock the journal, create it when it is missing and migrate it; on leaving, write what waits and let go of it.

        `on_group` is told of every group, on the loop; it must be quick. `max_notes` bounds the posted notes in memory.
        `inline_below_s`: `Writer.commit_now` does its work while the slowest of the last five commits took no longer; 0
        means never. `machine` is what it runs on. With `on_stand_by`, which is told who holds the journal, a lease is
        waited for, also while the database is away.

        Raises JournalBusy, JournalVersion, or JournalError with the reason and what to do.
        """
        journal = cls(place, retention or Retention(), on_group, machine)
        open_writer = functools.partial(
            Writer,
            journal.home.open_store,
            loop=asyncio.get_running_loop(),
            max_notes=max_notes,
            on_group=journal._group,
            inline_below_s=inline_below_s,
            machine=machine,
        )
        try:
            journal.writer = await journal._opened(open_writer, on_stand_by)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await machine.in_thread(journal.home.leave)
            raise
        journal.writer.start()
        try:
            journal._last_change_id = await journal.read(Queries.last_change_id)
            yield journal
        finally:
            journal.close()
            # Shielded: a cancelled keeper still writes down what it knows.
            with anyio.CancelScope(shield=True):
                await machine.in_thread(journal.writer.close)
        if journal.waiting_notes and journal.writer.rights.lost is None:
            # Who takes over finds out what they say; who has taken over has done so.
            kind = JournalAway if journal.home.leased else JournalError
            raise kind(f"{journal.waiting_notes} notes were lost on closing. {journal.problem}")

    async def _opened(self, open_writer: Callable[[], Writer], on_stand_by: Callable[[str], None] | None) -> Writer:
        told = ""
        while True:
            try:
                writer: Writer = await self._machine.in_thread(open_writer)
            except JournalError as error:
                away = told and not isinstance(error, (JournalBusy, JournalVersion))
                if on_stand_by is None or not (away or isinstance(error, (StandBy, JournalAway))):
                    raise
                if str(error) != told:
                    told = str(error)
                    on_stand_by(told)
                await anyio.sleep(_ASK_AGAIN_S)
            else:
                return writer

    # --- writing

    async def commit(self, *ops: Op) -> None:
        """Make the operations durable, all or none; when this returns they survive a power cut.

        Raises DuplicateAttempt or JournalConflict for a refused operation; then nothing of this call was written
        and other callers are not affected. Raises JournalError for what can't be kept, and when the disk fails:
        then nothing is visible and nothing may be sent on the strength of it, but the group may have reached
        the disk, so that a journal opened after a crash can hold it. For an attempt that never left this is
        harmless: it is resolved like any other.

        A caller that is cancelled while it waits leaves the group as it is: its operations commit or not.
        """
        if ops:
            async with self._callers:
                await self.writer.submit(ops)

    async def write(self, *ops: Op) -> None:
        """`commit` without an fsync of its own: written when this returns, durable with the next commit.

        A crash of the keeper takes nothing of it, a power cut may. For what the chain tells again at a restart.
        """
        async with self._callers:
            await self.writer.submit(ops, durable=False)

    def post(self, note: Note) -> bool:
        """Note something nobody waits for; it is written with the next group, or within about 50 ms.

        Notes on one order are merged while they wait. Notes and commits of one order take effect in the order of
        the calls. False when `max_notes` orders wait.
        """
        return self.writer.post(note)

    def _group(self, done: GroupDone, last_change_id: int) -> None:
        self._moved(last_change_id)
        if self._on_group is not None:
            self._on_group(done)

    # --- health

    @property
    def healthy(self) -> bool:
        """Whether the last write succeeded. While it is False nothing may be sent."""
        return self.writer.problem is None

    @property
    def problem(self) -> str | None:
        """Why the last write failed, and what to do; None while the journal is healthy."""
        return self.writer.problem

    @property
    def waiting_notes(self) -> int:
        """Posted notes that are not written yet."""
        return self.writer.waiting_notes

    @property
    def waiting_callers(self) -> int:
        """Callers whose operations wait for the next group."""
        return self.writer.waiting_callers

    @property
    def leases(self) -> tuple[Holder, ...]:
        """Who held what a moment ago; none for a journal that is a file."""
        return self.writer.rights.holders

    def lapsed(self) -> bool:
        """Whether another keeper may have taken over by now: nothing is sent then, committed or not."""
        return self.writer.rights.lapsed

    @property
    def markets(self) -> frozenset[str] | None:
        """The addresses of the markets that are this keeper's to work on, as long as it is open; None for all."""
        return self.writer.rights.working_on

    async def hold(self) -> None:
        """Return never. Raises LeaseLost when another keeper has taken over, HandedOver when one is to, and ShareMoved
        when other markets are this keeper's by now.
        """
        rights = self.writer.rights
        while True:
            await anyio.sleep(_ASK_AGAIN_S if self.home.leased else math.inf)
            if rights.lost is not None:
                raise LeaseLost(rights.lost)
            if self._handing_over:
                self.home.hand_over()
                raise HandedOver("An operator had the service handed over to another keeper.")
            if rights.moved is not None:
                raise ShareMoved(rights.moved)

    def hand_over(self) -> None:
        """Have `hold` raise HandedOver a moment later, when who asked for it has had his answer."""
        self._handing_over = True

    # --- upkeep

    async def prune(self, *, now: float | None = None) -> Pruned:
        """Remove what retention no longer keeps, in small steps between groups, so that commits hardly wait."""
        total = Pruned()
        while True:
            step = cast(Pruned, await self.writer.upkeep(lambda store: store.prune(self.retention, now)))
            total += step
            if step.done:
                return total
