"""Several keepers of one service: each is kept alive on its own, and one of them works, or all do."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Self

import anyio
import httpx

from tests.chaos.lives import AnyLives, Life, Lives, send_signal
from tests.support import KeeperConfig

TOKEN: Final = "the operator's"
_LOOK_EVERY_S: Final = 0.05
_WITHIN_S: Final = 5.0
_PATIENCE: Final = 3


class Fleet(AnyLives):
    """Keeps several keepers alive. The one that works is the one that was the last to say that it is ready.

    Where they are `sharing` the markets all work, and whatever is done to the one that works is done to any of them.
    """

    def __init__(self, keepers: Sequence[Lives], *, seed: str) -> None:
        self._keepers = keepers
        self._dice = random.Random(f"{seed}/fleet")
        self._next: str | None = None
        self._paused: set[int] = set()
        self.sharing = False
        self.done: Counter[str] = Counter()
        """What was done to keepers beside kills, and what came of it."""
        self.free_since: dict[str, float] = {}
        """By keeper: when it was let go on, or was connected again. `time.time()`."""

    @classmethod
    @asynccontextmanager
    async def open(cls, keepers: int, seed: str, *planted: str) -> AsyncIterator[Self]:
        """So many keepers, with the fault `planted`."""
        async with AsyncExitStack() as stack:
            lives = [await stack.enter_async_context(Lives.open(*planted)) for _ in range(keepers)]
            for its in lives:
                its.before_work, its.patience = "standing by", _PATIENCE
            yield cls(lives, seed=seed)

    def __repr__(self) -> str:
        return f"<Fleet of {len(self._keepers)}, {self.working} works>"

    @property
    def working(self) -> Lives | None:
        """Which keeper works, as far as it is known here; None while none does."""
        up = [its for its in self._keepers if its.up]
        return max(up, key=lambda its: _life(its).ready_at, default=None)

    def victim(self) -> Lives | None:
        """The one that works; where they share the markets, any that does. None while none does."""
        if not self.sharing:
            return self.working
        up = [its for its in self._keepers if its.up]
        return self._dice.choice(up) if up else None

    # -- as with one keeper

    @property
    def kills(self) -> Counter[str]:  # type: ignore[override]  # the sum over its keepers
        """See AnyLives."""
        return sum((its.kills for its in self._keepers), Counter[str]())

    @property
    def lives(self) -> int:  # type: ignore[override]
        """See AnyLives."""
        return sum(its.lives for its in self._keepers)

    @property
    def refused_starts(self) -> int:  # type: ignore[override]
        """See AnyLives."""
        return sum(its.refused_starts for its in self._keepers)

    @property
    def bad_end(self) -> str | None:
        """See AnyLives."""
        return next((its.bad_end for its in self._keepers if its.bad_end), None)

    @bad_end.setter
    def bad_end(self, sentence: str | None) -> None:
        for its in self._keepers:
            its.bad_end = sentence

    @property
    def up(self) -> bool:
        """See AnyLives: where they share the markets, whether all do."""
        return all(its.up for its in self._keepers) if self.sharing else self.working is not None

    @property
    def url(self) -> str | None:
        """See AnyLives."""
        its = self.victim()
        return None if its is None else its.url

    @property
    def armed(self) -> str | None:
        """See AnyLives."""
        return next((its.armed for its in self._keepers if its.armed), None)

    async def start(self, configs: Sequence[KeeperConfig], *, crash_at: str | None = None, cold: bool = False) -> None:
        """See AnyLives: the first one works, if it is to start cold."""
        for its, config in zip(self._keepers, configs, strict=True):
            await its.start([config], crash_at=crash_at, cold=cold and its is self._keepers[0])
            if its is self._keepers[0]:
                await its.ready()

    async def restart(self, *, graceful: bool, crash_at: str | None) -> None:
        """See AnyLives. One after the other, as in an upgrade, and the one that works is the last; `graceful` is about
        that one. `crash_at` is for whichever gets there, and each dies there once. Where their next lives are to die at
        another point, the last one does already: it takes over from one that died at the first.
        """
        last = self.victim() or self._keepers[0]
        for its in self._keepers:
            if its is not last:
                await its.restart(graceful=True, crash_at=crash_at)
        await last.restart(graceful=graceful, crash_at=crash_at and (self._next or crash_at))
        self.done["rolling restarts"] += 1

    def excuse(self, may_fail: bool) -> None:
        """See AnyLives."""
        for its in self._keepers:
            its.excuse(may_fail)

    def arm_next(self, crash_at: str | None) -> None:
        """See AnyLives: the next life of each."""
        self._next = crash_at
        for its in self._keepers:
            its.arm_next(crash_at)

    def kill(self) -> bool:
        """See AnyLives. Mostly the one that works."""
        its = self.victim()
        if its is None or self._dice.random() < 0.25:
            its = self._dice.choice(self._keepers)
        return its.kill()

    async def stop(self, *, graceful: bool) -> None:
        """See AnyLives. Those that stand by are the first, so that nobody takes over from the last."""
        for its in sorted(self._keepers, key=lambda its: its is self.working):
            await its.stop(graceful=graceful)

    # -- what is done to several

    async def pause(self, seconds: float) -> None:
        """SIGSTOP to the one that works, and SIGCONT so much later."""
        its = self.victim()
        if its is None:
            return
        life = _life(its)
        self._paused.add(life.pid)
        send_signal(life, signal.SIGSTOP)
        self.done["stopped"] += 1
        await anyio.sleep(seconds)
        self._paused.discard(life.pid)
        self._let_go(life)

    async def let_go_when_stopped(self, meanwhile: Callable[[str], Awaitable[None]]) -> None:
        """Watch for keepers that a point has stopped, and let each go on after `meanwhile`, which is told the point.
        Runs until cancelled.
        """
        async with anyio.create_task_group() as tasks:

            async def later(life: Life, point: str) -> None:
                await meanwhile(point)
                self._let_go(life)

            while True:
                for its in self._keepers:
                    life = its.life
                    if life is None or life.crash_at is None or life.pid in self._paused or life.ended.is_set():
                        continue
                    if life.crash_at.endswith(":stop") and is_stopped(life.pid):
                        point = life.crash_at.partition(":")[0]
                        self.done[f"stopped at {point}"] += 1
                        life.crash_at = None
                        tasks.start_soon(later, life, point)
                await anyio.sleep(_LOOK_EVERY_S)

    def _let_go(self, life: Life) -> None:
        self.freed(life.config)
        send_signal(life, signal.SIGCONT)

    def freed(self, config: KeeperConfig) -> None:
        """The keeper of this config can act again."""
        self.free_since[config.folder.name] = time.time()

    async def drain(self) -> None:
        """Have the one that works hand the service over, as `keeper drain` does."""
        its = self.victim()
        if its is None or its.url is None:
            return
        life = _life(its)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(base_url=its.url, timeout=_WITHIN_S, headers=headers) as http:
                answer = await http.post("/v1/admin/drain")
                if answer.status_code == 202:
                    life.ready = anyio.Event()
                    self.done["drained"] += 1


def _life(its: Lives) -> Life:
    assert its.life is not None
    return its.life


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process (proc(5): the state is the word after the name)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False
