"""The folder of recordings: a file a UTC day, the oldest removed when they are too old or too many.

What is here waits for the disk, and so is called in a thread.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from keeper.recording.blocks import HEAD, blocks, whole_bytes
from keeper.recording.entries import Entry

_NAME: Final = re.compile(r"\d{4}-\d\d-\d\d\.rec")


class NoRoom(OSError):
    """The day's own file would take more than all files may."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`max_bytes` for all files together, `keep_days` for each."""

    keep_days: int
    max_bytes: int


class Folder:
    """Writes one file at a time. OSError, NoRoom among them, leaves the file whole up to the last whole block."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self.path = path
        self.bounds = bounds
        self.written_bytes = 0
        """Since the start."""
        self._day: datetime.date | None = None
        self._file: BinaryIO | None = None
        self._others: list[tuple[Path, int]] = []
        self._bytes = 0
        self._lock = threading.Lock()  # whoever gave a slow disk up may ask again before it is done

    def __repr__(self) -> str:
        return f"Folder({self.path}, {self._day}, {self._bytes} bytes)"

    def write(self, day: datetime.date, entries: Sequence[Entry]) -> None:
        """Append entries to that day's file."""
        with self._lock:
            try:
                if self._file is None or day != self._day:
                    self._open(day)
                for block in blocks(entries):
                    self._append(block)
            except OSError:
                self._let_go()  # what was half written is cut off when it is opened again
                raise

    def close(self) -> None:
        """Let the file go, when nobody writes to it any more."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = None

    def _open(self, day: datetime.date) -> None:
        self._let_go()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path / f"{day.isoformat()}.rec"
        oldest = (day - datetime.timedelta(days=self.bounds.keep_days - 1)).isoformat()
        self._others = []
        for other in sorted(self.path.iterdir()):
            if not _NAME.fullmatch(other.name) or other == path:
                continue
            if other.name < oldest:
                other.unlink()
            else:
                self._others.append((other, other.stat().st_size))
        # Unbuffered: what was written is the kernel's, and outlives the process.
        file = self._file = path.open("ab", buffering=0)
        self._day = day
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(errno.EBUSY, "another keeper records in this folder") from None
        whole = whole_bytes(path)
        file.truncate(whole)
        self._bytes = whole
        if not whole:
            self._append(HEAD)

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        while self._bytes + len(data) + sum(size for _, size in self._others) > self.bounds.max_bytes:
            if not self._others:
                raise NoRoom(f"{self.path} would take more than {self.bounds.max_bytes} bytes")
            oldest, _ = self._others.pop(0)
            oldest.unlink(missing_ok=True)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        self._bytes += len(data)
        self.written_bytes += len(data)
