"""What the keeper is and did: itself, its executions, its failures."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, cast

from fastapi import APIRouter, Query
from starlette.responses import Response

from keeper.domain.attempts import Attempt, Fate
from keeper.domain.orders import OrderState
from keeper.errors import JournalError
from keeper.http.edge.answers import answer
from keeper.http.edge.chain_problems import translated
from keeper.http.edge.describe import described_by
from keeper.http.edge.problems import Problem
from keeper.http.models import (
    ExecutionPage,
    FailureList,
    KeeperView,
    OrderCount,
    OrderTypeWord,
)
from keeper.http.reading.history_views import execution_view, failure_view
from keeper.http.wiring import Ports, strict_query
from keeper.journal.records import OrderRow, Page
from keeper.journal.sqlite.queries import Queries

router = APIRouter(prefix="/v1", tags=["history"], dependencies=[strict_query])


@router.get("/keeper", summary="The keeper itself", **described_by({200: KeeperView}, problems=["journal_unavailable"]))
async def keeper(ports: Ports) -> Response:
    """Its wallet and balance, the program that it serves, and how many orders of each status it knows."""

    def read(queries: Queries) -> dict[OrderState, int]:
        return queries.counts_by_state()

    with translated():
        counts = await ports.journal.read(read)
    program = ports.program
    return answer(
        KeeperView(
            keeper=None if ports.keeper_pubkey is None else str(ports.keeper_pubkey),
            balance_lamports=ports.balance_lamports(),
            version=version("quantdesk-keeper"),
            program=str(program.id),
            program_revision=program.idl.version,
            executes=[cast(OrderTypeWord, order_type.word) for order_type in sorted(program.executable)],
            chain_time=ports.desk.chain_time_s(),
            orders=[OrderCount(status=state, orders=n) for state, n in counts.items()],
        )
    )


@router.get(
    "/executions",
    summary="The keeper's executions, newest first",
    **described_by({200: ExecutionPage}, problems=["invalid_field", "invalid_cursor", "journal_unavailable"]),
)
async def executions(
    ports: Ports,
    outcome: Annotated[
        str | None,
        Query(
            description="Only those that ended so: `executed`, `refused`, ...",
            json_schema_extra={"enum": [fate.value for fate in Fate]},
        ),
    ] = None,
    since: Annotated[float | None, Query(ge=0, description="Only those signed since: unix seconds.")] = None,
    cursor: Annotated[str | None, Query(max_length=256, description="From the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """Every attempt at filling an order, with how long it took and how it ended."""
    fate = _fate(outcome)

    def read(queries: Queries) -> tuple[Page[Attempt], list[OrderRow | None]]:
        page = queries.executions(since=since, outcome=fate, cursor=cursor, limit=limit)
        rows = queries.orders_at(attempt.order for attempt in page.items)
        return page, [rows.get(attempt.order) for attempt in page.items]

    with translated():
        try:
            page, rows = await ports.journal.read(read)
        except JournalError as e:
            if cursor is not None and type(e) is JournalError:
                raise Problem("invalid_cursor", "The cursor is not one of this API's.", field="cursor") from e
            raise
    views = [execution_view(attempt, row, ports.desk) for attempt, row in zip(page.items, rows, strict=True)]
    return answer(ExecutionPage(executions=views, cursor=page.cursor))


@router.get(
    "/failures",
    summary="Orders that could not be executed, and why",
    **described_by({200: FailureList}, problems=["invalid_field", "journal_unavailable"]),
)
async def failures(ports: Ports, limit: Annotated[int, Query(ge=1, le=100)] = 25) -> Response:
    """Orders that wanted to be executed and were not, or not at once: those that failed for good first."""

    with translated():
        found = await ports.journal.read(lambda queries: queries.failures(limit=limit))
    return answer(FailureList(failures=[failure_view(failure, ports.desk) for failure in found]))


def _fate(outcome: str | None) -> Fate | None:
    if outcome is None:
        return None
    try:
        return Fate(outcome)
    except ValueError:
        raise Problem("invalid_field", f"An outcome is one of {', '.join(Fate)}.", field="outcome") from None
