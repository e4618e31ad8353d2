"""`keeper run`: the daemon."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import anyio
import typer

from keeper.commands.options import (
    ConfigOption,
    HostOption,
    IdlOption,
    JournalOption,
    KeyOption,
    PortOption,
    ProgramOption,
    RpcOption,
    WsOption,
    settings_from,
)
from keeper.config.settings import Settings
from keeper.errors import KeeperError, Misconfigured


def run(
    config: ConfigOption = None,
    rpc_url: RpcOption = None,
    ws_url: WsOption = None,
    key: KeyOption = None,
    program_id: ProgramOption = None,
    idl: IdlOption = None,
    journal: JournalOption = None,
    host: HostOption = None,
    port: PortOption = None,
    dry_run: Annotated[bool | None, typer.Option("--dry-run", help="Do everything but send.")] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line when ready.")] = False,
) -> None:
    """Run the keeper until SIGTERM or Ctrl-C."""
    from keeper import app
    from keeper.commands import service
    from keeper.telemetry import configure_logs

    def load() -> Settings:
        return settings_from(
            config,
            rpc={"url": rpc_url, "ws_url": ws_url},
            key={"file": key},
            program={"id": program_id, "idl": idl},
            journal={"path": journal},
            http={"host": host, "port": port},
            execution={"dry_run": dry_run},
            log={"level": log_level},
        )

    settings = load()
    configure_logs(settings.log.level, settings.log.format)

    def announce(ready: app.Ready) -> None:
        if as_json:
            line = {"http_url": ready.http_url, "keeper": str(ready.keeper), "program_id": str(ready.program.id)}
            print(json.dumps(line), flush=True)
        else:
            print(f"The keeper {ready.keeper} is ready; its API is at {ready.http_url}.", flush=True)

    _run(lambda: service.serve(settings, load, announce))


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        anyio.run(work)
    except* Misconfigured as group:
        raise _first(group) from None
    except* KeeperError as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
