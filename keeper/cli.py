"""The commands. They read settings, start things and print; exit codes: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from keeper import __version__
from keeper.commands import (
    EXIT_FAILED,
    EXIT_USAGE,
    admin,
    check,
    demo,
    journal,
    keygen,
    localnet,
    openapi,
    reading,
    run,
    simulate,
)
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


cli.command()(run.run)
# Its options are its own parser's.
cli.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)(localnet.localnet)
cli.command()(demo.demo)
check.add_to(cli)
cli.command()(keygen.keygen)
cli.command()(openapi.openapi)
cli.command()(reading.orders)
cli.command()(reading.executions)
failures_cli = typer.Typer(help="Orders that could not be executed, and why.", invoke_without_command=True)
cli.add_typer(failures_cli, name="failures")
failures_cli.callback()(reading.failures)
admin.add_to(cli, failures_cli)
journal.add_to(cli)
simulate.add_to(cli)


def _complain(message: str) -> None:
    print(f"keeper: {message}", file=sys.stderr)
