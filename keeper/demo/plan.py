"""Which orders are placed: every executable type on both sides, near the price and far from it. Pure and seeded."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from keeper.demo.prices import LISTINGS, Listing
from keeper.demo.rules import fires_falling
from keeper.domain.orders import PRICE_SCALE, SIZE_SCALE, OrderType, Side

TYPES: Final = (
    OrderType.STOP_LOSS,
    OrderType.TAKE_PROFIT,
    OrderType.STOP_LIMIT,
    OrderType.LIMIT,
    OrderType.TRAILING_STOP,
)
ORDERS_PER_USER: Final = 20
"""The program lets an account hold 50 positions."""

_NEAR: Final = (0.003, 0.035)
_FAR: Final = (0.15, 0.30)
_FAR_LIMIT: Final = (0.06, 0.085)
"""The program takes a limit within 10 % of the price, which may move on before the order lands."""
_NEAR_TRAIL: Final = (0.006, 0.02)
_MET: Final = (0.003, 0.01)
_FLICKER_OFFSET: Final = 0.004
_NEAR_SHARE: Final = 0.7


@dataclass(frozen=True, slots=True)
class Wish:
    """An order before there is a price to put it at.

    `offset` is the trigger's distance from the price at placing, as a share of it: positive is where the price has to
    move to, negative is met already. For a trailing stop it is the trailing distance.
    """

    market: Listing
    order_type: OrderType
    side: Side
    offset: float
    notional: int
    """Quote units."""
    leverage: int

    def trigger_1e6(self, price_1e6: int) -> int:
        """Where its trigger is when the market's price is this."""
        sign = -1 if fires_falling(self.order_type, self.side) else 1
        return max(1, round(price_1e6 * (1 + sign * self.offset)))

    def size_1e6(self, price_1e6: int) -> int:
        """Base units x 1e6 that are worth about `notional`."""
        return max(1, self.notional * SIZE_SCALE * PRICE_SCALE // price_1e6)


@dataclass(frozen=True, slots=True)
class Plan:
    """All orders, by the part that they play.

    `early` are placed while the prices stand, `late` while they walk. `cancelled` are far away, and their users cancel
    them. `dead` are met by the price of a market whose feed has died. `flicker` are met by a price that is moved back
    at once. `poor` are met at once, by users who can't pay.
    """

    early: tuple[Wish, ...]
    late: tuple[Wish, ...]
    cancelled: tuple[Wish, ...]
    dead: tuple[Wish, ...]
    flicker: tuple[Wish, ...]
    poor: tuple[Wish, ...]

    @property
    def payable(self) -> int:
        """How many are not `poor`."""
        parts = (self.early, self.late, self.cancelled, self.dead, self.flicker)
        return sum(len(part) for part in parts)


def plan(orders: int, poor: int, rng: random.Random) -> Plan:
    """Share `orders` out over the parts; `poor` come on top."""
    few = max(1, orders // 30)
    rest = orders - 3 * few
    main = [_main(i, LISTINGS[i % len(LISTINGS)], rng) for i in range(rest)]
    cut = rest * 3 // 4
    return Plan(
        early=tuple(main[:cut]),
        late=tuple(main[cut:]),
        cancelled=tuple(_far(i, LISTINGS[i % len(LISTINGS)], rng) for i in range(few)),
        dead=tuple(_met(i, LISTINGS[-1], rng) for i in range(few)),
        flicker=tuple(_flicker(LISTINGS[0], i, rng) for i in range(few)),
        poor=tuple(_met(i, LISTINGS[i % (len(LISTINGS) - 1)], rng) for i in range(poor)),
    )


def _kind(i: int) -> tuple[OrderType, Side]:
    return TYPES[i // 2 % len(TYPES)], Side(i % 2)


def _wish(market: Listing, kind: OrderType, side: Side, offset: float, rng: random.Random) -> Wish:
    return Wish(market, kind, side, offset, notional=rng.randint(50, 500), leverage=rng.randint(1, 10))


def _main(i: int, market: Listing, rng: random.Random) -> Wish:
    # The market changes with each order and the kind only after a round of markets: each market has every kind.
    kind, side = _kind(i // len(LISTINGS))
    if rng.random() < _NEAR_SHARE:
        span = _NEAR_TRAIL if kind is OrderType.TRAILING_STOP else _NEAR
    else:
        span = _FAR_LIMIT if kind is OrderType.LIMIT else _FAR
    return _wish(market, kind, side, rng.uniform(*span), rng)


def _far(i: int, market: Listing, rng: random.Random) -> Wish:
    return _wish(market, OrderType.STOP_LOSS, Side(i % 2), rng.uniform(*_FAR), rng)


def _met(i: int, market: Listing, rng: random.Random) -> Wish:
    kinds = (OrderType.TAKE_PROFIT, OrderType.STOP_LOSS, OrderType.LIMIT)
    return _wish(market, kinds[i % len(kinds)], Side(i % 2), -rng.uniform(*_MET), rng)


def _flicker(market: Listing, i: int, rng: random.Random) -> Wish:
    # All of them fire on the way down.
    kind, side = ((OrderType.STOP_LOSS, Side.LONG), (OrderType.TAKE_PROFIT, Side.SHORT))[i % 2]
    return _wish(market, kind, side, _FLICKER_OFFSET, rng)


FLICKER_DEPTH: Final = 2 * _FLICKER_OFFSET
"""How far the price is moved, as a share, before it is moved back: past every `flicker` order."""
