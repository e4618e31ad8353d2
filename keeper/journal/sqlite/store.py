"""The SQLite store: one file, one writing connection, one fsync a group."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from sqlite_utils import Database

from keeper.domain.errors import JournalError
from keeper.journal.applying import refused
from keeper.journal.looking import Holder
from keeper.journal.machine import REAL, Machine
from keeper.journal.ops import Op
from keeper.journal.pruning import prune_step
from keeper.journal.retention import Pruned, Retention
from keeper.journal.saving import save
from keeper.journal.sqlite import files
from keeper.journal.sqlite.checkpoints import Checkpoints, checkpoint_at_end, checkpoint_in_line
from keeper.journal.sqlite.lock import writer_lock
from keeper.journal.sqlite.statements import SqliteWriting, load
from keeper.journal.store import StoreBusy, one_by_one, refusal
from keeper.journal.touched import Rows, Wanted

_FEW_ROWS: Final = 64
"""What a commit of so many rows takes says how quick the disk is; a large one's says how large it is."""


class SqliteStore:
    """A `Store` on a journal file that is there (`files.create`). See `Home.open_store`."""

    def __init__(self, path: Path, on_news: Callable[[], None], *, machine: Machine = REAL) -> None:
        self._path = path
        with contextlib.ExitStack() as stack:
            # Everything the writer does lies inside the lock: it is taken first and let go of last.
            stack.enter_context(writer_lock(path))
            self._db, checkpointer = files.open_writers(path, machine)
            self._writing = SqliteWriting(self._db)
            self._lock = stack.pop_all()
        self._db.conn.execute("PRAGMA busy_timeout = 0")  # see `files.patient`
        self._on_news = on_news
        self._checkpoints = Checkpoints(
            path, checkpointer, on_problem=on_news, on_moved=self._begin_anew, machine=machine
        )
        self._checkpoints.start()
        self._anew = False
        """Whether the WAL is to be begun anew, so that the next commit does not have to: that costs an fsync."""
        self._written = 0
        self.lost: str | None = None
        self.moved: str | None = None
        self.working_on: frozenset[str] | None = None
        self.holders: tuple[Holder, ...] = ()
        self.lapsed = False
        """See Store: what the kernel's lock gives is not lost while the process lives."""
        self.commit_s: float | None = None
        """See Store."""
        self._next_order_id, self._next_change_id = _next_ids(self._db)
        self._unsure = False
        """Whether the last COMMIT failed: it may be in the file for all that, and its ids with it."""

    @property
    def last_change_id(self) -> int:
        """See Store."""
        return self._next_change_id - 1

    @property
    def trouble(self) -> str | None:
        """See Store: why the last checkpoint failed."""
        return self._checkpoints.problem

    @property
    def wants_turn(self) -> bool:
        """See Store."""
        return self._anew

    def apply(self, callers: Sequence[Sequence[Op]], *, durable: bool, waits: bool = True) -> list[JournalError | None]:
        """See Store."""
        self._written, self.commit_s = 0, None
        if waits:
            with files.patient(self._db):
                return self._applied(callers) if durable else self._unsynced(callers)
        try:
            return self._applied(callers)
        except sqlite3.OperationalError as error:
            if files.is_busy(error):
                raise StoreBusy from error
            raise

    def _unsynced(self, callers: Sequence[Sequence[Op]]) -> list[JournalError | None]:
        # NORMAL leaves out the one fsync of this commit. The next durable commit syncs the same WAL, and with it all
        # that was written before: nothing durable ever stands on something that is not.
        self._db.conn.execute("PRAGMA synchronous = NORMAL")
        try:
            return self._applied(callers)
        finally:
            self._rollback()  # the setting can't be changed within a transaction
            self._db.conn.execute("PRAGMA synchronous = FULL")

    def _applied(self, callers: Sequence[Sequence[Op]]) -> list[JournalError | None]:
        try:
            return self._in_one(callers)
        except Exception as error:
            self._rollback()
            if not _is_refusal(error):
                self._unsure = True
                raise
        # The database refused what the rows in memory allowed: each caller is tried alone, so that only the one that
        # it was about fails.
        try:
            return self._one_by_one(callers)
        except Exception:
            self._rollback()
            self._unsure = True
            raise

    def _in_one(self, callers: Sequence[Sequence[Op]]) -> list[JournalError | None]:
        self._db.conn.execute("BEGIN IMMEDIATE")
        if self._unsure:
            self._next_order_id, self._next_change_id = _next_ids(self._db)
            self._unsure = False
        rows, wanted = Rows(self._next_order_id, self._next_change_id), Wanted()
        for ops in callers:
            wanted.of(ops)
        load(self._db, wanted, rows)
        now = time.time()
        errors = [refused(rows, ops, now) for ops in callers]
        save(self._writing, rows)
        began = time.perf_counter()
        self._db.conn.execute("COMMIT")
        took_s = time.perf_counter() - began
        # Only now: a group that was rolled back gives its ids to the next one, so that there are no gaps.
        self._next_order_id, self._next_change_id = rows.next_order_id, rows.next_change_id
        self._written = 1 + len(rows.orders) + len(rows.attempts) + len(rows.added) + len(rows.changes)
        self.commit_s = took_s if self._written <= _FEW_ROWS else None
        return errors

    def _one_by_one(self, callers: Sequence[Sequence[Op]]) -> list[JournalError | None]:
        self._db.conn.execute("BEGIN IMMEDIATE")
        errors, ids = one_by_one(
            callers,
            (self._next_order_id, self._next_change_id),
            execute=self._db.conn.execute,
            load=partial(load, self._db),
            save=partial(save, self._writing),
            refused_with=_refused_with,
        )
        self._db.conn.execute("COMMIT")
        self._next_order_id, self._next_change_id = ids
        self._written = 4 * len(callers)
        return errors

    def prune(self, retention: Retention, now: float | None) -> Pruned:
        """See Store."""
        try:
            with files.patient(self._db):
                self._db.conn.execute("BEGIN IMMEDIATE")
                pruned = prune_step(self._db, retention, now)
                self._db.conn.execute("COMMIT")
        except BaseException:
            self._rollback()
            raise
        self._written = 1
        return pruned

    def probe(self) -> None:
        """See Store. It begins the WAL anew, too."""
        self._anew = False
        try:
            with files.patient(self._db):
                self._db.conn.execute("INSERT OR REPLACE INTO meta VALUES ('probed_at', ?)", (str(time.time()),))
        except sqlite3.Error:
            self._rollback()
            raise

    def explain(self, error: BaseException) -> str:
        """See Store."""
        return files.explain(self._path, error)

    def tidy(self, *, idle: bool) -> None:
        """See Store: a WAL that its own thread can't keep up with is moved here."""
        written, self._written = self._written, 0
        if written and self._checkpoints.wrote(written) and not idle:
            checkpoint_in_line(self._db)
        if idle and self._anew:
            self.probe()

    def close(self) -> None:
        """See Store."""
        # The checkpointing connection goes first: the last one that closes cleans up.
        self._checkpoints.close()
        checkpoint_at_end(self._db)
        self._db.conn.close()
        self._lock.close()

    def _begin_anew(self) -> None:
        """All of the WAL is in the database file: its first frame can be written anew while nobody waits."""
        self._anew = True
        self._on_news()

    def _rollback(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._db.conn.in_transaction:
                self._db.conn.execute("ROLLBACK")


def _doubled(error: Exception) -> str | None:
    """The table in which a row would have been the second of its kind."""
    text = str(error)
    return next((table for table in ("attempts", "prepared") if "UNIQUE" in text and f"{table}." in text), None)


def _refused_with(error: Exception) -> JournalError | None:
    return refusal(error, _doubled(error)) if _is_refusal(error) else None


def _is_refusal(error: Exception) -> bool:
    """Whether it is about one row (a broken rule, a number that does not fit), as opposed to a bad disk."""
    return isinstance(
        error, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
    ) or not isinstance(error, (sqlite3.Error, OSError, MemoryError))


def _next_ids(db: Database) -> tuple[int, int]:
    """The next ids of orders and changes. Ids are never used twice, also after retention removed the last row."""
    used = dict(db.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    return used.get("orders", 0) + 1, used.get("changes", 0) + 1
