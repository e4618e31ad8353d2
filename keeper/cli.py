"""The commands. They read settings, start things and print; exit codes: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from keeper import __version__
from keeper.commands import EXIT_FAILED, EXIT_USAGE, admin, check, journal, listing, simulate
from keeper.commands.options import (
    ConfigOption,
    HostOption,
    IdlOption,
    JournalOption,
    JsonOption,
    KeyOption,
    LimitOption,
    PortOption,
    ProgramOption,
    RpcOption,
    WsOption,
    settings_from,
)
from keeper.config.settings import Settings
from keeper.errors import KeeperError, Misconfigured

cli = typer.Typer(
    name="keeper",
    help="Executes conditional orders of the QuantDesk perpetuals program, exactly once, with their positions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The console script: errors on one line, exit code 2 for what an operator has to change."""
    try:
        cli()
    except Misconfigured as e:
        _complain(str(e))
        sys.exit(EXIT_USAGE)
    except KeeperError as e:
        _complain(str(e))
        sys.exit(EXIT_FAILED)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"keeper {__version__}")
        raise typer.Exit


VersionOption = typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)


@cli.callback()
def _root(version: Annotated[bool, VersionOption] = False) -> None:
    pass


@cli.command()
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


@cli.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def localnet(context: typer.Context) -> None:
    """Run an embedded Solana chain with the reference program (see `keeper localnet --help`)."""
    from keeper.localnet.cli import main as localnet_main

    raise typer.Exit(localnet_main(context.args, program="keeper localnet"))


@cli.command()
def demo(
    orders: Annotated[int, typer.Option("--orders", min=30, max=5_000, help="How many orders to place.")] = 240,
    seed: Annotated[int, typer.Option("--seed", help="Which walk of the prices, and which orders.")] = 7,
    speed: Annotated[float, typer.Option("--speed", min=0.1, max=10, help="How fast the prices walk.")] = 1.0,
    poor: Annotated[int, typer.Option("--poor", min=0, max=100, help="Further orders that users can't pay.")] = 0,
    hold: Annotated[bool, typer.Option("--hold", help="Keep the chain and the keeper up until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")] = False,
) -> None:
    """Start a chain and a keeper, place orders, walk the prices, and audit the chain. Needs nothing else."""
    from keeper.config.inputs import load_program
    from keeper.config.settings import ProgramSettings
    from keeper.demo.demo import run_demo
    from keeper.demo.options import DemoOptions

    options = DemoOptions(orders=orders, seed=seed, speed=speed, poor=poor, hold=hold, as_json=as_json)
    raise typer.Exit(run_demo(options, load_program(ProgramSettings(idl="0.2"))))


check.add_to(cli)


@cli.command()
def keygen(file: Annotated[Path, typer.Argument(help="File to write; it must not exist.")]) -> None:
    """Make a key for the keeper, in the format of solana-keygen, readable by you alone."""
    from solders.keypair import Keypair

    keypair = Keypair()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as e:
        raise Misconfigured(f"The file {file} can't be made: {e.strerror}.", remedy="Give another name.") from e
    with os.fdopen(descriptor, "w") as out:
        json.dump(list(bytes(keypair)), out)
    print(f"Wrote {file}. Send SOL for fees to {keypair.pubkey()}.")


@cli.command()
def openapi() -> None:
    """Print the API's description (OpenAPI 3.1, JSON)."""
    from keeper.http.api import openapi_document

    print(json.dumps(openapi_document(), indent=2))


@cli.command()
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


@cli.command()
def executions(
    config: ConfigOption = None, journal: JournalOption = None, limit: LimitOption = 50, as_json: JsonOption = False
) -> None:
    """List the keeper's attempts, newest first, with what became of them."""
    from keeper.commands import views

    _print_rows(_journal_path(config, journal), lambda j: views.executions(j, limit), views.ATTEMPT_COLUMNS, as_json)


failures_cli = typer.Typer(help="Orders that could not be executed, and why.", invoke_without_command=True)
cli.add_typer(failures_cli, name="failures")


@failures_cli.callback()
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


admin.add_to(cli, failures_cli)
journal.add_to(cli)
simulate.add_to(cli)


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


def _complain(message: str) -> None:
    print(f"keeper: {message}", file=sys.stderr)
