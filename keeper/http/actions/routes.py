"""Solana Actions: any wallet that speaks them places an order from a link. The wallet itself sends the transaction.

The fields' names are the Actions specification's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.urls import in_url
from keeper.http.edge.answering import answer, part
from keeper.http.edge.costs import WRITE, charge
from keeper.http.edge.openapi import described
from keeper.http.edge.problems import CHAIN_PROBLEMS, TERMS_PROBLEMS, Problem
from keeper.http.edge.strict_json import decode
from keeper.http.models import EXAMPLE_WALLET, Address, Answer, PlaceOrder
from keeper.http.orders.preparing import Preparing
from keeper.http.ports import ApiPorts

PATH: Final = "/actions/place-order"
_SIDES: Final = ("long", "short")
Market = Annotated[str, Meta(max_length=65, description="Base and quote.", examples=["SOL/USDC"])]
OrderType = Annotated[str, Meta(max_length=32, description="Fixed by the link; else the user chooses.")]
Number = Annotated[str, Meta(max_length=40)]
Side = Annotated[str, Meta(max_length=8, description="Fixed by the link; else the user chooses.")]


class ActionRule(Answer, frozen=True, kw_only=True):
    """A path of this host that is an Action."""

    pathPattern: str  # noqa: N815
    apiPath: str  # noqa: N815


class ActionRules(Answer, frozen=True, kw_only=True):
    """Which paths of this host are Actions."""

    rules: list[ActionRule]


class ActionOption(Answer, frozen=True, kw_only=True):
    """One choice of a parameter."""

    label: str
    value: str
    selected: bool = False


class ActionParameter(Answer, frozen=True, kw_only=True):
    """What a user fills in."""

    name: str
    label: str
    type: Literal["text", "number", "select"]
    required: bool = False
    options: list[ActionOption] | UnsetType = UNSET


class LinkedAction(Answer, frozen=True, kw_only=True):
    """A button, with the fields before it."""

    type: Literal["transaction"] = "transaction"
    label: str
    href: str
    parameters: list[ActionParameter]


class ActionLinks(Answer, frozen=True, kw_only=True):
    """What can be done."""

    actions: list[LinkedAction]


class ActionView(Answer, frozen=True, kw_only=True):
    """An Action, as a wallet shows it."""

    type: Literal["action"] = "action"
    icon: str
    title: str
    description: str
    label: str
    disabled: bool = False
    links: ActionLinks


class ActionAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants to act. Wallets may send more than this; what is not known is not looked at."""

    account: Annotated[Address, Meta(description="The wallet that will sign and pay.")]


class ActionTransaction(Answer, frozen=True, kw_only=True):
    """A transaction for the wallet to sign and send."""

    type: Literal["transaction"] = "transaction"
    transaction: Annotated[str, Meta(description="Unsigned, in base64.")]
    message: str


@described("Which paths are Actions", {200: ActionRules})
async def get_action_rules(request: Request) -> Response:
    """The rules file of the Actions specification."""
    return answer(ActionRules(rules=[ActionRule(pathPattern="/actions/**", apiPath="/actions/**")]))


@described("Describe the Action", {200: ActionView})
async def describe_action(
    request: Request, market: Market = "SOL/USDC", order_type: OrderType | None = None, side: Side | None = None
) -> Response:
    """What a wallet shows of it: what the link fixes is fixed, the rest are fields for the user to fill in."""
    ports = part(request, ApiPorts)
    found = ports.desk.market(market)
    # What a link says is shown by wallets as this keeper's word: only what it knows gets into it.
    fixed = {
        "market": market if found is None else found.symbol,
        "order_type": _known(order_type, "order_type", [t.word for t in sorted(ports.program.executable)]),
        "side": _known(side, "side", _SIDES),
    }
    parameters = _parameters(ports, fixed)
    given = urlencode({name: value for name, value in fixed.items() if value}, safe="/")
    asked = [f"{parameter.name}={{{parameter.name}}}" for parameter in parameters]
    kind = (fixed["order_type"] or "conditional").replace("_", " ")
    title = " ".join(word for word in ("Place a", fixed["side"], kind, "order") if word)
    return answer(
        ActionView(
            icon=f"{ports.public_url or _own_address(request)}/page/icon.svg",
            title=title if found is None else f"{title} on {found.symbol}",
            description="The order rests on chain until the oracle's price meets its condition; then the keeper "
            "executes it in one transaction with its position.",
            label="Place the order",
            disabled=found is None or not ports.health.report().ready,
            links=ActionLinks(
                actions=[
                    LinkedAction(
                        label="Place the order", href=f"{PATH}?{'&'.join([given, *asked])}", parameters=parameters
                    )
                ]
            ),
        )
    )


def _own_address(request: Request) -> str:
    """Where the request came in: what it says of itself in Host is its sender's word."""
    host, port = request.scope["server"]
    return f"http://{in_url(host)}:{port}"


@described(
    "The Action's transaction",
    {200: ActionTransaction},
    example={"account": EXAMPLE_WALLET},
    problems=[*TERMS_PROBLEMS, *CHAIN_PROBLEMS, "not_ready"],
)
async def make_action_transaction(
    request: Request,
    body: ActionAccount,
    market: Market = "SOL/USDC",
    order_type: OrderType | None = None,
    side: Side | None = None,
    size: Number | None = None,
    trigger_price: Number | None = None,
    limit_price: Number | None = None,
    trailing_distance: Number | None = None,
    leverage: Annotated[int, Meta(ge=1, le=255)] = 1,
) -> Response:
    """The unsigned `place_order` transaction for the account's wallet, which signs and sends it by itself; the keeper
    sees the order when it is on chain. Fields that a user left empty count as not given.
    """
    words = {
        "market": market,
        "order_type": order_type,
        "side": side,
        "size": size,
        "trigger_price": trigger_price,
        "limit_price": limit_price,
        "trailing_distance": trailing_distance,
    }
    given = {name: word for name, word in words.items() if word}
    charge(request, WRITE)
    # Through the same door as any order: what is wrong with a field is said of that field.
    terms_asked = decode(msgspec.json.encode({"user": body.account, **given, "leverage": leverage}), PlaceOrder)
    prepared = (await part(request, Preparing).place(terms_asked, None)).answer
    terms = prepared.summary
    return answer(
        ActionTransaction(
            transaction=prepared.transaction,
            message=f"{terms.side} {terms.order_type.replace('_', ' ')} of {terms.size} on {terms.market}; "
            f"follow it as {prepared.order}." + (f" {prepared.notice}" if prepared.notice else ""),
        )
    )


def _known(word: str | None, field: str, words: Sequence[str]) -> str | None:
    if word and word not in words:
        raise Problem("invalid_field", f"The {field} is one of {', '.join(words)}.", field=field)
    return word or None


def _parameters(ports: ApiPorts, fixed: dict[str, str | None]) -> list[ActionParameter]:
    """What the link leaves open, of what the order's type uses."""
    kind = fixed["order_type"]
    found = []
    if kind is None:
        found.append(_select("order_type", "Order type", [t.word for t in sorted(ports.program.executable)]))
    if fixed["side"] is None:
        found.append(_select("side", "Side", _SIDES))
    found.append(ActionParameter(name="size", label="Size in base units", type="text", required=True))
    prices = (
        ("trigger_price", "Trigger price", kind != "limit", ("stop_loss", "take_profit", "stop_limit")),
        ("limit_price", "Limit price", kind in (None, "limit", "stop_limit"), ("limit", "stop_limit")),
        ("trailing_distance", "Trailing distance (0.05 is 5 %)", kind in (None, "trailing_stop"), ("trailing_stop",)),
    )
    for name, label, used, needed_by in prices:
        if used:
            found.append(ActionParameter(name=name, label=label, type="text", required=kind in needed_by))
    found.append(ActionParameter(name="leverage", label="Leverage", type="number", required=True))
    return found


def _select(name: str, label: str, words: Sequence[str]) -> ActionParameter:
    options = [ActionOption(label=w.replace("_", " "), value=w, selected=n == 0) for n, w in enumerate(words)]
    return ActionParameter(name=name, label=label, type="select", required=True, options=options)
