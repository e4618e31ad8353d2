"""`keeper demo`: a chain, a keeper, orders, prices and an audit, with one command."""

from __future__ import annotations

from typing import Annotated

import typer

from keeper.domain.errors import Misconfigured


def demo(
    orders: Annotated[int, typer.Option("--orders", min=30, max=5_000, help="How many orders to place.")] = 240,
    seed: Annotated[int, typer.Option("--seed", help="Which walk of the prices, and which orders.")] = 7,
    speed: Annotated[float, typer.Option("--speed", min=0.1, max=10, help="How fast the prices walk.")] = 1.0,
    poor: Annotated[int, typer.Option("--poor", min=0, max=100, help="Further orders that users can't pay.")] = 0,
    hold: Annotated[bool, typer.Option("--hold", help="Keep the chain and the keeper up until Ctrl-C.")] = False,
    validator: Annotated[bool, typer.Option("--validator", help="On a real solana-test-validator.")] = False,
    keepers: Annotated[
        int, typer.Option("--keepers", min=1, max=5, help="On one PostgreSQL journal; the working one is killed.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")] = False,
) -> None:
    """Start a chain and a keeper, place orders, walk the prices, and audit the chain. Needs nothing else."""
    from keeper.app.program import load_program
    from keeper.config.settings import ProgramSettings
    from keeper.demo.demo import run_demo
    from keeper.demo.options import DemoOptions

    options = DemoOptions(orders=orders, seed=seed, speed=speed, poor=poor, hold=hold, keepers=keepers, as_json=as_json)
    real = None
    if validator:
        from keeper.demo.validator import NAME, Validator, find
        from keeper.localnet.program import PROGRAM_SO

        binary = find()
        if binary is None:
            raise Misconfigured(f"There is no {NAME}.", remedy="Put one on the PATH, or build it: make validator.")
        real = Validator(binary, PROGRAM_SO)
    raise typer.Exit(run_demo(options, load_program(ProgramSettings(idl="0.2")), real))
