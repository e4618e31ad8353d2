"""Users: they place, by their wallets or through the keeper's API, and cancel, close, place again, or are overtaken."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

import anyio
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.orders import OrderType
from tests.simulate.scenario import START_1E6, Deed, OrderPlan
from tests.simulate.stage import Stage
from tests.support.world import Refused, Trader

_CANCEL_ASKS: Final = 8
"""Who wants out asks for longer."""
_KILLED_AFTER_CANCEL: Final = 0.5
"""So often a cancel that the keeper took gets lost, it is killed, and the price comes: its next life has to know
that it may still land.
"""
_ASKS: Final = 3
"""A client that hears nothing asks again so often, with the same key."""


@dataclass(slots=True)
class Placed:
    """An order that was placed, or may have been."""

    plan: OrderPlan
    user: Trader
    address: Pubkey
    number: int


class Users:
    """`placed` are their orders, `accepted` those whose placing the keeper's API took."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._world = stage.world
        self.placed: list[Placed] = []
        self.accepted: list[Pubkey] = []

    async def follow(self, number: int, plan: OrderPlan) -> None:
        """One order, from its placing to what is done about it."""
        user = self._stage.ground.users[plan.purse]
        await anyio.sleep(plan.at_s)
        placed = await self._place_by_api(number, plan, user) if plan.by_api else self._place(number, plan, user)
        if placed is None:
            return
        self.placed.append(placed)
        await anyio.sleep(max(0.0, plan.deed_at_s - plan.at_s))
        try:
            if await self._do(placed):
                self._stage.trace.note("user", f"order {number}: {plan.deed}")
        except Refused as refused:
            self._stage.trace.note("user", f"order {number}: {plan.deed} was refused: {refused}")

    async def _do(self, placed: Placed) -> bool:
        world = self._world
        match placed.plan.deed:
            case Deed.CANCEL:
                world.cancel(placed.user, placed.address)
            case Deed.CANCEL_BY_API:
                await self._cancel_by_api(placed)
            case Deed.RIVAL if world.order(placed.address) is not None:
                world.execute(placed.address, self._stage.ground.rival)
            case Deed.CLOSE_AND_PLACE:
                # Not of a filled one: its position is in the way of another at this address.
                world.cancel(placed.user, placed.address)
                world.close(placed.user, placed.address)
                again = self._place(placed.number, placed.plan, placed.user)
                if again is not None and again.address != placed.address:
                    self.placed.append(again)  # the API had drawn the first one's id
            case _:
                return False
        return True

    def _place(self, number: int, plan: OrderPlan, user: Trader) -> Placed | None:
        trigger_1e6 = _trigger_1e6(plan)
        kind = plan.order_type
        trace = self._stage.trace
        try:
            address = self._world.place(
                user,
                self._stage.markets[self._stage.market_of(number)],
                kind,
                plan.side,
                price_1e6=trigger_1e6 if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT) else 0,
                stop_price_1e6=0 if kind in (OrderType.LIMIT, OrderType.TRAILING_STOP) else trigger_1e6,
                trailing_distance_ppm=plan.away_ppm if kind is OrderType.TRAILING_STOP else 0,
                expires_at=self._expires_at(plan),
                order_id=number,
            )
        except Refused as refused:
            trace.note("user", f"order {number} was not placed: {refused}")
            return None
        trace.note("user", f"order {number} is placed at {address}: {kind.word} {plan.side.word} {trigger_1e6}")
        return Placed(plan, user, address, number)

    def _expires_at(self, plan: OrderPlan) -> int:
        return self._stage.bank.chain.tip.time + plan.expires_in_s if plan.expires_in_s else 0

    # -- by the API

    async def _place_by_api(self, number: int, plan: OrderPlan, user: Trader) -> Placed | None:
        trigger = f"{_trigger_1e6(plan) / 1e6:g}"
        body: dict[str, Any] = {
            "user": str(user.address),
            "market": self._stage.market_of(number),
            "order_type": plan.order_type.word,
            "side": plan.side.word,
            "size": "1",
            "leverage": 5,
            "order_id": str(number) if number % 2 else None,
            "expires_at": self._expires_at(plan),
        }
        match plan.order_type:
            case OrderType.TRAILING_STOP:
                body["trailing_distance"] = f"{plan.away_ppm / 1e6:g}"
            case OrderType.LIMIT:
                body["limit_price"] = trigger
            case _:
                body["trigger_price"] = trigger
        prepared = await self._prepare(number, body)
        if prepared is None:
            return None
        address = Pubkey.from_string(prepared["order"])
        if await self._sign(f"order {number}", prepared, user, number):
            self.accepted.append(address)
        return Placed(plan, user, address, number)

    async def _prepare(self, number: int, body: dict[str, Any]) -> Any:
        """What the API prepared; asked for again, maybe of the keeper's next life, until there is an answer. One key
        never gives two orders of which both could land, unless the power went: what is only prepared is not synced.
        """
        found: Any = None
        chain, lives, cuts = self._stage.bank.chain, self._stage.lives, self._stage.lives.power_cuts
        for i in range(_ASKS):
            if i:
                await anyio.sleep(self._stage.dice.uniform(0.1, 3.0))
            market = str(body["market"])
            given = await self._stage.ask_api(
                f"order {number}", "/v1/orders", body, market=market, idempotency_key=f"order-{number}"
            )
            both = given is not None and found is not None and given["order"] != found["order"]
            if both and chain.tip.height <= found["last_valid_block_height"] and lives.power_cuts == cuts:
                self._stage.judge.violations.append(f"one key gave two orders: {found['order']}, {given['order']}")
            found = given or found
            if found is not None and self._stage.dice.random() < 0.7:
                break
        return found

    async def _cancel_by_api(self, placed: Placed) -> None:
        about = f"cancel of order {placed.number}"
        stage = self._stage
        prepared = None
        for i in range(_CANCEL_ASKS):
            if prepared is None:
                await anyio.sleep(stage.dice.uniform(0.5, 2.0) if i else 0.0)
                market = stage.market_of(placed.number)
                prepared = await stage.ask_api(about, f"/v1/orders/{placed.address}/cancel", {}, market=market)
        crashes = stage.dice.random() < _KILLED_AFTER_CANCEL and stage.loop.time() < stage.calm_from
        if crashes:
            stage.bank.lose_transactions(len(stage.network.nodes))
        if prepared is None or not await self._sign(about, prepared, placed.user, placed.number) or not crashes:
            return
        stage.trace.note("user", f"{about} is taken, and gets lost with the keeper")
        stage.lives.kill_in(stage.dice.choice((1, 10, 100, 300)), power_cut=False)
        await anyio.sleep(stage.dice.uniform(0.05, 1.0))
        stage.set_price(_trigger_1e6(placed.plan))

    async def _sign(self, about: str, prepared: dict[str, Any], user: Trader, number: int) -> bool:
        """Sign what was prepared, after a moment, and send it back; whether it was accepted."""
        unsigned = VersionedTransaction.from_bytes(base64.b64decode(prepared["transaction"]))
        wire = bytes(VersionedTransaction(unsigned.message, [user.key]))
        body = {"id": prepared["id"], "signed_transaction": base64.b64encode(wire).decode()}
        await anyio.sleep(self._stage.dice.uniform(0.0, 1.5))
        market = self._stage.market_of(number)
        return await self._stage.ask_api(about, "/v1/orders/execute", body, market=market) is not None


def _trigger_1e6(plan: OrderPlan) -> int:
    return START_1E6 + (-1 if plan.below else 1) * START_1E6 * plan.away_ppm // 1_000_000
