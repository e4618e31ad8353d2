"""`keeper simulate`: what would happen to an order now."""

from __future__ import annotations

import json

import typer

from keeper.commands import EXIT_FAILED, options


def simulate(
    order: options.OrderAddress,
    config: options.Config = None,
    rpc_url: options.RpcUrl = None,
    key: options.KeyFile = None,
    program_id: options.ProgramId = None,
    idl: options.Idl = None,
    as_json: options.AsJson = False,
) -> None:
    """Run an order's execution on the node, without sending it, and show the program's logs.

    Exit code 0: it would be executed; 1: it would not.
    """
    import anyio

    from keeper.commands import simulating
    from keeper.commands.checks.chain import client_for
    from keeper.config.endpoints import endpoints_of
    from keeper.config.keys import load_signer
    from keeper.config.program import load_program
    from keeper.domain.decimals import decimal

    address = options.order_address(order)
    settings = options.settings_from(
        config, rpc={"url": rpc_url}, key={"file": key}, program={"id": program_id, "idl": idl}
    )
    program, keeper = load_program(settings.program), load_signer(settings.key).address

    async def ask() -> simulating.Outcome:
        async with client_for(endpoints_of(settings.rpc)) as client:
            return await simulating.simulate(client, program, keeper, address)

    found = anyio.run(ask)
    facts = {
        "order": str(found.order.address),
        "type": found.order.order_type.word,
        "side": found.order.side.word,
        "status": found.order.status.word,
        "size": decimal(found.order.size_1e6),
        "trigger": decimal(found.order.stop_price_1e6 or found.order.price_1e6),
        "market": found.market.symbol,
        "price": decimal(found.market.last_oracle_price_1e6),
        "price_age_s": found.price_age_s,
        "condition_met": found.met,
        "would_execute": found.would_execute,
        "error": found.error,
        "units": found.units,
        "verdict": found.verdict,
    }
    if as_json:
        print(json.dumps({**facts, "logs": found.logs}))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            if value is not None:
                print(f"{name.replace('_', ' '):<{width}}  {_plain(value)}")
        print(*("  " + line for line in ("", *found.logs)), sep="\n")
    if not found.would_execute:
        raise typer.Exit(EXIT_FAILED)


def _plain(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
