"""`keeper check`: will it run here, and if not, why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from keeper.commands import EXIT_FAILED, EXIT_USAGE
from keeper.commands.options import (
    ConfigOption,
    HostOption,
    IdlOption,
    JournalOption,
    JsonOption,
    KeyOption,
    PortOption,
    ProgramOption,
    RpcOption,
    WsOption,
    given,
)
from keeper.config.settings import Settings, load_settings
from keeper.errors import Misconfigured

if TYPE_CHECKING:
    from keeper.commands.checks.lines import Line


def add_to(cli: typer.Typer) -> None:
    """Add `check`."""
    cli.command()(check)


def check(
    config: ConfigOption = None,
    rpc_url: RpcOption = None,
    ws_url: WsOption = None,
    key: KeyOption = None,
    program_id: ProgramOption = None,
    idl: IdlOption = None,
    journal: JournalOption = None,
    host: HostOption = None,
    port: PortOption = None,
    ready: Annotated[bool, typer.Option("--ready", help="Only ask a running keeper whether it is ready.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Only print the settings, each with its origin.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at everything that `keeper run` needs, and say what to change. Changes and sends nothing.

    Exit codes: 0 all is well (there may be warnings), 1 something failed, 2 the settings can't be read.
    """
    flags = given(
        rpc={"url": rpc_url, "ws_url": ws_url},
        key={"file": key},
        program={"id": program_id, "idl": idl},
        journal={"path": journal},
        http={"host": host, "port": port},
    )
    try:
        settings = load_settings(config, flags)
    except Misconfigured as e:
        from keeper.commands.checks.lines import Lines

        lines = Lines()
        lines.refused("settings", e)
        _print(list(lines), as_json=as_json)
        raise typer.Exit(EXIT_USAGE) from None
    if show:
        _show(settings, config, flags, as_json=as_json)
    elif ready:
        _ready(settings, as_json=as_json)
    else:
        _look(settings, as_json=as_json)


def _look(settings: Settings, *, as_json: bool) -> None:
    from keeper.commands.checks.suite import look

    lines = anyio.run(look, settings)
    _print(list(lines), as_json=as_json)
    if lines.failed:
        raise typer.Exit(EXIT_FAILED)


def _ready(settings: Settings, *, as_json: bool) -> None:
    from keeper.commands.checks.running import ask_ready, url_of

    answer = ask_ready(url_of(settings.http))
    if as_json:
        print(json.dumps({"ready": answer.ready, "reasons": answer.reasons}))
    else:
        print("ready" if answer.ready else "\n".join(["not ready:", *answer.reasons]))
    if not answer.ready:
        raise typer.Exit(EXIT_FAILED)


def _show(settings: Settings, config: Path | None, flags: dict[str, dict[str, Any]], *, as_json: bool) -> None:
    from keeper.config.effective import effective

    rows = effective(settings, config, flags)
    if as_json:
        print(json.dumps({row.name: {"value": row.value, "origin": row.origin} for row in rows}))
        return
    width = max(len(row.name) for row in rows)
    for row in rows:
        value = "(unset)" if row.value is None else json.dumps(row.value)
        print(f"{row.name:<{width}}  {row.origin:<7}  {value}")


def _print(lines: list[Line], *, as_json: bool) -> None:
    if as_json:
        for line in lines:
            row = {"check": line.name, "outcome": line.outcome, "detail": line.detail, "remedy": line.remedy}
            print(json.dumps(row))
        return
    for line in lines:
        typer.echo(
            f"{typer.style(line.outcome, fg=_COLOURS[line.outcome], bold=True)}  {line.name}: {_sentence(line.detail)}"
        )
        if line.remedy:
            print(f"      {_sentence(line.remedy)}")


_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
