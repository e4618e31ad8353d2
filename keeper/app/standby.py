"""What a keeper does while another works: it answers what can be read of the journal and of the chain, and says who
works. It writes nothing, and sends nothing.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio
from anyio.abc import TaskGroup, TaskStatus
from solders.pubkey import Pubkey

from keeper import __version__
from keeper.app import limits
from keeper.app.wallets import bearers
from keeper.config.settings import Settings
from keeper.domain.errors import (
    ChainError,
    HandedOver,
    JournalAway,
    JournalError,
    MalformedAccount,
    StandBy,
    first_of,
)
from keeper.domain.health import Check, Health
from keeper.domain.orders import Market, Order, OrderType
from keeper.domain.prices import Fires, Level, Price
from keeper.http.api import run_api
from keeper.http.edge.clients import Tokens
from keeper.http.edge.server import listen
from keeper.http.orders.managed import ManagedWallet
from keeper.http.ports import ApiPorts
from keeper.journal import Home, Observed, Queries, home_of, working_lease
from keeper.journal.machine import Machine
from keeper.journal.records import PreparedRow
from keeper.runtime.gauges import tell_leases
from keeper.solana.allowance import UsersPool
from keeper.solana.client import ChainClient
from keeper.solana.transactions import Blockhashes
from keeper.telemetry.metrics import ServiceMetrics
from keeper.venue.venue import Venue

_LOOK_EVERY_S: Final = 2.0
_LEASE_EVERY_S: Final = 0.1
_PAUSE_FIRST_S: Final = 0.1
_PAUSE_LAST_S: Final = 5.0
T = TypeVar("T")


class BystandersDesk:
    """The markets that the journal names, as the chain has them; no book, since nothing is watched."""

    def __init__(self, journal: Observed, client: ChainClient, venue: Venue) -> None:
        self._journal = journal
        self._client = client
        self._venue = venue
        self._markets: dict[Pubkey, Market] = {}

    async def look(self) -> None:
        """Read the markets again. Raises ChainError and JournalError."""
        addresses = list(await self._journal.read(Queries.market_names))
        slot, accounts = await self._client.accounts(addresses) if addresses else (0, [])
        for account in accounts:
            with contextlib.suppress(MalformedAccount):
                market = self._venue.market(account, slot)
                if market is not None and slot >= self._slot(market.address):
                    self._markets[market.address] = market

    def _slot(self, address: Pubkey) -> int:
        known = self._markets.get(address)
        return 0 if known is None else known.slot

    def order(self, address: Pubkey) -> Order | None:
        """See Desk: the journal alone knows the orders."""
        return None

    def why(self, address: Pubkey) -> str:
        """See Desk: the journal's sentence stands."""
        return ""

    def market(self, key: str | Pubkey) -> Market | None:
        """See Desk."""
        if isinstance(key, Pubkey):
            return self._markets.get(key)
        return next((market for market in self._markets.values() if market.symbol == key), None)

    def markets(self) -> list[Market]:
        """See Desk."""
        return list(self._markets.values())

    def price(self, market: Pubkey) -> Price | None:
        """See Desk."""
        found = self._markets.get(market)
        if found is None or not found.last_oracle_price_1e6:
            return None
        return Price(market, found.last_oracle_price_1e6, found.slot, found.last_oracle_update_s)

    def chain_time_s(self) -> float | None:
        """See Desk: its clock is not read."""
        return None

    def executing(self, market: Market) -> tuple[bool, str]:
        """See Desk."""
        return False, "this keeper stands by"

    def counts(self) -> Mapping[tuple[Pubkey, OrderType], int]:
        """See Desk."""
        return {}

    def levels(self, market: Pubkey, fires: Fires, n: int) -> Sequence[Level]:
        """See Desk."""
        return ()


class BystandersHealth:
    """Never ready: orders are accepted and executed where another keeper works."""

    def __init__(self, journal: Observed) -> None:
        self._journal = journal

    def holder(self) -> str:
        """Who works; empty when nobody does."""
        held = working_lease(self._journal.leases)
        return "" if held is None else held.holder

    def report(self) -> Health:
        """See HealthReport."""
        holder, trouble = self.holder(), self._journal.problem
        who = f"{holder} works" if holder else "no keeper works right now"
        checks = (Check("journal", trouble is None, trouble or ""), Check("working", False, f"stands by: {who}"))
        return Health(live=True, ready=False, checks=checks, standing_by=holder)


@dataclass(frozen=True, slots=True)
class StandingBy:
    """How a keeper stands by: whom it tells why, where its API listens, what it runs in; `yields` when it has just
    handed the service over, `known` when it has worked with the database before.
    """

    tell: Callable[[str], None]
    listener: socket.socket
    tasks: TaskGroup
    yields: bool
    known: bool


async def stand_by_and_work(
    settings: Settings,
    on_ready: Callable[[T], None],
    tell: Callable[[str], None],
    work: Callable[[Callable[[T], None], StandingBy], Coroutine[Any, Any, None]],
) -> None:
    """`work` again and again, and stand by before each time: when it has handed the service over, and when the database
    went away in the middle of a start. Whatever else ends it is raised.
    """
    yields, known, pause_s = False, False, _PAUSE_FIRST_S

    def ready(keeper: T) -> None:
        nonlocal pause_s
        pause_s = _PAUSE_FIRST_S
        on_ready(keeper)

    # One socket for all its lives: who connects while one ends and the next begins waits for an answer, and gets it.
    with contextlib.closing(listen(settings.http.host, settings.http.port)) as listener:
        while True:
            away = ""
            try:
                async with anyio.create_task_group() as tasks:
                    await work(ready, StandingBy(tell, listener, tasks, yields, known))
            except* HandedOver:
                yields = True
            except* JournalAway as group:
                yields, away = False, str(first_of(group))
            known = True
            if away:
                tell(f"the start was given up and begins anew. {away}")
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_LAST_S)


def home_for(settings: Settings, machine: Machine, how: StandingBy | None) -> Home:
    """Where the journal lives, for the keeper of these settings."""
    c, (yields, known) = settings.cluster, (False, False) if how is None else (how.yields, how.known)
    name = c.name or socket.gethostname()
    return home_of(settings.journal.place, machine, keeper=name, lease_s=c.lease_s, yields=yields, known=known)


class Bystander:
    """The API of a keeper that stands by, and what keeps its answers up to date. Most metrics say nothing of such a
    keeper: it has a registry of its own.
    """

    def __init__(
        self,
        settings: Settings,
        how: StandingBy,
        home: Home,
        venue: Venue,
        client: ChainClient,
        users_pool: UsersPool,
        blockhashes: Blockhashes,
    ) -> None:
        self._how = how
        self._host = settings.http.host
        self._blockhashes = blockhashes
        self._metrics = ServiceMetrics(__version__)
        self._lease_s = settings.cluster.lease_s
        self._journal = Observed(home)
        self._desk = BystandersDesk(self._journal, client, venue)
        health = BystandersHealth(self._journal)
        self._ports = ApiPorts(
            program=venue.program,
            client=ChainClient(users_pool),
            blockhashes=blockhashes,
            journal=self._journal,
            desk=self._desk,
            relay=NothingToRelay(),
            health=health,
            metrics=self._metrics.registry,
            keeper_pubkey=venue.keeper,
            limits=limits.api_limits(settings),
            tokens=Tokens(bearers(settings.managed)),
            public_url=settings.http.public_url,
            consensus=lambda: client.consensus.name,
            slot_s=lambda: client.pool.pace.slot_s if client.pool.pace.measured else None,
            standing_by=health.holder,
        )
        self._scope = anyio.CancelScope()
        self._begun = False

    def told(self, why: str) -> None:
        """Stand by from now on; `why` is whose lease is waited for."""
        if not self._begun:
            self._begun = True
            self._how.tasks.start_soon(self._run, name="bystander")
        host, port = self._host, self._how.listener.getsockname()[1]
        self._how.tell(f"{why} Meanwhile http://{host}:{port} answers what is read.")

    def leave(self) -> Callable[..., Coroutine[Any, Any, None]]:
        """Take no more requests; those that are under way are answered still. What serves the API where this did."""
        self._scope.cancel()
        return self._serve

    async def _run(self) -> None:
        with contextlib.closing(self._journal), self._scope:
            async with anyio.create_task_group() as tg:
                tg.start_soon(self._serve, self._ports, self._host, 0, name="bystanders-http")
                tg.start_soon(self._journal.follow, name="follow")
                tg.start_soon(self._blockhashes.run, name="blockhashes")
                tg.start_soon(self._watch_lease, name="lease")
                while True:
                    with contextlib.suppress(ChainError, JournalError):
                        await self._desk.look()
                    await anyio.sleep(_LOOK_EVERY_S)

    async def _watch_lease(self) -> None:
        """Count how often the holder was late: less than a third of its lease was left."""
        late = False
        while True:
            # What was last heard of a database that is away says nothing of now.
            leases = () if self._journal.problem else self._journal.leases
            tell_leases(self._metrics, leases, standing_by=True)
            service = working_lease(leases)
            was_late, late = late, service is not None and service.left_s < self._lease_s / 3
            if late and not was_late:
                self._metrics.lease_late.inc()
            await anyio.sleep(_LEASE_EVERY_S)

    async def _serve(
        self,
        ports: ApiPorts,
        host: str,
        port: int,
        wallets: Sequence[ManagedWallet] = (),
        *,
        task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        # It is closed also when this ends before anybody serves on it.
        with contextlib.closing(self._how.listener.dup()) as listener:
            await run_api(ports, host, port, wallets, listener=listener, task_status=task_status)


@dataclass(frozen=True, slots=True)
class NothingToRelay:
    """A relay that takes nothing. The routes do not get to it."""

    async def submit(self, prepared: PreparedRow, wire: bytes, placed: Order | None, /) -> None:
        """See Relay."""
        raise StandBy("This keeper stands by: it relays nothing.")
