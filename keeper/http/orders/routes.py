"""Orders: prepare, relay, and see what became of them."""

from __future__ import annotations

import base64
import contextlib
import functools
import re
from typing import Annotated, Final

import anyio
import msgspec
from msgspec import Meta
from solders.pubkey import Pubkey
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.errors import JournalError
from keeper.domain.orders import OrderState
from keeper.http.edge.answering import (
    Cursor,
    Market,
    OfType,
    OrderPath,
    PageSize,
    User,
    answer,
    client,
    next_page,
    part,
    tagged,
    type_of,
)
from keeper.http.edge.costs import WRITE, charge
from keeper.http.edge.forwarding import Forwarding
from keeper.http.edge.idempotency import KEY_HEADER, REPLAYED_HEADER, key_of
from keeper.http.edge.openapi import described
from keeper.http.edge.problems import CHAIN_PROBLEMS, LANDING_PROBLEMS, TERMS_PROBLEMS, Problem
from keeper.http.models import (
    EXAMPLE_TERMS,
    EXAMPLE_WALLET,
    ExecuteOrder,
    OrderDetail,
    OrderPage,
    PlaceOrder,
    PreparedTransaction,
    SubmittedTransaction,
)
from keeper.http.orders.preparing import Preparing, handed_out
from keeper.http.orders.relaying import Relaying
from keeper.http.orders.waiting import shown
from keeper.http.ports import ApiPorts
from keeper.http.reading.markets import market_filter
from keeper.http.reading.views import order_detail, order_view
from keeper.http.stream.feed import Filter
from keeper.http.stream.following import ACTIVE, Following
from keeper.journal.records import OrderRow, PreparedKind, Source

LOCATION: Final = {202: {"Location": "The order."}}
_STATUSES: Final[dict[str, frozenset[OrderState]]] = {
    "active": ACTIVE,
    "history": frozenset(OrderState) - ACTIVE,
    **{state.value: frozenset({state}) for state in OrderState},
}
_SIGNED: Final = base64.b64encode(b"\x01" + bytes(range(200))).decode()
_FIGURES: Final = re.compile(r"[\d.]+")
_AGAIN: Final = "Send the same signed transaction again: it is taken once, and it lands once."


@described(
    "Prepare an order",
    {201: PreparedTransaction},
    example={"user": EXAMPLE_WALLET, **EXAMPLE_TERMS},
    problems=[*TERMS_PROBLEMS, "invalid_idempotency_key", "order_exists", "not_ready", *CHAIN_PROBLEMS],
    headers=KEY_HEADER,
    answer_headers=REPLAYED_HEADER,
)
async def prepare_order(request: Request, body: PlaceOrder) -> Response:
    """An unsigned `place_order` transaction for the user's wallet. Nothing is on chain until it is signed and sent
    to `/v1/orders/execute`.
    """
    charge(request, WRITE)
    return handed_out(await part(request, Preparing).place(body, key_of(request)))


@described(
    "Relay a signed transaction",
    {200: SubmittedTransaction, 202: SubmittedTransaction},
    example={"id": "fD0aVh6cTg2m1kXo7mQz4A", "signed_transaction": _SIGNED},
    problems=[*TERMS_PROBLEMS, "prepared_not_found", "already_submitted", "several_holders", *LANDING_PROBLEMS],
    answer_headers=LOCATION,
)
async def execute_order(
    request: Request,
    body: ExecuteOrder,
    wait_s: Annotated[float, Meta(ge=0, le=60, description="Wait so many seconds for what becomes of it.")] = 0.0,
) -> Response:
    """Relay a prepared transaction that its user signed. It is checked against what was prepared, simulated, kept in
    the journal and sent until it lands or can no longer land. The same bytes again get the same answer.

    With `wait_s` the answer comes when it has landed or can't any more, with the order's status then; or as a 202 after
    that time, or at once when there are too many who wait.
    """
    charge(request, WRITE)
    relaying = part(request, Relaying)
    markets = functools.partial(relaying.markets_of, body.id)
    elsewhere = await part(request, Forwarding).answer(request, markets, _AGAIN, wait_s=wait_s)
    if elsewhere is not None:
        if elsewhere.status_code < 300:
            part(request, Preparing).forget(body.id)
        return elsewhere
    submitted = await relaying.execute(body)
    if wait_s:
        with contextlib.suppress(JournalError, Problem):  # it is being landed, whatever keeps us from watching
            landed = await _landed(request, submitted, wait_s)
            if landed is not None:
                return answer(landed, headers={"Location": f"/v1/orders/{landed.order}"})
    return accepted(submitted)


async def _landed(request: Request, submitted: SubmittedTransaction, wait_s: float) -> SubmittedTransaction | None:
    """What became of it, as soon as the order is in another state; None when it is not in time."""
    order, journal = Pubkey.from_string(submitted.order), part(request, ApiPorts).journal
    with part(request, Following).feed.reading(Filter(order=order), client(request)) as reader:
        with anyio.move_on_after(wait_s):
            while not reader.cut:
                row = await journal.order(order)
                if row is not None and row.state is not submitted.status:
                    return msgspec.structs.replace(submitted, status=row.state, status_reason=row.reason)
                await reader.news()
    return None


@described("Orders, newest first", {200: OrderPage}, problems=CHAIN_PROBLEMS)
async def list_orders(
    request: Request,
    user: User | None = None,
    market: Market | None = None,
    order_type: OfType | None = None,
    status: Annotated[
        str, Meta(description="`active`, `history`, or status words with commas between.", examples=["open,triggered"])
    ]
    | None = None,
    client_order_id: Annotated[str, Meta(max_length=64)] | None = None,
    cursor: Cursor | None = None,
    limit: PageSize = 50,
) -> Response:
    """A page of orders that fit every given filter."""
    ports = part(request, ApiPorts)
    page = await ports.journal.orders(
        user=user,
        market=market_filter(market, ports.desk),
        order_type=type_of(order_type),
        states=_states(status),
        client_order_id=client_order_id,
        cursor=cursor,
        limit=limit,
    )
    views = [order_view(row, ports.desk, client_order_id) for row in page.items]
    return answer(OrderPage(orders=views, cursor=page.cursor, next=next_page(request, page.cursor)))


@described(
    "One order",
    {200: OrderDetail, 304: "As the client has it."},
    problems=["order_not_found", "too_many_streams", *CHAIN_PROBLEMS],
    headers={"If-None-Match": ("The ETag of the answer that the client has.", "^.*$")},
    answer_headers={200: {"ETag": "Changes with the order, and with why it stands so, but not with each price."}},
)
async def get_order(
    request: Request,
    order: OrderPath,
    wait_s: Annotated[
        float, Meta(ge=0, le=60, description="With If-None-Match: wait so many seconds for something new.")
    ] = 0.0,
) -> Response:
    """What became of an order: `status`, why in a sentence, and every attempt with its signature and outcome.

    With `wait_s` and the ETag of what the client has, the answer comes when there is news, or as a 304 after that time.
    """
    ports = part(request, ApiPorts)
    if not wait_s:
        return await _order(request, order, ports)
    with part(request, Following).feed.reading(Filter(order=order), client(request)) as reader:
        with anyio.move_on_after(wait_s):
            while not reader.cut:
                found = await _order(request, order, ports)
                if found.status_code != 304:
                    return found
                await reader.news()
        return await _order(request, order, ports)


async def _order(request: Request, key: Pubkey, ports: ApiPorts) -> Response:
    row = await ports.journal.order(key) or _from_book(key, ports) or await _prepared_only(key, ports)
    if row is None:
        raise Problem("order_not_found", f"The keeper knows no order {key}.")
    attempts = await ports.journal.attempts_of(key)
    detail = order_detail(row, attempts, ports.desk)
    # The sentence tells how far the price is away: a tag of that would change with each price and spare nobody a thing.
    steady = msgspec.structs.replace(detail, status_reason=_FIGURES.sub("", detail.status_reason))
    return tagged(request, detail, about=steady)


def accepted(submitted: SubmittedTransaction) -> Response:
    """The answer for a transaction that is being landed: it leads to the order."""
    return answer(submitted, 202, {"Location": f"/v1/orders/{submitted.order}"})


def _states(text: str | None) -> frozenset[OrderState] | None:
    if text is None:
        return None
    words = text.split(",")
    if not _STATUSES.keys() >= set(words):
        raise Problem("invalid_field", f"A status is one of {', '.join(_STATUSES)}.", field="status")
    return frozenset[OrderState]().union(*(_STATUSES[word] for word in words))


async def _prepared_only(key: Pubkey, ports: ApiPorts) -> OrderRow | None:
    """An order that was prepared, and has not come back signed: as it was prepared last."""
    rows = [row for row in await ports.journal.prepared_of(key) if row.kind is not PreparedKind.CANCEL]
    return shown(rows[-1], ports.blockhashes) if rows else None


def _from_book(key: Pubkey, ports: ApiPorts) -> OrderRow | None:
    """An order that the book has and the journal does not yet: its note is on its way."""
    known = ports.desk.order(key)
    if known is None:
        return None
    now = ports.now()
    return OrderRow(
        id=0,
        order=known,
        state=OrderState.OPEN,
        reason="The order rests.",
        source=Source.CHAIN,
        first_seen_at=now,
        updated_at=float(known.created_at),
        version=0,
    )
