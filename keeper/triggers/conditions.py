"""When is an order's condition met, and when is a trailing stop worth moving.

The rules are the program's own, and so is the arithmetic: integers, rounded as the program rounds, because an
order that the keeper thinks is met and the program does not costs a fee, and the reverse costs a trader money.
`p` is the market's oracle price; equality counts.

    type                       long             short
    StopLoss, StopLimit        p <= stop_price  p >= stop_price
    TakeProfit                 p >= stop_price  p <= stop_price
    Limit                      p <= price       p >= price
    TrailingStop               as StopLoss, on the ratcheted stop_price

Prices are quote units x 1e6, distances and steps parts per million.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from keeper.domain.orders import PPM, Order, OrderType, Side

REVISION_0_1: Final = frozenset({OrderType.STOP_LOSS, OrderType.TAKE_PROFIT, OrderType.STOP_LIMIT})
"""What the deployed program's execute_conditional_order executes."""

REVISION_0_2: Final = REVISION_0_1 | {OrderType.LIMIT, OrderType.TRAILING_STOP}
"""What the atomic revision executes."""


class Fires(enum.IntEnum):
    """On which side of its trigger an order fires."""

    AT_OR_BELOW = 0
    AT_OR_ABOVE = 1

    def met(self, price_1e6: int, trigger_1e6: int) -> bool:
        """Whether this price fires a trigger at `trigger_1e6`."""
        return price_1e6 <= trigger_1e6 if self is Fires.AT_OR_BELOW else price_1e6 >= trigger_1e6


@dataclass(frozen=True, slots=True)
class Trigger:
    """The price at which an order fires, and from which side."""

    price_1e6: int
    fires: Fires


_LONG_FIRES: Final = {
    OrderType.STOP_LOSS: Fires.AT_OR_BELOW,
    OrderType.STOP_LIMIT: Fires.AT_OR_BELOW,
    OrderType.TAKE_PROFIT: Fires.AT_OR_ABOVE,
    OrderType.LIMIT: Fires.AT_OR_BELOW,
    OrderType.TRAILING_STOP: Fires.AT_OR_BELOW,
}
"""The long column of the table. A short fires on the other side."""

_FIRES: Final = {
    (order_type, side): fires if side is Side.LONG else Fires(1 - fires)
    for order_type, fires in _LONG_FIRES.items()
    for side in Side
}


def trigger_of(order: Order, executable: frozenset[OrderType] = REVISION_0_2) -> Trigger | None:
    """The order's trigger; None for a type that the program's revision (`executable`) does not execute."""
    if order.order_type not in executable:
        return None
    fires = _FIRES.get((order.order_type, order.side))
    if fires is None:
        return None
    return Trigger(order.price_1e6 if order.order_type is OrderType.LIMIT else order.stop_price_1e6, fires)


def is_met(order: Order, price_1e6: int, executable: frozenset[OrderType] = REVISION_0_2) -> bool:
    """Whether the program would find the order's condition met at this price. False for other types."""
    trigger = trigger_of(order, executable)
    return trigger is not None and trigger.fires.met(price_1e6, trigger.price_1e6)


def ratcheted_stop(price_1e6: int, distance_ppm: int, side: Side) -> int:
    """The stop that the program derives from a price; it then keeps the better of this and the present one.

    The offset is rounded down, so that a long's stop is never below, and a short's never above, the exact one.
    """
    offset = price_1e6 * distance_ppm // PPM
    return price_1e6 - offset if side is Side.LONG else price_1e6 + offset


def least_step(stop_price_1e6: int, step_ppm: int) -> int:
    """The smallest move of a stop that is worth a transaction: `step_ppm` of it, rounded up, at least one unit."""
    return max(1, -(-stop_price_1e6 * step_ppm // PPM))


def ratchet_threshold(order: Order, step_ppm: int) -> Trigger | None:
    """The price from which a trailing stop can be moved in its favour by at least `least_step`.

    It is a fixed number until the order itself changes: the high-water mark lives on chain, in `stop_price`, so
    a new high changes nothing for the orders whose step it does not complete. That is why they can be sorted by
    it, and why a new high costs O(log n) plus the orders it moves, never a pass over all of them.

    None when it isn't a trailing stop, or when no price can move it (a distance of 100 % on a long, a short's
    stop already at the bottom). It can't coincide with the order's own trigger: a price that moves the stop in
    its favour is on the stop's far side.
    """
    if order.order_type is not OrderType.TRAILING_STOP:
        return None
    step = least_step(order.stop_price_1e6, step_ppm)
    if order.side is Side.LONG:
        # stop(p) = p - floor(p*d/M) = ceil(p*(M-d)/M), which never falls as p grows. It is at least T from
        # the least p with p*(M-d) > (T-1)*M.
        kept = PPM - order.trailing_distance_ppm
        if kept <= 0:
            return None
        target = order.stop_price_1e6 + step
        return Trigger((target - 1) * PPM // kept + 1, Fires.AT_OR_ABOVE)
    # stop(p) = p + floor(p*d/M) = floor(p*(M+d)/M): at most T up to the greatest p with p*(M+d) < (T+1)*M.
    target = order.stop_price_1e6 - step
    if target < 1:
        return None
    highest = ((target + 1) * PPM - 1) // (PPM + order.trailing_distance_ppm)
    return Trigger(highest, Fires.AT_OR_BELOW) if highest > 0 else None
