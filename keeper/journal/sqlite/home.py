"""A journal in a SQLite file: where it is, and all that is done to it there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from keeper.journal.looking import Finding, Holder, Inspection
from keeper.journal.machine import REAL, Machine
from keeper.journal.queries import Queries
from keeper.journal.rows import Values
from keeper.journal.sql import columns_sql
from keeper.journal.sqlite import files, inspection, maintenance
from keeper.journal.sqlite.store import SqliteStore


class SqliteHome:
    """A `Home` at a path."""

    leased = False
    held: tuple[Holder, ...] = ()
    """See Home: a file's keeper has no name."""

    def __init__(self, path: Path, machine: Machine = REAL) -> None:
        self.path = path.absolute()
        self._machine = machine

    @property
    def name(self) -> str:
        """See Home: the path."""
        return str(self.path)

    def open_store(self, on_news: Callable[[], None]) -> SqliteStore:
        """See Home."""
        files.create(self.path)
        return SqliteStore(self.path, on_news, machine=self._machine)

    def hand_over(self) -> None:
        """See Home: nobody stands by for a file."""

    def leave(self) -> None:
        """See Home: nobody stands by for a file."""

    def holders(self) -> list[Holder]:
        """See Home: a file's keeper has no name."""
        return []

    def open_queries(self) -> Queries:
        """See Home."""
        return Queries(files.open_reader(self.path))

    def translated(self) -> contextlib.AbstractContextManager[None]:
        """See Home."""
        return files.translated(self.path)

    def inspect(self) -> Inspection:
        """See Home."""
        return inspection.inspect(self.path)

    def verify(self, *, limit: int = 100) -> list[Finding]:
        """See Home."""
        return maintenance.verify(self.path, limit=limit)

    def export(self) -> Iterator[bytes]:
        """See Home."""
        return maintenance.export(self.path)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Callable[[str, Sequence[str]], Iterable[Values]]]:
        """What gives the rows of a table, these columns of them, all as of one moment."""
        with maintenance.reading(self.path) as db:
            yield lambda table, columns: db.execute(f"SELECT {columns_sql(columns)} FROM {table}")  # noqa: S608

    def backup(self, target: Path) -> None:
        """See Home."""
        maintenance.backup(self.path, target)

    def vacuum(self) -> tuple[int, int]:
        """See Home."""
        return maintenance.vacuum(self.path)
