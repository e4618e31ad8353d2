"""`keeper journal`: what an operator does to the journal's file."""

from __future__ import annotations

import json
import sys

import typer

from keeper.commands import EXIT_FAILED, options

journal_cli = typer.Typer(
    help="Verify, export, back up or shrink the journal. All but vacuum may run beside the keeper.",
    no_args_is_help=True,
)


@journal_cli.command()
def verify(config: options.Config = None, journal: options.JournalFile = None, as_json: options.AsJson = False) -> None:
    """Look for damage in the file, and for broken promises in what it says. Exit code 1 when there is any."""
    from keeper.journal import verify as look

    path = options.journal_path(config, journal)
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
def export(config: options.Config = None, journal: options.JournalFile = None) -> None:
    """Write every row as a line of JSON to standard output, as of one moment."""
    from keeper.journal import export as rows

    for line in rows(options.journal_path(config, journal)):
        sys.stdout.buffer.write(line)


@journal_cli.command()
def backup(target: options.NewFile, config: options.Config = None, journal: options.JournalFile = None) -> None:
    """Copy the journal to a new file, as of one moment, while the keeper goes on."""
    from keeper.journal import backup as copy

    copy(options.journal_path(config, journal), target)
    print(f"Wrote {target}, {target.stat().st_size / 1e6:.1f} MB.")


@journal_cli.command()
def vacuum(config: options.Config = None, journal: options.JournalFile = None) -> None:
    """Give the space of removed rows back to the disk. The keeper must not be running."""
    from keeper.journal import vacuum as shrink

    before, after = shrink(options.journal_path(config, journal))
    print(f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after.")
