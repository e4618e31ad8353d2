"""The operator's routes: pause, resume, retry, drain. They exist only where an operator's token is configured."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Final

from msgspec import Meta
from solders.pubkey import Pubkey
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.errors import JournalError, KeeperError, MalformedAccount
from keeper.domain.events import OrderGone, OrderSeen
from keeper.domain.orders import Order
from keeper.http.edge.answering import OrderPath, answer, part
from keeper.http.edge.forwarding import Forwarding
from keeper.http.edge.openapi import described
from keeper.http.edge.problems import CHAIN_PROBLEMS, Problem
from keeper.http.models import Address, Answer
from keeper.http.models import Request as Body
from keeper.http.ports import ApiPorts, Brakes
from keeper.http.reading.health import HealthView, health_view
from keeper.journal import working_lease
from keeper.venue.venue import decode_order

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


class HandingOver(Answer, frozen=True, kw_only=True):
    """The keeper gives its leases back; others have them a moment later, and `/v1/keeper` tells who."""

    holder: Annotated[str, Meta(description="Who works still, and is about to stand by.")]
    term: Annotated[int, Meta(description="Of its lease, the highest of several; the next holder's is higher.")]
    markets: Annotated[
        list[Address], Meta(description="Where keepers share the markets: those that it works on. Else none.")
    ]
    standing_by: Annotated[list[str], Meta(description="Who may take over.")]


def _operator(request: Request) -> None:
    """Only whoever shows an operator's token."""
    ports = part(request, ApiPorts)
    if not ports.operators:
        raise Problem("not_found", "There is nothing at this path.")
    if ports.operators.name_of(request.headers.get("authorization")) is None:
        raise Problem("unauthorized", "Send the operator's token as a bearer token.")


def _brakes(request: Request) -> Brakes:
    brakes = part(request, ApiPorts).brakes
    assert brakes is not None, "whoever works has them"
    return brakes


async def _elsewhere(request: Request, market: Pubkey, again: str) -> Response | None:
    """The answer of the keeper that works on the market; None when it is this one."""

    async def markets() -> list[Pubkey]:
        return [market]

    return await part(request, Forwarding).answer(request, markets, again)


@described("How is it?", {200: OperatorStatus}, guard=_operator)
async def get_status(request: Request) -> Response:
    """Whether it is paused, and every check of its health."""
    return _status(request)


@described(
    "Sign and send nothing new",
    {200: OperatorStatus},
    problems=["journal_unavailable"],
    guard=_operator,
)
async def pause(request: Request, body: PauseKeeper | None = None) -> Response:
    """It takes effect at once, and lasts through restarts. What was sent before is still followed to its end."""
    try:
        await _brakes(request).pause("" if body is None else body.reason)
    except JournalError as e:
        raise Problem(
            "journal_unavailable", "It is paused, but the journal can't be written: a restart would forget it."
        ) from e
    return _status(request)


@described("Go on", {200: OperatorStatus}, problems=["journal_unavailable"], guard=_operator)
async def resume(request: Request) -> Response:
    """Orders that the present price meets are executed at once. Without a pause it changes nothing."""
    try:
        await _brakes(request).resume()
    except JournalError as e:
        raise Problem("journal_unavailable", _NO_JOURNAL) from e
    return _status(request)


@described(
    "Try a failed order again",
    {200: OrderRetried},
    problems=["order_not_found", "order_not_failed", "journal_unavailable"],
    guard=_operator,
)
async def retry_order(request: Request, order: OrderPath) -> Response:
    """It gets its retry budget back and rests again, until the price meets its condition."""
    try:
        row = await part(request, ApiPorts).journal.order(order)
        if row is None:
            raise Problem("order_not_found", f"The keeper knows no order {order}.")
        elsewhere = await _elsewhere(request, row.order.market, "Ask again: what was retried is not retried twice.")
        if elsewhere is not None:
            return elsewhere
        await _brakes(request).retry(order)
    except JournalError as e:
        raise Problem("journal_unavailable", _NO_JOURNAL) from e
    except KeeperError as e:
        raise Problem("order_not_failed", f"It can't be tried again: {e}.") from e
    return answer(OrderRetried(order=str(order)))


@described(
    "Read an order from the chain again",
    {200: OrderResynced},
    problems=["order_not_found", *CHAIN_PROBLEMS],
    guard=_operator,
)
async def resync_order(request: Request, order: OrderPath) -> Response:
    """What the chain says is news to the keeper like any other: an older state never overwrites a newer one."""
    ports = part(request, ApiPorts)
    slot, (account,) = await ports.client.accounts([order])
    found: Order | None = None
    if account is not None and account.lamports and account.owner == ports.program.id:
        with contextlib.suppress(MalformedAccount):
            found = decode_order(order, account.data, slot)
    if found is None and ports.desk.order(order) is None:
        raise Problem("order_not_found", f"Neither the chain nor the keeper's book has an order {order}.")
    known = found or ports.desk.order(order)
    if known is not None:
        elsewhere = await _elsewhere(request, known.market, "Ask again: it is only read.")
        if elsewhere is not None:
            return elsewhere
    ports.news(OrderGone(order, slot) if found is None else OrderSeen(found))
    on_chain = None if found is None else found.status.word
    return answer(OrderResynced(order=str(order), slot=slot, onchain_status=on_chain))


@described(
    "Let another keeper work", {202: HandingOver}, problems=["nobody_stands_by", "journal_unavailable"], guard=_operator
)
async def drain(request: Request) -> Response:
    """What is under way is written down, the lease is given back, and this keeper stands by. If none of the others
    takes over within a lease and two seconds, it works again by itself.
    """
    ports = part(request, ApiPorts)
    leases = await ports.journal.holders()
    service = working_lease(leases)
    held = [lease for lease in leases if lease.holder == ports.name and not lease.on_name]
    held = held if service is None else [service]
    if not held:
        raise Problem("nobody_stands_by", "Only a journal in PostgreSQL is handed over: see docs/scale.md.")
    # Whoever stands by takes the one lease in the end, well or not; a share goes to those that can work.
    others = [lease for lease in leases if lease.on_name and lease.holder != held[0].holder]
    names = [lease.holder for lease in others if service is not None or lease.fit]
    if not names:
        raise Problem("nobody_stands_by", "Start another keeper on this journal, or stop this one if it has to go.")
    ports.hand_over()
    told = HandingOver(
        holder=held[0].holder,
        term=max(lease.term for lease in held),
        markets=[] if service is not None else [lease.what for lease in held],
        standing_by=names,
    )
    return answer(told, 202)


@described("The settings in force", {200: SettingsView}, guard=_operator)
async def get_settings(request: Request) -> Response:
    """By name. Secrets are left out: of them it says only that they are set."""
    return answer(SettingsView(settings=dict(part(request, ApiPorts).settings_shown())))


def _status(request: Request) -> Response:
    ports = part(request, ApiPorts)
    keeper = None if ports.keeper_pubkey is None else str(ports.keeper_pubkey)
    health = health_view(ports.health.report())
    return answer(OperatorStatus(paused=_brakes(request).paused, keeper=keeper, health=health))
