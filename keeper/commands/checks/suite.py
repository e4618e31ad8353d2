"""All checks, in the order of cause and effect."""

from __future__ import annotations

from keeper.commands.checks import chain, machine
from keeper.commands.checks.lines import Lines
from keeper.config.inputs import Place, endpoints_of, load_program
from keeper.config.settings import Settings
from keeper.errors import Misconfigured
from keeper.journal import Inspection
from keeper.runtime.genesis import GENESIS
from keeper.venue.program import Program


async def look(settings: Settings) -> Lines:
    """Check everything that `keeper run` would need with these settings."""
    lines = Lines()
    lines.passed("settings", "complete and known")
    signer = machine.key(settings.key, lines)
    program = _program(settings, lines)
    places = _places(settings, lines)
    keeper_runs = machine.port(settings.http, lines)
    found = machine.journal(settings.journal, lines, keeper_runs=keeper_runs)
    if not places:
        return lines
    working, genesis = await chain.endpoints(places, settings, lines)
    if not working:
        return lines
    _same_chain(settings, found, genesis, lines)
    await chain.sockets(working, lines)
    client = chain.client_for(working)
    try:
        await chain.clock(client, lines)
        there = program is not None and await chain.program_there(client, program, lines)
        alive = signer is not None and await chain.purse(client, signer.address, settings, lines)
        if program is not None and signer is not None and there and alive:
            fits = await chain.idl_fits(client, program, signer.address, lines)
            if fits:
                chain.revision(program, settings, lines)
    finally:
        await client.pool.aclose()
    return lines


def _program(settings: Settings, lines: Lines) -> Program | None:
    try:
        return load_program(settings.program)
    except Misconfigured as e:
        lines.refused("idl", e)
        return None


def _places(settings: Settings, lines: Lines) -> list[Place]:
    try:
        return endpoints_of(settings.rpc)
    except Misconfigured as e:
        lines.refused("rpc", e)
        return []


def _same_chain(settings: Settings, found: Inspection | None, genesis: str | None, lines: Lines) -> None:
    known = None if found is None else found.meta.get(GENESIS)
    if known is not None and known != genesis:
        lines.fail(
            "journal",
            f"{settings.journal.path} belongs to another chain (genesis {known}, this one is {genesis})",
            "Set journal.path to a file of its own for each chain.",
        )
