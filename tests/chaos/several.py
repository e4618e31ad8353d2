"""The stage of several keepers: two PostgreSQL servers, and each keeper's cables to them and proxies to the chain."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import anyio
import psycopg
from anyio.abc import TaskGroup, TaskStatus
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.demo.postgres import PostgresServer
from keeper.journal import Home, home_of
from keeper.journal.looking import SERVICE
from keeper.journal.postgres.connection import Database, Place
from keeper.localnet import Bank
from tests.chaos.cable import Cable
from tests.chaos.embedded import EmbeddedStage
from tests.chaos.fleet import TOKEN, Fleet
from tests.chaos.invariants import Record
from tests.chaos.proxy import FaultProxy, Kind, Storm
from tests.chaos.proxy.faults import Calm, Faults
from tests.chaos.scenario import Act, Event
from tests.chaos.stage import Stage
from tests.chaos.witness import Witness
from tests.support import KeeperConfig, World
from tests.support.postgres import both, follow, kill, promote, spare_of

_OUT_OF_TOUCH: Final = {Kind.REQUEST_LOST: 1.0, Kind.SOCKET_SILENT: 1.0, Kind.SOCKET_REFUSED: 1.0}
LATE_S: Final = 1.5
"""A keeper looks at its lease and then sends. In between others may have the processor for so long."""
_GUARD: Final = (
    "CREATE TABLE unlawful (sentence text NOT NULL)",
    # It asks in the keeper's transaction, a moment after the keeper's own statement asked.
    f"""
    CREATE FUNCTION note_taking() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.what = '{SERVICE}' AND NEW.life <> OLD.life AND OLD.until > clock_timestamp() THEN
            INSERT INTO unlawful VALUES (
                format('%s took over in term %s while the lease of %s ran', NEW.holder, NEW.term, OLD.holder)
            );
        END IF;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER guard BEFORE UPDATE ON leases FOR EACH ROW EXECUTE FUNCTION note_taking()",
    # Nobody takes over while it writes: that needs the turn, which it has.
    f"""
    CREATE FUNCTION note_writing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO unlawful SELECT format(
            '%s wrote %s in term %s of %s', current_setting('application_name'), TG_TABLE_NAME, term, holder
        ) FROM leases WHERE what = '{SERVICE}' AND holder <> current_setting('application_name');
        RETURN NULL;
    END $$
    """,
    *(
        f"CREATE TRIGGER guard AFTER INSERT OR UPDATE ON {table} EXECUTE FUNCTION note_writing()"
        for table in ("orders", "attempts", "changes")
    ),
)
"""The keeper's sessions have its name as `application_name`."""
_HOLDER: Final = (
    "SELECT holder, extract(epoch FROM since)::float8 FROM leases "
    f"WHERE what = '{SERVICE}' AND until > clock_timestamp()"
)


def guard(url: str) -> None:
    """From now on the database notes who takes a lease that runs, and who writes when another has the lease."""
    with psycopg.connect(url, autocommit=True) as db:
        for statement in _GUARD:
            db.execute(statement.encode())


def unlawful(url: str) -> Sequence[str]:
    """What was noted since it was asked last, each once."""
    with psycopg.connect(url, autocommit=True) as db:
        return sorted({sentence for (sentence,) in db.execute("DELETE FROM unlawful RETURNING sentence")})


class SeveralWitness(Witness):
    """Sees also which keeper sends, and asks the database whose turn it is to.

    While the database is down nobody can be asked what it holds: what was sent then is judged when it is back.
    """

    def __init__(self, bank: Bank, fleet: Fleet) -> None:
        super().__init__(bank)
        self._fleet = fleet
        self._unjudged: list[tuple[str, bytes, float]] = []
        self._leases: Database | None = None
        self.counts: Counter[str] = Counter()

    def attend(self, leases: Database | None) -> None:
        """Ask this database whose lease it is; None when there will be none for a while."""
        if self._leases is not None:
            self._leases.close()
        self._leases = leases

    def _sent(self, endpoint: str, wire: bytes) -> None:
        try:
            super()._sent(endpoint, wire)
            self.hold_to_lease(endpoint.partition("/")[0])
        except psycopg.OperationalError:
            self._unjudged.append((endpoint, wire, time.time()))

    def settle(self) -> None:
        """Judge what could not be judged then. What was signed later than it was sent was not journaled before."""
        unjudged, self._unjudged = self._unjudged, []
        for endpoint, wire, at in unjudged:
            super()._sent(endpoint, wire)
            self.counts["sends judged later"] += 1
            attempt = None if self.journal is None else self.journal.attempt(Signature.from_bytes(wire[1:65]))
            if attempt is not None and attempt.signed_at > at:
                self._violation(f"{attempt.signature} was sent before it was in the journal (promise 1)")

    def hold_to_lease(self, keeper: str) -> None:
        """This keeper sends now. Raises psycopg.OperationalError while the database is down."""
        if self._leases is None:
            return  # between two journals
        row: Any = self._leases.execute(_HOLDER).fetchone()
        if row is None or row[0] == keeper:
            return
        holder, since = row
        self.counts["sends after a takeover"] += 1
        late_s = time.time() - max(since, self._fleet.free_since.get(keeper, 0.0))
        if late_s > LATE_S:
            self._violation(f"{keeper} sent {late_s:.1f} s after {holder} had taken over: two keepers send")


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
        self._calm = True
        self._database = ""

    @classmethod
    @asynccontextmanager
    async def several(
        cls, folder: Path, keepers: int, planted: Sequence[str], *, seed: str, alpenglow_from: int | None
    ) -> AsyncIterator[Stage]:
        """Build it, with a server of its own, and a spare one. RuntimeError when there is no PostgreSQL."""
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
            await stack.enter_async_context(stage.playing())
            yield stage

    @property
    def home(self) -> Home:
        """See Stage: past the cables."""
        return home_of(self._url)

    @property
    def _url(self) -> str:
        """The present journal, on whichever server takes writes."""
        return f"{both(*self._servers, self._database)}&target_session_attrs=read-write"

    async def new_journal(self) -> None:
        """See Stage: a database of its own, with a guard in it."""
        self._judge.attend(None)
        self._database = f"keepers_{self._journals + 1}"
        with psycopg.connect(self._server.url(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {self._database}")
        await super().new_journal()
        guard(self._url)
        self._judge.attend(Database(Place(self._url)))

    async def _configs(self, folder: Path) -> Sequence[KeeperConfig]:
        configs = []
        for i, (name, cables) in enumerate(zip(_names(self.keepers), self._cables, strict=True)):
            settings = self._settings(self.proxies[2 * i : 2 * i + 2])
            hosts = ",".join(f"127.0.0.1:{cable.port}" for cable in cables)
            url = f"postgresql://postgres@{hosts}/{self._database}?application_name={name}"
            settings["journal"] = {"url": url}
            settings["cluster"] = {"name": name, "lease_s": self.lease_s}
            configs.append(KeeperConfig.at(folder / name, self.key, **settings))
        return configs

    def counts(self) -> Counter[str]:
        counts = self._judge.counts + Counter({f"keeper {what}": n for what, n in self._fleet.done.items()})
        logs = (log.read_text(errors="replace") for log in self.folder.glob("*/*/keeper.log"))
        counts["leases lost"] = sum(log.count("keeper.lease_lost") for log in logs)
        return counts

    async def prepare(self, events: Sequence[Event]) -> None:
        if any(event.act is Act.FAIL_OVER for event in events):
            async with self._serves:
                await anyio.to_thread.run_sync(follow, self._spare, self._server)

    def weather(self, faults: Sequence[Faults]) -> None:
        super().weather(faults)
        self._calm = all(isinstance(its, Calm) for its in faults)

    def clear(self) -> None:
        super().clear()
        for cables in self._cables:
            for cable in cables:
                cable.mend()

    async def read(self, market: Pubkey, orders: Iterable[Pubkey]) -> Record:
        async with self._serves:  # whoever reads the chain reads the journal next
            return await super().read(market, orders)

    async def judge(self) -> Sequence[str]:
        async with self._serves:
            self._judge.settle()
            return [*await super().judge(), *unlawful(self._url)]

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
            case _:
                await super().act(event)

    async def _cut_off(self, event: Event) -> None:
        config = self._fleet.working_config
        if config is None:
            return
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
        """A point has stopped a keeper. One that recovers goes on as soon as the database is gone."""
        if point == "recovering" and not self._calm:
            await self._tasks.start(self._database_down, self.lease_s / 2)
            self.chain_faults["database_down while a keeper recovers"] += 1
        else:
            await anyio.sleep(1.3 * self.lease_s)


def _names(keepers: int) -> Sequence[str]:
    return [f"k{n + 1}" for n in range(keepers)]
