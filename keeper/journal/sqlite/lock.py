"""One writer per journal: an exclusive lock that lives as long as the process does."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from keeper.domain.errors import JournalBusy, JournalError


@contextlib.contextmanager
def writer_lock(journal: Path) -> Iterator[None]:
    """Hold `<journal>.lock` exclusively; the kernel lets go of it when the process dies, however it dies.

    The file holds the holder's pid for the message to the second one. It is never removed: a lock on a removed
    file guards nothing, since the next process would create and lock another one of the same name.

    Raises JournalBusy when another process, or this one, holds it.
    """
    path = journal.with_name(journal.name + ".lock")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise JournalError(
            f"The journal's lock file {path} can't be opened ({error.strerror}). "
            "Give the keeper's user write permission on its folder."
        ) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise JournalBusy(
                f"The journal {journal} is in use by the keeper with process id {holder}. "
                "Stop that one first, or give this one a journal of its own."
            ) from None
        with contextlib.suppress(OSError):  # on a full disk it is held without its holder's pid, which is for people
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(fd)
