"""Markets as they travel: price, what rests on them, and how near it is."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, cast

from solders.pubkey import Pubkey

from keeper.domain.decimals import decimal
from keeper.domain.health import Health
from keeper.domain.orders import Market, OrderType
from keeper.domain.prices import Price
from keeper.http.models import MarketView, OrderTypeWord, RestingOrders, TriggerLevel
from keeper.http.ports import Desk
from keeper.triggers.book import Level
from keeper.triggers.conditions import Fires

_OF_ONE_MARKET: Final = frozenset({"prices"})
"""Checks of health that say nothing about the other markets; the desk says it of each."""


def market_views(markets: list[Market], desk: Desk, health: Health, levels: int) -> list[MarketView]:
    """Markets by symbol, each with up to `levels` triggers on each side of its price."""
    counts = desk.counts()
    views = [_view(market, desk, health, counts, levels) for market in markets]
    return sorted(views, key=lambda view: (view.market, view.address))


def _view(
    market: Market, desk: Desk, health: Health, counts: Mapping[tuple[Pubkey, OrderType], int], levels: int
) -> MarketView:
    price, chain_time = desk.price(market.address), desk.chain_time_s()
    executing, why_not = _executing(market, desk, health)
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


def _executing(market: Market, desk: Desk, health: Health) -> tuple[bool, str]:
    """The market's own reason first, then what stops the whole keeper."""
    executing, why_not = desk.executing(market)
    if not executing:
        return False, why_not
    failing = [check for check in health.checks if not check.ok and check.name not in _OF_ONE_MARKET]
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
    fraction = Decimal(abs(price_1e6 - level.trigger_1e6)) / price_1e6
    return f"{fraction:.6f}".rstrip("0").rstrip(".")
