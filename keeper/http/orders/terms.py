"""From a request's words to the program's numbers, and everything that `place_order` would refuse, said beforehand.

The program's own checks decide in the end; these spare the user a signature and name the field at fault. They are
in the program's order, with its limits: size at most 1e9 units, a limit within 10 % of the oracle's price, an
expiry at most 30 days ahead by the chain's clock.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Annotated, Final

import msgspec

from keeper.domain.decimals import MAX_U64, InexactDecimal, decimal, parse_1e6
from keeper.domain.orders import PPM, Order, OrderType, Side
from keeper.domain.prices import Price
from keeper.http.edge.answering import address
from keeper.http.edge.problems import Problem
from keeper.http.models import AmendOrder, PlaceOrder
from keeper.http.ports import ApiPorts
from keeper.http.reading.markets import watched_market
from keeper.venue.placing import OrderTerms
from keeper.venue.program import Program

MAX_SIZE_1E6: Final = 1_000_000_000
MAX_EXPIRY_S: Final = 30 * 86_400
_RFC3339: Final = Annotated[dt.datetime, msgspec.Meta(tz=True)]

Types = frozenset[OrderType]
_NEEDS_TRIGGER: Final = frozenset({OrderType.STOP_LOSS, OrderType.TAKE_PROFIT, OrderType.STOP_LIMIT})
_USES_TRIGGER: Final = _NEEDS_TRIGGER | {OrderType.TRAILING_STOP}
_TRAILS: Final = frozenset({OrderType.TRAILING_STOP})
_USES_LIMIT: Final = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})


def order_id(text: str | None, program: Program) -> int | None:
    """A u64 from its string, for a program that has order ids."""
    if text is None:
        return None
    if not program.has_order_ids:
        raise Problem("order_id_not_supported", "The deployed program knows one order a wallet, without an id.")
    value = int(text)
    if value > MAX_U64:
        raise Problem("invalid_field", "The field order_id has to be below 2**64.", field="order_id")
    return value


def terms_of(request: PlaceOrder, ports: ApiPorts) -> OrderTerms:
    """The order that is asked for, in the program's units. Problem with the field that the program would refuse."""
    desk, executable = ports.desk, ports.program.executable
    market = watched_market(request.market, desk)
    price, chain_time_s = desk.price(market.address), desk.chain_time_s()
    now_s = ports.now() if chain_time_s is None else chain_time_s
    too_old = price is None or price.age_s(now_s) > ports.limits.stale_price_s
    kind = OrderType[request.order_type.upper()]
    if kind not in executable:
        words = ", ".join(sorted(t.word for t in executable))
        raise Problem(
            "order_type_not_executed",
            f"The program would keep a {kind.word} order and never execute it. It executes {words}.",
        )
    size = _size(request.size)
    if request.leverage > market.max_leverage:
        raise Problem("invalid_leverage", f"{market.symbol} allows a leverage of 1 to {market.max_leverage}.")
    if not market.is_active:
        raise Problem("market_inactive", f"The market {market.symbol} is not active.")
    return OrderTerms(
        user=address(request.user, "user"),
        market=market.address,
        order_type=kind,
        side=Side[request.side.upper()],
        size_1e6=size,
        price_1e6=_limit_price(request, kind, price),
        stop_price_1e6=_trigger_price(request, kind),
        trailing_distance_ppm=_distance(request, kind, too_old=too_old),
        leverage=request.leverage,
        expires_at=_expiry(request.expires_at, now_s),
    )


def amended(order: Order, change: AmendOrder, market: str) -> PlaceOrder:
    """The order that is to take this one's place, as its user would ask for it. A term that is not to change is the old
    order's as it stands, such as a trailing stop that has moved; the old order's names are its own.
    """
    kind, anew = order.order_type, order.order_type in _TRAILS and change.trailing_distance is not None
    stands = {
        "size": decimal(order.size_1e6),
        "trigger_price": decimal(order.stop_price_1e6) if kind in _USES_TRIGGER and not anew else None,
        "limit_price": decimal(order.price_1e6) if kind in _USES_LIMIT else None,
        "trailing_distance": decimal(order.trailing_distance_ppm) if kind in _TRAILS else None,
        "leverage": order.leverage,
        "expires_at": order.expires_at,
    }
    asked = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
    if not stands.keys() & asked.keys():
        raise Problem("missing_field", f"Name at least one term to change: {', '.join(stands)}.", field="size")
    words = {"user": str(order.user), "market": market, "order_type": kind.word, "side": order.side.word}
    return PlaceOrder(**{**words, **stands, **asked})


def _decimal(text: str, field: str) -> int:
    try:
        return parse_1e6(text)
    except InexactDecimal as e:
        raise Problem("invalid_field", f"The field {field} {e}.", field=field) from None


def _size(text: str) -> int:
    size = _decimal(text, "size")
    if size == 0:
        raise Problem("invalid_size", "The size has to be above 0.")
    if size > MAX_SIZE_1E6:
        raise Problem("position_too_large", f"The program takes a size of at most {decimal(MAX_SIZE_1E6)}.")
    return size


def _given(request: PlaceOrder, field: str, kind: OrderType, uses: Types, needs: Types) -> int | None:
    """A decimal field of some types: None when it is left out, which those that need it refuse."""
    text: str | None = getattr(request, field)
    if text is None:
        if kind in needs:
            raise Problem("missing_field", f"A {kind.word} order needs a {field}.", field=field)
        return None
    if kind not in uses:
        raise Problem("field_not_used", f"A {kind.word} order has no {field}.", field=field)
    return _decimal(text, field)


def _trigger_price(request: PlaceOrder, kind: OrderType) -> int:
    value = _given(request, "trigger_price", kind, _USES_TRIGGER, _NEEDS_TRIGGER)
    if value == 0:
        raise Problem("invalid_stop_price", "The trigger price has to be above 0.")
    return value or 0


def _limit_price(request: PlaceOrder, kind: OrderType, price: Price | None) -> int:
    value = _given(request, "limit_price", kind, _USES_LIMIT, _USES_LIMIT)
    if value is None:
        return 0
    if value == 0:
        raise Problem("invalid_price", "The limit price has to be above 0.")
    if kind is OrderType.LIMIT:
        _near_oracle(value, price)
    return value


def _near_oracle(limit_1e6: int, price: Price | None) -> None:
    """Within 10 %, rounded inwards as the program rounds. Without any price the program refuses every limit."""
    oracle = price.price_1e6 if price else 0
    highest, lowest = oracle * 11 // 10, -(-oracle * 9 // 10)
    detail = (
        f"A limit has to be between {decimal(lowest)} and {decimal(highest)}, "
        f"which is 10 % around the oracle's {decimal(oracle)}."
    )
    if limit_1e6 > highest:
        raise Problem("price_too_high", detail)
    if limit_1e6 < lowest:
        raise Problem("price_too_low", detail)


def _distance(request: PlaceOrder, kind: OrderType, *, too_old: bool) -> int:
    # A fraction has the same six places as parts per million.
    ppm = _given(request, "trailing_distance", kind, _TRAILS, _TRAILS)
    if ppm is None:
        return 0
    if not 1 <= ppm <= PPM:
        raise Problem(
            "invalid_trailing_distance",
            'The trailing distance is a fraction of the price, from "0.000001" to "1" (which is 100 %).',
        )
    if request.trigger_price is None and too_old:
        raise Problem(
            "price_stale",
            "Without a trigger_price the first stop is taken from the oracle's price, which is too old.",
            field="trigger_price",
        )
    return ppm


def _expiry(value: int | str | None, chain_time_s: float) -> int:
    if value is None or value == 0:
        return 0
    seconds = _instant(value) if isinstance(value, str) else value
    if seconds <= chain_time_s:
        raise Problem("order_expired", "The expiry has to be in the future, by the chain's clock.")
    if seconds - chain_time_s > MAX_EXPIRY_S:
        raise Problem("order_expiration_too_long", "The program takes an expiry of at most 30 days ahead.")
    return seconds


def _instant(text: str) -> int:
    """RFC 3339 to unix seconds. A fraction of a second can't be kept, and a local time without offset means nothing."""
    with contextlib.suppress(msgspec.ValidationError):
        moment: dt.datetime = msgspec.convert(text, _RFC3339)
        if not moment.microsecond:
            return int(moment.timestamp())
    raise Problem(
        "invalid_field",
        "The field expires_at has to be unix seconds, or RFC 3339 with an offset and whole seconds, such as "
        '"2030-01-31T12:00:00Z".',
        field="expires_at",
    )
