"""The program's trigger rules once more, written from its description and not from the keeper's code.

An audit that asked the keeper's own rules would find the keeper right whatever they say.
"""

from __future__ import annotations

from typing import Final

from keeper.domain.orders import PPM, OrderType, Side

# For a long; a short fires on the other side.
_FALLING: Final = frozenset({OrderType.STOP_LOSS, OrderType.STOP_LIMIT, OrderType.LIMIT, OrderType.TRAILING_STOP})


def fires_falling(order_type: OrderType, side: Side) -> bool:
    """Whether the order fires at or below its trigger; otherwise at or above."""
    return (order_type in _FALLING) == (side is Side.LONG)


def met(order_type: OrderType, side: Side, trigger_1e6: int, price_1e6: int) -> bool:
    """Whether a price meets a trigger. Equality counts."""
    return price_1e6 <= trigger_1e6 if fires_falling(order_type, side) else price_1e6 >= trigger_1e6


def trailed_stop(side: Side, stop_1e6: int, distance_ppm: int, price_1e6: int) -> int:
    """Where `update_trailing_stop` puts a stop: `distance_ppm` from the price, never against the order's favour."""
    offset = -(-price_1e6 * distance_ppm // PPM)
    return max(stop_1e6, price_1e6 - offset) if side is Side.LONG else min(stop_1e6, price_1e6 + offset)
