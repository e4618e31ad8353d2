"""`keeper simulate`: what would happen to an order now."""

from __future__ import annotations

import json
from typing import Any

import typer

from keeper.commands import EXIT_FAILED, options


@options.takes_settings("rpc.url", "key.file", "program.id", "program.idl")
def simulate(
    given: options.Given,
    order: options.OrderAddress,
    as_json: options.AsJson = False,
) -> None:
    """Run an order's execution on the node, without sending it, and show the program's logs.

    Exit code 0: it would be executed; 1: it would not.
    """
    import anyio

    from keeper.app.endpoints import endpoints_of
    from keeper.app.program import load_program
    from keeper.app.wallets import load_signer
    from keeper.commands import simulating
    from keeper.commands.asking import client_for

    address = options.address(order, "an order")
    settings = given.settings()
    program, keeper = load_program(settings.program), load_signer(settings.key).address

    async def ask() -> dict[str, Any]:
        async with client_for(endpoints_of(settings.rpc)) as client:
            return await simulating.simulate(client, program, keeper, address)

    found = anyio.run(ask)
    if as_json:
        print(json.dumps(found))
    else:
        facts = {name: value for name, value in found.items() if name != "logs" and value is not None}
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name.replace('_', ' '):<{width}}  {_plain(value)}")
        print(*("  " + line for line in ("", *found["logs"])), sep="\n")
    if not found["would_execute"]:
        raise typer.Exit(EXIT_FAILED)


def _plain(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
