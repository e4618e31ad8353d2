"""The command line: the commands of `keeper.commands`, in the order of `--help`."""

from __future__ import annotations

from typing import Annotated

import typer

from keeper.commands import errors_told
from keeper.commands.admin import drain, pause, resume, retry, status
from keeper.commands.check import check
from keeper.commands.config import config
from keeper.commands.demo import demo
from keeper.commands.explain import explain
from keeper.commands.journal import journal_cli
from keeper.commands.keygen import admin_token, keygen
from keeper.commands.listing import executions, failures, orders
from keeper.commands.localnet import faucet, localnet
from keeper.commands.openapi import openapi
from keeper.commands.replay import replay
from keeper.commands.run import run
from keeper.commands.simulate import simulate

cli = typer.Typer(
    name="keeper",
    help="Executes conditional orders of the QuantDesk perpetuals program, exactly once, with their positions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

cli.command()(run)
# Its flags, --help among them, are for the chain's own command line.
cli.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)(localnet)
_SIMPLE = (
    *(faucet, demo, config, check, keygen, openapi, orders, executions, explain),
    *(status, pause, resume, drain, admin_token, simulate, replay),
)
for command in _SIMPLE:
    cli.command()(command)

failures_cli = typer.Typer(help="Orders that could not be executed, and why.", invoke_without_command=True)
failures_cli.callback()(failures)
failures_cli.command()(retry)
cli.add_typer(failures_cli, name="failures")
cli.add_typer(journal_cli, name="journal")


def main() -> None:
    """The console script."""
    with errors_told():
        cli()


def _version(wanted: bool) -> None:
    if wanted:
        from keeper.commands.version import version_line

        print(version_line())
        raise typer.Exit


VersionOption = typer.Option("--version", help="Print the version and the commit.", is_eager=True, callback=_version)


@cli.callback()
def _root(version: Annotated[bool, VersionOption] = False) -> None:
    pass
