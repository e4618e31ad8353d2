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

from typing import Final, NamedTuple

from keeper.domain.orders import PPM, REVISION_0_2, Order, OrderType, Side
from keeper.domain.prices import Fires


class Trigger(NamedTuple):
    """The price at which an order fires, and from which side."""

    price_1e6: int
    fires: Fires


# What is asked for every update: reaching an enum's member through its class costs several times as much as a name.
_LONG: Final = Side.LONG
_AT_OR_BELOW: Final = Fires.AT_OR_BELOW
_AT_OR_ABOVE: Final = Fires.AT_OR_ABOVE
_TRAILING_STOP: Final = OrderType.TRAILING_STOP
_LIMIT: Final = OrderType.LIMIT
_new: Final = tuple.__new__

_LONG_FIRES: Final = {
    OrderType.STOP_LOSS: Fires.AT_OR_BELOW,
    OrderType.STOP_LIMIT: Fires.AT_OR_BELOW,
    OrderType.TAKE_PROFIT: Fires.AT_OR_ABOVE,
    OrderType.LIMIT: Fires.AT_OR_BELOW,
    OrderType.TRAILING_STOP: Fires.AT_OR_BELOW,
}
"""The long column of the table. A short fires on the other side."""


def fires_of(order_type: OrderType, side: Side, executable: frozenset[OrderType]) -> Fires | None:
    """The side from which such an order fires; None if the program's revision does not execute the type."""
    fires = _LONG_FIRES.get(order_type) if order_type in executable else None
    if fires is None or side is Side.LONG:
        return fires
    return Fires.AT_OR_BELOW if fires is Fires.AT_OR_ABOVE else Fires.AT_OR_ABOVE


def trigger_of(order: Order, executable: frozenset[OrderType] = REVISION_0_2) -> Trigger | None:
    """The order's trigger; None for a type that the program's revision (`executable`) does not execute."""
    fires = fires_of(order.order_type, order.side, executable)
    if fires is None:
        return None
    return _new(Trigger, (order.price_1e6 if order.order_type is _LIMIT else order.stop_price_1e6, fires))


def is_met(order: Order, price_1e6: int, executable: frozenset[OrderType] = REVISION_0_2) -> bool:
    """Whether the program would find the order's condition met at this price. False for other types."""
    trigger = trigger_of(order, executable)
    return trigger is not None and trigger.fires.met(price_1e6, trigger.price_1e6)


def ratcheted_stop(price_1e6: int, distance_ppm: int, side: Side) -> int:
    """The stop that the program derives from a price; it moves an order's stop there if that is in its favour.

    The distance is rounded up, against an early trigger, so that even the smallest is one unit.
    """
    offset = -(-price_1e6 * distance_ppm // PPM)
    return price_1e6 - offset if side is _LONG else price_1e6 + offset


def threshold(stop_price_1e6: int, distance_ppm: int, side: Side, step_ppm: int) -> Trigger | None:
    """The price from which a trailing stop can be moved in its favour by at least a step: `step_ppm` of
    the stop, rounded up, one unit or more.

    It is a fixed number until the order itself changes: the high-water mark lives on chain, in `stop_price`, so
    a new high changes nothing for the orders whose step it does not complete. That is why they can be sorted by
    it, and why a new high costs O(log n) plus the orders it moves, never a pass over all of them.

    None when no price can move the stop: a long that trails by 100 %, a short whose stop is at the bottom. It
    can't coincide with the order's own trigger: a price that moves the stop in its favour is on its far side.
    """
    step = -(-stop_price_1e6 * step_ppm // PPM) or 1
    if side is _LONG:
        # stop(p) = p - ceil(p*d/M) = floor(p*(M-d)/M), which is at least T from the least p with p*(M-d) >= T*M.
        kept = PPM - distance_ppm
        if kept <= 0:
            return None
        return _new(Trigger, (-(-(stop_price_1e6 + step) * PPM // kept), _AT_OR_ABOVE))
    # stop(p) = p + ceil(p*d/M) = ceil(p*(M+d)/M), which is at most T up to the greatest p with p*(M+d) <= T*M.
    highest = (stop_price_1e6 - step) * PPM // (PPM + distance_ppm)
    return _new(Trigger, (highest, _AT_OR_BELOW)) if highest > 0 else None


def is_earlier_stop(order: Order, known_stop_1e6: int) -> bool:
    """Whether this reading of a trailing stop is from before one that had `known_stop_1e6`.

    The program moves a stop only in the order's favour, so that of two readings of one slot the better stop is
    the later one, whichever arrived first.
    """
    if order.order_type is not _TRAILING_STOP:
        return False
    if order.side is _LONG:
        return order.stop_price_1e6 < known_stop_1e6
    return order.stop_price_1e6 > known_stop_1e6
