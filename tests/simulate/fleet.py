"""Several keepers of one episode on one journal, and what is done to them and to their database."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import anyio

from keeper.config.settings import Settings
from keeper.journal import Queries
from keeper.journal.sqlite.files import open_reader
from tests.simulate.database.server import Client, Server
from tests.simulate.dice import clock
from tests.simulate.life import Life
from tests.simulate.loop import VirtualLoop
from tests.simulate.network import Link, Network
from tests.simulate.scenario import Act, Several
from tests.simulate.sharer import KeeperLives, Sharer, SimWorld
from tests.simulate.trace import Trace

_FIRST_PORT: Final = 8_080


class Fleet:
    """In the place of one keeper's `Lives`. What is done to one of them is done to the one that works, mostly."""

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network,
        settings: Callable[[Path], Settings],
        folder: Path,
        trace: Trace,
        dice: random.Random,
        several: Several,
    ) -> None:
        self._loop, self._dice, self._several = loop, dice, several
        world = SimWorld(loop)
        self.server = Server(folder / "database", world, dice)
        self.keepers = [
            KeeperLives(
                f"k{n + 1}", _FIRST_PORT + n, self.server, several, world, loop, network, settings, folder, trace, dice
            )
            for n in range(several.keepers)
        ]
        loop.between = self._between
        self._reader: tuple[Path, Queries] | None = None
        self.done: Counter[str] = Counter()

    def _between(self) -> None:
        for its in self.keepers:
            its._between()

    async def run(self) -> None:
        """All of them, the first one a little before the others."""
        async with anyio.create_task_group() as tasks:
            for i, its in enumerate(self.keepers):
                tasks.start_soon(its.run)
                await anyio.sleep(self._dice.uniform(0.0, 1.0) * (i == 0))

    # -- as `Lives`

    def working(self) -> list[Life]:
        """See Lives."""
        return [life for its in self.keepers if (life := its.up) is not None and self._acts(life)]

    def _acts(self, life: Life) -> bool:
        """Whether it can do its work now: it is not stopped, and reaches the database."""
        return isinstance(life, Sharer) and not life.stopped and not life.client.cut and self.server.up

    @property
    def up(self) -> Life | None:
        """See Lives: the one that was the last to say that it is ready."""
        return max(self.working(), key=_ready_at, default=None)

    @property
    def life(self) -> Life | None:
        """See Lives."""
        return self.up or self.keepers[0].life

    def life_of(self, client: Client) -> Life | None:
        """The life that the server knows as this client; None when it is over."""
        lives = [its.sharer for its in self.keepers]
        return next((life for life in lives if life is not None and life.client is client), None)

    def of(self, link: Link) -> Life | None:
        """See Lives."""
        return next((life for its in self.keepers if (life := its.of(link)) is not None), None)

    @property
    def whole(self) -> bool:
        """See Lives: one works and all others stand by, or each has its share."""
        lives = [its.sharer for its in self.keepers]
        if not all(life is not None and (life.ready or life.bystander is not None) for life in lives):
            return False
        return self.server.shares_are_even(len(lives)) if self._several.share else self.up is not None

    def reader(self) -> Queries:
        """See Lives."""
        path = self.server.path
        if self._reader is None or self._reader[0] != path:
            self._reader = (path, Queries(open_reader(path)))
        return self._reader[1]

    @property
    def number(self) -> int:
        """How many lives there were."""
        return sum(its.number for its in self.keepers)

    @property
    def counts(self) -> Counter[str]:
        """How their lives ended."""
        return sum((its.counts for its in self.keepers), Counter())

    @property
    def events(self) -> Counter[str]:
        """What was done to them and to their database, and what came of it."""
        return self.done + self.server.counts + Counter({"stopped at a commit": sum(k.stops for k in self.keepers)})

    @property
    def bad_end(self) -> str | None:
        """See Lives."""
        return next((f"{its.name}: {its.bad_end}" for its in self.keepers if its.bad_end), None)

    @property
    def may_refuse(self) -> bool:
        """See Lives."""
        return all(its.may_refuse for its in self.keepers)

    @may_refuse.setter
    def may_refuse(self, may: bool) -> None:
        for its in self.keepers:
            # One that began before everything was well may still find no node, or no database.
            if may or (its.sharer is not None and its.sharer.joined):
                its.may_refuse = may

    @property
    def errors(self) -> list[str]:
        """See Lives."""
        return [f"{its.name}: {error}" for its in self.keepers for error in its.errors]

    @property
    def power_cuts(self) -> int:
        """How often the database lost what was not durable."""
        return self.server.cut_tails

    @property
    def on_ready(self) -> Callable[[], None]:
        """See Lives."""
        return self.keepers[0].on_ready

    @on_ready.setter
    def on_ready(self, told: Callable[[], None]) -> None:
        for its in self.keepers:
            its.on_ready = told

    def kill_in(self, steps: int, *, power_cut: bool) -> None:
        """See Lives."""
        self._one().kill_in(steps, power_cut=power_cut)

    def term(self) -> None:
        """See Lives."""
        self._one().term()

    @property
    def kill_at_commit(self) -> tuple[int, bool, bool] | None:
        """See Lives."""
        return None

    @kill_at_commit.setter
    def kill_at_commit(self, when: tuple[int, bool, bool] | None) -> None:
        self._one().kill_at_commit = when

    def break_disk(self, fault: str | None, slow_s: float) -> Callable[[], None]:
        """See Lives: the server's."""
        server = self.server
        server.full, server.slow_s = server.full or fault is not None, max(server.slow_s, slow_s)

        def mend() -> None:
            server.full, server.slow_s = False, 0.0

        return mend

    def calm(self) -> None:
        """See Lives."""
        self.server.full, self.server.slow_s = False, 0.0
        self.server.start()
        for its in self.keepers:
            its.stop_at_commit = None
            its.calm()
            if (life := its.sharer) is not None:
                life.go_on()
                life.client.cut, life.client.torn_in, life.link.cut_until = False, None, 0.0

    # -- what is done to several

    def _one(self) -> KeeperLives:
        """Which keeper something is done to."""
        up = self.up
        working = next((its for its in self.keepers if up is not None and its.life is up), None)
        if working is None or self._dice.random() < 0.25:
            return self._dice.choice(self.keepers)
        return working

    async def carry_out(self, act: Act, amount: float, *, calm_from: float) -> None:
        """An act of several keepers. Nothing of it goes on after `calm_from`, by the loop's time."""
        seconds = max(0.0, min(amount, calm_from - self._loop.time()))
        its = self._one()
        life = its.sharer
        match act:
            case Act.DATABASE_DOWN | Act.FAIL_OVER:
                await self._database_down(seconds, fails_over=act is Act.FAIL_OVER)
            case Act.ROLL:
                await self._roll(calm_from)
            case Act.STOP if life is not None:
                life.stop()
                await anyio.sleep(seconds)
                life.go_on()
            case Act.STOP_AT_COMMIT:
                its.stop_at_commit = (self._dice.randint(1, 4), self._dice.random() < 0.7, amount)
            case Act.CUT_DATABASE if life is not None:
                with _cut(life):
                    await anyio.sleep(seconds)
            case Act.TEAR_DATABASE if life is not None:
                life.client.torn_in = round(amount)
            case Act.CUT_CHAIN if life is not None:
                life.link.cut_until = self._loop.time() + seconds
            case _:
                return
        self.done[act] += 1

    async def _database_down(self, seconds: float, *, fails_over: bool) -> None:
        if not self.server.up:
            return
        self.server.stop()
        await anyio.sleep(seconds)
        if fails_over:
            self.server.fail_over()
        self.server.start()

    async def _roll(self, calm_from: float) -> None:
        """Each is told to end, those that stand by first, and is back before the next one is."""
        up = self.up
        for its in sorted(self.keepers, key=lambda its: its.life is up):
            number = its.number
            its.term()
            with anyio.move_on_after(max(0.0, min(8.0, calm_from - self._loop.time()))):
                while its.number == number or its.sharer is None or not its.sharer.served:  # noqa: ASYNC110
                    await anyio.sleep(0.1)


@contextlib.contextmanager
def _cut(life: Sharer) -> Iterator[None]:
    life.client.cut = True
    try:
        yield
    finally:
        life.client.cut, life.free_since = False, clock.real()


def _ready_at(life: Life) -> float:
    return life.ready_at if isinstance(life, Sharer) else 0.0
