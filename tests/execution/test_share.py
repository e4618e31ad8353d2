"""Keepers on one journal that work on different markets: each acts on its own orders alone, and has all others' at hand
for when their markets become its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from solders.pubkey import Pubkey

from keeper.app import limits
from keeper.app.life import Life, living
from keeper.config.loading import load_settings
from keeper.domain.attempts import AttemptState
from keeper.domain.orders import OrderState
from keeper.execution.assembly import Execution
from keeper.execution.operator import Refused
from keeper.execution.orders import Reason
from keeper.execution.purse import spent_before, utc_day
from keeper.journal import Journal
from keeper.runtime.outside import REAL_WORLD
from tests.behaviours.stand import USDC, Stand, stays
from tests.support import Trader, until

pytestmark = pytest.mark.anyio


@dataclass
class Scene:
    """A stand with two markets at 100 dollars, a trader, and two keepers that know its chain."""

    stand: Stand
    journal: Journal
    keepers: tuple[Life, Life]
    sol: Pubkey
    btc: Pubkey
    trader: Trader

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, **sections: Any) -> AsyncIterator[Scene]:
        async with Stand.open(folder, **sections) as stand:
            settings = load_settings(stand.config.file)
            sol, btc, trader = stand.world.market(), stand.world.market(), stand.world.trader()
            async with (
                living(settings, REAL_WORLD, alone=True) as one,
                living(settings, REAL_WORLD, alone=False) as other,
            ):
                assert one.journal is not None
                yield cls(stand, one.journal, (one, other), sol, btc, trader)

    @asynccontextmanager
    async def at_work(self, *share: Pubkey, keeper: int = 0) -> AsyncIterator[Execution]:
        """One of the keepers works on these markets, as it does in `keeper.app.work`."""
        life, journal = self.keepers[keeper], self.journal
        execution = Execution(
            client=life.client,
            venue=life.venue,
            signer=life.signer,
            authority=None,
            blockhashes=life.blockhashes,
            journal=journal,
            lookout=life.lookout,
            limits=limits.execution_limits(life.settings),
            rent_lamports=life.rent_lamports,
            spent=await spent_before(journal, utc_day()),
            report=life.telemetry.report,
            share=frozenset(share),
        )
        async with anyio.create_task_group() as tg:
            with life.lookout.leaving(execution.router):
                tg.start_soon(journal.hold)
                await execution.recovery.resolve(await execution.recovery.load())
                await tg.start(execution.router.follow_attempts)
                await tg.start(execution.router.run)
                await life.lookout.hand_to(execution.router, execution.share)
                await life.listed.wait()
                await execution.recovery.reconcile()
                tg.start_soon(execution.arming.run)
                yield execution
            tg.cancel_scope.cancel()
        await execution.close()

    async def price(self, price_1e6: int, keeper: int = 0) -> None:
        """Both markets get this price, and the keeper has heard of it."""
        for market in (self.sol, self.btc):
            self.stand.world.set_price(market, price_1e6)
        read = self.keepers[keeper].lookout.decision.prices.read
        for market in (self.sol, self.btc):
            await until(lambda market=market: (known := read(market)) and known.price_1e6 == price_1e6)  # type: ignore[misc]

    async def known(self, *orders: Pubkey, keeper: int = 0) -> None:
        """Wait until the keeper's book holds them, whoever's they are."""
        book = self.keepers[keeper].lookout.decision.book
        await until(lambda: all(book.get(order) is not None for order in orders))

    def armed(self) -> set[Pubkey]:
        """The orders of which the journal holds an armed execution."""
        return {a.order for a in self.stand.journal.open_attempts() if a.state is AttemptState.ARMED}


async def test_only_the_orders_of_its_markets_are_noted_armed_and_executed(tmp_path: Path) -> None:
    async with Scene.open(tmp_path, execution={"armed_a_side": 2}) as scene:
        stand = scene.stand
        own, others = stand.order(scene.trader, scene.sol), stand.order(scene.trader, scene.btc)
        async with scene.at_work(scene.sol) as execution:
            await scene.known(own, others)
            await until(lambda: scene.armed() == {own})
            await execution.arming.look()
            await execution.arming.look([scene.sol, scene.btc])
            assert scene.armed() == {own}
            placed_since = stand.order(scene.trader, scene.btc)
            await scene.known(placed_since)
            assert execution.desk.why(others) == "", "that is its own keeper's to say"
            await scene.price(94 * USDC)
            await stand.reach(own, OrderState.FILLED)
            await stays(lambda: stand.row(others) is None and stand.row(placed_since) is None, stand)
        async with scene.at_work(scene.btc):
            await stand.reach(others, OrderState.FILLED)
            await stand.reach(placed_since, OrderState.FILLED)
        assert list(map(stand.landed, (own, others, placed_since))) == [1, 1, 1]


async def test_what_rested_before_is_noted_of_its_markets_alone(tmp_path: Path) -> None:
    """At leisure: the whole book is gone through."""
    async with Scene.open(tmp_path) as scene:
        stand = scene.stand
        orders = {market: [stand.order(scene.trader, market) for _ in range(20)] for market in (scene.sol, scene.btc)}
        await scene.known(*orders[scene.sol], *orders[scene.btc])
        async with scene.at_work(scene.btc):
            await stand.known(*orders[scene.btc])
            await stays(lambda: not any(map(stand.row, orders[scene.sol])), stand)
        async with scene.at_work(scene.sol):
            await stand.known(*orders[scene.sol])


async def test_two_keepers_divide_the_markets_between_them(tmp_path: Path) -> None:
    async with Scene.open(tmp_path) as scene:
        stand = scene.stand
        async with scene.at_work(scene.sol), scene.at_work(scene.btc, keeper=1):
            orders = [stand.order(scene.trader, market) for market in 5 * (scene.sol, scene.btc)]
            for keeper in (0, 1):
                await scene.known(*orders, keeper=keeper)
            await scene.price(94 * USDC)
            for order in orders:
                await stand.reach(order, OrderState.FILLED)
                assert stand.landed(order) == len(stand.attempts(order)) == 1


async def test_others_orders_expire_and_end_where_their_keeper_says_so(tmp_path: Path) -> None:
    async with Scene.open(tmp_path) as scene:
        stand = scene.stand
        soon = stand.bank.chain.tip.time + 60
        expires = {market: stand.order(scene.trader, market, expires_at=soon) for market in (scene.sol, scene.btc)}
        ends = {market: stand.order(scene.trader, market) for market in (scene.sol, scene.btc)}
        async with scene.at_work(scene.sol), scene.at_work(scene.btc, keeper=1):
            await stand.known(*expires.values(), *ends.values())
        async with scene.at_work(scene.sol) as execution:
            before = [stand.row(expires[scene.btc]), stand.row(ends[scene.btc])]
            stand.bank.advance_clock(61)
            for order in ends.values():
                stand.world.cancel(scene.trader, order)
            await stand.reach(expires[scene.sol], OrderState.EXPIRED)
            await stand.reach(ends[scene.sol], OrderState.CANCELLED)
            await until(lambda: execution.decision.book.get(ends[scene.btc]) is None)
            await stays(lambda: [stand.row(expires[scene.btc]), stand.row(ends[scene.btc])] == before, stand)
        async with scene.at_work(scene.btc):
            await stand.reach(expires[scene.btc], OrderState.EXPIRED)
            await stand.reach(ends[scene.btc], OrderState.CANCELLED)


async def test_an_open_attempt_is_followed_by_who_works_on_its_market_with_the_same_bytes(tmp_path: Path) -> None:
    async with Scene.open(tmp_path) as scene:
        stand = scene.stand
        order = stand.order(scene.trader, scene.btc)
        async with scene.at_work(scene.btc):
            await stand.known(order)
            stand.bank.hold_transactions()
            await scene.price(94 * USDC)
            await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
        sent = len(stand.sends)
        async with scene.at_work(scene.sol) as execution:
            assert len(execution.flights) == 0
            assert execution.orders.get(order) is None
            await stays(lambda: len(stand.sends) == sent and stand.attempt_state(order) is AttemptState.SENT, stand)
        async with scene.at_work(scene.btc) as execution:
            assert [flight.attempt.order for flight in execution.flights] == [order]
            await until(lambda: len(stand.sends) > sent)
            stand.bank.release_transactions()
            await stand.reach(order, OrderState.FILLED)
        assert len(stand.attempts(order)) == stand.landed(order) == 1
        assert len(set(stand.sent(order))) == 1


async def test_a_start_knows_of_the_journals_orders_those_of_its_markets(tmp_path: Path) -> None:
    """What was tried, what failed, and what ended or had expired while nobody worked."""
    async with Scene.open(tmp_path, execution={"retry_budget": 1}) as scene:
        stand, markets = scene.stand, (scene.sol, scene.btc)
        poor = stand.world.trader(collateral_1e6=0)
        failed = {market: stand.order(poor, market) for market in markets}
        ends = {market: stand.order(scene.trader, market, 50) for market in markets}
        soon = stand.bank.chain.tip.time + 60
        expired = {market: stand.order(scene.trader, market, 50, expires_at=soon) for market in markets}
        async with scene.at_work(*markets):
            await stand.known(*ends.values(), *failed.values(), *expired.values())
            await scene.price(94 * USDC)
            for order in failed.values():
                await stand.reach(order, OrderState.FAILED)
            stand.bank.advance_clock(61)
            for order in expired.values():
                await stand.reach(order, OrderState.EXPIRED)
        for order in (*ends.values(), *expired.values()):
            stand.world.cancel(scene.trader, order)
        book = scene.keepers[0].lookout.decision.book
        await until(lambda: not any(map(book.get, (*ends.values(), *expired.values()))))
        for own, other in (markets, markets[::-1]):
            before = [stand.row(orders[other]) for orders in (failed, ends, expired)]
            async with scene.at_work(own) as execution:
                record = execution.orders.get(failed[own])
                assert record is not None
                assert (set(record.reasons), record.tries.made, len(record.tries.recent)) == ({Reason.FAILED}, 1, 1)
                await stand.reach(ends[own], OrderState.CANCELLED)
                await stand.reach(expired[own], OrderState.CANCELLED)
                assert not any(map(execution.orders.get, (failed[other], ends[other], expired[other])))
                with pytest.raises(Refused, match="another keeper works on the order's market"):
                    await execution.operator.retry(failed[other])
            assert [stand.row(orders[other]) for orders in (failed, ends, expired)] == before
