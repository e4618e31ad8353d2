"""`keeper localnet`, the embedded chain with a command line of its own, and `keeper faucet`, which gives on it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated

import typer

from keeper.commands import options


def localnet(context: typer.Context) -> None:
    """Run an embedded Solana chain with the reference program (see `keeper localnet --help`)."""
    from keeper.localnet.cli import main

    raise typer.Exit(main(context.args, program="keeper localnet", markets=_markets))


def _markets(rpc_url: str) -> AbstractAsyncContextManager[Mapping[str, str]]:
    from keeper.app.program import load_program
    from keeper.config.settings import ProgramSettings
    from keeper.demo.markets import walking_markets

    return walking_markets(load_program(ProgramSettings(idl="0.2")), rpc_url)


@options.takes_settings("rpc.url", "program.id", "program.idl")
def faucet(
    given: options.Given,
    files: Annotated[list[Path], typer.Argument(help="Keypair files, as `keeper keygen` writes them.")],
) -> None:
    """Give keys 100 SOL and a margin account with 1,000,000 of collateral, on a chain of your own."""
    import anyio

    from keeper.app.program import load_program
    from keeper.config.keys import load_keypair
    from keeper.demo.markets import fund

    settings = given.settings()
    keys = [load_keypair(file, "FILE") for file in files]
    program, url = load_program(settings.program), settings.rpc.url.get_secret_value()
    anyio.run(fund, program, url, keys)
    for file, key in zip(files, keys, strict=True):
        print(f"{key.pubkey()} ({file}) has SOL and collateral.")
