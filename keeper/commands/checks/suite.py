"""All checks, in the order of cause and effect."""

from __future__ import annotations

from keeper.app.endpoints import endpoints_of
from keeper.app.program import load_program
from keeper.commands.asking import client_for
from keeper.commands.checks import chain, machine
from keeper.commands.checks.lines import Lines
from keeper.commands.checks.senders import senders
from keeper.config.settings import Settings
from keeper.journal import home_of, refuse_anothers
from keeper.venue.deployment import check_idl, check_program


async def look(settings: Settings) -> Lines:
    """Check everything that `keeper run` would need with these settings."""
    lines = Lines()
    lines.passed("settings", "complete and known")
    signer = machine.key(settings.key, lines)
    program = lines.try_to("idl", lambda: load_program(settings.program))
    endpoints = lines.try_to("rpc", lambda: endpoints_of(settings.rpc))
    keeper_runs = machine.port(settings.http, lines)
    found = machine.journal(settings.journal, lines, keeper_runs=keeper_runs)
    if endpoints is None:
        return lines
    working, genesis = await chain.endpoints(endpoints, settings, lines)
    if not working:
        return lines
    known = {} if found is None else found.meta
    its = None if program is None else str(program.id)
    lines.try_to("journal", lambda: refuse_anothers(home_of(settings.journal.place).name, known, genesis, its))
    await chain.sockets(working, lines)
    async with client_for(working) as client:
        await chain.streams(client, settings, lines)
        await senders(client, settings, lines)
        await chain.clock(client, lines)
        await chain.feeds(client, settings, lines)
        there = program is not None and await lines.holds(
            "program", check_program(client, program), f"{program.id} is executable"
        )
        funded = signer is not None and await chain.balance(client, signer.address, settings, lines)
        if program is not None and signer is not None and settings.crank.markets:
            await chain.crank(client, program, signer.address, settings, lines)
        if program is not None and signer is not None and there:
            fits = f"revision {program.idl.version} fits the deployed program"
            if not funded:
                chain.unchecked("idl", lines)
            elif not await lines.holds("idl", check_idl(client, program, signer.address), fits):
                return lines
            else:
                await chain.error_names(client, program, signer.address, lines)
            chain.revision(program, settings, lines)
    return lines
