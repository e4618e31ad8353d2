"""The program that the keeper serves: its IDL and its address, from the settings, and whether its fills are whole."""

from __future__ import annotations

from pathlib import Path

from solders.pubkey import Pubkey

from keeper.config.settings import ProgramSettings, Settings
from keeper.domain.errors import Misconfigured
from keeper.venue.idl import PACKAGED, load_idl
from keeper.venue.program import Program


def load_program(settings: ProgramSettings) -> Program:
    """The program with its IDL. Misconfigured when the IDL can't be read or names no address."""
    idl = load_idl(PACKAGED.get(settings.idl, Path(settings.idl)))
    address = Pubkey.from_string(settings.id) if settings.id else idl.address
    if address is None:
        raise Misconfigured("The IDL names no program address.", remedy="Set program.id.")
    return Program(address, idl)


def refuse_fills_without_position(settings: Settings, program: Program) -> None:
    """Misconfigured when a fill would have no position behind it and nobody said that this is meant (promise 3)."""
    if program.creates_position or settings.program.accept_fills_without_position or settings.execution.dry_run:
        return
    raise Misconfigured(
        f"In revision {program.idl.version} of the program a fill creates no position, so the keeper will not execute.",
        remedy="Use the atomic revision; or watch only, with execution.dry_run; or say "
        "program.accept_fills_without_position = true if something else opens the positions.",
    )
