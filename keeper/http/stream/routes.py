"""Orders as they change: server-sent events."""

from __future__ import annotations

import contextlib
import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from keeper.http.edge.openapi import also_described, described
from keeper.http.edge.problems import Problem
from keeper.http.edge.requests import Market, User, address, part
from keeper.http.ports import ApiPorts
from keeper.http.reading.markets import market_filter
from keeper.http.stream.feed import Filter
from keeper.http.stream.following import Following, StreamReset, StreamSnapshot
from keeper.http.stream.sse import MEDIA_TYPE, EventStream

also_described(StreamSnapshot, StreamReset)

_LAST_ID: Final = re.compile(r"\d{1,18}")


@described(
    "Orders as they change",
    {200: "Server-sent events: `snapshot`, then an `order` for each change; `reset` before a new snapshot."},
    plain=[MEDIA_TYPE],
    problems=["invalid_field", "unknown_market", "too_many_streams", "journal_unavailable", "not_ready"],
    headers={"Last-Event-ID": ("The id of the last event that you saw: you get what came since.", "^[0-9]{1,18}$")},
)
async def stream(request: Request, user: User = None, market: Market = None) -> Response:
    """First a `snapshot` event (`StreamSnapshot`) of the orders that are not over, then an `order` event (`OrderView`)
    for each change of an order's status or reason, in order and without a gap. An event's id is the change's: send the
    last one as `Last-Event-ID` to go on where you were, as an EventSource does by itself. A comment comes every 15 s.
    A reader that does not keep up is disconnected and can resume.
    """
    following = part(request, Following)
    wanted = Filter(
        user=None if user is None else address(user, "user"),
        market=market_filter(market, part(request, ApiPorts).desk),
    )
    last_seen = _last_seen(request)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(following.feed.reading(wanted))
        opening = await following.opening(reader, last_seen)
        return EventStream(following.feed, reader, opening, stack.pop_all().close)


def _last_seen(request: Request) -> int | None:
    value = request.headers.get("last-event-id")
    if not value:
        return None
    if not _LAST_ID.fullmatch(value):
        raise Problem("invalid_field", "Last-Event-ID is not an id of this stream.", field="Last-Event-ID")
    return int(value)
