"""The lives of one keeper: it is started, it ends, it is started again, as a service manager would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import anyio
from anyio.abc import Process, TaskGroup

from tests.support import BOUND_S, KeeperConfig

_READY_WITHIN_S = 120.0
_END_WITHIN_S = 20.0


class EndedByItself(AssertionError):
    """The keeper ended and nobody had killed it."""


@dataclass(eq=False)
class Life:
    """One process. `code` is set when it has ended: negative for a signal."""

    config: KeeperConfig
    crash_at: str | None
    begun: float = field(default_factory=time.monotonic)
    pid: int = 0
    url: str = ""
    code: int | None = None
    why: str = ""
    """Why it was told to end; empty while it was not."""
    graceful: bool = True
    """False once it was sent SIGKILL."""
    ready: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)

    @property
    def crashed(self) -> bool:
        """Whether it died at its point: before it was told to end, or while it drained."""
        return self.code == -signal.SIGKILL and self.crash_at is not None and self.graceful


class Lives:
    """Keeps a keeper alive, in lives that begin in a forked process (`tests.chaos.zygote`).

    `kills` counts SIGKILLs by the point where they came, or `random`; `refused_starts` the starts that ended before
    they were ready, as they may while the network is down.
    """

    def __init__(self, zygote: Process, tasks: TaskGroup) -> None:
        self._zygote = zygote
        self._tasks = tasks
        self._life: Life | None = None
        self._crash_at: str | None = None
        self._wanted = False
        self._up_again = anyio.Event()
        self.kills: Counter[str] = Counter()
        self.lives = 0
        self.refused_starts = 0
        self.ready_s: list[float] = []
        self.bad_end: str | None = None
        """The sentence on an end that nobody caused; the campaign stops at it."""
        self.may_refuse = False
        """Whether a start may fail: while the network is broken."""

    def __repr__(self) -> str:
        return f"<Lives {self.lives}, {self.kills.total()} kills, now {self._life}>"

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Start the process that keepers are forked from, and follow what it says."""
        zygote = await anyio.open_process([sys.executable, "-m", "tests.chaos.zygote"], stderr=None)
        async with zygote, anyio.create_task_group() as tasks:
            lives = cls(zygote, tasks)
            warm = anyio.Event()
            tasks.start_soon(lives._listen, warm)
            with anyio.fail_after(60):
                await warm.wait()
            try:
                yield lives
            finally:
                with anyio.CancelScope(shield=True):
                    await lives.stop(graceful=False)
                    tasks.cancel_scope.cancel()
                    assert zygote.stdin is not None
                    await zygote.stdin.aclose()

    @property
    def up(self) -> bool:
        """Whether the present life is ready."""
        life = self._life
        return life is not None and life.ready.is_set() and not life.ended.is_set() and not life.why

    @property
    def url(self) -> str | None:
        """The present life's API; None while it is not ready."""
        return self._life.url if self._life is not None and self.up else None

    @property
    def armed(self) -> str | None:
        """The point where the present life will die, if it still will."""
        return None if self._life is None else self._life.crash_at

    async def start(self, config: KeeperConfig, *, crash_at: str | None = None, cold: bool = False) -> None:
        """Begin the first life with this config; further ones follow by themselves until `stop`."""
        assert self._life is None or self._life.ended.is_set()
        self._wanted = True
        await self._begin(config, crash_at, cold=cold)

    def arm_next(self, crash_at: str | None) -> None:
        """The next life is to die at this point."""
        self._crash_at = crash_at

    def kill(self) -> bool:
        """SIGKILL the present life, wherever it is; whether there was one."""
        life = self._life
        if life is None or not life.pid or life.ended.is_set() or life.why:
            return False
        life.why = "random" if life.ready.is_set() else "starting"
        _signal(life, signal.SIGKILL)
        return True

    async def stop(self, *, graceful: bool) -> None:
        """End the present life and begin no other; with `graceful` it drains and exits with 0."""
        self._wanted = False
        life = self._life
        if life is None or life.ended.is_set():
            return
        if not life.why:
            life.why = "stop"
            _signal(life, signal.SIGTERM if graceful else signal.SIGKILL)
        try:
            with anyio.fail_after(_END_WITHIN_S):
                await life.ended.wait()
        except TimeoutError:
            self._bad(life, f"it did not end within {_END_WITHIN_S:g} s of SIGTERM")
            _signal(life, signal.SIGKILL)
            await life.ended.wait()
        if graceful and life.why == "stop" and life.code != 0 and life.ready.is_set() and not life.crashed:
            self._bad(life, f"it ended with {life.code} after SIGTERM")

    async def ready(self) -> None:
        """Wait until a life is ready."""
        with anyio.fail_after(_READY_WITHIN_S):
            while not self.up:
                if self.bad_end:
                    raise EndedByItself(self.bad_end)
                await anyio.sleep(0.005)

    async def _begin(self, config: KeeperConfig, crash_at: str | None, *, cold: bool = False) -> None:
        life = self._life = Life(config, crash_at)
        self.lives += 1
        request = {"arguments": config.arguments, "crash_at": crash_at, "log": str(config.log), "cold": cold}
        assert self._zygote.stdin is not None
        await self._zygote.stdin.send(json.dumps(request).encode() + b"\n")
        with anyio.fail_after(BOUND_S):
            while not life.pid:  # noqa: ASYNC110 - what is waited for is outside this process
                await anyio.sleep(0.002)

    async def _listen(self, warm: anyio.Event) -> None:
        assert self._zygote.stdout is not None
        rest = b""
        async for received in self._zygote.stdout:
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if "warm" in said:
                    warm.set()
                elif "started" in said:
                    assert self._life is not None
                    self._life.pid = said["started"]
                elif "ended" in said:
                    self._ended(said["ended"], said["code"])
                elif self._life is not None:
                    self._life.url = said["http_url"]
                    self._life.ready.set()
                    self.ready_s.append(time.monotonic() - self._life.begun)

    def _ended(self, pid: int, code: int) -> None:
        life = self._life
        if life is None or life.pid != pid:
            return
        life.code = code
        life.ended.set()
        if life.why in ("random", "starting"):
            self.kills[life.why] += 1
        elif life.crashed:
            self.kills[str(life.crash_at).partition(":")[0]] += 1
        elif life.why != "stop":
            if not life.ready.is_set() and self.may_refuse and code in (1, 2) and _said_why(life):
                self.refused_starts += 1
            else:
                self._bad(life, f"it ended by itself with {code}")
        if self._wanted and not self.bad_end:
            crash_at, self._crash_at = self._crash_at, None
            self._tasks.start_soon(self._begin, life.config, crash_at)

    def _bad(self, life: Life, what: str) -> None:
        self.bad_end = self.bad_end or f"keeper {life.pid}: {what}"


def _said_why(life: Life) -> bool:
    """Whether it refused to start with a sentence for its operator, rather than with a traceback."""
    lines = life.config.log.read_text(errors="replace").splitlines()
    return bool(lines) and lines[-1].startswith("keeper: ")


def _signal(life: Life, number: signal.Signals) -> None:
    life.graceful = life.graceful and number is not signal.SIGKILL
    # It may have ended a moment ago, which is about to be told.
    with contextlib.suppress(ProcessLookupError):
        os.kill(life.pid, number)
