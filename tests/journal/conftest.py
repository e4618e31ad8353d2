"""Where the journal of a test is: in a file, in a database, and in a simulated one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulate.database.places import fresh_server
from tests.support.postgres import fresh_database


@pytest.fixture(params=["sqlite", "postgres", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A place for a journal of each store, and of PostgreSQL's on the server of the simulation."""
    match request.param:
        case "sqlite":
            return tmp_path / "j.db"
        case "postgres":
            return fresh_database()
    return fresh_server(tmp_path)
