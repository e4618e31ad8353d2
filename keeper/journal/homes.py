"""Where a journal lives: in a SQLite file, or in a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path

from keeper.journal.machine import REAL, Machine
from keeper.journal.sqlite.home import SqliteHome
from keeper.journal.store import Home


def home_of(place: Path | str | Home, machine: Machine = REAL) -> Home:
    """The home at a path."""
    return SqliteHome(Path(place), machine) if isinstance(place, (Path, str)) else place
