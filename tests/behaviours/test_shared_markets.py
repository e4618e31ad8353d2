"""Two keepers on one PostgreSQL journal that share the markets: each works on its own, and takes over the other's."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
from solders.pubkey import Pubkey

from keeper.app.life import Life
from keeper.domain.events import OrderGone, OrderSeen
from keeper.domain.orders import NOBODY, OrderState
from keeper.execution.lookout import Lookout
from keeper.journal import home_of
from keeper.journal.looking import shares
from keeper.triggers.decision import Decision, Rules
from tests.behaviours.stand import Stand
from tests.journal.journal_making import make_order
from tests.support import KeeperConfig, KeeperProcess, until
from tests.support.keeper_process import START_WITHIN_S
from tests.support.postgres import missing

if why := missing():
    pytest.skip(why, allow_module_level=True)

from tests.behaviours.test_two_keepers import readiness, two

pytestmark = pytest.mark.anyio


def holder_of(stand: Stand, market: Pubkey) -> str | None:
    """Who works on the market."""
    held = home_of(stand.config.place).holders()
    return next((lease.holder for lease in held if lease.what == str(market)), None)


def share_counts(stand: Stand) -> dict[str, int]:
    """How many markets each keeper has."""
    return shares(home_of(stand.config.place).holders())


@contextlib.asynccontextmanager
async def sharing(folder: Path) -> AsyncIterator[tuple[Stand, KeeperConfig, KeeperConfig, list[Pubkey]]]:
    """See `two`; and four markets."""
    async with two(folder, share_markets=True) as (stand, a, b):
        yield stand, a, b, [stand.world.market() for _ in range(4)]


async def executed_once(stand: Stand, order: Pubkey) -> set[int]:
    """It was filled once, by one attempt, whose bytes never changed; the endpoints at which they arrived."""
    await until(lambda: stand.state(order) is OrderState.FILLED)
    (attempt,) = stand.attempts(order)
    assert stand.landed(order) == 1
    sends = [send for send in stand.sends if send.signature == attempt.signature]
    assert {send.wire for send in sends} == {attempt.wire}
    return {send.endpoint for send in sends}


async def even(stand: Stand) -> None:
    """Both have two markets each."""
    await until(lambda: share_counts(stand) == {"a": 2, "b": 2}, within_s=START_WITHIN_S)


async def test_each_executes_in_its_own_markets_and_a_newcomer_gets_its_share(tmp_path: Path) -> None:
    async with sharing(tmp_path) as (stand, a, b, markets):
        trader = stand.world.trader()
        first = [stand.order(trader, market) for market in markets]
        async with KeeperProcess.running(a):
            await until(lambda: share_counts(stand) == {"a": 4})
            async with KeeperProcess.running(b):
                await even(stand)
                await until(lambda: all(stand.row(order) is not None for order in first))
                endpoints = {market: "ab".index(holder_of(stand, market) or "") for market in markets}
                assert sorted(endpoints.values()) == [0, 0, 1, 1]
                for market in markets:
                    stand.world.set_price(market, 94_000_000)
                for market, order in zip(markets, first, strict=True):
                    assert await executed_once(stand, order) == {endpoints[market]}


async def test_what_a_killed_keeper_left_in_its_markets_is_sent_by_the_other_with_the_same_bytes(
    tmp_path: Path,
) -> None:
    async with sharing(tmp_path) as (stand, a, b, markets):
        trader = stand.world.trader()
        first = await KeeperProcess.start(a, crash_at="sent")
        await first.ready()
        async with KeeperProcess.running(b):
            await even(stand)
            its = [market for market in markets if holder_of(stand, market) == "a"]
            other = next(market for market in markets if holder_of(stand, market) == "b")
            order, later, elsewhere = (stand.order(trader, market) for market in (its[0], its[1], other))
            await until(lambda: all(stand.row(each) is not None for each in (order, later, elsewhere)))
            with stand.held():  # what was signed must not grow too old on a busy machine
                stand.world.set_price(its[0], 94_000_000)
                assert await first.wait() == -signal.SIGKILL
                stand.world.set_price(other, 94_000_000)
                await until(lambda: len({send.endpoint for send in stand.sends}) == 2, within_s=START_WITHIN_S)
            await until(lambda: share_counts(stand) == {"b": 4})
            stand.world.set_price(its[1], 94_000_000)
            await executed_once(stand, order)
            for each in (later, elsewhere):
                assert await executed_once(stand, each) == {1}


async def test_who_is_told_to_stop_hands_its_markets_over_and_an_upgrade_misses_nothing(tmp_path: Path) -> None:
    async with sharing(tmp_path) as (stand, a, b, markets):
        trader = stand.world.trader()
        price = 94_000_000
        async with KeeperProcess.running(a) as first, KeeperProcess.running(b) as second:
            running = {"a": first, "b": second}
            await even(stand)
            for name, config in (("a", a), ("b", b)):
                orders = [stand.order(trader, market, stop_usd=(price + 1_000_000) / 1e6) for market in markets]
                await until(lambda: all(stand.row(order) is not None for order in orders))  # noqa: B023
                for market in markets:
                    stand.world.set_price(market, price)
                price -= 2_000_000
                assert await running[name].stop() == 0
                for order in orders:
                    await executed_once(stand, order)
                running[name] = await KeeperProcess.start(config)
                await running[name].ready()
                await even(stand)
            for keeper in running.values():
                await keeper.stop()


async def test_an_operators_pause_at_one_keeper_holds_for_all_and_so_does_the_resume(tmp_path: Path) -> None:
    async with sharing(tmp_path) as (stand, a, b, markets):
        settings = {name: values for name, values in a.settings.items() if name != "key"}
        settings["http"] = {**settings["http"], "admin_token_sha256": hashlib.sha256(b"operator").hexdigest()}
        a = KeeperConfig.at(a.folder, a.key, **settings)
        trader = stand.world.trader()
        async with KeeperProcess.running(a) as first, KeeperProcess.running(b) as second:
            await even(stand)
            theirs = next(market for market in markets if holder_of(stand, market) == "b")
            order = stand.order(trader, theirs)
            await until(lambda: stand.row(order) is not None)
            headers = {"Authorization": "Bearer operator"}
            async with httpx.AsyncClient(base_url=first.url, headers=headers) as http:
                await readiness(http, 200)
                (await http.post("/v1/admin/pause", json={"reason": "one for all"})).raise_for_status()
                async with httpx.AsyncClient(base_url=second.url) as other:
                    await readiness(other, 503)
                    stand.world.set_price(theirs, 94_000_000)
                    await until(lambda: stand.state(order) is OrderState.TRIGGERED)
                    assert stand.sends == []
                    (await http.post("/v1/admin/resume")).raise_for_status()
                    await readiness(other, 200)
            assert await executed_once(stand, order) == {1}


def test_the_markets_to_share_are_those_that_are_known_and_those_that_a_resting_order_names() -> None:
    """Revision 0.1 has orders that name none: somebody is to note them."""
    lookout, order = Lookout(Decision(Rules())), make_order(market=NOBODY)
    lookout.tell(OrderSeen(order))
    life = cast(Life, SimpleNamespace(lookout=lookout))
    assert Life.markets(life) == [str(NOBODY)]
    lookout.tell(OrderGone(order.address, order.slot + 1))
    assert Life.markets(life) == []
