"""The stage of several keepers: two PostgreSQL servers, and each keeper's cables to them and proxies to the chain."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import anyio
import psycopg
from anyio.abc import TaskGroup, TaskStatus
from solders.pubkey import Pubkey

from keeper.demo.postgres import PostgresServer
from keeper.journal import Home, home_of
from keeper.journal.looking import Holder, shares, working_lease
from keeper.journal.postgres.connection import Database, Place
from keeper.journal.postgres.leases import holders
from tests.chaos.cable import Cable
from tests.chaos.embedded import EmbeddedStage
from tests.chaos.fleet import TOKEN, Fleet
from tests.chaos.guard import SeveralWitness, as_keeper, guard, unlawful
from tests.chaos.invariants import Record
from tests.chaos.proxy import FaultProxy, Kind, Storm
from tests.chaos.proxy.faults import Calm, Faults
from tests.chaos.scenario import START_1E6, Act, Event, Scenario
from tests.chaos.stage import Stage
from tests.support import KeeperConfig, World
from tests.support.postgres import both, follow, kill, promote, spare_of

_OUT_OF_TOUCH: Final = {Kind.REQUEST_LOST: 1.0, Kind.SOCKET_SILENT: 1.0, Kind.SOCKET_REFUSED: 1.0}


class SeveralStage(EmbeddedStage):
    """Made by `several`."""

    lease_s = 2.0
    # Nine processes on a machine with other work lose leases that run for two seconds, and begin anew.
    settle_within_s = 180.0
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **EmbeddedStage.settings,
        "http": {"admin_token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()},
    }

    def __init__(
        self,
        world: World,
        fleet: Fleet,
        witness: SeveralWitness,
        servers: tuple[PostgresServer, PostgresServer],
        cables: Sequence[tuple[Cable, Cable]],
        proxies: Sequence[FaultProxy],
        folder: Path,
        tasks: TaskGroup,
    ) -> None:
        super().__init__(world, proxies, fleet, witness, folder)
        self.keepers = len(cables)
        self._fleet = fleet
        self._judge = witness
        self._servers = servers
        self._server, self._spare = servers
        """Which takes writes, and which may take over from it or does not run."""
        self._cables = cables
        """Of each keeper, to each server."""
        self._tasks = tasks
        self._serves = anyio.Lock()
        """Who has it may stop the server."""
        self._may_break = False
        self._database = ""
        self._leases: Database | None = None
        self._markets: list[Pubkey] = []
        """Those that the episodes use, one after the other: each that a keeper shares is a lease."""
        self._others: list[Pubkey] = []

    @classmethod
    @asynccontextmanager
    async def several(
        cls,
        folder: Path,
        keepers: int,
        planted: Sequence[str],
        *,
        seed: str,
        alpenglow_from: int | None,
        like: Scenario,
    ) -> AsyncIterator[Stage]:
        """Build it, with a server of its own, and a spare one, for episodes of a kind `like` this one.
        RuntimeError when there is no PostgreSQL.
        """
        async with AsyncExitStack() as stack:
            server = stack.enter_context(PostgresServer.running())
            servers = server, stack.enter_context(spare_of(server))
            world = await stack.enter_async_context(cls.chain(alpenglow_from))
            fleet = await stack.enter_async_context(Fleet.open(keepers, f"{seed}/{folder.name}", *planted))
            witness = SeveralWitness(world.bank, fleet)
            stack.callback(witness.attend, None)
            cables = []
            for _ in range(keepers):
                first, second = (Cable(each.socket_file) for each in servers)
                cables.append((await stack.enter_async_context(first), await stack.enter_async_context(second)))
            proxies: list[FaultProxy] = []
            for name in _names(keepers):
                way = cls.ways(world.net.rpc_url, world.net.ws_url, witness, seed, f"{name}/")
                proxies += await stack.enter_async_context(way)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            stage = cls(world, fleet, witness, servers, cables, proxies, folder, tasks)
            await stack.enter_async_context(stage.making_blocks())
            tasks.start_soon(fleet.let_go_when_stopped, stage.while_stopped)
            await stack.enter_async_context(stage.playing(like.markets, forgotten=like.forgotten))
            yield stage

    @property
    def home(self) -> Home:
        """See Stage: past the cables."""
        return home_of(self._url)

    @property
    def _url(self) -> str:
        """The present journal, on whichever server takes writes."""
        return f"{both(*self._servers, self._database)}&target_session_attrs=read-write"

    async def new_journal(self, shared_markets: int = 1, *, forgotten: bool = False) -> None:
        """See Stage: a database of its own, with a guard in it."""
        self._judge.attend(None)
        self._fleet.sharing = shared_markets > 1 and not forgotten
        # Before the keepers: where there is no market, none has anything to work on.
        await self.markets(shared_markets, price_1e6=START_1E6)
        self._database = f"keepers_{self._journals + 1}"
        with psycopg.connect(self._server.url(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {self._database}")
        await super().new_journal(shared_markets, forgotten=forgotten)
        guard(self._url)
        self._leases = Database(Place(self._url))
        self._judge.attend(self._leases)

    async def _configs(self, folder: Path) -> Sequence[KeeperConfig]:
        configs = []
        for i, (name, cables) in enumerate(zip(_names(self.keepers), self._cables, strict=True)):
            settings = self._settings(self.proxies[2 * i : 2 * i + 2])
            hosts = ",".join(f"127.0.0.1:{cable.port}" for cable in cables)
            url = f"postgresql://postgres@{hosts}/{self._database}"
            settings["journal"] = {"url": as_keeper(url, name)}
            share = self.shared_markets > 1 and not (self.forgotten and i == 0)
            settings["cluster"] = {"name": name, "lease_s": self.lease_s, "share_markets": share}
            configs.append(KeeperConfig.at(folder / name, self.key, **settings))
        return configs

    def counts(self) -> Counter[str]:
        counts = self._judge.counts + Counter({f"keeper {what}": n for what, n in self._fleet.done.items()})
        logs = (log.read_text(errors="replace") for log in self.folder.glob("*/*/keeper.log"))
        for log in logs:
            counts["leases lost"] += log.count('"keeper.lease_lost"')
            counts["shares moved"] += log.count('"keeper.share_moved"')
        return counts

    async def prepare(self, events: Sequence[Event]) -> None:
        self._may_break = False
        if any(event.act is Act.FAIL_OVER for event in events):
            async with self._serves:
                await anyio.to_thread.run_sync(follow, self._spare, self._server)

    def weather(self, faults: Sequence[Faults]) -> None:
        super().weather(faults)
        self._may_break |= not all(isinstance(its, Calm) for its in faults)

    def clear(self) -> None:
        super().clear()
        for cables in self._cables:
            for cable in cables:
                cable.mend()

    async def markets(self, count: int, *, price_1e6: int) -> Sequence[Pubkey]:
        """See Stage: the same ones again, because each new one changes the keepers' shares."""
        self._markets += [self.world.market() for _ in range(count - len(self._markets))]
        for market in self._markets:
            self.world.set_price(market, price_1e6)
        return self._markets[:count]

    async def unsettled(self) -> Sequence[str]:
        """See Stage: every market is somebody's, and each keeper has its share."""
        if self.shared_markets == 1:
            return ()
        async with self._serves:
            try:
                assert self._leases is not None
                held = holders(self._leases)
            except psycopg.OperationalError:
                return ("the database does not answer",)
        if self.forgotten and working_lease(held) is not None:
            return ()
        there = {str(market) for market in (*self._markets, *self._others) if self.world.bank.account(market)}
        share = _names(self.keepers)[self.forgotten :]
        return not_even([lease for lease in held if lease.holder in share], there, len(share))

    async def read(self, markets: Sequence[Pubkey], orders: Iterable[Pubkey]) -> Record:
        async with self._serves:  # whoever reads the chain reads the journal next
            return await super().read(markets, orders)

    async def judge(self) -> Sequence[str]:
        async with self._serves:
            return [*self._judge.settle(), *await super().judge(), *unlawful(self._url)]

    # -- what breaks

    async def act(self, event: Event) -> None:
        match event.act:
            case Act.STOP:
                await self._fleet.pause(event.amount)
            case Act.DRAIN:
                await self._fleet.drain()
            case Act.ROLL:
                await self._fleet.restart(graceful=True, crash_at=None)
            case Act.CUT_DATABASE | Act.TEAR_DATABASE | Act.CUT_CHAIN:
                await self._cut_off(event)
            case Act.DATABASE_DOWN:
                await self._database_down(event.amount)
                self.chain_faults[event.act] += 1
            case Act.FAIL_OVER:
                await self._fail_over(event.amount)
                self.chain_faults[event.act] += 1
            case Act.MARKET:
                self._others.append(self.world.market())
                self.chain_faults[event.act] += 1
            case _:
                await super().act(event)

    async def _cut_off(self, event: Event) -> None:
        its = self._fleet.victim()
        if its is None or its.life is None:
            return
        config = its.life.config
        i = _names(self.keepers).index(config.folder.name)
        if event.act is Act.CUT_CHAIN:
            until = time.monotonic() + event.amount
            for k in (2 * i, 2 * i + 1):
                seed = f"{config.folder.name}/{k}/{event.at_s}"
                self.proxies[k].faults = Storm(seed, _OUT_OF_TOUCH, until=until, longest_s=event.amount)
            self._fleet.done["cut off from the chain"] += 1
            return
        for cable in self._cables[i]:
            if event.act is Act.CUT_DATABASE:
                cable.cut()
            else:
                cable.tear()
        self._fleet.done["cut off from the database"] += 1
        await anyio.sleep(event.amount)
        for cable in self._cables[i]:
            cable.mend()
        self._fleet.freed(config)

    async def _database_down(
        self, seconds: float, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        async with self._serves:
            await anyio.to_thread.run_sync(kill, self._server)
            task_status.started()
            try:
                await anyio.sleep(seconds)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._server.start)

    async def _fail_over(self, seconds: float) -> None:
        async with self._serves:
            await anyio.to_thread.run_sync(kill, self._server)
            self._server, self._spare = self._spare, self._server
            try:
                await anyio.sleep(seconds)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(promote, self._server)

    async def while_stopped(self, point: str) -> None:
        """A point has stopped a keeper. One that recovers goes on as soon as the database is gone: also when the rest
        is well again, because nobody takes over before a lease is over.
        """
        if point == "recovering" and self._may_break:
            await self._tasks.start(self._database_down, self.lease_s / 2)
            self.chain_faults["database_down while a keeper recovers"] += 1
        else:
            await anyio.sleep(1.3 * self.lease_s)


def not_even(held: Sequence[Holder], markets: Collection[str], keepers: int) -> Sequence[str]:
    """What of these leases is not as it has to be, once so many keepers share these markets."""
    counts = shares(held)
    nobodys = set(markets) - {lease.what for lease in held}
    sentences = [f"the market {market} is nobody's" for market in sorted(nobodys)]
    if len(counts) != keepers or max(counts.values()) - min(counts.values()) > 1:
        sentences.append(f"the shares of {keepers} keepers are not even: {counts}")
    return sentences


def _names(keepers: int) -> Sequence[str]:
    return [f"k{n + 1}" for n in range(keepers)]
