"""The lives of one keeper: the real one, wired as ever by `keeper.app`, in a simulated world; killed, and back again.

Dead is at once: from that step on nothing of it reaches the network or the disk, and the next life finds the files that
this one had made durable. What is left of its tasks is cancelled and comes to nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import TaskStatus

from keeper.app import wiring
from keeper.config.settings import Settings
from keeper.domain.errors import KeeperError
from keeper.http.ports import ApiPorts
from keeper.journal import Queries
from keeper.journal.machine import Machine
from keeper.journal.sqlite.files import open_reader
from keeper.runtime.outside import Outside
from keeper.runtime.schedule import Schedule
from tests.simulate.api import Api
from tests.simulate.disk import Disk
from tests.simulate.loop import VirtualLoop
from tests.simulate.network import Link, Network
from tests.simulate.threads import Killed, Threads
from tests.simulate.trace import Trace

_IN_THREAD_S: Final = 0.002


class VirtualSchedule(Schedule):
    """Ticks in virtual time: APScheduler reads the real time of day."""

    def __init__(self) -> None:
        pass

    async def __aenter__(self) -> VirtualSchedule:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        pass

    async def ticks(self, name: str, *, every_s: float) -> Any:
        while True:
            yield
            await anyio.sleep(every_s)


class NoLag:
    """A loop in virtual time is never late."""

    longest_s = 0.0

    def close(self) -> None:
        pass


class Life:
    """One life, from its start to its end. `ended` has the error that it ended with by itself."""

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network,
        settings: Callable[[Path], Settings],
        folder: Path,
        dice: random.Random,
    ) -> None:
        self._loop = loop
        self.link = Link(network)
        self.threads = Threads(loop)
        self.disk = Disk(folder, self.threads, dice)
        self._settings = settings(self.disk.path)
        self._dice = dice
        self.ready = False
        self.dead = False
        self.told_to_end = False
        self.ended = asyncio.Event()
        self.on_ready: Callable[[], None] = lambda: None
        self.error: BaseException | None = None
        self.api: Api | None = None
        self.served = False
        """Whether its API ever was there."""
        self._task: asyncio.Task[None] | None = None

    @property
    def asked(self) -> Api | None:
        """The API that answers, whether it works or not."""
        return self.api

    def start(self) -> None:
        self._task = self._loop.create_task(self._run(), name="keeper")
        # One that is told to end before its first step never comes to its own `finally`.
        self._task.add_done_callback(lambda _: self.ended.set())

    @property
    def outside(self) -> Outside:
        """What it reaches of the world."""
        return Outside(
            transport=self.link.transport,
            connect=self.link.connect,
            machine=Machine(
                condition=self.threads.condition,
                thread=self.threads.thread,
                in_thread=self._in_thread,
                connect=self.disk.connect,
            ),
            schedule=VirtualSchedule,
            lag=NoLag,  # type: ignore[arg-type]
            run_api=self._run_api,
        )

    async def _live(self) -> None:
        await wiring.run(self._settings, on_ready=self._became_ready, outside=self.outside)

    async def _run(self) -> None:
        try:
            await self._live()
        except BaseException as error:
            if not self.dead:
                self.error = error
            if isinstance(error, asyncio.CancelledError | Killed):
                return
        finally:
            self.ready = False
            self.ended.set()

    async def _in_thread(self, work: Callable[..., Any], *args: Any, limiter: Any = None) -> Any:
        await anyio.sleep(self._dice.random() * _IN_THREAD_S)
        if self.dead:
            await anyio.sleep_forever()
        return work(*args)

    async def _run_api(
        self, ports: ApiPorts, host: str, port: int, wallets: Any = (), *, task_status: TaskStatus[int]
    ) -> None:
        self.served = True
        self.api = Api(ports, wallets)
        await self.api.serve(task_status)

    def _became_ready(self, ready: wiring.Ready) -> None:
        self.ready = True
        self.on_ready()

    def die(self, *, power_cut: bool) -> tuple[bytes, bytes]:
        """Be dead from here on; the files as the next life finds them."""
        kept = self.disk.kept(power_cut=power_cut)
        self.dead = self.link.dead = self.disk.dead = self.threads.dead = True
        self.ready = False
        self.link.network.cut(self.link)
        self._loop.call_soon(self._bury)
        self.ended.set()  # its tasks may hang on what never comes
        return kept

    def _bury(self) -> None:
        self.threads.kill()
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """Begin to end, as after SIGTERM."""
        assert self._task is not None
        self.told_to_end = True
        self._task.cancel()


class Lives:
    """Keeps a keeper alive until `stop`."""

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network,
        settings: Callable[[Path], Settings],
        folder: Path,
        trace: Trace,
        dice: random.Random,
    ) -> None:
        self._loop, self._network, self._settings = loop, network, settings
        self._folder, self._trace, self._dice = folder, trace, dice
        self.life: Life | None = None
        self.journal: Queries | None = None
        self.number = 0
        self.counts: Counter[str] = Counter()
        self.bad_end: str | None = None
        self.may_refuse = True
        self._kept: tuple[bytes, bytes] = (b"", b"")
        self._kill_at: tuple[int, bool] | None = None
        self._wait_s = 0.0
        self.on_ready: Callable[[], None] = lambda: None
        loop.between = self._between

    @property
    def up(self) -> Life | None:
        """The present life, if it is ready."""
        life = self.life
        return life if life is not None and life.ready and not life.dead else None

    @property
    def label(self) -> str:
        """Which life it is, in the trace."""
        return str(self.number)

    def working(self) -> list[Life]:
        """The lives that work now, and are not stopped."""
        return [] if self.up is None else [self.up]

    def of(self, link: Link) -> Life | None:
        """Whose link it is; None when that one is no more."""
        return self.life if self.life is not None and self.life.link is link else None

    @property
    def whole(self) -> bool:
        """Whether all that should run does."""
        return self.up is not None

    @property
    def errors(self) -> list[str]:
        """Of what the present life's threads died."""
        return [] if self.life is None else self.life.threads.errors

    def break_disk(self, fault: str | None, slow_s: float) -> Callable[[], None]:
        """From now on COMMITs fail, or are slow. What makes it well again."""
        life = self.life
        if life is None:
            return lambda: None
        disk = life.disk
        disk.fault, disk.slow_s = fault or disk.fault, slow_s or disk.slow_s

        def mend() -> None:
            disk.slow_s, disk.fault = 0.0, None

        return mend

    def calm(self) -> None:
        """From now on nothing breaks."""
        self.kill_at_commit = None
        if self.life is not None:
            self.life.disk.fault, self.life.disk.slow_s = None, 0.0

    @property
    def power_cuts(self) -> int:
        """How often the power has gone so far."""
        return self.counts["power ready"] + self.counts["power starting"]

    async def run(self) -> None:
        """One life after the other."""
        while True:
            self.number += 1
            life = self.life = self._next_life()
            life.on_ready = self.on_ready
            life.start()
            await life.ended.wait()
            if not life.dead:
                self._ended_by_itself(life)
                self._kept = life.die(power_cut=False)
            await anyio.sleep(self._wait_s + self._dice.uniform(0.2, 2.0))
            self._wait_s = 0.0

    def _next_life(self) -> Life:
        folder = self._folder / f"life-{self.number}"
        life = Life(self._loop, self._network, self._settings, folder, self._dice)
        life.disk.put(self._kept)
        life.disk.on_commit = partial(self._on_commit, life)
        self.journal = None
        self._trace.note("life", f"{self.label} begins, a journal of {len(self._kept[0])} bytes")
        return life

    def reader(self) -> Queries | None:
        """The present journal, read beside the keeper; None before there is one."""
        life = self.life
        if self.journal is None and life is not None and not life.dead and (life.disk.commits or self._kept[0]):
            self.journal = Queries(open_reader(life.disk.path))
        return self.journal

    def kill(self, *, power_cut: bool, why: str) -> None:
        """End the present life in this step."""
        life = self.life
        if life is None or life.dead:
            return
        self._kept = life.die(power_cut=power_cut)
        self.journal = None
        how = "power" if power_cut else "kill"
        self.counts[f"{how} {'ready' if life.served else 'starting'}"] += 1
        self._trace.note("life", f"{self.label} is over: {how} {why}")

    def kill_in(self, steps: int, *, power_cut: bool) -> None:
        """The same, some steps of the loop later."""
        self._kill_at = (self._loop.steps + steps, power_cut)

    def term(self) -> None:
        """SIGTERM."""
        life = self.life
        if life is not None and not life.dead and not life.told_to_end:
            self._trace.note("life", f"{self.label} is told to end")
            life.end()

    def _between(self) -> None:
        if self._kill_at is not None and self._loop.steps >= self._kill_at[0]:
            power_cut, self._kill_at = self._kill_at[1], None
            self.kill(power_cut=power_cut, why="between two steps")

    # -- at a commit

    kill_at_commit: tuple[int, bool, bool] | None = None
    """After so many COMMITs; whether the power goes; whether before that COMMIT rather than after it."""

    def _on_commit(self, life: Life, before: bool) -> None:
        if self.kill_at_commit is None or life is not self.life or life.dead:
            return
        left, power_cut, wants_before = self.kill_at_commit
        if before != wants_before:
            return
        left -= 1
        self.kill_at_commit = (left, power_cut, wants_before)
        if left <= 0:
            self.kill_at_commit = None
            self.kill(power_cut=power_cut, why=f"{'before' if before else 'after'} a commit")

    def _ended_by_itself(self, life: Life) -> None:
        error = _first(life.error)
        if life.told_to_end and isinstance(error, asyncio.CancelledError | None):
            self.counts["term"] += 1
            self._trace.note("life", f"{self.label} has ended")
            return
        text = f"{type(error).__name__}: {error}".replace(str(self._folder), "~")
        self._trace.note("life", f"{self.label} ended by itself: {text}")
        self.counts["ended by itself" if life.served else "refused start"] += 1
        if not (self.may_refuse and not life.served and isinstance(error, KeeperError)):
            self.bad_end = self.bad_end or f"the keeper ended by itself: {text}"


def _first(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
