"""The lives of one keeper: it is started, it ends, it is started again, as a service manager would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Sequence
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
    excused: bool = False
    """Whether the network was broken in its time: its start may fail."""
    ready: anyio.Event = field(default_factory=anyio.Event)
    ready_at: float = 0.0
    """When it said so last; several keepers say so each time that they take over."""
    ended: anyio.Event = field(default_factory=anyio.Event)

    @property
    def crashed(self) -> bool:
        """Whether it died at its point: before it was told to end, or while it drained."""
        return self.code == -signal.SIGKILL and self.crash_at is not None and self.graceful


class AnyLives(ABC):
    """What keeps the keepers of a stage alive, be it one or several.

    `kills` counts SIGKILLs by the point where they came, or `random`; `refused_starts` the starts that ended before
    they were ready, as they may while the network is down.
    """

    kills: Counter[str]
    lives: int
    refused_starts: int
    bad_end: str | None
    """The sentence on an end that nobody caused; the campaign stops at it."""

    @property
    @abstractmethod
    def up(self) -> bool:
        """Whether a keeper works."""

    @property
    @abstractmethod
    def url(self) -> str | None:
        """The API of the keeper that works; None while none does."""

    @property
    @abstractmethod
    def armed(self) -> str | None:
        """A point where a present life will die, if it still will."""

    @abstractmethod
    async def start(self, configs: Sequence[KeeperConfig], *, crash_at: str | None = None, cold: bool = False) -> None:
        """Begin the first lives with these configs; further ones follow by themselves until `stop`."""

    @abstractmethod
    async def restart(self, *, graceful: bool, crash_at: str | None) -> None:
        """End the present lives and begin others, which die at a point."""

    @abstractmethod
    def excuse(self, may_fail: bool) -> None:
        """Whether a start may fail: it may while the network is broken, and so may what was begun meanwhile."""

    @abstractmethod
    def arm_next(self, crash_at: str | None) -> None:
        """The next life is to die at this point."""

    @abstractmethod
    def kill(self) -> bool:
        """SIGKILL a present life, wherever it is; whether there was one."""

    @abstractmethod
    async def stop(self, *, graceful: bool) -> None:
        """End the present lives and begin no others; with `graceful` they drain and exit with 0."""

    async def ready(self) -> None:
        """Wait until a keeper works."""
        with anyio.fail_after(_READY_WITHIN_S):
            while not self.up:
                if self.bad_end:
                    raise EndedByItself(self.bad_end)
                await anyio.sleep(0.005)


class Lives(AnyLives):
    """Keeps one keeper alive, in lives that begin in a forked process (`tests.chaos.zygote`).

    `before_work` is what a life is that has not begun to work. `patience` is how many starts in an episode may be
    refused on a network that is well again, where several keepers share a busy machine.
    """

    def __init__(self, zygote: Process, tasks: TaskGroup) -> None:
        self._zygote = zygote
        self._tasks = tasks
        self._life: Life | None = None
        self._crash_at: str | None = None
        self._wanted = False
        self._may_refuse = False
        self.kills = Counter()
        self.lives = 0
        self.refused_starts = 0
        self.before_work = "starting"
        self.patience = 0
        self._refused_lately = 0
        self.bad_end = None

    def __repr__(self) -> str:
        return f"<Lives {self.lives}, {self.kills.total()} kills, now {self._life}>"

    @classmethod
    @asynccontextmanager
    async def open(cls, *planted: str) -> AsyncIterator[Self]:
        """Start the process that keepers are forked from, and follow what it says. Keepers have the fault `planted`."""
        zygote = await anyio.open_process([sys.executable, "-m", "tests.chaos.zygote", *planted], stderr=None)
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
    def life(self) -> Life | None:
        """The present life, or the one that has just ended."""
        return self._life

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

    async def start(self, configs: Sequence[KeeperConfig], *, crash_at: str | None = None, cold: bool = False) -> None:
        """See AnyLives."""
        assert self._life is None or self._life.ended.is_set()
        (config,) = configs
        self._wanted = True
        await self._begin(self._new(config, crash_at), cold=cold)

    async def restart(self, *, graceful: bool, crash_at: str | None) -> None:
        """See AnyLives."""
        assert self._life is not None
        await self.stop(graceful=graceful)
        self._wanted = True
        await self._begin(self._new(self._life.config, crash_at))

    def excuse(self, may_fail: bool) -> None:
        """See AnyLives."""
        self._may_refuse = may_fail
        self._refused_lately = 0
        if may_fail and self._life is not None:
            self._life.excused = True

    def arm_next(self, crash_at: str | None) -> None:
        """The next life is to die at this point."""
        self._crash_at = crash_at

    def kill(self) -> bool:
        """SIGKILL the present life, wherever it is; whether there was one."""
        life = self._life
        if life is None or not life.pid or life.ended.is_set() or life.why:
            return False
        life.why = "random" if life.ready.is_set() else self.before_work
        send_signal(life, signal.SIGKILL)
        return True

    async def stop(self, *, graceful: bool) -> None:
        """End the present life and begin no other; with `graceful` it drains and exits with 0."""
        self._wanted = False
        life = self._life
        if life is None or life.ended.is_set():
            return
        await self._has_begun(life)
        if not life.why:
            life.why = "stop"
            send_signal(life, signal.SIGTERM if graceful else signal.SIGKILL)
            send_signal(life, signal.SIGCONT)
        try:
            with anyio.fail_after(_END_WITHIN_S):
                await life.ended.wait()
        except TimeoutError:
            self._bad(life, f"it did not end within {_END_WITHIN_S:g} s of SIGTERM")
            send_signal(life, signal.SIGKILL)
            await life.ended.wait()
        ended_well = life.code == 0 or life.crashed or not life.ready.is_set()
        if graceful and life.why == "stop" and not ended_well:
            self._bad(life, f"it ended with {life.code} after SIGTERM")

    def _new(self, config: KeeperConfig, crash_at: str | None) -> Life:
        life = self._life = Life(config, crash_at, excused=self._may_refuse)
        self.lives += 1
        return life

    async def _begin(self, life: Life, *, cold: bool = False) -> None:
        config = life.config
        request = {"arguments": config.arguments, "crash_at": life.crash_at, "log": str(config.log), "cold": cold}
        assert self._zygote.stdin is not None
        await self._zygote.stdin.send(json.dumps(request).encode() + b"\n")
        await self._has_begun(life)

    async def _has_begun(self, life: Life) -> None:
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
                    self._life.ready_at = time.monotonic()
                    self._life.ready.set()

    def _ended(self, pid: int, code: int) -> None:
        life = self._life
        if life is None or life.pid != pid:
            return
        life.code = code
        life.ended.set()
        if life.why in ("random", self.before_work):
            self.kills[life.why] += 1
        elif life.crashed:
            self.kills[str(life.crash_at).partition(":")[0]] += 1
        elif life.why != "stop":
            if not life.ready.is_set() and code in (1, 2) and self._may_be_refused(life):
                self.refused_starts += 1
            else:
                self._bad(life, f"it ended by itself with {code}")
        if self._wanted and not self.bad_end:
            crash_at, self._crash_at = self._crash_at, None
            # At once, so that whoever stops it now finds this life and not the one that is over.
            self._tasks.start_soon(self._begin, self._new(life.config, crash_at))

    def _may_be_refused(self, life: Life) -> bool:
        self._refused_lately += not life.excused
        return self._refused_lately <= self.patience and _last_line(life).startswith("keeper: ")

    def _bad(self, life: Life, what: str) -> None:
        self.bad_end = self.bad_end or f"keeper {life.pid}: {what}"


def _last_line(life: Life) -> str:
    """What it said at its end: a sentence for its operator begins with its name, a traceback does not."""
    lines = life.config.log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else ""


def send_signal(life: Life, number: signal.Signals) -> None:
    """Send it to the life's process, if that is still there."""
    life.graceful = life.graceful and number is not signal.SIGKILL
    # It may have ended a moment ago, which is about to be told.
    with contextlib.suppress(ProcessLookupError):
        os.kill(life.pid, number)
