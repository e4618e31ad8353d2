"""The one thread that writes: group commit.

Everything that waits is taken at once, done in one transaction, made durable by one fsync, and only then are its
callers woken. While that fsync runs the next group gathers, so the cost of an fsync is shared by as many as came
meanwhile, and a lone caller waits for no more than his own.

Two ways to fail are told apart. An operation that is refused (a second live attempt, say) fails its own caller;
the others' commit. A failing disk fails the whole group with nothing of it written, and the journal is unhealthy
until a write succeeds again; the writer keeps trying by itself.
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
from keeper.journal.notes import NoteBag
from keeper.journal.ops import JournalConflict, Note, Op
from keeper.journal.workspace import Rows, apply

_GROUP_OPS: Final = 2_048
"""A group takes callers until it has this many operations: it bounds how long its first caller waits."""
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


@dataclass(slots=True)
class Ticket:
    """One caller's operations, and the future that wakes it."""

    ops: Sequence[Op]
    done: asyncio.Future[None]
    queued_at: float
    error: JournalError | None = None


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
    ) -> None:
        self._path = path
        self._db = db
        self._loop = loop
        self._max_notes = max_notes
        self._on_group = on_group
        self._cond = threading.Condition(threading.Lock())
        self._queue = _Queue()
        self._closing = False
        self._checkpoints = Checkpoints(path, checkpoint_db, on_problem=self.tell_health)
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

    def submit(self, ops: Sequence[Op]) -> asyncio.Future[None]:
        """Queue one caller's operations; the future is done when they are durable or refused."""
        ticket = Ticket(ops, self._loop.create_future(), time.perf_counter())
        self._push(ticket)
        return ticket.done

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
                if batch:
                    self._do(batch)
                else:
                    self._try_again()
        except BaseException as error:
            self._problem = f"The journal's writer stopped: {error!r}. Start the keeper again."
            raise
        finally:
            self._end()

    def _take(self) -> list[Ticket | NoteBag | Chore] | None:
        """The next group's items; an empty list when it is time to try a failing disk; None when all is done."""
        with self._cond:
            while True:
                queue = self._queue
                due_s = queue.first_note_at + max(_NOTE_DELAY_S, self._retry_s) - time.perf_counter()
                if queue.items and (queue.urgent or self._closing or due_s <= 0):
                    if self._closing and self._problem is not None and self._last_try_failed():
                        return None
                    return self._pop()
                if self._closing:
                    return None
                if queue.items:
                    self._cond.wait(due_s)
                elif self._problem is not None:
                    if not self._cond.wait(self._retry_s):
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
        began = time.perf_counter()
        try:
            try:
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
        self._tell(
            tickets,
            GroupDone(
                callers=len(tickets),
                ops=sum(len(ticket.ops) for ticket in tickets),
                notes=sum(len(item) for item in group if isinstance(item, NoteBag)),
                refused=refused,
                seconds=time.perf_counter() - began,
                waited_s=began - tickets[0].queued_at if tickets else 0.0,
                problem=self.problem,
            ),
        )
        # The callers are awake by now: nobody waits for this.
        if self._checkpoints.wrote(self._written):
            checkpoint_in_line(self._db)
        self._written = 0

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
        db.execute("COMMIT")
        # Only now: a group that was rolled back gives its ids to the next one, so that there are no gaps.
        self._settle(rows)
        self.notes_refused += notes_refused
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

    def _try_again(self) -> None:
        """Nothing waits that could be written: try whether the failing disk works again."""
        try:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('probed_at', ?)", (str(time.time()),))
        except sqlite3.Error as error:
            self._rollback()
            self._failed([], error)
        else:
            self._problem = None
            self._retry_s = 0.0
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
