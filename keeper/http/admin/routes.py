"""The operator's routes: pause, resume, retry. They exist only where an operator's token is configured."""

from __future__ import annotations

import contextlib
from typing import Annotated, Final

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.events import OrderGone, OrderSeen
from keeper.domain.orders import Order
from keeper.errors import JournalError, KeeperError, MalformedAccount
from keeper.http.admin.models import OperatorStatus, OrderResynced, OrderRetried, PauseKeeper, SettingsView
from keeper.http.edge.answers import answer
from keeper.http.edge.chain_problems import translated
from keeper.http.edge.describe import described_by
from keeper.http.edge.problems import Problem
from keeper.http.edge.strict_json import read_json
from keeper.http.orders.routes import CHAIN_PROBLEMS, OrderPath
from keeper.http.orders.terms import address
from keeper.http.ports import ApiPorts, Brakes
from keeper.http.reading.views import health_view
from keeper.http.wiring import Ports, strict_query
from keeper.venue.layouts import decode_order

router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[strict_query])

_REFUSALS: Final = ("unauthorized", "not_found")
_NO_JOURNAL: Final = "The journal can't be written now; nothing was changed."


async def _brakes(request: Request, ports: Ports) -> Brakes:
    """The brakes, for whoever shows an operator's token."""
    if ports.brakes is None or not ports.operators:
        raise Problem("not_found", "There is nothing at this path.")
    if ports.operators.name_of(request.headers.get("authorization")) is None:
        raise Problem(
            "unauthorized", "Send the operator's token as a bearer token.", headers={"WWW-Authenticate": "Bearer"}
        )
    return ports.brakes


BrakesDep = Annotated[Brakes, Depends(_brakes)]


@router.get("/status", summary="How is it?", **described_by({200: OperatorStatus}, problems=_REFUSALS))
async def status(ports: Ports, brakes: BrakesDep) -> Response:
    """Whether it is paused, and every check of its health."""
    return _status(ports, brakes)


@router.post(
    "/pause",
    summary="Sign and send nothing new",
    **described_by(
        {200: OperatorStatus},
        body=PauseKeeper,
        body_required=False,
        problems=[*_REFUSALS, "malformed_json", "unknown_field", "invalid_field", "journal_unavailable"],
    ),
)
async def pause(request: Request, ports: Ports, brakes: BrakesDep) -> Response:
    """It takes effect at once, and lasts through restarts. What was sent before is still followed to its end."""
    asked = PauseKeeper()
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        asked = await read_json(request, PauseKeeper, ports.limits)
    try:
        await brakes.pause(asked.reason)
    except JournalError as e:
        raise Problem(
            "journal_unavailable", "It is paused, but the journal can't be written: a restart would forget it."
        ) from e
    return _status(ports, brakes)


@router.post(
    "/resume", summary="Go on", **described_by({200: OperatorStatus}, problems=[*_REFUSALS, "journal_unavailable"])
)
async def resume(ports: Ports, brakes: BrakesDep) -> Response:
    """Orders that the present price meets are executed at once. Without a pause it changes nothing."""
    try:
        await brakes.resume()
    except JournalError as e:
        raise Problem("journal_unavailable", _NO_JOURNAL) from e
    return _status(ports, brakes)


@router.post(
    "/orders/{order}/retry",
    summary="Try a failed order again",
    **described_by(
        {200: OrderRetried},
        problems=[*_REFUSALS, "invalid_field", "order_not_found", "order_not_failed", "journal_unavailable"],
    ),
)
async def retry(order: OrderPath, ports: Ports, brakes: BrakesDep) -> Response:
    """It gets its retry budget back and rests again, until the price meets its condition."""
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


@router.post(
    "/orders/{order}/resync",
    summary="Read an order from the chain again",
    **described_by({200: OrderResynced}, problems=[*_REFUSALS, "invalid_field", "order_not_found", *CHAIN_PROBLEMS]),
)
async def resync(order: OrderPath, ports: Ports, brakes: BrakesDep) -> Response:
    """What the chain says is news to the keeper like any other: an older state never overwrites a newer one."""
    key = address(order, "order")
    with translated():
        slot, (account,) = await ports.client.accounts([key])
    found: Order | None = None
    if account is not None and account.lamports and account.owner == ports.program.id:
        with contextlib.suppress(MalformedAccount):
            found = decode_order(key, account.data, slot)
    if found is None and ports.desk.order(key) is None:
        raise Problem("order_not_found", f"Neither the chain nor the keeper's book has an order {key}.")
    if ports.news is not None:
        ports.news(OrderGone(key, slot) if found is None else OrderSeen(found))
    status = None if found is None else found.status.word
    return answer(OrderResynced(order=str(key), slot=slot, onchain_status=status))


@router.get("/settings", summary="The settings in force", **described_by({200: SettingsView}, problems=_REFUSALS))
async def settings(ports: Ports, brakes: BrakesDep) -> Response:
    """By name. Secrets are left out: of them it says only that they are set."""
    return answer(SettingsView(settings=dict(ports.settings_shown() if ports.settings_shown is not None else {})))


def _status(ports: ApiPorts, brakes: Brakes) -> Response:
    keeper = None if ports.keeper_pubkey is None else str(ports.keeper_pubkey)
    return answer(OperatorStatus(paused=brakes.paused, keeper=keeper, health=health_view(ports.health.report())))
