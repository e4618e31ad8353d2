"""Streams of orders as they change: what one begins with (the changes that its reader missed, or a snapshot), what one
change looks like, and the route.
"""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from typing import Annotated, Final

import anyio
import msgspec
from msgspec import Meta
from solders.pubkey import Pubkey
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.orders import OrderState
from keeper.http.edge.answering import Market, User, client, part
from keeper.http.edge.idempotency import KeyedLock
from keeper.http.edge.openapi import described
from keeper.http.edge.problems import Problem
from keeper.http.models import Answer, OrderView
from keeper.http.ports import ApiPorts
from keeper.http.reading.markets import market_filter
from keeper.http.reading.views import order_view
from keeper.http.stream.feed import Feed, Filter, Reader
from keeper.http.stream.sse import HEADERS, EventStream, event
from keeper.journal import Queries
from keeper.journal.records import ChangePage, ChangeRow, OrderRow

ACTIVE: Final = frozenset(state for state in OrderState if not state.terminal)
MOST_IN_SNAPSHOT: Final = 500
_MOST_MISSED: Final = 2_000
_LAST_ID: Final = re.compile(r"\d{1,18}")
_PAGE: Final = 500
_RENDERED_AT_ONCE: Final = 25
"""Orders made into JSON between two turns of the event loop."""
_SNAPSHOT_LIVES_S: Final = 5.0
_MOST_KEPT: Final = 16


class StreamSnapshot(Answer, frozen=True, kw_only=True):
    """The `data` of a stream's `snapshot` event: the orders that are not over, newest first."""

    orders: list[OrderView]
    complete: Annotated[bool, Meta(description="False when there are more: page through `GET /v1/orders`.")]


class StreamReset(Answer, frozen=True, kw_only=True):
    """The `data` of a stream's `reset` event: forget what you know, a snapshot follows."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A rendered snapshot: the journal as of a change id, made at a monotonic time."""

    change_id: int
    made_at: float
    rendered: bytes


class Following:
    """Prepares streams. Many readers of the same orders who come at once share one snapshot."""

    def __init__(self, ports: ApiPorts) -> None:
        self._ports = ports
        self._locks = KeyedLock()
        self._snapshots: dict[Filter, _Snapshot] = {}
        self.feed = Feed(
            ports.journal,
            self.change_event,
            max_readers=ports.limits.streams,
            max_per_client=ports.limits.streams_per_client,
            busy=ports.busy,
        )

    def change_event(self, change: ChangeRow, row: OrderRow) -> bytes:
        """The order as it is now, with this change's own status, reason and time."""
        view = order_view(row, self._ports.desk)
        told = msgspec.structs.replace(view, status=change.state, status_reason=change.reason, updated_at=change.at)
        return event("order", told, change.id)

    async def opening(self, reader: Reader, last_seen: int | None) -> bytes:
        """What `reader` gets first, after which it hears what follows without a gap.

        `last_seen` is the id of the last event that it had, None for a new reader. Where not every change since is
        kept any more, or there were too many to be worth telling, it gets a `reset` and a snapshot.
        """
        if last_seen is None:
            return await self._snapshot(reader)
        missed = await self._missed(reader, last_seen)
        if missed is not None:
            return missed
        reset = StreamReset(reason="Not every change since is kept any more; a snapshot follows.")
        return event("reset", reset, reader.after) + await self._snapshot(reader)

    async def _missed(self, reader: Reader, last_seen: int) -> bytes | None:
        """The changes after `last_seen` up to where the reader hears by itself; None when they can't all be told."""
        until, wanted = reader.after, reader.filter
        if last_seen > until:
            # Another keeper of the service told it, and this one has not looked since; or it is another journal's.
            if last_seen > await self._ports.journal.read(Queries.last_change_id):
                return None
            reader.after = max(reader.after, last_seen)
            return b""
        pieces: list[bytes] = []
        after = last_seen
        while after < until:

            def read(queries: Queries, after: int = after) -> tuple[ChangePage, dict[Pubkey, OrderRow]]:
                page = queries.changes_after(after, limit=_PAGE, user=wanted.user, market=wanted.market)
                return page, queries.orders_at(change.order for change in page.changes)

            page, rows = await self._ports.journal.read(read)
            if page.gap or len(pieces) + len(page.changes) > _MOST_MISSED:
                return None
            after = page.last_id
            for n, change in enumerate(page.changes):
                row = rows.get(change.order)
                if change.id <= until and row is not None:
                    pieces.append(self.change_event(change, row))
                if n % _RENDERED_AT_ONCE == 0:
                    await anyio.lowlevel.checkpoint()
        return b"".join(pieces)

    async def _snapshot(self, reader: Reader) -> bytes:
        """One that is as new as the reader: what it hears by itself begins where the snapshot ends."""
        wanted = reader.filter
        async with self._locks.of(repr(wanted)):
            known = self._snapshots.get(wanted)
            if known is None or known.change_id < reader.after or time.monotonic() > known.made_at + _SNAPSHOT_LIVES_S:
                known = await self._make_snapshot(wanted)
                self._snapshots.pop(wanted, None)
                self._snapshots[wanted] = known
                if len(self._snapshots) > _MOST_KEPT:
                    del self._snapshots[next(iter(self._snapshots))]
        reader.after = max(reader.after, known.change_id)
        return known.rendered

    async def _make_snapshot(self, wanted: Filter) -> _Snapshot:
        made_at = time.monotonic()

        def read(queries: Queries) -> tuple[int, tuple[OrderRow, ...], bool]:
            with queries.one_moment():
                change_id = queries.last_change_id()
                page = queries.orders(user=wanted.user, market=wanted.market, states=ACTIVE, limit=MOST_IN_SNAPSHOT)
            return change_id, page.items, page.cursor is None

        change_id, rows, complete = await self._ports.journal.read(read)
        views: list[OrderView] = []
        for n, row in enumerate(rows):
            views.append(order_view(row, self._ports.desk))
            if n % _RENDERED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        return _Snapshot(
            change_id, made_at, event("snapshot", StreamSnapshot(orders=views, complete=complete), change_id)
        )


@described(
    "Orders as they change",
    {200: "Server-sent events: `snapshot`, then an `order` for each change; `reset` before a new snapshot."},
    events={"snapshot": StreamSnapshot, "order": OrderView, "reset": StreamReset},
    problems=["unknown_market", "too_many_streams", "journal_unavailable", "not_ready"],
    headers={"Last-Event-ID": ("The id of the last event that you saw: you get what came since.", "^[0-9]{1,18}$")},
)
async def stream_orders(request: Request, user: User | None = None, market: Market | None = None) -> Response:
    """First a `snapshot` event (`StreamSnapshot`) of the orders that are not over, then an `order` event (`OrderView`)
    for each change of an order's status or reason, in order and without a gap. An event's id is the change's: send the
    last one as `Last-Event-ID` to go on where you were, as an EventSource does by itself. A comment comes every 15 s.
    A reader that does not keep up is disconnected and can resume.
    """
    following = part(request, Following)
    wanted = Filter(user=user, market=market_filter(market, part(request, ApiPorts).desk))
    last_seen = _last_seen(request)
    if request.method == "HEAD":
        return Response(headers=HEADERS)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(following.feed.reading(wanted, client(request)))
        opening = await following.opening(reader, last_seen)
        return EventStream(following.feed, reader, opening, stack.pop_all().close)


def _last_seen(request: Request) -> int | None:
    value = request.headers.get("last-event-id")
    if not value:
        return None
    if not _LAST_ID.fullmatch(value):
        raise Problem("invalid_field", "Last-Event-ID is not an id of this stream.", field="Last-Event-ID")
    return int(value)
