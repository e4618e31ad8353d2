"""Why an order is not executed now, in a sentence for the person who placed it."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from keeper.domain.decimals import decimal
from keeper.domain.orders import NOBODY, Order
from keeper.domain.prices import Fires, Price
from keeper.triggers.conditions import Trigger

SIDES: Final = {Fires.AT_OR_BELOW: "at or below", Fires.AT_OR_ABOVE: "at or above"}


def never(order: Order, *, executes: bool) -> str | None:
    """Why no price ever calls for this order, as a sentence; None when one may. `executes`: whether the program's
    revision executes such orders.
    """
    if executes and order.market != NOBODY:
        return None
    why = (
        "Its account names no market"
        if executes
        else f"The program does not execute orders of type {order.order_type.word}"
    )
    return f"{why}." if order.user != NOBODY else f"{why}, and nobody can cancel it: its account names no user."


def explain(
    order: Order,
    *,
    blocked: str | None,
    trigger: Trigger | None,
    price: Price | None,
    now_s: float,
    max_price_age_s: float,
    held: str | None,
    unposted: str | None = None,
) -> str:
    """The first reason that applies, from what no price can change to what the next price may. `unposted`: why the
    keeper does not post the price of the market's feed, where it otherwise would.
    """
    if order.expired_at(int(now_s)):
        return f"The order expired at {order.expires_at} (unix seconds, by the chain's clock)."
    if trigger is None or order.market == NOBODY:
        return never(order, executes=trigger is not None) or ""
    if blocked is not None:
        return blocked
    fires = f"The order fires {SIDES[trigger.fires]} {decimal(trigger.price_1e6)}"
    if held is not None:
        return f"{fires}, but its market is paused: {held}."
    if price is None:
        return f"{fires}, but its market has no price yet."
    age_s = price.age_s(now_s)
    if age_s > max_price_age_s:
        old = f"the price is {age_s:.0f} s old and only one of at most {max_price_age_s:g} s decides"
        why = "" if unposted is None else f", and its feed's is not posted: {unposted}"
        return f"{fires}, but {old}{why}."
    now = f"the price is {decimal(price.price_1e6)}"
    if trigger.fires.met(price.price_1e6, trigger.price_1e6):
        return f"{fires}, and {now}: it is about to be executed."
    away = abs(price.price_1e6 - trigger.price_1e6)
    return f"{fires}; {now}, {decimal(away)} ({Decimal(away * 100) / price.price_1e6:.2f} %) away."
