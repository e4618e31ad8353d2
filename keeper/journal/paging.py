# ruff: noqa: S608  (the texts are put together from this module's constants; every value is a parameter)
"""Pages of orders: which index gives the rows in the order of their id, and the cursor that asks for the next."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import msgspec
from solders.pubkey import Pubkey

from keeper.domain.errors import ForeignCursor, JournalError
from keeper.domain.orders import OrderState
from keeper.journal.sql import json_list
from keeper.journal.transitions import CLOSED_STATES

MAX_PAGE: Final = 1_000
_ALL: Final = frozenset(OrderState)
_RARE: Final = (CLOSED_STATES - {OrderState.FILLED}) | {OrderState.FAILED}


def order_sources(
    user: Pubkey | None, market: Pubkey | None, client_order_id: str | None, states: frozenset[OrderState]
) -> tuple[list[tuple[str, str, list[object]]], list[tuple[str, object]]]:
    """Where the rows come from, in the order of their id: (index, the condition it serves, its values) each, and
    the conditions that are left to be looked at row by row.
    """
    rest: list[tuple[str, object]] = []
    if market is not None:
        rest.append(("market = ?", str(market)))
    if client_order_id is not None:
        if user is not None:
            rest.append(('"user" = ?', str(user)))
        if states != _ALL:
            rest.append(("state IN (SELECT value FROM json_each(?))", json_list(states)))
        return [("INDEXED BY orders_client_id", "client_order_id = ?", [client_order_id])], rest
    living, closed = states - CLOSED_STATES, states & CLOSED_STATES
    whole = living in (frozenset(), _ALL - CLOSED_STATES) and closed in (frozenset(), CLOSED_STATES)
    if user is None and market is None and states == _ALL:
        return [("NOT INDEXED", "id > ?", [0])], rest
    if user is None and market is not None and not whole:
        return _market_sources(states, str(market)), []
    if user is None and market is None:
        return [("INDEXED BY orders_state", "state = ?", [state.value]) for state in sorted(states)], rest
    if not whole:
        rest.append(("state IN (SELECT value FROM json_each(?))", json_list(states)))
    columns = [("user", user), ("market", market)]
    given = [(column, str(key)) for column, key in columns if key is not None]
    index = f"INDEXED BY orders_{'_'.join(column for column, _ in given)}"
    where = " AND ".join(f'"{column}" = ?' for column, _ in given)
    values = [value for _, value in given]
    classes = [flag for flag, some in ((0, living), (1, closed)) if some]
    return [(index, f"{where} AND closed = ?", [*values, flag]) for flag in classes], [
        condition for condition in rest if condition[0] != "market = ?"
    ]


def _market_sources(states: frozenset[OrderState], market: str) -> list[tuple[str, str, list[object]]]:
    """One market's orders in these states. Nearly all that rest are open and most that ended are filled, so that these
    are found among the market's, less those that an index has in a state that is not wanted; of the moving states there
    are few; and the rest have that index, whose condition SQLite recognises only in a query that says the word.
    """
    sources: list[tuple[str, str, list[object]]] = []
    for usual, closed in ((OrderState.OPEN, False), (OrderState.FILLED, True)):
        wanted = {state for state in states if (state in CLOSED_STATES) is closed}
        if usual not in wanted:
            sources += [_rarer_source(state, market) for state in sorted(wanted)]
            continue
        where, values = "market = ? AND closed = ?", [market, int(closed)]
        others = [rare for rare in sorted(_RARE - wanted) if (rare in CLOSED_STATES) is closed]
        if others:
            neither = " UNION ALL ".join(
                f"SELECT id FROM orders INDEXED BY orders_market_rare WHERE market = ? AND state = '{rare.value}'"
                for rare in others
            )
            where, values = f"{where} AND id NOT IN ({neither})", [*values, *[market] * len(others)]
        where += " AND state IN (SELECT value FROM json_each(?))"
        sources.append(("INDEXED BY orders_market", where, [*values, json_list(wanted)]))
    return sources


def _rarer_source(state: OrderState, market: str) -> tuple[str, str, list[object]]:
    if state in _RARE:
        return "INDEXED BY orders_market_rare", f"market = ? AND state = '{state.value}'", [market]
    return "INDEXED BY orders_state", "state = ? AND market = ?", [state.value, market]


def page_limit(limit: int) -> int:
    """How many rows a page has. JournalError when that is too many, or none."""
    if not 1 <= limit <= MAX_PAGE:
        raise JournalError(f"A page has 1 to {MAX_PAGE} rows, not {limit}.")
    return limit


def cursor_of(*place: float) -> str:
    """The opaque cursor for the rows after this place."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read_cursor(cursor: str | None, *types: type) -> tuple[Any, ...] | None:
    """The place that a cursor stands for. ForeignCursor when it is none of this journal's."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return tuple(msgspec.json.decode(raw, type=tuple[types]))  # type: ignore[valid-type]
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise ForeignCursor("The cursor is not one of this journal's.") from None
