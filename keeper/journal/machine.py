"""What the journal needs of the machine under it: threads, and SQLite's files.

In a daemon these are Python's own. A simulation gives threads that take turns with its event loop, and files that fail
and forget as disks do.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import anyio.to_thread


class Condition(Protocol):
    """`threading.Condition`, as far as it is used here."""

    def __enter__(self) -> bool: ...

    def __exit__(self, *exc: Any) -> None: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Let others in until somebody notifies, for at most `timeout` seconds; False when those are over."""
        ...

    def notify(self, n: int = 1) -> None:
        """Wake who waits."""
        ...


class Thread(Protocol):
    """`threading.Thread`, as far as it is used here."""

    def start(self) -> None:
        """Begin."""
        ...

    def join(self) -> None:
        """Return when it has ended."""
        ...


def new_condition() -> Condition:
    """A condition with the plainest lock."""
    return threading.Condition(threading.Lock())


def new_thread(run: Callable[[], None], name: str) -> Thread:
    """A thread that does not keep the process alive."""
    return threading.Thread(target=run, name=name, daemon=True)


@dataclass(frozen=True, slots=True)
class Machine:
    """`in_thread` runs a function beside the event loop, as `anyio.to_thread.run_sync` does; `connect` opens a database
    as `sqlite3.connect` does.
    """

    condition: Callable[[], Condition] = new_condition
    thread: Callable[[Callable[[], None], str], Thread] = new_thread
    in_thread: Callable[..., Awaitable[Any]] = anyio.to_thread.run_sync
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect


REAL = Machine()
"""The machine that the process runs on."""
