"""`keeper check`: will it run here, and if not, why not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from keeper.commands import EXIT_FAILED, EXIT_USAGE, options
from keeper.domain.errors import Misconfigured

if TYPE_CHECKING:
    from keeper.commands.checks.lines import Line
    from keeper.config.settings import Settings

_COLOURS: Final = {"pass": "green", "warn": "yellow", "fail": "red"}


@options.takes_settings(*options.FLAGS)
def check(
    given: options.Given,
    ready: Annotated[bool, typer.Option("--ready", help="Only ask a running keeper whether it is ready.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Only print the settings, each with its origin.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Look at everything that `keeper run` needs, and say what to change. Changes and sends nothing.

    Exit codes: 0 all is well (there may be warnings), 1 something failed, 2 the settings can't be read.
    """
    try:
        settings = given.settings()
    except Misconfigured as e:
        from keeper.commands.checks.lines import Lines

        lines = Lines()
        lines.refused("settings", e)
        _print(lines, as_json)
        raise typer.Exit(EXIT_USAGE) from None
    if show:
        _show(settings, given, as_json)
    elif not (_ready(settings, as_json) if ready else _look(settings, as_json)):
        raise typer.Exit(EXIT_FAILED)


def _look(settings: Settings, as_json: bool) -> bool:
    import anyio

    from keeper.commands.checks.suite import look

    lines = anyio.run(look, settings)
    _print(lines, as_json)
    return not lines.failed


def _ready(settings: Settings, as_json: bool) -> bool:
    from keeper.commands.remote import not_ready, url_of

    reasons = not_ready(url_of(settings.http))
    if as_json:
        print(json.dumps({"ready": not reasons, "reasons": reasons}))
    else:
        print("\n".join(["not ready:", *reasons]) if reasons else "ready")
    return not reasons


def _show(settings: Settings, given: options.Given, as_json: bool) -> None:
    from keeper.config.effective import effective

    rows = effective(settings, given.config, given.flags)
    if as_json:
        print(json.dumps({row.name: {"value": row.value, "origin": row.origin} for row in rows}))
        return
    width = max(len(row.name) for row in rows)
    for row in rows:
        value = "(unset)" if row.value is None else json.dumps(row.value)
        print(f"{row.name:<{width}}  {row.origin:<7}  {value}")


def _print(lines: Iterable[Line], as_json: bool) -> None:
    for line in lines:
        if as_json:
            row = {"check": line.name, "outcome": line.outcome, "detail": line.detail, "remedy": line.remedy}
            print(json.dumps(row))
            continue
        outcome = typer.style(line.outcome, fg=_COLOURS[line.outcome], bold=True)
        typer.echo(f"{outcome}  {line.name}: {_sentence(line.detail)}")
        if line.remedy:
            print(f"      {_sentence(line.remedy)}")


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
