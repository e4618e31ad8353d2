"""What has to hold of two keepers that are services of one host, with their journal in Debian's own PostgreSQL, once
docs/scale.md was followed: one works and the other takes over, whatever ends the first; and nothing is lost with the
database.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx
from solders.pubkey import Pubkey

from tests.install.document import DOCS, blocks
from tests.install.machine import Machine
from tests.install.market import Market
from tests.install.trial import LATER_S, MANY, WATCHDOG_S, Service, sound, told, typed

DOCUMENT = DOCS / "scale.md"
DATABASE, SERVICES = "Set it up", "As services of one host"
NAMES = {"a": 8080, "b": 8081}
"""The keepers that the document makes, and where each answers."""
LEASE_S = 3.0
"""cluster.lease_s: how long another waits for one that is gone."""
_GIVEN_BACK_S = 2.0
"""Less than a lease that is not given back has still to run: it is renewed each half second."""
_ENVIRONMENT = "set -a; . /etc/keeper/a.env; set +a"
_ASK_EVERY_S = 0.02


class Keeper:
    """One instance of the template, as systemd sees it and as it answers."""

    def __init__(self, machine: Machine, name: str, api: httpx.AsyncClient) -> None:
        self.service = Service(machine, f"keeper@{name}.service")
        self.name = name
        self._api = api

    def __repr__(self) -> str:
        return f"<Keeper {self.name}>"

    async def says(self, path: str) -> dict[str, Any]:
        """A JSON answer of its; nothing when it does not answer."""
        try:
            return dict((await self._api.get(path)).json())
        except httpx.TransportError:
            return {}

    async def works(self) -> bool:
        """Whether it executes orders."""
        return (await self.says("/healthz")).get("ready", False) is True

    async def is_up(self) -> bool:
        """Whether it said READY to systemd."""
        return (await self.service.shows("ActiveState"))["ActiveState"] == "active"

    async def stands_by(self, other: Keeper) -> bool:
        """Whether it knows that the other works."""
        return (await self.says("/healthz")).get("standing_by") == other.name


class Keepers:
    """All of them."""

    def __init__(self, machine: Machine, keepers: list[Keeper]) -> None:
        self.machine = machine
        self.all = keepers

    def __repr__(self) -> str:
        return f"<Keepers {', '.join(keeper.name for keeper in self.all)}>"

    async def roles(self, *, within_s: float = LEASE_S + LATER_S) -> tuple[Keeper, Keeper]:
        """Who works and who stands by, once it is so and systemd calls both READY."""
        with anyio.fail_after(within_s):
            while True:
                for one, other in (self.all, self.all[::-1]):
                    if await one.works() and await other.stands_by(one) and await one.is_up() and await other.is_up():
                        return one, other
                await anyio.sleep(_ASK_EVERY_S)

    async def works(self, keeper: Keeper, *, since_s: float, within_s: float) -> float:
        """Wait until it works; the seconds since then (by the monotonic clock)."""
        await _until(keeper.works, within_s=within_s)
        return time.monotonic() - since_s

    async def rest(self, market: Market, count: int) -> list[Pubkey]:
        """Place orders that the next fall triggers, and wait until the journal has them."""
        orders = market.place(count)

        async def known() -> bool:
            answers = [await keeper.says("/v1/keeper") for keeper in self.all if await keeper.works()]
            return any({"status": "open", "orders": count} in answer.get("orders", ()) for answer in answers)

        await _until(known, within_s=LATER_S)
        return orders

    async def none_works(self) -> bool:
        """Whether no keeper executes orders."""
        return not any([await keeper.works() for keeper in self.all])


async def _until(holds: Callable[[], Awaitable[bool]], *, within_s: float) -> None:
    with anyio.fail_after(within_s):
        while not await holds():  # noqa: ASYNC110 - it is in the machine
            await anyio.sleep(_ASK_EVERY_S)


@asynccontextmanager
async def installed(machine: Machine, *, loud: bool) -> AsyncIterator[Keepers]:
    """Follow the document, on a machine on which docs/install.md was followed."""
    async with machine.shell() as shell:
        for block in blocks(DOCUMENT, DATABASE) + blocks(DOCUMENT, SERVICES):
            await typed(shell, block, loud=loud)
    version = await machine.run("runuser -u postgres -- psql --tuples-only --no-align -c 'SHOW server_version'")
    print(f"PostgreSQL {version.splitlines()[-1]}.")
    async with AsyncExitStack() as stack:
        keepers = []
        for name, port in NAMES.items():
            # Never by a proxy, which this machine may have for what is elsewhere.
            api = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5.0, trust_env=False)
            keepers.append(Keeper(machine, name, await stack.enter_async_context(api)))
        yield Keepers(machine, keepers)


async def one_works(keepers: Keepers, market: Market) -> None:
    """Both are READY; one works and executes, and the other stands by."""
    works, other = await keepers.roles()
    for keeper in (works, other):
        shown = await keeper.service.shows("Type", "WatchdogUSec", "NRestarts", "StatusText")
        assert (shown["Type"], shown["WatchdogUSec"]) == ("notify", f"{WATCHDOG_S:.0f}s"), shown
        assert shown["NRestarts"] == "0", (keeper, shown)
        print(f"systemd says of {keeper.service.unit} {shown['StatusText']!r}.")
    orders = await keepers.rest(market, 10)
    market.fall()
    with told("Ten orders trigger and are executed."):
        await market.filled(orders)


async def another_takes_over_from_a_kill(keepers: Keepers, market: Market) -> None:
    """SIGKILL while executions are under way: some are done, and of some nobody can say what will become of them."""
    works, other = await keepers.roles()
    orders = await keepers.rest(market, MANY)
    await market.fall_amid(orders)
    killed_s = time.monotonic()
    await works.service.signal("KILL")
    executed = MANY - market.left(orders)
    took_s = await keepers.works(other, since_s=killed_s, within_s=LEASE_S + LATER_S)
    print(f"SIGKILL of {works.name} after {executed} of {MANY} triggered orders were executed.")
    print(f"{other.name} works after {took_s:.1f} s; the lease is {LEASE_S:g} s.")
    market.arrive()
    with told("Every one is executed."):
        await market.filled(orders)
    with told(f"{works.name} is READY again, and stands by."):
        assert await keepers.roles() == (other, works)


async def a_stop_hands_over(keepers: Keepers, market: Market) -> None:
    """`systemctl stop` gives the lease back: nobody waits until it is over."""
    works, other = await keepers.roles()
    orders = await keepers.rest(market, 3)
    began_s = time.monotonic()
    async with anyio.create_task_group() as tg:
        tg.start_soon(keepers.machine.run, f"systemctl stop {works.service.unit}")
        took_s = await keepers.works(other, since_s=began_s, within_s=LEASE_S + LATER_S)
    print(f"systemctl stop of {works.name}: {other.name} works after {took_s:.1f} s.")
    assert took_s < _GIVEN_BACK_S, f"after {took_s:.1f} s: it waited for the lease to be over"
    await works.service.has_ended_well()
    market.fall()
    with told("Three orders trigger and are executed."):
        await market.filled(orders)
    with told(f"systemctl start of {works.name}, which stands by."):
        await keepers.machine.run(f"systemctl start {works.service.unit}")
        assert await keepers.roles() == (other, works)


async def the_database_comes_back(keepers: Keepers, market: Market) -> None:
    """PostgreSQL is stopped, orders trigger, nothing is sent; it is started again, and they are executed."""
    await keepers.roles()
    orders = await keepers.rest(market, 10)
    with told("systemctl stop postgresql. No keeper calls itself ready."):
        await keepers.machine.run("systemctl stop postgresql")
        await _until(keepers.none_works, within_s=LEASE_S + LATER_S)
    market.fall()
    # Long enough for what would be sent, were it not held back. That each is executed once is looked at later.
    await anyio.sleep(LEASE_S)
    assert market.left(orders) == len(orders), "something was executed of which nothing can be in the journal"
    began_s = time.monotonic()
    await keepers.machine.run("systemctl start postgresql")
    with told("systemctl start postgresql. Ten orders that triggered meanwhile are executed."):
        await market.filled(orders)
    print(f"That was {time.monotonic() - began_s:.1f} s after the start.")
    with told("One works, and the other stands by."):
        await keepers.roles()
    for keeper in keepers.all:
        print(f"{keeper.service.unit}: {(await keeper.service.shows('NRestarts'))['NRestarts']} restarts.")


async def nothing_is_lost(keepers: Keepers, market: Market) -> None:
    """The journal is sound, and has for each order of the trial the one execution that made its position."""
    await sound(keepers.machine, market, _ENVIRONMENT)


async def they_stop(keepers: Keepers, market: Market) -> None:
    """In order, and soon."""
    with told("systemctl stop of both."):
        await keepers.machine.run("systemctl stop 'keeper@*'")
    for keeper in keepers.all:
        await keeper.service.has_ended_well()


TRIALS = (
    one_works,
    another_takes_over_from_a_kill,
    a_stop_hands_over,
    the_database_comes_back,
    nothing_is_lost,
    they_stop,
)
"""In this order, on one machine."""
