"""`keeper localnet`: the embedded chain, with a command line of its own."""

from __future__ import annotations

import typer


def localnet(context: typer.Context) -> None:
    """Run an embedded Solana chain with the reference program (see `keeper localnet --help`)."""
    from keeper.localnet.cli import main

    raise typer.Exit(main(context.args, program="keeper localnet"))
