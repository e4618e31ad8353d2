"""An order as the bytes of its account would be read."""

from __future__ import annotations

from keeper.domain.orders import Order, OrderFields


def fields_of(order: Order) -> OrderFields:
    """The fields that `order_of` makes into this order, at its address and in its slot."""
    return (bytes(order.user), bytes(order.market), *order[3:15])
