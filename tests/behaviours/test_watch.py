"""Behaviours 13 to 18 and 24: what the keeper believes of the chain is what the chain says, and no older."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from solders.account import Account
from solders.pubkey import Pubkey

from keeper.domain.events import Event, MarketSeen, OrderGone, OrderSeen
from keeper.domain.orders import OrderFields, OrderState
from keeper.solana.client import ChainClient, memcmp
from keeper.solana.http1 import HttpTransport
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint
from keeper.solana.sockets import Subscription, subscribed
from keeper.solana.sources import SocketSource
from keeper.solana.watch import ProgramWatch, WatchLimits
from keeper.venue.venue import MARKET_DISCRIMINATOR, ORDER_DISCRIMINATOR, Venue
from tests.behaviours.edited_node import Call
from tests.behaviours.stand import USDC, Stand, stays
from tests.chaos.proxy import Fault, Kind
from tests.support import PROGRAM, KeeperConfig, KeeperProcess, Trader, World, until

pytestmark = pytest.mark.anyio

DROPPED = Fault(Kind.NEWS_DROPPED)
ORDERS, SLOTS = "programNotification", "slotNotification"


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with Stand.open(tmp_path, rpc={"silence_s": 0.3, "snapshot_every_s": 0.2}) as stand:
        yield stand


async def connections(stand: Stand) -> int:
    """How often the keeper has reconnected."""
    text = (await stand.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("keeper_watch_reconnects{")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


async def test_13_a_reconnect_loses_no_order(tmp_path: Path) -> None:
    """Placed, triggered and cancelled while there was no socket; snapshots come with connections only."""
    async with Stand.open(tmp_path) as stand:
        trader, market, quiet = stand.world.trader(), stand.world.market(), stand.world.market()
        async with stand.keeper():
            doomed = stand.order(trader, quiet)
            await stand.known(doomed)
            stand.scripts[0].refuse_connections(3)
            stand.scripts[0].break_news(Fault(Kind.SOCKET_ABORTED))
            await until(lambda: stand.proxies[0].injected[Kind.SOCKET_REFUSED] >= 1)
            stand.world.cancel(trader, doomed)
            orders = [stand.order(trader, market, 95 - i) for i in range(5)]
            resting = stand.order(trader, quiet)
            stand.world.set_price(market, 80 * USDC)
            for order in orders:
                await stand.reach(order, OrderState.FILLED)
            await stand.reach(resting, OrderState.OPEN)
            await stand.reach(doomed, OrderState.CANCELLED)


async def test_14_the_snapshot_finds_what_news_missed_and_what_is_gone(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    async with stand.keeper():
        closed = stand.order(trader, market)
        await stand.known(closed)
        stand.scripts[0].break_news(DROPPED, kind=ORDERS, times=1_000)
        missed = stand.order(trader, market)
        stand.world.cancel(trader, closed)
        stand.world.close(trader, closed)
        await stand.reach(missed, OrderState.OPEN)
        row = await stand.reach(closed, OrderState.DROPPED)
        assert "closed" in row.reason
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(missed, OrderState.FILLED)


class Recorder:
    """What a watch told, and what its readers would believe."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def unchanged(self, address: Pubkey, fields: OrderFields, slot: int) -> bool:
        return False

    def begin_load(self) -> None:
        return None

    async def end_load(self, load: object) -> None:
        raise AssertionError("no load was begun")

    def not_seen_since(self, slot: int, cursor: int) -> tuple[list[Pubkey], int | None]:
        return [], None

    def orders(self) -> list[Pubkey]:
        return [e.order.address for e in self.events if isinstance(e, OrderSeen)]


@contextlib.asynccontextmanager
async def watching(stand: Stand) -> AsyncIterator[tuple[ProgramWatch, Recorder]]:
    """A watch of its own on the stand's chain, without a keeper."""
    recorder = Recorder()
    proxy = stand.proxies[0]
    pool = RpcPool([Endpoint("node", HttpTransport(proxy.rpc_url, label="node"))], PoolLimits())
    watch = ProgramWatch(
        reader=Venue(PROGRAM, PROGRAM.id),
        client=ChainClient(pool),
        source=SocketSource("node", proxy.ws_url),
        intake=recorder,
        on_malformed=lambda address, reason: None,
        on_snapshot=lambda: None,
        on_trouble=lambda reason: None,
        on_unlisted=lambda reason: None,
        limits=WatchLimits(silence_s=5.0, snapshot_every_s=60.0),
    )
    async with anyio.create_task_group() as tg:
        await tg.start(watch.run)
        yield watch, recorder
        tg.cancel_scope.cancel()
    await pool.aclose()


def test_a_snapshot_that_costs_much_is_repeated_less_often() -> None:
    limits = WatchLimits(silence_s=5.0, snapshot_every_s=60.0)
    assert limits.snapshot_pause_s(0.1) == 60.0
    assert limits.snapshot_pause_s(4.0) == pytest.approx(160.0)
    assert limits.snapshot_pause_s(60.0) == 300.0, "what was missed must not wait for ever"


async def test_15_an_older_slot_never_overwrites_a_newer_state(stand: Stand, trader: Trader) -> None:
    """News that comes late, behind a snapshot that is newer than it, changes nothing: not a price, not an order."""
    market = stand.world.market()
    async with stand.keeper() as keeper:
        assert keeper.program.id == PROGRAM.id
        order = stand.order(trader, market)
        await stand.known(order)
        # Held back on the socket: a price that would trigger the order. The price moves on meanwhile.
        stand.scripts[0].break_news(Fault(Kind.NEWS_DELAYED, 0.5), kind=ORDERS)
        with stand.held():
            stand.bank.advance()
            stand.world.set_price(market, 94 * USDC)
            stand.bank.advance()
            stand.world.set_price(market, 100 * USDC)
            stand.bank.advance()
        delayed = stand.proxies[0].injected
        await until(lambda: delayed[Kind.NEWS_DELAYED] == 1)
        # A snapshot (every 0.2 s) brings the newer price first; the late news follows it.
        await stays(lambda: not stand.attempts(order), stand, blocks=80)
        text = (await stand.get("/v1/markets")).text
        assert '"94"' not in text


async def test_15_what_is_gone_is_not_revived_by_late_news(stand: Stand, trader: Trader, market: Pubkey) -> None:
    async with stand.keeper():
        order = stand.order(trader, market)
        await stand.known(order)
        stand.scripts[0].break_news(Fault(Kind.NEWS_SWAPPED), kind=ORDERS)
        stand.world.cancel(trader, order)
        await stand.reach(order, OrderState.CANCELLED)
        stand.world.set_price(market, 94 * USDC)
        await stays(lambda: not stand.attempts(order), stand)
        assert stand.state(order) is OrderState.CANCELLED


async def test_16_a_silent_socket_is_replaced(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, rpc={"silence_s": 0.2}) as stand:
        trader, market = stand.world.trader(), stand.world.market()
        async with stand.keeper():
            # Open for an hour, and nothing comes; the next snapshot would be in half a minute.
            stand.scripts[0].break_news(Fault(Kind.SOCKET_SILENT, 3_600))
            await until(lambda: stand.proxies[0].injected[Kind.SOCKET_SILENT] == 1)
            order = stand.order(trader, market, 101)
            await stand.reach(order, OrderState.FILLED)


async def test_16_a_quiet_market_is_not_a_silent_socket(stand: Stand) -> None:
    async with stand.keeper():
        await stays(lambda: True, stand, blocks=60)
        assert await connections(stand) == 0, "slots kept coming"


async def test_17_a_normal_close_reconnects(tmp_path: Path) -> None:
    async with Stand.open(tmp_path) as stand:
        trader, market = stand.world.trader(), stand.world.market()
        async with stand.keeper():
            stand.scripts[0].break_news(Fault(Kind.SOCKET_CLOSED))
            await until(lambda: stand.proxies[0].injected[Kind.SOCKET_CLOSED] == 1)
            order = stand.order(trader, market, 101)
            await stand.reach(order, OrderState.FILLED)


async def test_17_a_message_that_is_no_json_costs_itself_only(stand: Stand, trader: Trader, market: Pubkey) -> None:
    async with watching(stand) as (watch, recorder):
        stand.scripts[0].break_news(Fault(Kind.NEWS_GARBAGE), times=20)
        await until(lambda: stand.proxies[0].injected[Kind.NEWS_GARBAGE] == 20)
        order = stand.order(trader, market)
        await until(lambda: order in recorder.orders())
        assert watch.health.reconnects == 0
        await until(lambda: watch.health.malformed >= 20)


async def test_17_an_account_that_is_none_costs_itself_only(stand: Stand, trader: Trader, market: Pubkey) -> None:
    async with stand.keeper():
        bad = Pubkey.new_unique()
        stand.bank.set_account(bad, Account(10**9, ORDER_DISCRIMINATOR + b"\xff" * 3, PROGRAM.id))
        order = stand.order(trader, market, 101)
        await stand.reach(order, OrderState.FILLED)
        assert await connections(stand) == 0


async def test_18_accounts_above_one_mebibyte_pass_the_socket(stand: Stand, trader: Trader, market: Pubkey) -> None:
    """websockets' own limit is 1 MiB; an account may have ten, and comes in base64."""
    async with watching(stand) as (watch, recorder):
        order = stand.order(trader, market)
        await until(lambda: order in recorder.orders())
        account = stand.bank.account(order)
        assert account is not None
        large = Account(account.lamports, bytes(account.data) + bytes(9 * 1024 * 1024), PROGRAM.id)
        before = len(recorder.events)
        stand.bank.set_account(order, large)
        await until(lambda: order in [e.order.address for e in recorder.events[before:] if isinstance(e, OrderSeen)])
        assert watch.health.reconnects == 0
        assert watch.health.malformed == 0


@pytest.mark.parametrize("method", ["getMultipleAccounts", "getProgramAccounts"], ids=["the clock", "the list"])
async def test_what_the_node_refuses_beside_a_healthy_socket_does_not_close_it(tmp_path: Path, method: str) -> None:
    """With 429 on the reading of the clock alone, the keeper heard of changes for an eighth of the time."""

    def refuse(call: Call, reply: dict[str, Any]) -> None:
        if call["method"] == method:
            del reply["result"]
            reply["error"] = {"code": 429, "message": "Too many requests"}

    async with Stand.open(tmp_path, rpc={"snapshot_every_s": 0.3}) as stand:
        trader, market = stand.world.trader(), stand.world.market()
        async with stand.keeper():
            stand.nodes[0].edit = refuse
            asked = len(stand.asked)
            await until(lambda: sum(c["method"] == method for c in stand.asked[asked:]) >= 2, within_s=15)
            assert await connections(stand) == 0
            assert (await stand.readiness("watch"))[0]
            order = stand.order(trader, market)
            await stand.known(order)
            missed = stand.asked[asked:]
            stand.nodes[0].edit = None
            await until(lambda: any(c["method"] == method for c in stand.asked[len(missed) + asked :]), within_s=15)
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.FILLED)
            assert await connections(stand) == 0


@pytest.mark.parametrize("only_its_socket", [False, True], ids=["an endpoint", "a socket"])
async def test_22_what_is_on_another_chain_decides_nothing(tmp_path: Path, only_its_socket: bool) -> None:
    """Its socket said 90 of the same market, and an order was executed at a price that its chain did not have."""
    async with World.open() as ours, World.open() as other:
        for _ in range(3_000):
            other.bank.advance()
        market = ours.market("SOL/USDC")
        assert market == other.market("SOL/USDC")
        order = ours.place(ours.trader(), market, stop_price_1e6=95 * USDC)
        url = ours.net.rpc_url if only_its_socket else other.net.rpc_url
        fallbacks = [{"url": url, "ws_url": other.net.ws_url}]
        rpc = {"fallbacks": fallbacks, "probe_every_s": 1.0, "snapshot_every_s": 5.0}
        config = KeeperConfig.beside(ours, tmp_path, rpc=rpc, trigger={"breaker_trip": 1.0})
        async with KeeperProcess.running(config) as keeper, httpx.AsyncClient(base_url=keeper.url) as api:

            async def told(path: str, part: str) -> bool:
                return part in (await api.get(path)).text

            with anyio.fail_after(10):
                while not await told("/metrics", "keeper_watch_reconnects_total{"):  # noqa: ASYNC110 - asked over HTTP
                    await anyio.sleep(0.1)
            for price in (90, 92, 90):
                other.set_price(market, price * USDC)
                await anyio.sleep(0.3)
            assert not await told("/v1/markets/SOL/USDC", '"price":"9')
            with config.reading() as journal:
                assert journal.attempts_of(order) == []
                ours.set_price(market, 94 * USDC)
                await until(lambda: (row := journal.order(order)) is not None and row.state is OrderState.FILLED)
                assert len(journal.attempts_of(order)) == 1
        assert "another chain" in config.log.read_text() or "and its RPC at" in config.log.read_text()


async def test_18_more_subscriptions_than_fit_a_message(stand: Stand) -> None:
    """A node takes 4,096 bytes a message: two hundred subscriptions are 20 KiB."""
    proxy = stand.proxies[0]
    wanted = [
        Subscription(str(i), "accountSubscribe", (str(Pubkey.new_unique()), {"encoding": "base64"})) for i in range(200)
    ]
    async with (
        subscribed(proxy.ws_url, [*wanted, Subscription("slot", "slotSubscribe")], label="n", silence_s=2) as socket,
        contextlib.aclosing(socket.notifications()) as notifications,
    ):
        async for news in notifications:
            assert news.tag == "slot"
            break


async def test_what_a_node_repeats_is_left_out_and_what_came_back_is_told(stand: Stand, market: Pubkey) -> None:
    account = stand.bank.account(market)
    assert account is not None
    states = [Account(account.lamports + more, account.data, account.owner) for more in (1, 1, 2, 1)]
    filters = [memcmp(0, MARKET_DISCRIMINATOR)]
    config = {"encoding": "base64", "commitment": "processed", "filters": filters}
    wanted = Subscription("market", "programSubscribe", (str(PROGRAM.id), config), repeats=True)
    async with (
        subscribed(stand.proxies[0].ws_url, [wanted], label="n", silence_s=2) as socket,
        contextlib.aclosing(socket.notifications()) as notifications,
    ):
        for state in states:
            stand.bank.set_account(market, state)
        told = []
        async for news in notifications:
            assert news.account is not None
            told.append(news.account.lamports - account.lamports)
            if len(told) == 3:
                break
        assert told == [1, 2, 1]


async def test_two_endpoints_watch_at_once_and_the_first_news_wins(tmp_path: Path) -> None:
    # Nobody looks again, and nobody gives a silent socket up, while the test lasts.
    patient = {"silence_s": 300.0, "snapshot_every_s": 300.0}
    async with Stand.open(tmp_path, endpoints=2, rpc=patient, health={"stalled_after_s": 400.0}) as stand:
        trader, market = stand.world.trader(), stand.world.market()
        async with stand.keeper():
            # One of the two sockets falls silent; nothing is late because of it.
            stand.scripts[0].break_news(Fault(Kind.SOCKET_SILENT, 3_600))
            await until(lambda: stand.proxies[0].injected[Kind.SOCKET_SILENT] == 1)
            order = stand.order(trader, market, 101)
            await stand.reach(order, OrderState.FILLED)
            assert len(stand.attempts(order)) == 1


async def test_24_how_old_a_price_is_says_the_chains_clock(tmp_path: Path) -> None:
    async with Stand.open(tmp_path) as stand:
        trader, market = stand.world.trader(), stand.world.market()
        # The oracle falls asleep; on chain a quarter of an hour passes, here nothing does.
        stand.world.set_price(market, 94 * USDC)
        stand.bank.advance_clock(900)
        async with stand.keeper():
            assert (await stand.readiness("prices"))[0], "no order waits for it"
            order = stand.order(trader, market)
            await stand.reach(order, OrderState.OPEN)
            await stays(lambda: not stand.attempts(order), stand)
            ok, sentence = await stand.readiness("prices")
            assert not ok
            assert "old" in sentence
            assert (await stand.get("/readyz")).status_code == 503, "nothing at all is executed"
            stand.world.market()
            with anyio.fail_after(10):  # one oracle that sleeps is not the keeper's fault
                while (await stand.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - asked over HTTP
                    await anyio.sleep(0.02)
            assert not (await stand.readiness("prices"))[0]
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.FILLED)


async def test_24_a_chain_clock_behind_this_machines_makes_no_price_old(tmp_path: Path) -> None:
    async with Stand.open(tmp_path) as stand:
        stand.bank.advance_clock(-3_600)
        trader, market = stand.world.trader(), stand.world.market()
        async with stand.keeper():
            order = stand.order(trader, market)
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.FILLED)


async def test_a_market_is_seen_before_its_orders(stand: Stand, trader: Trader, market: Pubkey) -> None:
    """So that an order that is met by the present price acts at the snapshot already."""
    stand.order(trader, market)
    async with watching(stand) as (_, recorder):
        kinds = [type(event) for event in recorder.events if isinstance(event, MarketSeen | OrderSeen | OrderGone)]
        assert kinds.index(MarketSeen) < kinds.index(OrderSeen)
