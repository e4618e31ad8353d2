"""A price that is just the trigger meets it: by the list's own question, by its indices, and by the program's rule."""

from __future__ import annotations

import pytest

from keeper.domain.orders import OrderType, Side
from keeper.triggers.book import Book
from keeper.triggers.conditions import is_met
from tests.triggers.order_making import SOL, make_order

EXECUTABLE = [
    OrderType.LIMIT,
    OrderType.STOP_LOSS,
    OrderType.TAKE_PROFIT,
    OrderType.STOP_LIMIT,
    OrderType.TRAILING_STOP,
]
TRIGGER_1E6 = 95_500_000


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("order_type", EXECUTABLE)
def test_what_meets_an_order_meets_it_in_every_place(order_type: OrderType, side: Side) -> None:
    book = Book()
    order = make_order(
        order_type=order_type,
        side=side,
        price_1e6=TRIGGER_1E6,
        stop_price_1e6=TRIGGER_1E6,
        trailing_distance_ppm=50_000 if order_type is OrderType.TRAILING_STOP else 0,
    )
    book.upsert(order)
    met = {}
    for price_1e6 in (TRIGGER_1E6 - 1, TRIGGER_1E6, TRIGGER_1E6 + 1):
        met[price_1e6] = book.meets(order, price_1e6)
        assert met[price_1e6] is is_met(order, price_1e6)
        assert met[price_1e6] is (order in book.crossed(SOL, price_1e6))
    assert met[TRIGGER_1E6]
    assert met[TRIGGER_1E6 - 1] is not met[TRIGGER_1E6 + 1]
