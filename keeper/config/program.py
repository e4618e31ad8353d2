"""The program that the keeper serves: its IDL and its address, from the settings."""

from __future__ import annotations

from pathlib import Path

from solders.pubkey import Pubkey

from keeper.config.settings import ProgramSettings
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
