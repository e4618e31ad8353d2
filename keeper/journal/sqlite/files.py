"""Opening the journal's file: permissions, pragmas, and SQLite's errors in words that say what to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlite_utils import Database

from keeper.domain.errors import JournalError
from keeper.journal.machine import REAL, Machine
from keeper.journal.sqlite import schema

_WRITER_CACHE_KIB: Final = 8_192
_READER_CACHE_KIB: Final = 2_048
_BUSY_TIMEOUT_S: Final = 5.0
"""So long another program is waited for that has the file: a SQL shell, a backup."""
_WAL_KEPT_BYTES: Final = 64 << 20
"""A WAL that a burst blew up is cut back to this when it is next begun anew."""


def create(path: Path) -> None:
    """Make the file (0600) when it is missing; an existing one keeps its mode. Its folder has to be there: one that is
    missing is a mistyped path, or a disk that is not mounted.
    """
    require_folder(path)
    try:
        # Created here and not by SQLite, which would use the umask: a journal names people's orders.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise JournalError(
            f"The journal {path} can't be created ({error.strerror}). "
            "Give the keeper's user write permission on its folder, or set another path."
        ) from error


def require_folder(path: Path) -> None:
    """JournalError when the journal's folder is not there."""
    if not path.parent.is_dir():
        raise JournalError(f"There is no folder {path.parent} for the journal. Make it, or set another path.")


def open_writer(path: Path, machine: Machine = REAL) -> Database:
    """The one writing connection, migrated to the newest version. Call it under the writer's lock."""
    with translated(path):
        db = _connect(f"file:{quote(str(path))}?mode=rw", machine)
        try:
            # Before anything is changed: somebody else's database stays as it is.
            schema.version_of(db)
            db.enable_wal()
            _require_wal(path, db)
            # FULL: the WAL is fsynced at each commit. NORMAL would lose the last commits on a power cut, and
            # with them the record of transactions that have already left (promise 1).
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
            db.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
            # A thread of its own checkpoints (see checkpoints), so that no commit has to wait for one.
            db.execute("PRAGMA wal_autocheckpoint = 0")
            schema.migrate(db)
            # SQLite opens a write-protected file silently for reading, and even BEGIN IMMEDIATE says nothing of it:
            # find out now, by a write that changes nothing, and not at the first intent.
            db.execute("DELETE FROM meta WHERE key = ''")
        except BaseException:
            db.conn.close()
            raise
        return db


def open_writers(path: Path, machine: Machine = REAL) -> tuple[Database, Database]:
    """The writing connection, and one beside it that only checkpoints: it writes the file, but no rows."""
    writer = open_writer(path, machine)
    try:
        with translated(path):
            checkpointer = _connect(f"file:{quote(str(path))}?mode=rw", machine)
            checkpointer.execute("PRAGMA synchronous = FULL")
            checkpointer.execute("PRAGMA wal_autocheckpoint = 0")
    except BaseException:
        writer.conn.close()
        raise
    return writer, checkpointer


def must_exist(path: Path) -> None:
    """JournalError when there is no journal to read or to work on."""
    if not path.exists():
        raise JournalError(f"There is no journal at {path}. Start the keeper once, or set the right path.")


def open_reader(path: Path) -> Database:
    """A read-only connection, safe beside a running keeper."""
    must_exist(path)
    with translated(path):
        db = _connect(f"file:{quote(str(path))}?mode=ro")
        try:
            try:
                db.execute("PRAGMA schema_version").fetchone()
            except sqlite3.OperationalError:
                # In WAL mode even a reader needs the shared-memory file. Where it may not create one and no
                # WAL is left behind (a backup on a read-only disk), nobody can be writing.
                wal = path.with_name(path.name + "-wal")
                if wal.exists() and wal.stat().st_size > 0:
                    raise
                db.conn.close()
                db = _connect(f"file:{quote(str(path))}?mode=ro&immutable=1")
            db.execute("PRAGMA query_only = ON")
            db.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
            _require_version(path, db)
        except BaseException:
            db.conn.close()
            raise
        return db


def _require_wal(path: Path, db: Database) -> None:
    if db.journal_mode != "wal":
        raise JournalError(f"The journal {path} can't use SQLite's WAL: is it on a network drive?")


def _require_version(path: Path, db: Database) -> None:
    found = schema.version_of(db)
    if found != schema.VERSION:
        raise JournalError(
            f"The journal {path} has version {found}, not {schema.VERSION}. "
            "Start this version's keeper on it once: it brings it up to date."
        )


def _connect(uri: str, machine: Machine = REAL) -> Database:
    # Autocommit at the driver: transactions begin and end only where the writer says so. Each connection is
    # used by one thread at a time, but readers pass theirs on.
    conn = machine.connect(
        uri,
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    return Database(conn, recursive_triggers=False)


@contextlib.contextmanager
def patient(db: Database) -> Iterator[None]:
    """Wait for whoever has the file. Outside of this the writing connection does not: it may be the event loop's."""
    db.conn.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_S * 1e3:.0f}")
    try:
        yield
    finally:
        db.conn.execute("PRAGMA busy_timeout = 0")


def is_busy(error: Exception) -> bool:
    """Whether another program has the file."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into JournalError."""
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(explain(path, error)) from error


def explain(path: Path, error: BaseException) -> str:
    """One sentence on what is wrong with the journal, one on what to do."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return (
            f"The journal {path} is damaged or no SQLite database ({error}). Keep the file, and start from a "
            "backup, or from a fresh path once no transaction of the old one can land any more."
        )
    if primary == sqlite3.SQLITE_FULL:
        return f"The disk of the journal {path} is full. Make room: a keeper that runs goes on by itself."
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return (
            f"The journal {path} can't be opened or written ({error}). "
            "Give the keeper's user write permission on the file and its folder."
        )
    if isinstance(error, Exception) and is_busy(error):
        return (
            f"The journal {path} is locked by another program ({error}). "
            "Close the SQL shell or the backup that holds it."
        )
    if primary == sqlite3.SQLITE_IOERR:
        return f"The journal {path} can't be written ({error}). Look at its disk: a keeper that runs goes on by itself."
    return f"The journal {path} failed: {error}."
