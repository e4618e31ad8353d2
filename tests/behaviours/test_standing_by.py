"""Two keepers on one PostgreSQL journal, in the test's own event loop: what the one that stands by answers."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import psycopg
import pytest
from solders.pubkey import Pubkey

from keeper.app.wiring import Ready, run
from keeper.config.loading import load_settings
from keeper.domain.attempts import AttemptState
from keeper.domain.orders import OrderState
from tests.behaviours.stand import FAST, Stand
from tests.chaos.proxy import Fault, Kind
from tests.chaos.proxy.faults import Calm
from tests.support import BOUND_S, KeeperConfig, until
from tests.support.postgres import fresh_database, missing
from tests.support.stream import Stream, stream

if why := missing():
    pytest.skip(why, allow_module_level=True)

pytestmark = pytest.mark.anyio
LEASE_S = 30.0
"""Longer than a busy machine holds anything up: here a lease is given back, and never runs out."""


@dataclass
class Life:
    """One keeper of the two, in a task of its own: `ready` once for each time that it began to work."""

    config: KeeperConfig
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ready: list[Ready] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    ended: anyio.Event = field(default_factory=anyio.Event)

    async def run(self) -> None:
        with self.scope:
            settings = load_settings(self.config.file)
            await run(settings, on_ready=self.ready.append, on_stand_by=self.told.append)
        self.ended.set()

    async def stop(self) -> None:
        self.scope.cancel()
        await self.ended.wait()

    @property
    def url(self) -> str:
        """Where it answers, while it stands by."""
        return next(word for word in self.told[-1].split() if word.startswith("http://"))


@contextlib.asynccontextmanager
async def two(folder: Path, **http: Any) -> AsyncIterator[tuple[Stand, Life, Life]]:
    """A stand, and two keepers: a works, and b, whose sends arrive at endpoint 1, stands by."""
    url = fresh_database()
    async with (
        Stand.open(folder, endpoints=2, journal={"url": url}) as stand,
        anyio.create_task_group() as tasks,
    ):
        lives = []
        for name, proxy in zip("ab", stand.proxies, strict=True):
            settings: dict[str, Any] = {**FAST, "journal": {"url": url}, "http": http}
            settings["cluster"] = {"name": name, "lease_s": LEASE_S}
            settings["rpc"] = {**FAST["rpc"], "url": proxy.rpc_url, "ws_url": proxy.ws_url}
            lives.append(Life(KeeperConfig.at(folder / name, stand.config.key, **settings)))
        a, b = lives
        tasks.start_soon(a.run)
        await until(lambda: a.ready)
        tasks.start_soon(b.run)
        await until(lambda: b.told)
        yield stand, a, b
        tasks.cancel_scope.cancel()


async def answers(http: httpx.AsyncClient, path: str, holds: Any) -> Any:
    """Ask until the answer is as wanted; it."""
    with anyio.fail_after(BOUND_S):
        while True:
            found = (await http.get(path)).json()
            if holds(found):
                return found
            await anyio.sleep(0.02)


async def filled(events: Stream, order: Pubkey) -> list[int]:
    """Read until the stream tells that the order is filled; the ids on the way."""
    ids = []
    while True:
        event = await events.next()
        assert event.name == "order", event
        assert event.id is not None
        ids.append(event.id)
        if event.data["order"] == str(order) and event.data["status"] == "filled":
            return ids


async def test_an_order_expires_by_the_clock_also_where_another_keeper_noted_a_later_reading_of_it(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as (stand, a, _):
        trader, market = stand.world.trader(), stand.world.market()
        order = stand.order(trader, market, 50, expires_at=stand.bank.chain.tip.time + 60)
        await stand.reach(order, OrderState.OPEN)
        url = load_settings(a.config.file).journal.place
        with psycopg.connect(str(url), autocommit=True) as database:
            database.execute("UPDATE orders SET slot = slot + 1000")
        stand.bank.advance_clock(61)
        await stand.reach(order, OrderState.EXPIRED)


async def test_who_stands_by_answers_what_is_read_and_names_who_works(tmp_path: Path) -> None:
    async with two(tmp_path) as (stand, a, b):
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        async with httpx.AsyncClient(base_url=b.url) as http, httpx.AsyncClient(base_url=a.ready[0].http_url) as first:
            page = await answers(http, "/v1/orders", lambda page: page["orders"] and page["orders"][0]["market"])
            assert [each["order"] for each in page["orders"]] == [str(order)]
            assert (await http.get("/livez")).status_code == 200
            assert (await http.get("/readyz")).status_code == 503
            health = (await http.get("/healthz")).json()
            assert health["standing_by"] == "a"
            leases = {lease["on"]: lease["holder"] for lease in (await http.get("/v1/keeper")).json()["leases"]}
            assert leases == {"*": "a", "keeper:a": "a", "keeper:b": "b"}
            told = (await http.get("/metrics")).text
            assert {"keeper_standing_by 1.0", "keeper_keepers 2.0", "keeper_lease_term 1.0"} <= set(told.splitlines())
            assert "keeper_ready" not in told, "or who stands by would wake somebody"
            for ask in (http.post("/v1/orders", json={}), http.post("/v1/admin/pause")):
                refused = await ask
                assert (refused.status_code, refused.json()["code"]) == (503, "standing_by")
                assert refused.json()["holder"] == "a"

            await answers(http, "/v1/markets", lambda found: found["markets"])
            (one,), (other,) = [(await each.get("/v1/markets")).json()["markets"] for each in (http, first)]
            told_when = {"price_age_s", "price_slot", "slot"}
            assert {k: one[k] for k in one.keys() - told_when} == {k: other[k] for k in other.keys() - told_when}
            assert (one["executing"], one["resting"]) == (True, [{"order_type": "stop_loss", "orders": 1}])

            async with stream(http) as events:
                assert (await events.next()).name == "snapshot"
                stand.world.set_price(market, 94_000_000)
                await filled(events, order)
            await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
            for path in (f"/v1/orders/{order}", "/v1/executions"):
                assert (await http.get(path)).json() == (await first.get(path)).json()
            account = (await http.get(f"/v1/wallets/{trader.address}/account")).json()
            assert (account["exists"], account["positions"]) == (True, 1)
            positions = (await http.get(f"/v1/wallets/{trader.address}/positions")).json()["positions"]
            assert [position["market"] for position in positions] == [page["orders"][0]["market"]]


async def test_a_stream_goes_on_at_the_other_keeper_where_it_was(tmp_path: Path) -> None:
    """Told by a, then by b while it stands by, then by b when it works: no id is missing, and none comes twice."""
    async with two(tmp_path) as (stand, a, b):
        market, trader = stand.world.market(), stand.world.trader()
        orders = [stand.order(trader, market, stop_usd=usd) for usd in (95, 90, 85)]
        await stand.known(*orders)
        async with httpx.AsyncClient(base_url=a.ready[0].http_url) as http, stream(http) as events:
            snapshot = await events.next()
            assert snapshot.id is not None
            ids = [snapshot.id]
            stand.world.set_price(market, 94_000_000)
            ids += await filled(events, orders[0])
        async with httpx.AsyncClient(base_url=b.url) as http:
            async with stream(http, ids[-1]) as events:
                stand.world.set_price(market, 89_000_000)
                ids += await filled(events, orders[1])
            await a.stop()
            await until(lambda: b.ready)
            assert b.ready[0].http_url == b.url
            async with stream(http, ids[-1]) as events:
                stand.world.set_price(market, 84_000_000)
                ids += await filled(events, orders[2])
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert [stand.landed(order) for order in orders] == [1, 1, 1]
        assert stand.state(orders[2]) is OrderState.FILLED


async def test_who_lost_its_lease_stands_by_and_believes_nothing_of_before(tmp_path: Path) -> None:
    """It had a pause and an armed attempt in memory. When it works again, it does as the journal says by then."""
    digest = hashlib.sha256(b"the operator's").hexdigest()
    headers = {"Authorization": "Bearer the operator's"}
    async with two(tmp_path, admin_token_sha256=digest) as (stand, a, b):
        market, trader = stand.world.market(), stand.world.trader()
        orders = [stand.order(trader, market, stop_usd=usd) for usd in (95, 90, 85)]
        await stand.known(*orders)
        async with httpx.AsyncClient(base_url=a.ready[0].http_url, headers=headers) as http:
            assert (await http.post("/v1/admin/pause")).status_code == 200
            with psycopg.connect(a.config.settings["journal"]["url"], autocommit=True) as db:
                # As if a had been stopped for longer than its lease.
                db.execute("UPDATE leases SET until = clock_timestamp() WHERE what = '*'")
            await until(lambda: b.ready and a.told)
            await answers(http, "/healthz", lambda health: health["standing_by"] == "b")
            assert not a.ended.is_set()
        async with httpx.AsyncClient(base_url=b.url, headers=headers) as other:
            stand.world.set_price(market, 94_000_000)
            status = await answers(other, "/v1/admin/status", lambda status: status.get("paused"))
            assert status["paused"] == "paused by an operator"
            assert (await other.post("/v1/admin/resume")).status_code == 200
            await stand.reach(orders[0], OrderState.FILLED)
        # What a hears of while it stands by is what it acts on when it works.
        stand.world.set_price(market, 89_000_000)
        await stand.reach(orders[1], OrderState.FILLED)
        await b.stop()
        await until(lambda: len(a.ready) == 2)
        stand.world.set_price(market, 84_000_000)
        await stand.reach(orders[2], OrderState.FILLED)
        assert [stand.landed(order) for order in orders] == [1, 1, 1]
        by_keeper = [{send.endpoint for send in stand.sends if send.wire in stand.sent(order)} for order in orders]
        assert by_keeper == [{1}, {1}, {0}]


async def test_who_takes_over_has_read_the_orders_before(tmp_path: Path) -> None:
    """From the lease to its first execution it asks for no list of accounts: it has heard of each order."""
    async with two(tmp_path) as (stand, a, b):
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market, stop_usd=95)
        await stand.known(order)
        async with httpx.AsyncClient(base_url=b.url) as http:
            await answers(http, "/v1/markets", lambda found: found["markets"] and found["markets"][0]["resting"])
        stand.scripts[1].break_request(Fault(Kind.HTTP_503), method="getProgramAccounts", times=1_000)
        await a.stop()
        stand.world.set_price(market, 94_000_000)
        await stand.reach(order, OrderState.FILLED)
        assert stand.landed(order) == 1


class Away(Calm):
    """A chain that is cut off."""

    def request(self, methods: Sequence[str]) -> Fault | None:
        return Fault(Kind.REQUEST_RESET)

    def news(self, kind: str) -> Fault | None:
        return Fault(Kind.SOCKET_CLOSED)

    def connection(self) -> Fault | None:
        return Fault(Kind.SOCKET_REFUSED)


async def test_who_hears_nothing_of_the_chain_leaves_the_work_to_others(tmp_path: Path) -> None:
    async with two(tmp_path) as (stand, a, b):
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        await stand.known(order)
        calm, stand.proxies[1].faults = stand.proxies[1].faults, Away()
        async with httpx.AsyncClient(base_url=b.url) as http:
            await answers(http, "/healthz", lambda health: not {c["name"]: c["ok"] for c in health["checks"]}["watch"])
            await a.stop()
            await until(lambda: "held by nobody yet" in b.told[-1])
        assert not b.ready
        stand.proxies[1].faults = calm
        await until(lambda: b.ready)
        stand.world.set_price(market, 94_000_000)
        await stand.reach(order, OrderState.FILLED)


async def test_a_drained_keeper_stands_by_and_the_other_works(tmp_path: Path) -> None:
    token, digest = "the operator's", hashlib.sha256(b"the operator's").hexdigest()
    (tmp_path / "token").write_text(token)
    headers = {"Authorization": f"Bearer {token}"}
    async with two(tmp_path, admin_token_sha256=digest) as (stand, a, b):
        market, trader = stand.world.market(), stand.world.trader()
        orders = [stand.order(trader, market, stop_usd=usd) for usd in (95, 90, 85)]
        await stand.known(*orders)
        port = str(httpx.URL(a.ready[0].http_url).port)
        where = ["--port", port, "--token-file", str(tmp_path / "token"), "--config", str(a.config.file)]
        with stand.held():  # what a sent can't land, so that b finds it open
            stand.world.set_price(market, 94_000_000)
            await until(lambda: stand.sends)
            done = await anyio.run_process([sys.executable, "-m", "keeper", "drain", *where], check=False)
            await until(lambda: any(send.endpoint == 1 for send in stand.sends) or done.returncode)
        said = (done.stdout + done.stderr).decode()
        print(said)
        assert done.returncode == 0, said
        assert re.fullmatch(r"b took over from a after \d+\.\d\d s \(term 2\); a stands by\.\n", said), said
        await until(lambda: b.ready and a.told)
        await stand.reach(orders[0], OrderState.FILLED)
        assert a.url == a.ready[0].http_url
        async with (
            httpx.AsyncClient(base_url=a.url) as http,
            httpx.AsyncClient(base_url=b.url, headers=headers) as other,
        ):
            await answers(http, "/healthz", lambda health: health["standing_by"] == "b")
            stand.world.set_price(market, 89_000_000)
            await stand.reach(orders[1], OrderState.FILLED)
            assert (await other.post("/v1/admin/drain")).status_code == 202
            await until(lambda: len(a.ready) == 2)
            await b.stop()
            stand.world.set_price(market, 84_000_000)
            await stand.reach(orders[2], OrderState.FILLED)
            alone = await http.post("/v1/admin/drain", headers=headers)
            assert (alone.status_code, alone.json()["code"]) == (409, "nobody_stands_by")
        assert [stand.landed(order) for order in orders] == [1, 1, 1]
        assert [len({*stand.sent(order)}) for order in orders] == [1, 1, 1], "the same bytes, whoever sends them"
        by_keeper = [{send.endpoint for send in stand.sends if send.wire in stand.sent(order)} for order in orders]
        assert by_keeper == [{0, 1}, {1}, {0}]
