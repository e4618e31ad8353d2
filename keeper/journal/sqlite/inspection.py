"""Looking at a journal without opening it for good: nothing is created, migrated or locked for longer than the look."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import quote

from sqlite_utils import Database

from keeper.domain.errors import JournalBusy, JournalError
from keeper.journal.looking import Inspection
from keeper.journal.sqlite import files, schema
from keeper.journal.sqlite.lock import writer_lock


def inspect(path: Path) -> Inspection:
    """Look. Raises JournalVersion for a newer keeper's file, JournalError when a start could not write it."""
    path = path.absolute()
    _require_writable(path)
    if not path.exists():
        return Inspection(None, schema.VERSION, None, {}, 0)
    holder = None
    try:
        with writer_lock(path):
            pass
    except JournalBusy as busy:
        holder = str(busy)
    with files.translated(path), contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as c:
        db = Database(c, recursive_triggers=False)
        version = schema.version_of(db)
        meta = dict(c.execute("SELECT key, value FROM meta").fetchall()) if version else {}
    return Inspection(version, schema.VERSION, holder, meta, path.stat().st_size)


def _require_writable(path: Path) -> None:
    files.require_folder(path)
    try:
        # SQLite makes its WAL beside the file: the folder has to be writable too. Permission bits don't tell of
        # read-only mounts, so a file without a name is really made.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise JournalError(
            f"The journal {path} can't be written ({error.strerror}). "
            "Give the keeper's user write permission on its folder, or set another path."
        ) from error
