"""What the keeper is and did: itself, its executions with their latency, its failures with their reasons."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta
from solders.pubkey import Pubkey
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.attempts import Attempt, Fate
from keeper.domain.orders import OrderState
from keeper.http.edge.answering import Cursor, Market, OfType, PageSize, answer, next_page, part, type_of
from keeper.http.edge.openapi import described
from keeper.http.edge.problems import Problem
from keeper.http.models import Address, Answer, AttemptView, Decimal, NextPage, OrderTypeWord, SideWord
from keeper.http.models import Cursor as PageCursor
from keeper.http.ports import ApiPorts, Desk
from keeper.http.reading.markets import market_filter
from keeper.http.reading.views import attempt_view, summary_of
from keeper.journal import Holder, Queries, shares, unheld, working_lease
from keeper.journal.records import FailureRow, OrderRow, Page


class OrderCount(Answer, frozen=True, kw_only=True):
    """How many orders are in a state."""

    status: OrderState
    orders: int


class LeaseView(Answer, frozen=True, kw_only=True):
    """A right that one keeper has for a time, by the database's clock."""

    on: Annotated[
        str,
        Meta(
            description="`*` is the right to work on all markets, a market's address that to work on this one; "
            "`keeper:NAME` says that this keeper runs."
        ),
    ]
    holder: str
    term: Annotated[int, Meta(description="It rises with each change of holder.")]
    since: Annotated[float, Meta(description="Unix seconds.")]


class RunningKeeper(Answer, frozen=True, kw_only=True):
    """One of the keepers on this journal."""

    name: str
    markets: Annotated[int, Meta(description="On how many markets it works; 0 while it stands by.")]
    fit: Annotated[bool, Meta(description="Whether it can work: it hears the chain, and was not just drained.")]


class KeeperView(Answer, frozen=True, kw_only=True):
    """Who the keeper is, what it serves, and how many orders it knows."""

    keeper: Annotated[Address | None, Meta(description="Its wallet; null when it has none.")]
    balance_lamports: Annotated[int | None, Meta(description="As last read; null before the first time.")]
    version: str
    genesis: Annotated[str | None, Meta(description="The genesis hash of the cluster that it is on.")]
    program: Address
    program_revision: str
    executes: Annotated[list[OrderTypeWord], Meta(description="The types that the program's revision executes.")]
    fills_create_positions: Annotated[
        bool, Meta(description="False for revision 0.1: an order is then marked filled with no position behind it.")
    ]
    chain_time: Annotated[float | None, Meta(description="The chain's clock, unix seconds.")]
    consensus: Annotated[
        str,
        Meta(
            description="How the chain agrees on blocks: `alpenglow`, where confirmed is final, or `towerbft`; "
            "`unknown` when no node says, and is then held to be TowerBFT."
        ),
    ]
    slot_s: Annotated[float | None, Meta(description="Seconds a slot, as measured; null before that.")]
    orders: list[OrderCount]
    leases: Annotated[
        list[LeaseView],
        Meta(description="Of several keepers on one journal: who works, and who runs. None for a journal in a file."),
    ]
    keepers: Annotated[list[RunningKeeper], Meta(description="The same by keeper. None for a journal in a file.")]
    markets_unheld: Annotated[
        int, Meta(description="On how many markets none of several keepers works. 0 for a journal in a file.")
    ]


class ExecutionView(AttemptView, frozen=True, kw_only=True):
    """One of the keeper's attempts at filling an order."""

    order: Address
    market: str | None
    order_type: OrderTypeWord | None
    side: SideWord | None
    size: Decimal | None
    latency_ms: Annotated[
        int | None, Meta(description="From the news that met the order's condition to the fill's confirmation.")
    ]


class ExecutionPage(Answer, frozen=True, kw_only=True):
    """Some executions, newest first."""

    executions: list[ExecutionView]
    cursor: PageCursor
    next: NextPage


class FailureView(Answer, frozen=True, kw_only=True):
    """An order that wanted to be executed and was not, at least not at once."""

    order: Address
    status: OrderState | None
    reason: str
    market: str | None
    order_type: OrderTypeWord | None
    side: SideWord | None
    size: Decimal | None
    attempts: Annotated[list[AttemptView], Meta(description="Oldest first.")]


class FailureList(Answer, frozen=True, kw_only=True):
    """Failures, the latest first."""

    failures: list[FailureView]


Outcome = Annotated[
    str,
    Meta(
        description="Only those that ended so: `executed`, `refused`, ...",
        extra_json_schema={"enum": [fate.value for fate in Fate]},
    ),
]


@described("The keeper itself", {200: KeeperView}, problems=["journal_unavailable"])
async def get_keeper(request: Request) -> Response:
    """Its wallet and balance, the program that it serves, and how many orders of each status it knows."""
    ports = part(request, ApiPorts)
    counts = await ports.journal.counts_by_state()
    program, leases = ports.program, ports.journal.leases
    markets = [str(market.address) for market in ports.desk.markets()]
    return answer(
        KeeperView(
            keeper=None if ports.keeper_pubkey is None else str(ports.keeper_pubkey),
            balance_lamports=ports.balance_lamports(),
            version=version("quantdesk-keeper"),
            genesis=ports.genesis,
            program=str(program.id),
            program_revision=program.idl.version,
            executes=[cast(OrderTypeWord, order_type.word) for order_type in sorted(program.executable)],
            fills_create_positions=program.creates_position,
            chain_time=ports.desk.chain_time_s(),
            consensus=ports.consensus(),
            slot_s=ports.slot_s(),
            orders=[OrderCount(status=state, orders=n) for state, n in counts.items()],
            leases=[
                LeaseView(on=lease.what, holder=lease.holder, term=lease.term, since=lease.since) for lease in leases
            ],
            keepers=_keepers(leases, markets),
            markets_unheld=len(unheld(leases, markets)) if leases else 0,
        )
    )


def _keepers(leases: Collection[Holder], markets: Collection[str]) -> list[RunningKeeper]:
    counts, service = shares(leases), working_lease(leases)
    if service is not None:
        counts[service.holder] = len(markets)
    return [
        RunningKeeper(name=lease.holder, markets=counts[lease.holder], fit=lease.fit)
        for lease in leases
        if lease.on_name
    ]


@described(
    "The keeper's executions, newest first",
    {200: ExecutionPage},
    problems=["invalid_cursor", "journal_unavailable"],
)
async def list_executions(
    request: Request,
    outcome: Outcome | None = None,
    market: Market | None = None,
    order_type: OfType | None = None,
    since: Annotated[float, Meta(ge=0, description="Only those signed since: unix seconds.")] | None = None,
    cursor: Cursor | None = None,
    limit: PageSize = 50,
) -> Response:
    """Every attempt at filling an order, with how long it took and how it ended."""
    ports, fate = part(request, ApiPorts), _fate(outcome)
    of_market, of_type = market_filter(market, ports.desk), type_of(order_type)

    def read(queries: Queries) -> tuple[Page[Attempt], dict[Pubkey, OrderRow]]:
        page = queries.executions(
            since=since, outcome=fate, market=of_market, order_type=of_type, cursor=cursor, limit=limit
        )
        return page, queries.orders_at(attempt.order for attempt in page.items)

    page, rows = await ports.journal.read(read)
    views = [execution_view(attempt, rows.get(attempt.order), ports.desk) for attempt in page.items]
    return answer(ExecutionPage(executions=views, cursor=page.cursor, next=next_page(request, page.cursor)))


@described("Orders that could not be executed, and why", {200: FailureList}, problems=["journal_unavailable"])
async def list_failures(
    request: Request,
    market: Market | None = None,
    order_type: OfType | None = None,
    limit: Annotated[int, Meta(ge=1, le=100)] = 25,
) -> Response:
    """Orders that wanted to be executed and were not, or not at once: those that failed for good first."""
    ports = part(request, ApiPorts)
    found = await ports.journal.failures(
        market=market_filter(market, ports.desk), order_type=type_of(order_type), limit=limit
    )
    return answer(FailureList(failures=[failure_view(failure, ports.desk) for failure in found]))


def _fate(outcome: str | None) -> Fate | None:
    if outcome is None:
        return None
    try:
        return Fate(outcome)
    except ValueError:
        raise Problem("invalid_field", f"An outcome is one of {', '.join(Fate)}.", field="outcome") from None


def execution_view(attempt: Attempt, row: OrderRow | None, desk: Desk) -> ExecutionView:
    """One of the keeper's attempts, with what its order is."""
    return ExecutionView(
        **msgspec.structs.asdict(attempt_view(attempt)),
        **_terms(row, desk),
        order=str(attempt.order),
        latency_ms=_latency_ms(attempt, row),
    )


def failure_view(failure: FailureRow, desk: Desk) -> FailureView:
    """An order that could not be executed, with its attempts."""
    row = failure.order
    return FailureView(
        order=str(failure.attempts[0].order if row is None else row.address),
        status=None if row is None else row.state,
        reason="" if row is None else row.reason,
        **_terms(row, desk),
        attempts=[attempt_view(attempt) for attempt in failure.attempts],
    )


def _terms(row: OrderRow | None, desk: Desk) -> dict[str, Any]:
    names = ("market", "order_type", "side", "size")
    summary = None if row is None else summary_of(row.order, desk, row.client_order_id)
    return {name: getattr(summary, name, None) for name in names}


def _latency_ms(attempt: Attempt, row: OrderRow | None) -> int | None:
    """None too when the order was triggered again since: the journal keeps the last time. An attempt that was armed was
    signed before its order was triggered.
    """
    if row is None or row.triggered_at is None or attempt.confirmed_at is None:
        return None
    if row.triggered_at > attempt.confirmed_at:
        return None
    return round((attempt.confirmed_at - row.triggered_at) * 1_000)
