"""`keeper journal`: what an operator does to the journal's file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from keeper.commands import EXIT_FAILED
from keeper.commands.options import ConfigOption, JournalOption, JsonOption, settings_from

journal_cli = typer.Typer(
    help="Verify, export, back up or shrink the journal. All but vacuum may run beside the keeper.",
    no_args_is_help=True,
)


def add_to(cli: typer.Typer) -> None:
    """Add `journal` with its commands."""
    cli.add_typer(journal_cli, name="journal")


@journal_cli.command()
def verify(config: ConfigOption = None, journal: JournalOption = None, as_json: JsonOption = False) -> None:
    """Look for damage in the file, and for broken promises in what it says. Exit code 1 when there is any."""
    from keeper.journal import verify as look

    path = _path(config, journal)
    findings = look(path)
    for finding in findings:
        if as_json:
            print(json.dumps({"what": finding.what, "subject": finding.subject, "detail": finding.detail}))
        else:
            print(f"{finding.what}: {finding.subject} ({finding.detail})")
    if findings:
        raise typer.Exit(EXIT_FAILED)
    if not as_json:
        print(f"{path} is sound.")


@journal_cli.command()
def export(config: ConfigOption = None, journal: JournalOption = None) -> None:
    """Write every row as a line of JSON to standard output, as of one moment."""
    from keeper.journal import export as rows

    for line in rows(_path(config, journal)):
        sys.stdout.buffer.write(line)


@journal_cli.command()
def backup(
    target: Annotated[Path, typer.Argument(help="File to write; it must not exist.")],
    config: ConfigOption = None,
    journal: JournalOption = None,
) -> None:
    """Copy the journal to a new file, as of one moment, while the keeper goes on."""
    from keeper.journal import backup as copy

    copy(_path(config, journal), target)
    print(f"Wrote {target}, {target.stat().st_size / 1e6:.1f} MB.")


@journal_cli.command()
def vacuum(config: ConfigOption = None, journal: JournalOption = None) -> None:
    """Give the space of removed rows back to the disk. The keeper must not be running."""
    from keeper.journal import vacuum as shrink

    before, after = shrink(_path(config, journal))
    print(f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after.")


def _path(config: Path | None, journal: Path | None) -> Path:
    return journal or settings_from(config).journal.path
