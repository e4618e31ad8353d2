"""What a keeper does while another works: it answers what can be read of the journal and of the chain, and says who
works. It writes nothing, and sends nothing.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import anyio
from anyio.abc import TaskGroup, TaskStatus

from keeper import __version__
from keeper.app.life import Life
from keeper.app.opening import home_for
from keeper.app.ports import ports_of
from keeper.domain.errors import HandedOver, JournalAway, LeaseLost, ShareMoved, StandBy, first_of
from keeper.domain.health import STANDS_BY, Check, Health
from keeper.domain.orders import Order
from keeper.domain.reports import Note
from keeper.execution.desk import Desk
from keeper.http.api import run_api
from keeper.http.edge.middleware import Instruments
from keeper.http.edge.server import listen
from keeper.http.orders.managed import ManagedWallet
from keeper.http.ports import ApiPorts
from keeper.journal import Home, Observed, workers
from keeper.journal.records import PreparedRow
from keeper.runtime.gauges import tell_leases
from keeper.runtime.surroundings import Surroundings
from keeper.telemetry.metrics import ServiceMetrics

_KNOWS_WITHIN_S: Final = 5.0
_LEASE_EVERY_S: Final = 0.1
_PAUSE_FIRST_S: Final = 0.1
_PAUSE_LAST_S: Final = 5.0
T = TypeVar("T")


class BystandersHealth:
    """Never ready: orders are accepted and executed where another keeper works."""

    def __init__(self, journal: Observed, surroundings: Surroundings) -> None:
        self._journal = journal
        self._surroundings = surroundings

    def holder(self) -> str:
        """Who works; empty when nobody does."""
        return ", ".join(workers(self._journal.leases))

    def report(self) -> Health:
        """See HealthReport."""
        holder, trouble = self.holder(), self._journal.unread
        who = f"{holder} work{'' if ',' in holder else 's'}" if holder else "no keeper works right now"
        journal = Check("journal", trouble is None, trouble or "")
        checks = (*self._surroundings.checks(), journal, Check(STANDS_BY, False, f"stands by: {who}"))
        return Health(live=True, ready=False, checks=checks, standing_by=holder)


@dataclass(frozen=True, slots=True)
class StandingBy:
    """How a keeper stands by: for which journal, whom it tells why, where its API listens, what it runs in, and how
    that is measured.
    """

    home: Home
    tell: Callable[[str], None]
    listener: socket.socket
    tasks: TaskGroup
    metrics: ServiceMetrics
    instruments: Instruments


async def stand_by_and_work(
    life: Life,
    on_ready: Callable[[T], None],
    tell: Callable[[str], None],
    work: Callable[[Life, Callable[[T], None], StandingBy], Coroutine[Any, Any, None]],
) -> None:
    """`work` again and again, and stand by before each time: when it has handed the service over, when another has
    taken over, when other markets are its own, and when the database went away as it began. Whatever else ends it is
    raised.
    """
    pause_s = _PAUSE_FIRST_S
    metrics = ServiceMetrics(__version__)
    instruments = Instruments(metrics.registry)

    def ready(keeper: T) -> None:
        nonlocal pause_s
        pause_s = _PAUSE_FIRST_S
        on_ready(keeper)

    # One socket for all of it: who connects while one API ends and the next begins waits for an answer, and gets it.
    hears = life.outside.listen or listen
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(hears(life.settings.http.host, life.settings.http.port)))
        port, fit = listener.getsockname()[1], life.surroundings.hears
        home = home_for(life.settings, life.outside, port=port, fit=fit, markets=life.markets)
        stack.push_async_callback(_leave, life, home)
        while True:
            away = ""
            try:
                async with anyio.create_task_group() as tasks:
                    await work(life, ready, StandingBy(home, tell, listener, tasks, metrics, instruments))
            except* HandedOver:
                pass
            except* ShareMoved as group:
                life.telemetry.report(Note("keeper.share_moved", str(first_of(group))))
            except* LeaseLost as group:
                life.telemetry.report(Note("keeper.lease_lost", str(first_of(group)), level="warning"))
            except* JournalAway as group:
                away = str(first_of(group))
            if away:
                tell(f"the start was given up and begins anew. {away}")
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_LAST_S)


async def _leave(life: Life, home: Home) -> None:
    with anyio.CancelScope(shield=True):
        await life.outside.machine.in_thread(home.leave)


class Bystander:
    """The API of a keeper that stands by, and what keeps its answers up to date. Most metrics say nothing of such a
    keeper: it has a registry of its own.
    """

    def __init__(self, life: Life, how: StandingBy) -> None:
        self._life = life
        self._how = how
        self._journal = Observed(how.home, life.outside.machine)
        health = BystandersHealth(self._journal, life.surroundings)
        self._ports = replace(
            ports_of(life, self._journal, Desk(life.lookout), NothingToRelay(), health, frozenset()),
            metrics=how.metrics.registry,
            instruments=how.instruments,
            standing_by=health.holder,
        )
        self._scope = anyio.CancelScope()
        self._begun = False

    async def know(self) -> None:
        """Return when every order of the chain is known: before that it would take over from who knows more."""
        with anyio.move_on_after(_KNOWS_WITHIN_S):
            await self._life.whole()
            return
        self.told("The orders of the chain are not known yet.")
        await self._life.whole()

    def told(self, why: str) -> None:
        """Stand by from now on; `why` is whose lease is waited for."""
        if not self._begun:
            self._begun = True
            self._how.tasks.start_soon(self._run, name="bystander")
        host, port = self._life.settings.http.host, self._how.listener.getsockname()[1]
        self._how.tell(f"{why} Meanwhile http://{host}:{port} answers what is read.")

    def leave(self) -> Callable[..., Coroutine[Any, Any, None]]:
        """Take no more requests; those that are under way are answered still. What serves the API where this did."""
        self._scope.cancel()
        return self._serve

    async def _run(self) -> None:
        with contextlib.closing(self._journal), self._scope:
            async with anyio.create_task_group() as tg:
                host, wallets = self._life.settings.http.host, self._life.wallets
                tg.start_soon(self._serve, self._ports, host, 0, wallets, name="bystanders-http")
                tg.start_soon(self._journal.follow, name="follow")
                await self._watch_lease()

    async def _watch_lease(self) -> None:
        """Count how often the holder was late: less than a third of its lease was left."""
        late = False
        while True:
            # What was last heard of a database that is away says nothing of now.
            leases = () if self._journal.unread else self._journal.leases
            tell_leases(self._how.metrics, leases, standing_by=True, markets=self._life.markets())
            third_s = self._life.settings.cluster.lease_s / 3
            was_late, late = late, any(lease.left_s < third_s for lease in leases if not lease.on_name)
            if late and not was_late:
                self._how.metrics.lease_late.inc()
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
            serve = self._life.outside.run_api or run_api
            await serve(ports, host, port, wallets, listener=listener, task_status=task_status)


@dataclass(frozen=True, slots=True)
class NothingToRelay:
    """A relay that takes nothing. The routes do not get to it."""

    async def submit(self, prepared: PreparedRow, wire: bytes, placed: Order | None, /) -> None:
        """See Relay."""
        raise StandBy("This keeper stands by: it relays nothing.")
