"""The story, scene by scene: place, walk, let a feed die, move a price and back, settle."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import anyio
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.demo.api import KeeperApi, Terms
from keeper.demo.board import Board, kind_of, trigger_of
from keeper.demo.errors import DemoFailed
from keeper.demo.feed import Feed
from keeper.demo.options import MAX_PRICE_AGE_S, PATIENCE_S, TICK_S, WALK_TICKS, DemoOptions
from keeper.demo.plan import FLICKER_DEPTH, Plan, Wish
from keeper.demo.prices import LISTINGS, walk
from keeper.demo.rules import met
from keeper.demo.watching import Watcher
from keeper.demo.world import World
from keeper.domain.orders import PRICE_SCALE, OrderType

# Shares of the story at which its scenes begin, as long as they take by default.
_OPENING: Final = 0.1
_WALKING: Final = 0.35
_AFTER_WALK: Final = 0.75

_AT_ONCE: Final = 8
"""Orders that are being placed at the same time."""
_POLL_S: Final = 0.25
_QUIET_LOOKS: Final = 3
_SECOND_THOUGHTS_S: Final = 1.5
"""Users cancel no sooner than this after placing: the API cancels what is confirmed on chain."""
_DEAD_WATCH_S: Final = 2.0
"""How long orders that a dead price meets are watched not being executed."""
_UNFINISHED: Final = frozenset({"prepared", "submitted", "triggered", "executing", "cancelling"})
_DEAD: Final = LISTINGS[-1].symbol
_FLICKERING: Final = LISTINGS[0].symbol


@dataclass(slots=True)
class Story:
    """Plays the plan. `placed` are the addresses of accepted orders; `poor` those whose users can't pay."""

    options: DemoOptions
    plan: Plan
    world: World
    api: KeeperApi
    feed: Feed
    watcher: Watcher
    board: Board
    rng: random.Random
    takeover: Callable[[], Awaitable[str]] | None = None
    """Kills the working keeper, and returns when another works."""
    placed: list[Pubkey] = field(default_factory=list)
    poor: list[Pubkey] = field(default_factory=list)
    _owners: dict[Pubkey, Keypair] = field(default_factory=dict)

    async def play(self) -> None:
        """Every scene in order. DemoFailed when one can't be played."""
        await self._markets_known()
        self._scene("Placing orders over HTTP", _OPENING)
        far = await self._open()
        self._scene("Prices walk", _WALKING)
        await self._walk(far)
        if self.takeover is not None:
            self._scene("The working keeper is killed, and another takes over", _AFTER_WALK)
            self.board.notes.append(await self.takeover())
        self._scene(f"The feed of {_DEAD} dies; the price of {_FLICKERING} moves and moves back", _AFTER_WALK)
        async with anyio.create_task_group() as tg:
            tg.start_soon(self._dead_feed)
            tg.start_soon(self._flicker)
        self._scene("Settling", 0.9)
        await self._settle()

    def _scene(self, name: str, progress: float) -> None:
        self.board.scene, self.board.progress = name, progress

    # -- scenes

    async def _markets_known(self) -> None:
        with anyio.move_on_after(PATIENCE_S):
            while True:
                known = {market["market"] for market in await self.api.markets() if market["executing"]}
                if known >= set(self.world.markets):
                    return
                await anyio.sleep(_POLL_S)
        raise DemoFailed(f"The keeper did not see the markets, with fresh prices, within {PATIENCE_S:.0f} s.")

    async def _open(self) -> list[Pubkey]:
        """Place what is placed before the walk; gives the orders that will be cancelled."""
        half = len(self.plan.early) // 2
        await self._place_all(self.plan.early[:half], self.world.traders)
        self.board.progress = (_OPENING + _WALKING) / 2
        await self._place_all(self.plan.early[half:], self.world.traders)
        self.poor = await self._place_all(self.plan.poor, self.world.poor)
        return await self._place_all(self.plan.cancelled, self.world.traders)

    async def _walk(self, far: Sequence[Pubkey]) -> None:
        """Prices move; meanwhile further orders come in, and some users change their minds."""
        tick_s = TICK_S / self.options.speed
        paths = {listing.symbol: list(islice(walk(listing, self.rng), WALK_TICKS)) for listing in LISTINGS}
        async with anyio.create_task_group() as tg:
            tg.start_soon(self._place_slowly, self.plan.late, tick_s * WALK_TICKS)
            tg.start_soon(self._cancel_all, far, max(_SECOND_THOUGHTS_S, tick_s * WALK_TICKS / 2))
            await self.feed.walk(paths, tick_s, self._walked)
        self.board.notes.append(f"{len(far)} orders were cancelled by their users, through the API.")

    def _walked(self, tick: int) -> None:
        self.board.progress = _WALKING + (_AFTER_WALK - _WALKING) * tick / WALK_TICKS

    async def _dead_feed(self) -> None:
        """Nothing may be executed on a price that is too old, although it meets the orders."""
        self.feed.silence(_DEAD)
        with anyio.move_on_after(MAX_PRICE_AGE_S + PATIENCE_S):
            while True:
                await anyio.sleep(_POLL_S)
                if not any(line.executing for line in self.board.markets if line.symbol == _DEAD):
                    break
        orders = await self._place_all(self.plan.dead, self.world.traders)
        await anyio.sleep(_DEAD_WATCH_S)
        shown = [await self.api.order(str(order)) for order in orders]
        filled = sum(order["status"] == "filled" for order in shown)
        reason = next((order["status_reason"] for order in shown if order["status"] == "open"), "")
        self.board.notes.append(
            f"{_DEAD}: the feed was dead; its last price met {len(orders)} new orders, and {filled} were executed. "
            f"{reason}"
        )
        self.feed.resume(_DEAD)

    async def _flicker(self) -> None:
        """The price crosses the triggers and is back before any transaction can be sent."""
        orders = await self._place_all(self.plan.flicker, self.world.traders)
        await self._on_chain(orders)
        price = self.feed.prices_1e6[_FLICKERING]
        await self.feed.flicker(_FLICKERING, round(price * (1 - FLICKER_DEPTH)))
        self.board.notes.append(
            f"{_FLICKERING}: the price crossed the triggers of {len(orders)} orders and was moved back at once."
        )

    async def _settle(self) -> None:
        """Wait until the keeper has done what is to be done, or has had long enough."""
        quiet = 0
        with anyio.move_on_after(PATIENCE_S):
            while quiet < _QUIET_LOOKS:
                await anyio.sleep(_POLL_S)
                await self.watcher.look()
                quiet = 0 if self._unfinished() else quiet + 1

    def _unfinished(self) -> bool:
        for order in self.board.orders:
            trigger = trigger_of(order)
            if order["status"] in _UNFINISHED:
                return True
            if order["status"] == "open" and trigger is not None:
                price_1e6 = self.feed.prices_1e6[order["market"]]
                if met(*kind_of(order), round(trigger * PRICE_SCALE), price_1e6):
                    return True
        return False

    # -- placing and cancelling

    async def _place_all(self, wishes: Sequence[Wish], traders: Sequence[Keypair]) -> list[Pubkey]:
        """Place these, a few at a time; gives their addresses in order."""
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        addresses: dict[int, Pubkey] = {}

        async def one(i: int, wish: Wish) -> None:
            async with limiter:
                addresses[i] = await self._place(wish, traders[i % len(traders)])

        async with anyio.create_task_group() as tg:
            for i, wish in enumerate(wishes):
                tg.start_soon(one, i, wish)
        return [addresses[i] for i in range(len(wishes))]

    async def _place_slowly(self, wishes: Sequence[Wish], within_s: float) -> None:
        started = anyio.current_time()
        for i, wish in enumerate(wishes):
            await anyio.sleep_until(started + within_s * i / len(wishes))
            await self._place(wish, self.world.traders[i % len(self.world.traders)])

    async def _place(self, wish: Wish, trader: Keypair) -> Pubkey:
        terms = _terms(wish, self.feed.prices_1e6[wish.market.symbol])
        order = await self.api.place(trader, terms)
        self.placed.append(order)
        self._owners[order] = trader
        self.board.placed += 1
        return order

    async def _cancel_all(self, orders: Iterable[Pubkey], after_s: float) -> None:
        await anyio.sleep(after_s)
        for order in orders:
            await self.api.cancel(self._owners[order], order)

    async def _on_chain(self, orders: Iterable[Pubkey]) -> None:
        """Until the keeper holds these as resting."""
        missing = {str(order) for order in orders}
        with anyio.move_on_after(PATIENCE_S):
            while missing:
                await anyio.sleep(_POLL_S)
                missing -= {o["order"] for o in self.board.orders if o["status"] not in ("prepared", "submitted")}


def _terms(wish: Wish, price_1e6: int) -> Terms:
    trigger = wish.trigger_1e6(price_1e6)
    limit = wish.order_type is OrderType.LIMIT
    trailing = wish.order_type is OrderType.TRAILING_STOP
    return Terms(
        market=wish.market.symbol,
        order_type=wish.order_type,
        side=wish.side.word,
        size_1e6=wish.size_1e6(price_1e6),
        trigger_1e6=None if limit or trailing else trigger,
        limit_1e6=trigger if limit or wish.order_type is OrderType.STOP_LIMIT else None,
        trailing_ppm=round(wish.offset * 1e6) if trailing else None,
        leverage=wish.leverage,
    )
