"""Where a journal lives: in a SQLite file, or in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from keeper.domain.errors import Misconfigured
from keeper.journal.machine import REAL, Machine
from keeper.journal.sqlite.home import SqliteHome
from keeper.journal.store import Home

if TYPE_CHECKING:
    from keeper.journal.postgres.home import PostgresHome


def home_of(
    place: Path | str | Home,
    machine: Machine = REAL,
    *,
    keeper: str = "",
    lease_s: float = 3.0,
    api_url: str = "",
    fit: Callable[[], bool] = lambda: True,
    markets: Callable[[], Iterable[str]] | None = None,
) -> Home:
    """The home at a path or at a PostgreSQL URL (see PostgresHome). Misconfigured when a URL can't be used."""
    if not isinstance(place, (Path, str)):
        return place
    if str(place).startswith(("postgresql://", "postgres://")):
        return _postgres_home()(str(place), keeper, lease_s, api_url=api_url, fit=fit, markets=markets)
    return SqliteHome(Path(place), machine)


def copy_to_postgres(source: Path, url: str) -> dict[str, int]:
    """Copy a SQLite journal whose keeper does not run into an empty database, all of it or nothing; how many rows each
    table has. Raises JournalBusy while a keeper runs, JournalError when the database is not empty.
    """
    home = _postgres_home()(url)
    # Its lock keeps a keeper from starting on the file meanwhile, and brings it to the newest version.
    store = SqliteHome(source).open_store(lambda: None) if source.exists() else None
    try:
        with SqliteHome(source).snapshot() as rows_of:
            return home.take_over(rows_of)
    finally:
        if store is not None:
            store.close()


def _postgres_home() -> type[PostgresHome]:
    try:
        from keeper.journal.postgres.home import PostgresHome
    except ImportError as error:
        raise Misconfigured(
            f"journal.url needs psycopg, which can't be loaded ({error}).",
            remedy="Install it: pip install 'quantdesk-keeper[postgres]'.",
        ) from None
    return PostgresHome
