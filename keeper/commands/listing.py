"""`keeper orders`, `executions` and `failures`: what the journal holds, newest first, as a table or as lines of JSON.

Rows are flat, with decimals as strings and times in UTC.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from keeper.commands import options
from keeper.domain.decimals import decimal
from keeper.domain.errors import Misconfigured

if TYPE_CHECKING:
    from keeper.domain.attempts import Attempt
    from keeper.domain.orders import OrderState
    from keeper.journal import FailureRow, OrderRow, Reader
    from keeper.journal.records import Page

ORDER_COLUMNS: Final = ["order", "type", "side", "size", "trigger", "state", "reason"]
ATTEMPT_COLUMNS: Final = ["signed_at", "order", "kind", "number", "state", "fate", "error", "signature"]
FAILURE_COLUMNS: Final = ["order", "type", "state", "error", "attempts", "reason"]
BELOW: Final = frozenset({"order", "error", "signature", "reason"})
"""Columns that stand under their row in a narrow terminal."""

Row = dict[str, Any]
T = TypeVar("T")
_of_journal = options.takes_settings("journal.path")


@_of_journal
def orders(
    given: options.Given,
    state: Annotated[list[str] | None, typer.Option("--state", help="Only orders in this state; may repeat.")] = None,
    limit: options.Limit = 50,
    as_json: options.AsJson = False,
) -> None:
    """List the orders that the journal knows, newest first."""
    states = _states(state) if state else None
    _list(given, lambda journal: journal.orders(states=states, limit=limit), _order, ORDER_COLUMNS, as_json)


@_of_journal
def executions(given: options.Given, limit: options.Limit = 50, as_json: options.AsJson = False) -> None:
    """List the keeper's attempts, newest first, with what became of them."""
    _list(given, lambda journal: journal.executions(limit=limit), _attempt, ATTEMPT_COLUMNS, as_json)


@_of_journal
def failures(
    given: options.Given, context: typer.Context, limit: options.Limit = 50, as_json: options.AsJson = False
) -> None:
    """List the orders that could not be executed, with the named reasons."""
    if context.invoked_subcommand is None:
        _list(given, lambda journal: journal.failures(limit=limit), _failure, FAILURE_COLUMNS, as_json)


def _list(
    given: options.Given,
    ask: Callable[[Reader], Awaitable[Page[T] | list[T]]],
    row_of: Callable[[T], Row],
    columns: Sequence[str],
    as_json: bool,
) -> None:
    import anyio

    from keeper.commands.table import print_table
    from keeper.journal import Reader

    async def fetch() -> list[Row]:
        with contextlib.closing(Reader(given.settings().journal.path)) as journal:
            found = await ask(journal)
            return [row_of(each) for each in (found if isinstance(found, list) else found.items)]

    rows = anyio.run(fetch)
    if as_json:
        for row in rows:
            print(json.dumps(row))
    elif rows:
        print_table(rows, columns, BELOW)
    else:
        print("None.")


def _states(words: Sequence[str]) -> list[OrderState]:
    from keeper.domain.orders import OrderState

    known = {state.value: state for state in OrderState}
    for word in words:
        if word not in known:
            raise Misconfigured(f"There is no state {word!r}.", remedy=f"The states are {', '.join(known)}.")
    return [known[word] for word in words]


def _order(row: OrderRow) -> Row:
    order = row.order
    return {
        "order": str(order.address),
        "user": str(order.user),
        "market": str(order.market),
        "type": order.order_type.word,
        "side": order.side.word,
        "size": decimal(order.size_1e6),
        "trigger": decimal(order.stop_price_1e6 or order.price_1e6),
        "state": row.state.value,
        "onchain_status": order.status.word,
        "reason": row.reason,
        "position": _text(row.position),
        "updated_at": _utc(row.updated_at),
    }


def _attempt(attempt: Attempt) -> Row:
    price_1e6 = attempt.trigger_price_1e6
    return {
        "signed_at": _utc(attempt.signed_at),
        "order": str(attempt.order),
        "kind": attempt.kind.value,
        "number": attempt.number,
        "state": attempt.state.value,
        "fate": _text(attempt.fate),
        "error": attempt.error_name,
        "detail": attempt.error_detail,
        "trigger_price": None if price_1e6 is None else decimal(price_1e6),
        "fee_lamports": attempt.fee_lamports,
        "position": _text(attempt.position),
        "signature": str(attempt.signature),
    }


def _failure(failure: FailureRow) -> Row:
    order, attempts = failure.order, failure.attempts
    return {
        "order": str(order.address if order else attempts[0].order),
        "type": order.order.order_type.word if order else None,
        "state": order.state.value if order else None,
        "error": next((a.error_name for a in reversed(attempts) if a.error_name), None),
        "attempts": len(attempts),
        "reason": order.reason if order else "",
        "history": [
            {"at": _utc(change.at), "state": change.state.value, "reason": change.reason} for change in failure.changes
        ],
        "signatures": [str(attempt.signature) for attempt in attempts],
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")
