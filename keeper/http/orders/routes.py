"""Orders: prepare, relay, cancel, and see what became of them."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any, Final

import anyio
import msgspec
from fastapi import APIRouter, Path, Query
from solders.pubkey import Pubkey
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.orders import OrderState
from keeper.errors import JournalError
from keeper.http.edge.answers import answer, tagged
from keeper.http.edge.chain_problems import translated
from keeper.http.edge.describe import described_by
from keeper.http.edge.problems import KINDS, Problem
from keeper.http.edge.strict_json import read_json
from keeper.http.models import (
    BASE58,
    EXAMPLE_ORDER,
    EXAMPLE_WALLET,
    CancelOrder,
    ExecuteOrder,
    OrderDetail,
    OrderPage,
    PlaceOrder,
    PreparedTransaction,
    SubmittedTransaction,
)
from keeper.http.orders.idempotency import HEADER, REPLAYED, key_of
from keeper.http.orders.preparing import Prepared
from keeper.http.orders.terms import address
from keeper.http.ports import ApiPorts
from keeper.http.reading.views import order_detail, order_view
from keeper.http.stream.feed import Filter
from keeper.http.stream.following import ACTIVE
from keeper.http.wiring import FollowingDep, Ports, PreparingDep, RelayingDep, strict_query
from keeper.journal.records import OrderRow, Source

router = APIRouter(prefix="/v1/orders", tags=["orders"], dependencies=[strict_query])

_GROUPS: Final = {"active": ACTIVE, "history": frozenset(OrderState) - ACTIVE}

BODY_PROBLEMS: Final = [
    "malformed_json",
    "duplicate_key",
    "unsupported_media_type",
    "body_too_large",
    "body_timeout",
    "unknown_field",
    "missing_field",
    "invalid_field",
]
CHAIN_PROBLEMS: Final = ["chain_unavailable", "journal_unavailable"]
TERMS_PROBLEMS: Final = [code for code, kind in KINDS.items() if kind.status == 422 and code not in BODY_PROBLEMS]
KEY_HEADER: Final = {
    HEADER: ("1 to 255 characters; a repetition with the same body gets the same answer.", "^[!-~]{1,255}$")
}
_REPLAY_HEADER: Final = {201: {REPLAYED: "`true` when an earlier request with this key had this answer."}}

ADDRESS_SCHEMA: Final[dict[str, Any]] = {"pattern": BASE58, "minLength": 32, "maxLength": 44}
_SIGNED: Final = base64.b64encode(b"\x01" + bytes(range(200))).decode()
_FIGURES: Final = re.compile(r"[\d.]+")
OrderPath = Annotated[
    str, Path(description="The order account's address.", examples=[EXAMPLE_ORDER], json_schema_extra=ADDRESS_SCHEMA)
]


@router.post(
    "",
    summary="Prepare an order",
    **described_by(
        {201: PreparedTransaction},
        body=PlaceOrder,
        example={
            "user": EXAMPLE_WALLET,
            "market": "SOL/USDC",
            "order_type": "stop_loss",
            "side": "long",
            "size": "2.5",
            "trigger_price": "95.5",
            "leverage": 5,
        },
        problems=[
            *BODY_PROBLEMS,
            *TERMS_PROBLEMS,
            "invalid_idempotency_key",
            "order_exists",
            "not_ready",
            *CHAIN_PROBLEMS,
        ],
        headers=KEY_HEADER,
        answer_headers=_REPLAY_HEADER,
    ),
)
async def prepare(request: Request, ports: Ports, preparing: PreparingDep) -> Response:
    """An unsigned `place_order` transaction for the user's wallet. Nothing is on chain until it is signed and sent
    to `/v1/orders/execute`.
    """
    body = await read_json(request, PlaceOrder, ports.limits)
    return _prepared(await preparing.place(body, key_of(request)))


@router.post(
    "/execute",
    summary="Relay a signed transaction",
    **described_by(
        {202: SubmittedTransaction},
        body=ExecuteOrder,
        example={"id": "fD0aVh6cTg2m1kXo7mQz4A", "signed_transaction": _SIGNED},
        problems=[
            *BODY_PROBLEMS,
            *TERMS_PROBLEMS,
            "prepared_not_found",
            "already_submitted",
            "blockhash_expired",
            "not_ready",
            *CHAIN_PROBLEMS,
        ],
        answer_headers={202: {"Location": "The order."}},
    ),
)
async def execute(request: Request, ports: Ports, relaying: RelayingDep) -> Response:
    """Relay a prepared transaction that its user signed. It is checked against what was prepared, simulated, kept in
    the journal and sent until it lands or can no longer land. The same bytes again get the same answer.
    """
    body = await read_json(request, ExecuteOrder, ports.limits)
    submitted = await relaying.execute(body)
    return answer(submitted, 202, {"Location": f"/v1/orders/{submitted.order}"})


@router.get("/execute", include_in_schema=False)
async def execute_is_posted() -> Response:
    """Without this the path would be taken for an order's address."""
    raise Problem("method_not_allowed", "Send the signed transaction with POST.", headers={"Allow": "POST"})


@router.post(
    "/{order}/cancel",
    summary="Prepare a cancel",
    **described_by(
        {201: PreparedTransaction},
        body=CancelOrder,
        body_required=False,
        problems=[*BODY_PROBLEMS, "invalid_idempotency_key", "order_not_found", "order_not_pending", *CHAIN_PROBLEMS],
        headers=KEY_HEADER,
        answer_headers=_REPLAY_HEADER,
    ),
)
async def cancel(request: Request, order: OrderPath, ports: Ports, preparing: PreparingDep) -> Response:
    """An unsigned `cancel_order` transaction. The keeper goes on executing the order until a validly signed one
    comes to `/v1/orders/execute`.
    """
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        await read_json(request, CancelOrder, ports.limits)
    return _prepared(await preparing.cancel(address(order, "order"), key_of(request)))


@router.get(
    "", summary="Orders, newest first", **described_by({200: OrderPage}, problems=["invalid_field", *CHAIN_PROBLEMS])
)
async def orders(
    ports: Ports,
    user: Annotated[str | None, Query(description="Only this wallet's.", json_schema_extra=ADDRESS_SCHEMA)] = None,
    market: Annotated[str | None, Query(description="Only this market's: a symbol or an address.")] = None,
    status: Annotated[
        str | None,
        Query(description="`active`, `history`, or status words with commas between.", examples=["open,triggered"]),
    ] = None,
    client_order_id: Annotated[str | None, Query(max_length=64)] = None,
    cursor: Annotated[str | None, Query(max_length=256, description="From the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """A page of orders that fit every given filter."""
    with translated():
        try:
            page = await ports.journal.orders(
                user=None if user is None else address(user, "user"),
                market=market_of(market, ports),
                states=_states(status),
                client_order_id=client_order_id,
                cursor=cursor,
                limit=limit,
            )
        except JournalError as e:
            if cursor is not None and type(e) is JournalError:
                raise Problem("invalid_cursor", "The cursor is not one of this API's.", field="cursor") from e
            raise
    return answer(OrderPage(orders=[order_view(row, ports.desk) for row in page.items], cursor=page.cursor))


@router.get(
    "/{order}",
    summary="One order",
    **described_by(
        {200: OrderDetail, 304: "As the client has it."},
        problems=["invalid_field", "order_not_found", "too_many_streams", *CHAIN_PROBLEMS],
        headers={"If-None-Match": ("The ETag of the answer that the client has.", "^.*$")},
        answer_headers={200: {"ETag": "Changes with the order, and with why it stands so, but not with each price."}},
    ),
)
async def order(
    request: Request,
    order: OrderPath,
    ports: Ports,
    following: FollowingDep,
    wait_s: Annotated[
        float, Query(ge=0, le=60, description="With If-None-Match: wait so many seconds for something new.")
    ] = 0.0,
) -> Response:
    """What became of an order: `status`, why in a sentence, and every attempt with its signature and outcome.

    With `wait_s` and the ETag of what the client has, the answer comes when there is news, or as a 304 after that time.
    """
    key = address(order, "order")
    if not wait_s:
        return await _order(request, key, ports)
    with following.feed.reading(Filter(order=key)) as reader:
        with anyio.move_on_after(wait_s):
            while not reader.cut:
                found = await _order(request, key, ports)
                if found.status_code != 304:
                    return found
                await reader.news()
        return await _order(request, key, ports)


async def _order(request: Request, key: Pubkey, ports: ApiPorts) -> Response:
    with translated():
        row = await ports.journal.order(key) or _from_book(key, ports)
        if row is None:
            raise Problem("order_not_found", f"The keeper knows no order {key}.")
        attempts = await ports.journal.attempts_of(key)
    detail = order_detail(row, attempts, ports.desk)
    # The sentence tells how far the price is away: a tag of that would change with each price and spare nobody a thing.
    steady = msgspec.structs.replace(detail, status_reason=_FIGURES.sub("", detail.status_reason))
    return tagged(request, detail, about=steady)


def _prepared(prepared: Prepared) -> Response:
    return answer(prepared.answer, 201, {REPLAYED: "true"} if prepared.replayed else None)


def market_of(text: str | None, ports: ApiPorts) -> Pubkey | None:
    """The market that a filter names, by symbol or address."""
    if text is None:
        return None
    found = ports.desk.market(text)
    if found is not None:
        return found.address
    if "/" in text:
        raise Problem("unknown_market", "The program has no such market that the keeper watches.", field="market")
    return address(text, "market")


def _states(text: str | None) -> frozenset[OrderState] | None:
    if text is None:
        return None
    found: set[OrderState] = set()
    for word in text.split(","):
        if word in _GROUPS:
            found |= _GROUPS[word]
        elif word in set(OrderState):
            found.add(OrderState(word))
        else:
            words = ", ".join(("active", "history", *OrderState))
            raise Problem("invalid_field", f"A status is one of {words}.", field="status")
    return frozenset(found)


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
