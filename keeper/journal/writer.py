"""The one thread that writes: group commit.

Everything that waits is taken at once, done in one transaction, made durable by one fsync, and only then are its
callers woken. While that fsync runs the next group gathers, so the cost of an fsync is shared by as many as came
meanwhile, and a lone caller waits for no more than his own.

Two ways to fail are told apart. An operation that is refused (a second live attempt, say) fails its own caller;
the others' commit. A failing disk fails the whole group with nothing of it written, and the journal is unhealthy
until a write succeeds again; the writer keeps trying by itself.

A thread's wake-ups cost more than a quick disk's fsync. So a caller in a hurry may commit on its own thread, the event
loop's, while the writer rests and the disk is quick (`Writer.commit_now`): the same code, the same connection, the
same fsync. `_writing` says who has the connection: it is changed under the condition's lock only.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlite_utils import Database

from keeper.errors import DuplicateAttempt, JournalError
from keeper.journal import files, store
from keeper.journal.checkpoints import Checkpoints, checkpoint_at_end, checkpoint_in_line
from keeper.journal.notes import NoteBag, merge, order_of
from keeper.journal.ops import JournalConflict, Note, Op
from keeper.journal.pace import Pace
from keeper.journal.workspace import Rows, apply

_GROUP_OPS: Final = 2_048
"""A group takes callers until it has this many operations: it bounds how long its first caller waits."""
_FEW_ROWS: Final = 64
"""What a commit of so many rows takes says how quick the disk is; a large group's says how large it is."""
_NOTE_DELAY_S: Final = 0.05
_RETRY_FIRST_S: Final = 0.1
_RETRY_LAST_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class GroupDone:
    """One finished group: for the metric and the log.

    `seconds` is from its first operation's start to durable; `waited_s` how long its first caller had waited
    before that. `problem` is None when it committed.
    """

    callers: int
    ops: int
    notes: int
    refused: int
    seconds: float
    waited_s: float
    problem: str | None
    inline: bool = False
    """Whether it was committed on the event loop's thread, which could do nothing else meanwhile."""


@dataclass(slots=True)
class Ticket:
    """One caller's operations, and the future that wakes it. Without `durable` a power cut may take them."""

    ops: Sequence[Op]
    done: asyncio.Future[None]
    queued_at: float
    error: JournalError | None = None
    durable: bool = True


Work = Callable[[Database], object]
"""Upkeep that runs in the writer's thread, between groups, and does its own transactions."""


@dataclass(slots=True)
class Chore:
    """Upkeep that somebody waits for."""

    work: Work
    done: asyncio.Future[object]
    result: object = None
    error: JournalError | None = None


@dataclass(slots=True)
class _Queue:
    """What waits, in order. A bag of notes at its end takes further notes; a ticket behind it closes it."""

    items: collections.deque[Ticket | NoteBag | Chore] = field(default_factory=collections.deque)
    notes: int = 0
    first_note_at: float = 0.0
    urgent: int = 0
    """How many tickets and chores wait: without any, notes may wait for company."""


class Writer:
    """The writing thread and its queue. Its methods are called from the event loop's thread."""

    def __init__(
        self,
        path: Path,
        db: Database,
        *,
        checkpoint_db: Database,
        loop: asyncio.AbstractEventLoop,
        max_notes: int,
        on_group: Callable[[GroupDone, int], None],
        inline_below_s: float = 0.0,
    ) -> None:
        self._path = path
        self._db = db
        self._loop = loop
        self._max_notes = max_notes
        self._on_group = on_group
        self._cond = threading.Condition(threading.Lock())
        self._queue = _Queue()
        self._closing = False
        self._checkpoints = Checkpoints(path, checkpoint_db, on_problem=self.tell_health, on_moved=self._begin_anew)
        self._pace = Pace(inline_below_s)
        self._writing = False
        """Whether somebody writes, or has taken a batch that he is about to write."""
        self._anew = False
        """Whether the WAL is to be begun anew, so that the next commit does not have to: that costs an fsync."""
        self._retry_s = 0.0
        self._tried_last = False
        self._problem: str | None = None
        self.notes_refused = 0
        """Posted notes that the journal would not take: an unknown order, a number that does not fit."""
        self._written = 0
        self._next_order_id, self._next_change_id = _next_ids(db)
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)

    # --- called from the loop's thread

    def start(self) -> None:
        """Begin to write."""
        self._checkpoints.start()
        self._thread.start()

    def submit(self, ops: Sequence[Op], *, durable: bool = True) -> asyncio.Future[None]:
        """Queue one caller's operations; the future is done when they are durable (or else written) or refused."""
        ticket = Ticket(ops, self._loop.create_future(), time.perf_counter(), durable=durable)
        self._push(ticket)
        return ticket.done

    def commit_now(self, ops: Sequence[Op]) -> bool:
        """Commit one caller's operations on this thread, durable when it returns; False when that would mean to wait
        for somebody or for a slow disk, and nothing was done: then `submit` is the way.

        Raises what `submit`'s future would.
        """
        ticket = Ticket(ops, self._loop.create_future(), time.perf_counter())
        with self._cond:
            if self._closing:
                raise JournalError("The journal is closed.")
            if self._writing or self._queue.urgent or self._problem is not None or not self._pace.quick:
                return False
            self._writing = True
            group = self._waiting_on(ops)
        group.append(ticket)
        try:
            done = self._write(group, inline=True)
        finally:
            with self._cond:
                self._writing = False
                if self._queue.items or self.problem is not None or self._closing:
                    self._cond.notify()
        self._loop.call_soon(self._after_inline, done, self._next_change_id - 1, self._written)
        if ticket.error is not None:
            raise ticket.error
        return True

    @property
    def quick(self) -> bool:
        """Whether `commit_now` would do its work. The thread may take to writing a moment later."""
        return not (self._writing or self._queue.urgent) and self._problem is None and self._pace.quick

    def _waiting_on(self, ops: Sequence[Op]) -> list[Ticket | NoteBag]:
        """The waiting notes on the orders of these operations, taken out of the queue: they were posted before."""
        queue = self._queue
        taken: dict[str, Note] = {}
        for address in {address for op in ops if (address := order_of(op)) is not None}:
            for item in queue.items:
                note = item.notes.pop(address, None) if isinstance(item, NoteBag) else None
                if note is not None:
                    queue.notes -= 1
                    taken[address] = note if address not in taken else merge(taken[address], note)
        if taken:
            queue.items = collections.deque(item for item in queue.items if not isinstance(item, NoteBag) or item)
        return [NoteBag(taken)] if taken else []

    def _after_inline(self, done: GroupDone, last_change: int, written: int) -> None:
        self._on_group(done, last_change)
        # A WAL that is overdue is the thread's to checkpoint, at its next group: it would hold up the loop.
        self._checkpoints.wrote(written)

    def chore(self, work: Work) -> asyncio.Future[object]:
        """Queue upkeep; the future has its result."""
        chore = Chore(work, self._loop.create_future())
        self._push(chore)
        return chore.done

    def _push(self, item: Ticket | Chore) -> None:
        with self._cond:
            if self._closing:
                raise JournalError("The journal is closed.")
            self._queue.items.append(item)
            self._queue.urgent += 1
            self._cond.notify()

    def post(self, note: Note) -> bool:
        """Queue a note; False when there is no room for it."""
        with self._cond:
            queue = self._queue
            if self._closing:
                raise JournalError("The journal is closed.")
            if not (queue.items and isinstance(queue.items[-1], NoteBag)):
                queue.items.append(NoteBag())
            bag = queue.items[-1]
            assert isinstance(bag, NoteBag)
            # A note on an order that already waits takes no room.
            if queue.notes >= self._max_notes and not bag.holds(note):
                return False
            if bag.add(note):
                if queue.notes == 0:
                    queue.first_note_at = time.perf_counter()
                    self._cond.notify()
                queue.notes += 1
            return True

    @property
    def problem(self) -> str | None:
        """Why the last write or checkpoint failed; None while the journal is healthy."""
        return self._problem or self._checkpoints.problem

    def tell_health(self) -> None:
        """Let the loop know that `problem` may have changed. From any thread."""
        self._tell([], GroupDone(0, 0, 0, 0, 0.0, 0.0, self.problem))

    @property
    def waiting_notes(self) -> int:
        """How many posted notes are not yet written."""
        return self._queue.notes

    @property
    def waiting_callers(self) -> int:
        """How many callers wait for the next group."""
        return self._queue.urgent

    def close(self) -> None:
        """Write everything that waits, and end the thread. Blocks; call it from a worker thread."""
        with self._cond:
            self._closing = True
            self._cond.notify()
        self._thread.join()

    # --- the thread

    def _run(self) -> None:
        try:
            while (batch := self._take()) is not None:
                try:
                    if batch:
                        self._do(batch)
                    else:
                        self._try_again()
                finally:
                    with self._cond:
                        self._writing = False
        except BaseException as error:
            self._problem = f"The journal's writer stopped: {error!r}. Start the keeper again."
            raise
        finally:
            self._end()

    def _take(self) -> list[Ticket | NoteBag | Chore] | None:
        """The next group's items; an empty list when it is time to try a failing disk, or to begin the WAL anew; None
        when all is done. Unless it is None, this thread has the connection.
        """
        with self._cond:
            while True:
                if self._writing:
                    self._cond.wait()
                    continue
                queue = self._queue
                due_s = queue.first_note_at + max(_NOTE_DELAY_S, self._retry_s) - time.perf_counter()
                if queue.items and (queue.urgent or self._closing or due_s <= 0):
                    if self._closing and self._problem is not None and self._last_try_failed():
                        return None
                    self._writing = True
                    return self._pop()
                if self._closing:
                    return None
                if self._anew and self._problem is None:
                    self._anew, self._writing = False, True
                    return []
                if queue.items:
                    self._cond.wait(due_s)
                elif self._problem is not None:
                    if not self._cond.wait(self._retry_s) and not self._writing:
                        self._writing = True
                        return []
                else:
                    self._cond.wait()

    def _last_try_failed(self) -> bool:
        """While closing, notes get one more try on a failing disk, not endless ones."""
        failed, self._tried_last = self._tried_last, True
        return failed

    def _pop(self) -> list[Ticket | NoteBag | Chore]:
        queue = self._queue
        batch: list[Ticket | NoteBag | Chore] = []
        ops = 0
        while queue.items and ops < _GROUP_OPS:
            item = queue.items[0]
            if isinstance(item, Chore):
                # Upkeep does its own transactions: it never shares a group.
                if not batch:
                    batch.append(queue.items.popleft())
                    queue.urgent -= 1
                break
            if isinstance(item, NoteBag):
                item = item.take(_GROUP_OPS)
                if not queue.items[0]:
                    queue.items.popleft()
                queue.notes -= len(item)
                ops += len(item)
            else:
                queue.items.popleft()
                queue.urgent -= 1
                ops += len(item.ops)
            batch.append(item)
        return batch

    def _do(self, batch: list[Ticket | NoteBag | Chore]) -> None:
        if isinstance(batch[0], Chore):
            self._do_chore(batch[0])
            return
        group = [item for item in batch if not isinstance(item, Chore)]
        done = self._write(group)
        self._tell([item for item in group if isinstance(item, Ticket)], done)
        # The callers are awake by now: nobody waits for this.
        if self._checkpoints.wrote(self._written):
            checkpoint_in_line(self._db)

    def _write(self, group: list[Ticket | NoteBag], *, inline: bool = False) -> GroupDone:
        """The group in one transaction, durable, its tickets' errors set; or, when the disk fails, nothing of it."""
        began = time.perf_counter()
        self._written = 0
        try:
            try:
                with self._synced(group):
                    refused = self._commit(group)
            except Exception as error:
                if not _is_refusal(error):
                    raise
                # The database refused what the rows in memory allowed. It should not happen; if it does, each
                # caller is tried alone, so that only the one it was about fails.
                self._rollback()
                refused = self._commit_one_by_one(group)
        except Exception as error:  # whatever it is: the thread lives on, and the callers hear of it
            self._rollback()
            refused = self._failed(group, error)
        else:
            self._problem = None
            self._retry_s = 0.0
        tickets = [item for item in group if isinstance(item, Ticket)]
        return GroupDone(
            callers=len(tickets),
            ops=sum(len(ticket.ops) for ticket in tickets),
            notes=sum(len(item) for item in group if isinstance(item, NoteBag)),
            refused=refused,
            seconds=time.perf_counter() - began,
            waited_s=began - tickets[0].queued_at if tickets else 0.0,
            problem=self.problem,
            inline=inline,
        )

    @contextlib.contextmanager
    def _synced(self, group: list[Ticket | NoteBag]) -> Iterator[None]:
        """With an fsync at the commit, unless nobody in the group needs it.

        `synchronous = NORMAL` leaves out that one fsync. The next durable commit syncs the same WAL, and with it all
        that was written before: nothing durable ever stands on something that is not.
        """
        if any(_durable(item) for item in group):
            yield
            return
        self._db.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            if self._db.conn.in_transaction:
                self._rollback()  # the setting can't be changed within one
            self._db.execute("PRAGMA synchronous = FULL")

    def _commit(self, group: list[Ticket | NoteBag]) -> int:
        """The group in one transaction; how many callers and notes were refused."""
        db = self._db
        rows = Rows(next_order_id=self._next_order_id, next_change_id=self._next_change_id)
        now, refused, notes_refused = time.time(), 0, 0
        db.execute("BEGIN IMMEDIATE")
        store.load(db, (_ops_of(item) for item in group), rows)
        for item in group:
            if isinstance(item, Ticket):
                item.error = _applied(rows, item.ops, now)
                refused += item.error is not None
            else:
                notes_refused += sum(_applied(rows, (note,), now) is not None for note in item.notes.values())
        store.save(db, rows)
        began = time.perf_counter()
        db.execute("COMMIT")
        took_s = time.perf_counter() - began
        # Only now: a group that was rolled back gives its ids to the next one, so that there are no gaps.
        self._settle(rows)
        self.notes_refused += notes_refused
        if self._written <= _FEW_ROWS and any(_durable(item) for item in group):
            self._pace.took(took_s)
        return refused + notes_refused

    def _commit_one_by_one(self, group: list[Ticket | NoteBag]) -> int:
        """The group in one transaction again, with a savepoint for each caller and each note."""
        db = self._db
        order_id, change_id = self._next_order_id, self._next_change_id
        refused = notes_refused = 0
        db.execute("BEGIN IMMEDIATE")
        rows = Rows(next_order_id=order_id, next_change_id=change_id)
        for item, ops in _apart(group):
            rows = Rows(next_order_id=order_id, next_change_id=change_id)
            db.execute("SAVEPOINT caller")
            try:
                store.load(db, (ops,), rows)
                error = _applied(rows, ops, time.time())
                store.save(db, rows)
            except Exception as refusal:
                if not _is_refusal(refusal):
                    raise
                db.execute("ROLLBACK TO caller")
                error = _refusal(refusal)
            else:
                order_id, change_id = rows.next_order_id, rows.next_change_id
            db.execute("RELEASE caller")
            if error is not None:
                refused += 1
                notes_refused += item is None
            if item is not None:
                item.error = error
        db.execute("COMMIT")
        rows.next_order_id, rows.next_change_id = order_id, change_id
        self._settle(rows)
        self.notes_refused += notes_refused
        return refused

    def _settle(self, rows: Rows) -> None:
        self._next_order_id, self._next_change_id = rows.next_order_id, rows.next_change_id
        self._written = 1 + len(rows.orders) + len(rows.attempts) + len(rows.changes)

    def _failed(self, group: list[Ticket | NoteBag], error: Exception) -> int:
        """Nothing of the group was written: its callers fail, its notes wait for the next try."""
        self._problem = files.explain(self._path, error)
        self._retry_s = min(max(2 * self._retry_s, _RETRY_FIRST_S), _RETRY_LAST_S)
        refused = 0
        with self._cond:
            queue = self._queue
            for item in reversed(group):
                if isinstance(item, NoteBag):
                    queue.items.appendleft(item)
                    queue.notes += len(item)
                    queue.first_note_at = time.perf_counter()
                    continue
                refused += 1
                item.error = JournalError(self._problem)
                item.error.__cause__ = error
        return refused

    def _do_chore(self, chore: Chore) -> None:
        try:
            chore.result = chore.work(self._db)
        except JournalError as error:
            chore.error = error
        except Exception as error:  # the same: the thread lives on
            chore.error = JournalError(files.explain(self._path, error))
            chore.error.__cause__ = error
        self._rollback()
        self._call_loop(_wake_chore, chore)
        self._checkpoints.wrote(1)

    def _tell(self, tickets: list[Ticket], done: GroupDone) -> None:
        last_change = self._next_change_id - 1
        self._call_loop(_wake, tickets, self._on_group, done, last_change)

    def _call_loop(self, function: Callable[..., None], *args: object) -> None:
        # A loop that is closed has nobody left to wake.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def _rollback(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._db.conn.in_transaction:
                self._db.execute("ROLLBACK")

    def _begin_anew(self) -> None:
        """All of the WAL is in the database file: let the thread write its first frame anew. From any thread."""
        with self._cond:
            self._anew = True
            self._cond.notify()

    def _try_again(self) -> None:
        """A write of nothing that matters: it tries whether the failing disk works again, or begins the WAL anew."""
        problem = self._problem
        try:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('probed_at', ?)", (str(time.time()),))
        except sqlite3.Error as error:
            self._rollback()
            self._failed([], error)
        else:
            self._problem = None
            self._retry_s = 0.0
        if self._problem is not None or problem is not None:
            self.tell_health()

    def _end(self) -> None:
        """Nobody is left waiting for a thread that has ended."""
        with self._cond:
            self._closing = True
            left = [item for item in self._queue.items if not isinstance(item, NoteBag)]
        for item in left:
            item.error = JournalError(self._problem or "The journal is closed.")
            if isinstance(item, Chore):
                self._call_loop(_wake_chore, item)
        tickets = [item for item in left if isinstance(item, Ticket)]
        self._tell(tickets, GroupDone(len(tickets), 0, 0, len(tickets), 0.0, 0.0, self._problem))
        # The checkpointing connection goes first: the last one that closes cleans up.
        self._checkpoints.close()
        checkpoint_at_end(self._db)
        self._db.conn.close()


def _is_refusal(error: Exception) -> bool:
    """Whether it is about one row (a broken rule, a number that does not fit), as opposed to a bad disk."""
    return isinstance(
        error, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
    ) or not isinstance(error, (sqlite3.Error, OSError, MemoryError))


def _ops_of(item: Ticket | NoteBag) -> Sequence[Op]:
    return item.ops if isinstance(item, Ticket) else list(item.notes.values())


def _apart(group: list[Ticket | NoteBag]) -> Iterator[tuple[Ticket | None, Sequence[Op]]]:
    for item in group:
        if isinstance(item, Ticket):
            yield item, item.ops
        else:
            for note in item.notes.values():
                yield None, (note,)


def _durable(item: Ticket | NoteBag) -> bool:
    """Whether a power cut must not take it: posted notes wait for each other's fsync, but they do get one."""
    return isinstance(item, NoteBag) or item.durable


def _applied(rows: Rows, ops: Sequence[Op], now: float) -> JournalError | None:
    """Do one caller's operations on the rows; the error when they are refused."""
    try:
        apply(rows, ops, now)
    except JournalError as error:
        return error
    except Exception as error:  # one caller's nonsense is not the others' loss
        return _refusal(error)
    return None


def _refusal(error: Exception) -> JournalError:
    text = str(error)
    refusal: JournalError
    if "attempts." in text:
        refusal = DuplicateAttempt(f"The journal's index refused the attempt: {text}.")
    elif "prepared." in text:
        refusal = JournalConflict(f"The journal's index refused the prepared transaction: {text}.")
    else:
        refusal = JournalError(f"The journal can't keep this: {type(error).__name__}: {text}.")
    refusal.__cause__ = error
    return refusal


def _next_ids(db: Database) -> tuple[int, int]:
    """The next ids of orders and changes. Ids are never used twice, also after retention removed the last row."""
    used = dict(db.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    return used.get("orders", 0) + 1, used.get("changes", 0) + 1


def _wake(tickets: list[Ticket], on_group: Callable[[GroupDone, int], None], done: GroupDone, last_change: int) -> None:
    for ticket in tickets:
        # A cancelled caller's future is done already; what it asked for is in the journal all the same.
        if ticket.done.done():
            continue
        if ticket.error is None:
            ticket.done.set_result(None)
        else:
            ticket.done.set_exception(ticket.error)
    on_group(done, last_change)


def _wake_chore(chore: Chore) -> None:
    if chore.done.done():
        return
    if chore.error is None:
        chore.done.set_result(chore.result)
    else:
        chore.done.set_exception(chore.error)
