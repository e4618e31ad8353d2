"""The operator's routes: pause, resume, retry. They exist only where an operator's token is configured."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Final

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.errors import JournalError, KeeperError, MalformedAccount
from keeper.domain.events import OrderGone, OrderSeen
from keeper.domain.orders import Order
from keeper.http.edge.answering import OrderPath, address, answer, part
from keeper.http.edge.openapi import described
from keeper.http.edge.problems import CHAIN_PROBLEMS, Problem
from keeper.http.edge.strict_json import read_json_if_any
from keeper.http.models import Address, Answer
from keeper.http.models import Request as Body
from keeper.http.ports import ApiPorts, Brakes
from keeper.http.reading.health import HealthView, health_view
from keeper.venue.layouts import decode_order

_REFUSALS: Final = ("unauthorized", "not_found")
_NO_JOURNAL: Final = "The journal can't be written now; nothing was changed."


class PauseKeeper(Body, frozen=True, kw_only=True):
    """Why, for whoever finds it paused."""

    reason: Annotated[str, Meta(max_length=200, description="Shown in the health report.")] = ""


class OperatorStatus(Answer, frozen=True, kw_only=True):
    """The keeper as its operator sees it."""

    paused: Annotated[str | None, Meta(description="Why an operator paused it; null when none did.")]
    keeper: Address | None
    health: HealthView


class SettingsView(Answer, frozen=True, kw_only=True):
    """The settings in force. A secret shows as that it is set, a URL as its host."""

    settings: dict[str, Any]


class OrderResynced(Answer, frozen=True, kw_only=True):
    """The order as the chain has it now."""

    order: Address
    slot: Annotated[int, Meta(description="Of the node that was asked.")]
    onchain_status: Annotated[str | None, Meta(description="Null: there is no such account.")]


class OrderRetried(Answer, frozen=True, kw_only=True):
    """The order rests again, with its whole retry budget."""

    order: Address


def _operated(request: Request) -> tuple[ApiPorts, Brakes]:
    """The keeper and its brakes, for whoever shows an operator's token."""
    ports = part(request, ApiPorts)
    if ports.brakes is None or not ports.operators:
        raise Problem("not_found", "There is nothing at this path.")
    if ports.operators.name_of(request.headers.get("authorization")) is None:
        raise Problem(
            "unauthorized", "Send the operator's token as a bearer token.", headers={"WWW-Authenticate": "Bearer"}
        )
    return ports, ports.brakes


@described("How is it?", {200: OperatorStatus}, problems=_REFUSALS)
async def status(request: Request) -> Response:
    """Whether it is paused, and every check of its health."""
    return _status(*_operated(request))


@described(
    "Sign and send nothing new",
    {200: OperatorStatus},
    body=PauseKeeper,
    body_required=False,
    problems=[*_REFUSALS, "malformed_json", "unknown_field", "invalid_field", "journal_unavailable"],
)
async def pause(request: Request) -> Response:
    """It takes effect at once, and lasts through restarts. What was sent before is still followed to its end."""
    ports, brakes = _operated(request)
    asked = await read_json_if_any(request, PauseKeeper) or PauseKeeper()
    try:
        await brakes.pause(asked.reason)
    except JournalError as e:
        raise Problem(
            "journal_unavailable", "It is paused, but the journal can't be written: a restart would forget it."
        ) from e
    return _status(ports, brakes)


@described("Go on", {200: OperatorStatus}, problems=[*_REFUSALS, "journal_unavailable"])
async def resume(request: Request) -> Response:
    """Orders that the present price meets are executed at once. Without a pause it changes nothing."""
    ports, brakes = _operated(request)
    try:
        await brakes.resume()
    except JournalError as e:
        raise Problem("journal_unavailable", _NO_JOURNAL) from e
    return _status(ports, brakes)


@described(
    "Try a failed order again",
    {200: OrderRetried},
    problems=[*_REFUSALS, "invalid_field", "order_not_found", "order_not_failed", "journal_unavailable"],
)
async def retry(request: Request, order: OrderPath) -> Response:
    """It gets its retry budget back and rests again, until the price meets its condition."""
    ports, brakes = _operated(request)
    key = address(order, "order")
    try:
        if await ports.journal.order(key) is None:
            raise Problem("order_not_found", f"The keeper knows no order {order}.")
        await brakes.retry(key)
    except JournalError as e:
        raise Problem("journal_unavailable", _NO_JOURNAL) from e
    except KeeperError as e:
        raise Problem("order_not_failed", f"It can't be tried again: {e}.") from e
    return answer(OrderRetried(order=str(key)))


@described(
    "Read an order from the chain again",
    {200: OrderResynced},
    problems=[*_REFUSALS, "invalid_field", "order_not_found", *CHAIN_PROBLEMS],
)
async def resync(request: Request, order: OrderPath) -> Response:
    """What the chain says is news to the keeper like any other: an older state never overwrites a newer one."""
    (ports, _), key = _operated(request), address(order, "order")
    slot, (account,) = await ports.client.accounts([key])
    found: Order | None = None
    if account is not None and account.lamports and account.owner == ports.program.id:
        with contextlib.suppress(MalformedAccount):
            found = decode_order(key, account.data, slot)
    if found is None and ports.desk.order(key) is None:
        raise Problem("order_not_found", f"Neither the chain nor the keeper's book has an order {key}.")
    ports.news(OrderGone(key, slot) if found is None else OrderSeen(found))
    on_chain = None if found is None else found.status.word
    return answer(OrderResynced(order=str(key), slot=slot, onchain_status=on_chain))


@described("The settings in force", {200: SettingsView}, problems=_REFUSALS)
async def settings(request: Request) -> Response:
    """By name. Secrets are left out: of them it says only that they are set."""
    return answer(SettingsView(settings=dict(_operated(request)[0].settings_shown())))


def _status(ports: ApiPorts, brakes: Brakes) -> Response:
    keeper = None if ports.keeper_pubkey is None else str(ports.keeper_pubkey)
    return answer(OperatorStatus(paused=brakes.paused, keeper=keeper, health=health_view(ports.health.report())))
