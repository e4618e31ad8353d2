"""`keeper run`: the daemon, as `keeper.commands.service` runs it under a supervisor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from keeper.commands import options
from keeper.domain.errors import KeeperError

if TYPE_CHECKING:
    from keeper.app import Ready
    from keeper.config.settings import Settings


def run(
    config: options.Config = None,
    rpc_url: options.RpcUrl = None,
    ws_url: options.WsUrl = None,
    key: options.KeyFile = None,
    program_id: options.ProgramId = None,
    idl: options.Idl = None,
    journal: options.JournalFile = None,
    host: options.Host = None,
    port: options.Port = None,
    dry_run: Annotated[bool | None, typer.Option("--dry-run", help="Do everything but send.")] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line when ready.")] = False,
) -> None:
    """Run the keeper until SIGTERM or Ctrl-C."""
    import anyio

    from keeper.commands import service
    from keeper.telemetry import configure_logs

    def load() -> Settings:
        return options.settings_from(
            config,
            rpc={"url": rpc_url, "ws_url": ws_url},
            key={"file": key},
            program={"id": program_id, "idl": idl},
            journal={"path": journal},
            http={"host": host, "port": port},
            execution={"dry_run": dry_run},
            log={"level": log_level},
        )

    def announce(ready: Ready) -> None:
        if as_json:
            line = {"http_url": ready.http_url, "keeper": str(ready.keeper), "program_id": str(ready.program.id)}
            print(json.dumps(line), flush=True)
        else:
            print(f"The keeper {ready.keeper} is ready; its API is at {ready.http_url}.", flush=True)

    settings = load()
    configure_logs(settings.log.level, settings.log.format)
    try:
        anyio.run(service.serve, settings, load, announce)
    except* KeeperError as group:
        raise _first(group) from None


def _first(error: BaseException) -> BaseException:
    """The error itself, out of the groups that task groups have put around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
