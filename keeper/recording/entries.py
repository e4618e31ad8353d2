"""The entries that a recording is made of: one tuple for each thing that came in, was decided or was told to the book.

The first value is the kind, the second `at_ns`: `time.monotonic_ns` here when the news arrived, or when the entry was
made where news has no such time. Public keys are their 32 bytes, `source` is the label of the endpoint that told, and
`decided` is a list of decisions. docs/record.md has the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from keeper.domain.actions import Action, ExecuteOrder, RatchetStop
from keeper.triggers.checkpoint import price_values

Entry = Sequence[Any]

BEGIN: Final = "begin"
"""at_ns, wall_ns, why, keeper's version, program, rules: what follows is of a decision that has only just begun."""
STATE: Final = "state"
"""at_ns, checkpoint, pages: the decision's whole state at this place; so many entries of pages follow."""
PAGE: Final = "page"
"""at_ns, bytes: a page of the book's records."""
HOLE: Final = "hole"
"""at_ns, count: so many entries before this one were dropped. A state follows."""
NAME: Final = "name"
"""at_ns, market, symbol."""
SLOT: Final = "slot"
"""at_ns, source, slot: the newest that the source told of, looked up four times a second."""
MARKET: Final = "m"
"""at_ns, source, market, slot, price_1e6, updated_at_s, active, taken; and, when it was reviewed: now_s, decided."""
FEED: Final = "f"
"""at_ns, source, market, price or None, taken."""
TIME: Final = "t"
"""at_ns, source, slot, unix_time_s, decided."""
REVIEW: Final = "r"
"""at_ns, market, now_s, decided: a review without news of the market's account."""
ORDER: Final = "o"
"""at_ns, source, order, slot, the slot known before or None, change, fields (None: those that are known)."""
LOOK: Final = "l"
"""at_ns, order, now_s, decided: one order was looked at by itself."""
GONE: Final = "g"
"""at_ns, source, order, slot, the slot known before or None, whether it was known: there is no such account."""
CLOSED: Final = "c"
"""As gone: it is not pending."""
REVIVED: Final = "e"
"""at_ns, order: its end is not true after all."""
WATCH: Final = "w"
"""at_ns, order, what the book watches of it from now on."""
UNREADABLE: Final = "u"
"""at_ns, source, order, slot, reason: its account does not decode."""
ENDED: Final = "x"
"""at_ns, source, order, slot, status: an endpoint told that it is not pending any more, by its status on chain."""

EXECUTE, RATCHET, EXPIRED = 0, 1, 2

Decided = list[tuple[Any, ...]]
"""(EXECUTE, order, price), (RATCHET, order, price, new_stop_1e6) or (EXPIRED, order), where `price` is
that which decided: market, price_1e6, slot and updated_at_s. An execution that posts it has the feed's account as well.
"""


def decided(actions: Sequence[Action]) -> Decided:
    """Decisions as they are written."""
    return [_decided(action) for action in actions]


def _decided(action: Action) -> tuple[Any, ...]:
    order = bytes(action.order.address)
    if isinstance(action, ExecuteOrder):
        posted = () if action.crank is None else (bytes(action.crank.feed),)
        return EXECUTE, order, price_values(action.price), *posted
    if isinstance(action, RatchetStop):
        return RATCHET, order, price_values(action.price), action.new_stop_1e6
    return EXPIRED, order
