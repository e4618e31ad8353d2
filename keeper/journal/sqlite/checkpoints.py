"""Moving the WAL into the database file, beside the writer and never in its way.

A checkpoint of a burst writes and fsyncs many megabytes. Done by the writing connection, it would hold up the next
commit by as long; so a thread with a connection of its own does it. PASSIVE waits for nobody and blocks nobody.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlite_utils import Database

from keeper.journal.machine import Machine
from keeper.journal.sqlite import files

_AFTER_ROWS: Final = 5_000
_IDLE_S: Final = 0.5
_LONGEST_S: Final = 30.0
_RETRY_S: Final = 1.0
_OVERDUE_BYTES: Final = 256 << 20
"""A WAL that is always written to is never empty and grows. From here on the writer waits for one checkpoint."""


class Checkpoints:
    """The checkpointing thread. `wrote` is the writer's, the rest anybody's."""

    def __init__(
        self,
        path: Path,
        db: Database,
        *,
        on_problem: Callable[[], None],
        on_moved: Callable[[], None],
        machine: Machine,
    ) -> None:
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self._db = db
        self._on_problem = on_problem
        self._on_moved = on_moved
        self._cond = machine.condition()
        self._rows = 0
        self._wrote_at = 0.0
        self._wanted = False
        self._closing = False
        self.problem: str | None = None
        """Why the last checkpoint failed. The commits are safe in the WAL, but the disk under the file is not well."""
        self._thread = machine.thread(self._run, "journal-checkpoint")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wrote(self, rows: int) -> bool:
        """Count what a group wrote; True when the writer has to checkpoint itself, since this thread can't keep up."""
        with self._cond:
            first = self._rows == 0
            self._rows += rows
            self._wrote_at = time.monotonic()
            if first or (self._rows >= _AFTER_ROWS and not self._wanted):
                self._wanted = self._rows >= _AFTER_ROWS
                self._cond.notify()
        try:
            return self._wal.stat().st_size > _OVERDUE_BYTES
        except OSError:
            return False

    def close(self) -> None:
        """End the thread and close its connection. Blocks."""
        with self._cond:
            self._closing = True
            self._cond.notify()
        self._thread.join()
        self._db.conn.close()

    def _run(self) -> None:
        while True:
            with self._cond:
                while not (self._rows or self.problem or self._closing):
                    self._cond.wait()
                self._rest()
                if self._closing:
                    return
                self._wanted = False
                before = self._rows
            self._checkpoint(before)

    def _rest(self) -> None:
        """Little came: give it company until the writer rests, because its fsyncs and a checkpoint's hold each other
        up; unless a burst or the end comes first. Under the condition's lock.
        """
        if self.problem:
            if not self._closing:
                self._cond.wait(_RETRY_S)
            return
        latest = time.monotonic() + _LONGEST_S
        while not (self._wanted or self._closing):
            wait_s = min(self._wrote_at + _IDLE_S, latest) - time.monotonic()
            if wait_s <= 0:
                return
            self._cond.wait(wait_s)

    def _checkpoint(self, rows: int) -> None:
        try:
            _busy, in_wal, moved = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            self.problem = files.explain(self._path, error)
            self._on_problem()
            return
        if in_wal == moved:
            with self._cond:
                self._rows -= min(rows, self._rows)
                rests = not self._rows
            if rests:
                self._on_moved()
        if self.problem is not None:
            self.problem = None
            self._on_problem()


def checkpoint_in_line(db: Database) -> None:
    """Move all of the WAL between two groups: nobody adds to it meanwhile, so the next write begins it anew."""
    with contextlib.suppress(sqlite3.Error):
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def checkpoint_at_end(db: Database) -> None:
    """Leave one file behind, if no reader in another process is in the way; don't wait for one."""
    with contextlib.suppress(sqlite3.Error):
        db.execute("PRAGMA busy_timeout = 0")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
