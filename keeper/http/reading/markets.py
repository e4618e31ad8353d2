"""Markets: what an order can be placed on, its price, what rests there, and whether orders are executed there now."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal as Fraction
from typing import Annotated, Final, cast

from msgspec import Meta
from solders.pubkey import Pubkey
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.decimals import decimal
from keeper.domain.health import STANDS_BY, Health
from keeper.domain.orders import Market, OrderType
from keeper.domain.prices import Fires, Level, Price
from keeper.http.edge.answering import address, answer, part
from keeper.http.edge.openapi import described
from keeper.http.edge.problems import Problem
from keeper.http.models import Address, Answer, Decimal, OrderTypeWord
from keeper.http.ports import ApiPorts, Desk

_OF_ONE_MARKET: Final = frozenset({"prices"})
"""Checks of health that say nothing about the other markets; the desk says it of each."""


class TriggerLevel(Answer, frozen=True, kw_only=True):
    """Resting orders that share a trigger."""

    trigger_price: Decimal
    orders: int
    size: Annotated[Decimal, Meta(description="Of all of them, in base units.")]
    distance: Annotated[
        Decimal | None,
        Meta(description='How far the price has to move, as a fraction of it: "0.012" is 1.2 %. "0": it is met.'),
    ]


class RestingOrders(Answer, frozen=True, kw_only=True):
    """How many orders of a type rest."""

    order_type: OrderTypeWord
    orders: int


class MarketView(Answer, frozen=True, kw_only=True):
    """A market, its oracle's price, and what rests on it."""

    market: Annotated[str, Meta(examples=["SOL/USDC"])]
    address: Address
    price: Annotated[Decimal | None, Meta(examples=["101.25"])]
    price_age_s: Annotated[float | None, Meta(description="Seconds since the oracle's update, by the chain's clock.")]
    price_slot: int | None
    active: bool
    executing: Annotated[bool, Meta(description="Whether its orders are executed now.")]
    executing_reason: Annotated[str, Meta(description="Why not; empty when they are.")]
    max_leverage: int
    resting: Annotated[list[RestingOrders], Meta(description="By type; types that nobody has placed are left out.")]
    below: Annotated[list[TriggerLevel], Meta(description="What a falling price meets, the nearest first.")]
    above: Annotated[list[TriggerLevel], Meta(description="What a rising price meets, the nearest first.")]
    slot: int


class MarketList(Answer, frozen=True, kw_only=True):
    """Every market that the keeper watches."""

    markets: list[MarketView]


Levels = Annotated[int, Meta(ge=0, le=200, description="How many triggers to list on each side of the price.")]


@described("Every market", {200: MarketList})
async def list_markets(request: Request, levels: Levels = 1) -> Response:
    """Every market that the keeper watches, by symbol: its price, how many orders rest on it by type, and the nearest
    triggers on each side of the price.
    """
    ports = part(request, ApiPorts)
    return answer(MarketList(markets=market_views(ports.desk.markets(), ports, levels)))


@described("One market", {200: MarketView}, problems=["not_found"])
async def get_market(request: Request, base: str, quote: str, levels: Levels = 20) -> Response:
    """A market by its symbol, with the triggers around its price: `/v1/markets/SOL/USDC`, or with the slash encoded,
    `/v1/markets/SOL%2FUSDC`.
    """
    ports = part(request, ApiPorts)
    found = ports.desk.market(f"{base}/{quote}")
    if found is None:
        raise Problem("not_found", "The program has no such market that the keeper watches; /v1/markets lists them.")
    (view,) = market_views([found], ports, levels)
    return answer(view)


def watched_market(text: str, desk: Desk) -> Market:
    """The market of this symbol or address, or the Problem that the keeper watches none such."""
    found = desk.market(text)
    if found is None:
        raise Problem("unknown_market", "The program has no such market that the keeper watches.")
    return found


def market_filter(text: str | None, desk: Desk) -> Pubkey | None:
    """The market that a filter names, by symbol or address; an address may be of a market that is not watched."""
    if text is None:
        return None
    if "/" in text or desk.market(text) is not None:
        return watched_market(text, desk).address
    return address(text, "market")


def market_views(markets: list[Market], ports: ApiPorts, levels: int) -> list[MarketView]:
    """Markets by symbol, each with up to `levels` triggers on each side of its price."""
    counts, health = ports.desk.counts(), ports.health.report()
    views = [_view(market, ports, health, counts, levels) for market in markets]
    return sorted(views, key=lambda view: (view.market, view.address))


def _view(
    market: Market, ports: ApiPorts, health: Health, counts: Mapping[tuple[Pubkey, OrderType], int], levels: int
) -> MarketView:
    desk = ports.desk
    price, chain_time = desk.price(market.address), desk.chain_time_s()
    executing, why_not = _executing(market, ports, health)
    below, above = (
        [_level(level, price) for level in desk.levels(market.address, fires, levels)]
        for fires in (Fires.AT_OR_BELOW, Fires.AT_OR_ABOVE)
    )
    return MarketView(
        market=market.symbol,
        address=str(market.address),
        price=None if price is None else decimal(price.price_1e6),
        price_age_s=None if price is None or chain_time is None else round(price.age_s(chain_time), 3),
        price_slot=None if price is None else price.slot,
        active=market.is_active,
        executing=executing,
        executing_reason=why_not,
        max_leverage=market.max_leverage,
        resting=[
            RestingOrders(order_type=cast(OrderTypeWord, order_type.word), orders=n)
            for order_type in OrderType
            if (n := counts.get((market.address, order_type), 0))
        ],
        below=below,
        above=above,
        slot=market.slot,
    )


def _executing(market: Market, ports: ApiPorts, health: Health) -> tuple[bool, str]:
    """The market's own reason first, then what stops the whole keeper that works on it, as far as it is known here."""
    executing, why_not = ports.desk.executing(market)
    if not executing:
        return False, why_not
    where = ports.holder_of(market.address)
    if where is not None:
        return bool(where.holder), "" if where.holder else "No keeper works on the market right now."
    # That this keeper stands by keeps no order from being executed, while another one works.
    not_it = {*_OF_ONE_MARKET, STANDS_BY} if health.standing_by else _OF_ONE_MARKET
    failing = [check for check in health.checks if not check.ok and check.name not in not_it]
    return not failing, "; ".join(f"{check.name}: {check.detail or 'failed'}" for check in failing)


def _level(level: Level, price: Price | None) -> TriggerLevel:
    return TriggerLevel(
        trigger_price=decimal(level.trigger_1e6),
        orders=level.orders,
        size=decimal(level.size_1e6),
        distance=None if price is None else _distance(level, price.price_1e6),
    )


def _distance(level: Level, price_1e6: int) -> str:
    if level.fires.met(price_1e6, level.trigger_1e6):
        return "0"
    fraction = Fraction(abs(price_1e6 - level.trigger_1e6)) / price_1e6
    return f"{fraction:.6f}".rstrip("0").rstrip(".")
