"""Solana Actions: any wallet that speaks them places an order from a link. The wallet itself sends the transaction."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from keeper.http.actions.models import (
    ActionAccount,
    ActionLinks,
    ActionOption,
    ActionParameter,
    ActionRule,
    ActionRules,
    ActionTransaction,
    ActionView,
    LinkedAction,
)
from keeper.http.edge.answers import answer
from keeper.http.edge.openapi import described
from keeper.http.edge.problems import BODY_PROBLEMS, CHAIN_PROBLEMS, TERMS_PROBLEMS
from keeper.http.edge.requests import part
from keeper.http.edge.strict_json import decode, read_json
from keeper.http.models import EXAMPLE_WALLET, PlaceOrder
from keeper.http.orders.preparing import Preparing
from keeper.http.ports import ApiPorts

PATH: Final = "/actions/place-order"
_FIELDS: Final = (
    "market",
    "order_type",
    "side",
    "size",
    "trigger_price",
    "limit_price",
    "trailing_distance",
    "leverage",
)

Market = Annotated[str, Query(max_length=65, description="Base and quote.", examples=["SOL/USDC"])]
OrderType = Annotated[str | None, Query(max_length=32, description="Fixed by the link; else the user chooses.")]
Side = Annotated[str | None, Query(max_length=8, description="Fixed by the link; else the user chooses.")]


@described("Which paths are Actions", {200: ActionRules})
async def rules(request: Request) -> Response:
    """The rules file of the Actions specification."""
    return answer(ActionRules(rules=[ActionRule(pathPattern="/actions/**", apiPath="/actions/**")]))


@described("Describe the Action", {200: ActionView}, problems=["invalid_field", "unknown_field"])
async def describe(
    request: Request,
    market: Market = "SOL/USDC",
    order_type: OrderType = None,
    side: Side = None,
) -> Response:
    """What a wallet shows of it: what the link fixes is fixed, the rest are fields for the user to fill in."""
    ports = part(request, ApiPorts)
    found = ports.desk.market(market)
    fixed = {"market": market, "order_type": order_type, "side": side}
    parameters = _parameters(ports, fixed)
    given = [f"{name}={value}" for name, value in fixed.items() if value is not None]
    asked = [f"{parameter.name}={{{parameter.name}}}" for parameter in parameters]
    title = " ".join(
        word for word in ("Place a", side, (order_type or "conditional").replace("_", " "), "order") if word
    )
    return answer(
        ActionView(
            icon=f"{ports.public_url or str(request.base_url).rstrip('/')}/page/icon.svg",
            title=f"{title} on {market}",
            description="The order rests on chain until the oracle's price meets its condition; then the keeper "
            "executes it in one transaction with its position.",
            label="Place the order",
            disabled=found is None or not ports.health.report().ready,
            links=ActionLinks(
                actions=[
                    LinkedAction(
                        label="Place the order", href=f"{PATH}?{'&'.join([*given, *asked])}", parameters=parameters
                    )
                ]
            ),
        )
    )


@described(
    "The Action's transaction",
    {200: ActionTransaction},
    body=ActionAccount,
    example={"account": EXAMPLE_WALLET},
    problems=[*BODY_PROBLEMS, *TERMS_PROBLEMS, *CHAIN_PROBLEMS, "not_ready"],
)
async def transaction(
    request: Request,
    market: Market = "SOL/USDC",
    order_type: OrderType = None,
    side: Side = None,
    size: Annotated[str | None, Query(max_length=40)] = None,
    trigger_price: Annotated[str | None, Query(max_length=40)] = None,
    limit_price: Annotated[str | None, Query(max_length=40)] = None,
    trailing_distance: Annotated[str | None, Query(max_length=40)] = None,
    leverage: Annotated[int, Query(ge=1, le=255)] = 1,
) -> Response:
    """The unsigned `place_order` transaction for the account's wallet, which signs and sends it by itself; the keeper
    sees the order when it is on chain. Fields that a user left empty count as not given.
    """
    who = await read_json(request, ActionAccount)
    words = (market, order_type, side, size, trigger_price, limit_price, trailing_distance)
    given = {name: word for name, word in zip(_FIELDS, words, strict=False) if word}
    # Through the same door as any order: what is wrong with a field is said of that field.
    body = decode(msgspec.json.encode({"user": who.account, **given, "leverage": leverage}), PlaceOrder)
    prepared = (await part(request, Preparing).place(body, None)).answer
    terms = prepared.summary
    return answer(
        ActionTransaction(
            transaction=prepared.transaction,
            message=f"{terms.side} {terms.order_type.replace('_', ' ')} of {terms.size} on {terms.market}; "
            f"follow it as {prepared.order}.",
        )
    )


def _parameters(ports: ApiPorts, fixed: dict[str, str | None]) -> list[ActionParameter]:
    """What the link leaves open, of what the order's type uses."""
    order_type = fixed["order_type"]
    found = []
    if order_type is None:
        found.append(_select("order_type", "Order type", [t.word for t in sorted(ports.program.executable)]))
    if fixed["side"] is None:
        found.append(_select("side", "Side", ["long", "short"]))
    found.append(ActionParameter(name="size", label="Size in base units", type="text", required=True))
    if order_type != "limit":
        required = order_type in ("stop_loss", "take_profit", "stop_limit")
        found.append(ActionParameter(name="trigger_price", label="Trigger price", type="text", required=required))
    if order_type in (None, "limit", "stop_limit"):
        required = order_type == "limit"
        found.append(ActionParameter(name="limit_price", label="Limit price", type="text", required=required))
    if order_type in (None, "trailing_stop"):
        found.append(
            ActionParameter(
                name="trailing_distance",
                label="Trailing distance (0.05 is 5 %)",
                type="text",
                required=order_type == "trailing_stop",
            )
        )
    found.append(ActionParameter(name="leverage", label="Leverage", type="number", required=True))
    return found


def _select(name: str, label: str, words: list[str]) -> ActionParameter:
    options = [ActionOption(label=w.replace("_", " "), value=w, selected=n == 0) for n, w in enumerate(words)]
    return ActionParameter(name=name, label=label, type="select", required=True, options=options)
