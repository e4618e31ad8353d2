"""Managed wallets: one POST places an order. They exist only where an operator configured them."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Path
from starlette.requests import Request
from starlette.responses import Response

from keeper.http.edge.openapi import described
from keeper.http.edge.problems import BODY_PROBLEMS, CHAIN_PROBLEMS, TERMS_PROBLEMS
from keeper.http.edge.requests import OrderPath, address, part
from keeper.http.edge.strict_json import read_json
from keeper.http.models import EXAMPLE_TERMS, ManagedOrder, SubmittedTransaction
from keeper.http.orders.idempotency import KEY_HEADER, key_of
from keeper.http.orders.managed import Managed
from keeper.http.orders.routes import LOCATION, accepted

_REFUSALS: Final = ("unauthorized", "not_found", "invalid_idempotency_key")
WalletPath = Annotated[str, Path(max_length=32, description="The wallet's name in the keeper's settings.")]


@described(
    "Place an order with a managed wallet",
    {202: SubmittedTransaction},
    body=ManagedOrder,
    example=EXAMPLE_TERMS,
    problems=[
        *_REFUSALS,
        "not_allowed",
        "daily_limit",
        *BODY_PROBLEMS,
        *TERMS_PROBLEMS,
        "order_exists",
        "blockhash_expired",
        "not_ready",
        *CHAIN_PROBLEMS,
    ],
    headers=KEY_HEADER,
    answer_headers=LOCATION,
)
async def place(request: Request, wallet: WalletPath) -> Response:
    """The keeper signs with the wallet's key, which its operator gave it, and relays the order."""
    managed = part(request, Managed)
    allowed = managed.wallet(wallet, request.headers.get("authorization"))
    body = await read_json(request, ManagedOrder)
    return accepted(await managed.place(allowed, body, key_of(request)))


@described(
    "Cancel an order of a managed wallet",
    {202: SubmittedTransaction},
    problems=[
        *_REFUSALS,
        "invalid_field",
        "order_not_found",
        "order_not_pending",
        "unauthorized_user",
        "simulation_failed",
        "blockhash_expired",
        "not_ready",
        *CHAIN_PROBLEMS,
    ],
    headers=KEY_HEADER,
    answer_headers=LOCATION,
)
async def cancel(request: Request, order: OrderPath, wallet: WalletPath) -> Response:
    """The keeper signs the cancel with the wallet's key and relays it."""
    managed = part(request, Managed)
    allowed = managed.wallet(wallet, request.headers.get("authorization"))
    return accepted(await managed.cancel(allowed, address(order, "order"), key_of(request)))
