"""Where the journal of a test is: in a file, and in a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.postgres import fresh_database


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A place for a journal of each store."""
    return tmp_path / "j.db" if request.param == "sqlite" else fresh_database()
