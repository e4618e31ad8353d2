"""`keeper localnet`: the embedded chain, which has options of its own."""

from __future__ import annotations

import typer


def localnet(context: typer.Context) -> None:
    """Run an embedded Solana chain with the reference program (see `keeper localnet --help`)."""
    from keeper.localnet.cli import main as localnet_main

    raise typer.Exit(localnet_main(context.args, program="keeper localnet"))
