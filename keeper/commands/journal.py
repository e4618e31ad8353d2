"""`keeper journal`: what an operator does to the journal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keeper.commands import EXIT_FAILED, options
from keeper.domain.errors import Misconfigured

if TYPE_CHECKING:
    from keeper.journal import Home

journal_cli = typer.Typer(
    help="Verify, export, back up or shrink the journal. All but vacuum may run beside the keeper.",
    no_args_is_help=True,
)


@journal_cli.command()
@options.takes_settings("journal.path")
def verify(given: options.Given, as_json: options.AsJson = False) -> None:
    """Look for damage in the file, and for broken promises in what it says. Exit code 1 when there is any."""
    home = _home(given)
    findings = home.verify()
    for finding in findings:
        if as_json:
            print(json.dumps({"what": finding.what, "subject": finding.subject, "detail": finding.detail}))
        else:
            print(f"{finding.what}: {finding.subject} ({finding.detail})")
    if findings:
        raise typer.Exit(EXIT_FAILED)
    if not as_json:
        print(f"{home.name} is sound.")


@journal_cli.command()
@options.takes_settings("journal.path")
def export(given: options.Given) -> None:
    """Write every row as a line of JSON to standard output, as of one moment."""
    for line in _home(given).export():
        sys.stdout.buffer.write(line)


@journal_cli.command()
@options.takes_settings("journal.path")
def backup(given: options.Given, target: options.NewFile) -> None:
    """Copy the journal to a new file, as of one moment, while the keeper goes on."""
    _home(given).backup(target)
    print(f"Wrote {target}, {target.stat().st_size / 1e6:.1f} MB.")


@journal_cli.command()
@options.takes_settings()
def copy(
    given: options.Given,
    source: Annotated[Path, typer.Argument(help="The SQLite file of a keeper that does not run.", show_default=False)],
) -> None:
    """Copy a journal from a SQLite file into the empty database of journal.url, as of one moment, and compare them."""
    from keeper.journal import copy_to_postgres

    url = given.settings().journal.url
    if url is None:
        raise Misconfigured("There is no database to copy to.", remedy="Set journal.url.")
    counts = copy_to_postgres(source, url.get_secret_value())
    print(", ".join(f"{count} {table}" for table, count in counts.items()) + " are in both.")


@journal_cli.command()
@options.takes_settings("journal.path")
def vacuum(given: options.Given) -> None:
    """Give the space of removed rows back to the disk. The keeper must not be running."""
    before, after = _home(given).vacuum()
    print(f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after.")


def _home(given: options.Given) -> Home:
    from keeper.journal import home_of

    return home_of(given.settings().journal.place)
