"""Managed wallets: one POST places an order. They exist only where an operator configured them."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path
from starlette.requests import Request
from starlette.responses import Response

from keeper.http.edge.answers import answer
from keeper.http.edge.describe import described_by
from keeper.http.edge.strict_json import read_json
from keeper.http.models import ManagedOrder, SubmittedTransaction
from keeper.http.orders.idempotency import key_of
from keeper.http.orders.managed import ManagedWallet
from keeper.http.orders.routes import BODY_PROBLEMS, CHAIN_PROBLEMS, KEY_HEADER, TERMS_PROBLEMS, OrderPath
from keeper.http.orders.terms import address
from keeper.http.wiring import ManagedDep, Ports, strict_query

router = APIRouter(prefix="/v1/wallets", tags=["wallets"], dependencies=[strict_query])
_REFUSALS: Final = ("unauthorized", "not_found", "invalid_idempotency_key")


async def _wallet(
    request: Request,
    managed: ManagedDep,
    wallet: Annotated[str, Path(max_length=32, description="The wallet's name in the keeper's settings.")],
) -> ManagedWallet:
    """The wallet, for whoever shows a token for it."""
    return managed.wallet(wallet, request.headers.get("authorization"))


WalletDep = Annotated[ManagedWallet, Depends(_wallet)]


@router.post(
    "/{wallet}/orders",
    summary="Place an order with a managed wallet",
    **described_by(
        {202: SubmittedTransaction},
        body=ManagedOrder,
        example={
            "market": "SOL/USDC",
            "order_type": "stop_loss",
            "side": "long",
            "size": "2.5",
            "trigger_price": "95.5",
            "leverage": 5,
        },
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
        answer_headers={202: {"Location": "The order."}},
    ),
)
async def place(request: Request, wallet: WalletDep, ports: Ports, managed: ManagedDep) -> Response:
    """The keeper signs with the wallet's key, which its operator gave it, and relays the order."""
    body = await read_json(request, ManagedOrder, ports.limits)
    submitted = await managed.place(wallet, body, key_of(request))
    return answer(submitted, 202, {"Location": f"/v1/orders/{submitted.order}"})


@router.post(
    "/{wallet}/orders/{order}/cancel",
    summary="Cancel an order of a managed wallet",
    **described_by(
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
        answer_headers={202: {"Location": "The order."}},
    ),
)
async def cancel(request: Request, wallet: WalletDep, order: OrderPath, managed: ManagedDep) -> Response:
    """The keeper signs the cancel with the wallet's key and relays it."""
    submitted = await managed.cancel(wallet, address(order, "order"), key_of(request))
    return answer(submitted, 202, {"Location": f"/v1/orders/{submitted.order}"})
