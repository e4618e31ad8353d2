"""What an operator does to a journal: verify it, export it, back it up, make its file small again.

Blocking functions on a path, for the commands. All but `vacuum` may run beside a keeper that is writing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
from sqlite_utils import Database

from keeper.domain.errors import JournalError
from keeper.journal.looking import Finding, broken_promises
from keeper.journal.rows import TABLES, exported
from keeper.journal.sqlite import files
from keeper.journal.sqlite.lock import writer_lock


def verify(path: Path, *, limit: int = 100) -> list[Finding]:
    """Look for damage in the file and for broken promises in what it says; at most `limit` of each kind.

    Reads everything: about ten seconds for a million executions. Raises JournalError when it can't be read.
    """
    with reading(path) as db:
        findings = [
            Finding("the file is damaged", "database", str(message))
            for (message,) in db.execute("PRAGMA integrity_check(100)").fetchall()
            if message != "ok"
        ]
        findings += [
            Finding("a row refers to one that is missing", str(table), f"row {rowid} refers to {parent}")
            for table, rowid, parent, _ in db.execute("PRAGMA foreign_key_check").fetchall()
        ]
        return findings + broken_promises(db, limit)


def export(path: Path) -> Iterator[bytes]:
    """Every row as one line of JSON with its `table`, as of one moment. u64 are plain numbers, bytes are base64."""
    with reading(path) as db:
        for table in TABLES:
            for row in db[table].rows:
                yield msgspec.json.encode({"table": table, **exported(row)}) + b"\n"


def backup(path: Path, target: Path) -> None:
    """Copy the journal to a new file, as of one moment. Raises JournalError when the target exists."""
    try:
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise JournalError(f"The backup {target} can't be created ({error.strerror}).") from error
    with reading(path) as db, contextlib.closing(sqlite3.connect(target)) as copy:
        db.conn.backup(copy)


def vacuum(path: Path) -> tuple[int, int]:
    """Give the space of removed rows back to the disk; the file's size in bytes before and after.

    Takes the writer's lock: JournalBusy while a keeper runs. Needs as much free space as the journal's size.
    """
    files.must_exist(path)
    with writer_lock(path):
        before = path.stat().st_size
        db = files.open_writer(path)
        with files.translated(path), contextlib.closing(db.conn):
            db.vacuum()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return before, path.stat().st_size


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Database]:
    """A read-only connection with one snapshot for all that is asked of it."""
    db = files.open_reader(path)
    with contextlib.closing(db.conn), files.translated(path):
        db.execute("BEGIN")
        yield db
