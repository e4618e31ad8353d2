"""`keeper orders`, `keeper executions` and `keeper failures`: what the journal holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from keeper.commands import listing
from keeper.commands.options import ConfigOption, JournalOption, JsonOption, LimitOption, settings_from
from keeper.errors import Misconfigured


def orders(
    config: ConfigOption = None,
    journal: JournalOption = None,
    state: Annotated[list[str] | None, typer.Option("--state", help="Only orders in this state; may repeat.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the orders that the journal knows, newest first."""
    from keeper.commands import views
    from keeper.domain.orders import OrderState

    try:
        states = [OrderState(word) for word in state] if state else None
    except ValueError as e:
        words = ", ".join(s.value for s in OrderState)
        raise Misconfigured(f"There is no state {str(e).split(' ')[0]}.", remedy=f"The states are {words}.") from None
    _print_rows(_journal_path(config, journal), lambda j: views.orders(j, states, limit), views.ORDER_COLUMNS, as_json)


def executions(
    config: ConfigOption = None, journal: JournalOption = None, limit: LimitOption = 50, as_json: JsonOption = False
) -> None:
    """List the keeper's attempts, newest first, with what became of them."""
    from keeper.commands import views

    _print_rows(_journal_path(config, journal), lambda j: views.executions(j, limit), views.ATTEMPT_COLUMNS, as_json)


def failures(
    context: typer.Context,
    config: ConfigOption = None,
    journal: JournalOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the orders that could not be executed, with the named reasons."""
    from keeper.commands import views

    if context.invoked_subcommand is None:
        path = _journal_path(config, journal)
        _print_rows(path, lambda j: views.failures(j, limit), views.FAILURE_COLUMNS, as_json)


def _journal_path(config: Path | None, journal: Path | None) -> Path:
    return journal or settings_from(config).journal.path


def _print_rows(
    path: Path, read: Callable[[Any], Coroutine[Any, Any, list[dict[str, Any]]]], columns: list[str], as_json: bool
) -> None:
    from keeper.commands import views
    from keeper.journal import Journal

    async def fetch() -> list[dict[str, Any]]:
        async with Journal.open(path, read_only=True) as journal:
            return await read(journal)

    rows = anyio.run(fetch)
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    if not rows:
        print("None.")
        return
    listing.show(rows, columns, views.BELOW)
