"""A disk that fails and forgets: SQLite's real files, and beside them what of them would outlive a power cut.

SQLite in WAL mode syncs the WAL at each COMMIT under `synchronous = FULL` and at none under NORMAL. So after each
COMMIT under FULL, and after each checkpoint, the files as they are now are what is durable. A process that is killed
leaves the page cache behind, and with it every COMMIT; a machine that loses its power leaves what was durable, and
maybe a part of what came after.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from solders.signature import Signature

from tests.simulate.threads import Killed, Threads

NAME: Final = "journal.sqlite"
_FULL_CODE: Final = 13
_IOERR_CODE: Final = 10


class Disk:
    """The files of one life, in `folder`. `fails` says of each COMMIT what breaks: None, or a way to fail."""

    def __init__(self, folder: Path, threads: Threads, dice: random.Random) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / NAME
        self._threads = threads
        self._dice = dice
        self.dead = False
        self.commits = 0
        self.syncs = 0
        self.unsynced = False
        """Whether a COMMIT came after what is durable."""
        self.slow_s = 0.0
        """How long a COMMIT takes beyond the usual."""
        self.fault: str | None = None
        """How every COMMIT fails, `full` or `ioerr`. Nothing of it is written then: SQLite promises that much."""
        self.faults = 0
        self.on_commit: Callable[[bool], None] = lambda before: None
        """Told before and after each COMMIT."""
        self._durable: tuple[bytes, bytes] = (b"", b"")

    def connect(self, *args: Any, **options: Any) -> sqlite3.Connection:
        """As `sqlite3.connect`."""
        connection = sqlite3.connect(*args, factory=Connection, **options)
        connection.disk = self
        return connection

    def before_commit(self, *, full: bool) -> None:
        """A COMMIT begins: it takes time, and may fail. Raises what it fails with."""
        self.commits += 1
        self.on_commit(True)
        if self.slow_s or full:
            self._threads.sleep(self.slow_s * self._dice.random() + self._dice.uniform(0.000_05, 0.002))
        self.check()
        if self.fault is not None:
            self.faults += 1
            raise _error(self.fault)

    def committed(self, *, full: bool) -> None:
        """It is in the files."""
        self.unsynced = True
        if full:
            self.synced()
        self.on_commit(False)
        self.check()

    def synced(self) -> None:
        """What is in the files now is durable."""
        self._durable = self._present()
        self.unsynced = False
        self.syncs += 1

    def holds(self, signature: Signature) -> bool:
        """Whether this attempt is among what is durable."""
        folder = self.folder / "durable"
        folder.mkdir(exist_ok=True)
        path = folder / NAME
        path.write_bytes(self._durable[0])
        path.with_name(NAME + "-wal").write_bytes(self._durable[1])
        connection = sqlite3.connect(path)
        try:
            found = connection.execute("SELECT 1 FROM attempts WHERE signature = ?", (str(signature),)).fetchone()
        except sqlite3.OperationalError:
            return False  # not even the tables
        finally:
            connection.close()
        return found is not None

    def check(self) -> None:
        """Nothing happens to the files of a life that is over."""
        if self.dead:
            raise Killed

    def kept(self, *, power_cut: bool) -> tuple[bytes, bytes]:
        """The files as the next life finds them: the database and its WAL."""
        db, wal = self._present()
        if not power_cut:
            return db, wal
        durable_db, durable_wal = self._durable
        if db == durable_db and wal.startswith(durable_wal):
            # The rest of the WAL may have reached the disk in part: SQLite tells a torn frame by its checksum.
            return db, wal[: self._dice.randint(len(durable_wal), len(wal))]
        return durable_db, durable_wal

    def put(self, kept: tuple[bytes, bytes]) -> None:
        """Begin with these files."""
        if kept[0]:
            self.path.touch(mode=0o600)
            self.path.write_bytes(kept[0])
            if kept[1]:
                self.path.with_name(NAME + "-wal").write_bytes(kept[1])
        self._durable = kept

    def _present(self) -> tuple[bytes, bytes]:
        wal = self.path.with_name(NAME + "-wal")
        db = self.path.read_bytes() if self.path.exists() else b""
        return db, wal.read_bytes() if wal.exists() else b""


class Connection(sqlite3.Connection):
    """A connection on a `Disk`."""

    disk: Disk
    full = True

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        self.disk.check()
        if sql == "COMMIT":
            self.disk.before_commit(full=self.full)
            cursor = super().execute(sql, *args)
            self.disk.committed(full=self.full)
            return cursor
        if sql.startswith("PRAGMA synchronous = "):
            self.full = sql.endswith("FULL")
        cursor = super().execute(sql, *args)
        if sql.startswith("PRAGMA wal_checkpoint"):
            self.disk.synced()
        return cursor

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        self.disk.check()
        return super().executemany(*args)


def _error(fault: str) -> sqlite3.OperationalError:
    code, text = (_FULL_CODE, "database or disk is full") if fault == "full" else (_IOERR_CODE, "disk I/O error")
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = "SQLITE_FULL" if fault == "full" else "SQLITE_IOERR"
    return error
