"""A journal in a PostgreSQL database: where it is, and all that is done to it there."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from keeper.domain.errors import JournalAway, JournalError, StandBy
from keeper.journal.looking import Finding, Holder, Inspection, broken_promises
from keeper.journal.postgres import schema
from keeper.journal.postgres.connection import Database, Place, explain, passes, require_safe
from keeper.journal.postgres.leases import Leases, holders
from keeper.journal.postgres.store import PostgresStore
from keeper.journal.queries import Queries
from keeper.journal.rows import TABLES, Values, exported

_serial: Final = itertools.count(1)
_YIELDS_S: Final = 2.0
"""Beyond a lease: so long who handed the service over waits for another to take it."""


class PostgresHome:
    """A `Home` at a URL. `keeper` is the name of the one that writes there, `lease_s` how long its lease runs,
    `api_url` where the others reach its API. While it is not `fit` to work it leaves the work to others. With
    `markets`, which gives all that there are, the keepers share them; without, one works on all of them.
    """

    leased = True

    def __init__(
        self,
        url: str,
        keeper: str = "",
        lease_s: float = 3.0,
        *,
        api_url: str = "",
        fit: Callable[[], bool] = lambda: True,
        markets: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self._place = Place(url)
        self._api_url = api_url
        self._fit = fit
        self._markets = markets
        self._known = False
        """Whether this process has worked with the database already."""
        self._newer = False
        """Whether the tables are of an older version than this keeper."""
        self._last_fit_s = self._last_held_s = time.monotonic()
        self._yields_until_s = 0.0
        self._keeper = keeper or f"{socket.gethostname()}:{os.getpid()}:{next(_serial)}"
        self._lease_s = lease_s
        self._leases: Leases | None = None
        self._db: Database | None = None

    def __repr__(self) -> str:
        return f"PostgresHome({self.name})"

    @property
    def name(self) -> str:
        """See Home: the URL without the user and the password."""
        return self._place.name

    def open_store(self, on_news: Callable[[], None]) -> PostgresStore:
        """See Home."""
        with self.translated():
            if self._leases is None:
                with self._looking() as db:
                    require_safe(db)
                    if schema.version_of(db) == 0:
                        schema.migrate(db)
                    self._newer = schema.version_of(db) != schema.VERSION
                    # A role that may not write is found out now, and not at the first intent.
                    db.run("DELETE FROM meta WHERE key = ''")
                leases = Leases(
                    self._place,
                    self._keeper,
                    self._lease_s,
                    url=self._api_url,
                    fit=self._fit_to_share,
                    markets=self._markets,
                )
                try:
                    leases.join()
                except BaseException:
                    leases.close()
                    raise
                self._leases = leases
                self._known = True
            if self._db is None:
                # The store's, which is at hand when the leases are.
                self._db = Database(self._place)
            if self._newer and self._markets is not None and self._others_work():
                raise StandBy(f"Keepers of an older version work on {self.name}: they need its tables as they are.")
            holder = self._leases.take(yields=self._left_to_others())
            if holder is not None:
                if holder:
                    self._yields_until_s, self._last_held_s = 0.0, time.monotonic()
                raise StandBy(self._stood_by_for(holder))
            leases = self._leases
            try:
                db = self._at_hand()
                try:
                    # Not before: an older keeper that still works needs its own version's tables.
                    schema.migrate(db)
                    self._newer = False
                    return PostgresStore(db, leases, on_news, self.leave if self._markets is None else leases.rest)
                except BaseException:
                    db.close()
                    raise
            except BaseException:
                self.leave()
                raise

    def _stood_by_for(self, holder: str) -> str:
        if self._markets is None or holder:
            return f"The journal {self.name} is held by {holder or 'nobody yet'}."
        return f"No market of the journal {self.name} is this keeper's to work on yet."

    def _others_work(self) -> bool:
        assert self._db is not None, "it was made a moment ago"
        return any(not lease.on_name and lease.holder != self._keeper for lease in holders(self._db))

    def _left_to_others(self) -> bool:
        """Whether another is to have the lease, if one wants it within some seconds from when it is free."""
        until_s = self._yields_until_s
        if not self._fit():
            until_s = max(until_s, self._last_held_s + self._lease_s + _YIELDS_S)
        return time.monotonic() < until_s

    def _fit_to_share(self) -> bool:
        """Whether it is to have markets: it was not drained a moment ago, has been fit within a lease's time, and needs
        no newer tables than those are by which others may work.
        """
        now_s = time.monotonic()
        if self._fit():
            self._last_fit_s = now_s
        return now_s >= self._yields_until_s and now_s < self._last_fit_s + self._lease_s and not self._newer

    def _at_hand(self) -> Database:
        """The connection that was made while another had the lease; a new one when the server has been away since."""
        db, self._db = self._db, None
        if db is not None:
            try:
                db.run("SELECT 1")
            except psycopg.OperationalError:
                db.close()
            else:
                return db
        return Database(self._place)

    @property
    def held(self) -> tuple[Holder, ...]:
        """See Home."""
        return () if self._leases is None else self._leases.held

    def hand_over(self) -> None:
        """See Home."""
        self._yields_until_s = time.monotonic() + self._lease_s + _YIELDS_S

    def leave(self) -> None:
        """See Home."""
        leases, self._leases = self._leases, None
        db, self._db = self._db, None
        if db is not None:
            db.close()
        if leases is not None:
            leases.close()

    def holders(self) -> list[Holder]:
        """See Home."""
        with self._looking() as db:
            return holders(db) if schema.version_of(db) else []

    def open_queries(self) -> Queries:
        """See Home."""
        with self.translated():
            db = Database(self._place)
            try:
                self._require_version(db)
            except BaseException:
                db.close()
                raise
            return Queries(db)

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """See Home."""
        try:
            yield
        except psycopg.Error as error:
            kind = JournalAway if self._known and passes(error) else JournalError
            raise kind(explain(self.name, error)) from error

    def inspect(self) -> Inspection:
        """See Home."""
        with self._looking() as db:
            require_safe(db)
            version = schema.version_of(db)
            size: Any = db.run("SELECT pg_database_size(current_database())").fetchone()
            meta = dict(db.run("SELECT key, value FROM meta").fetchall()) if version else {}
            return Inspection(version or None, schema.VERSION, None, meta, int(size[0]))

    def verify(self, *, limit: int = 100) -> list[Finding]:
        """See Home. Damage of the files is looked for by `pg_amcheck`."""
        with self._reading() as db:
            return broken_promises(db, limit)

    def export(self) -> Iterator[bytes]:
        """See Home."""
        with self._reading() as db:
            for table in TABLES:
                with db.conn.cursor(name="export") as rows:
                    rows.execute(f'SELECT * FROM "{table}"')  # noqa: S608  (one of our own words)
                    columns = [column.name for column in rows.description or ()]
                    for row in rows:
                        values = exported(dict(zip(columns, row, strict=True)))
                        yield msgspec.json.encode({"table": table, **values}) + b"\n"

    def take_over(self, rows_of: Callable[[str, Sequence[str]], Iterable[Values]]) -> dict[str, int]:
        """Fill the empty journal with another's rows, in one transaction; how many rows each table has now."""
        with self.translated(), contextlib.closing(self.open_store(lambda: None)) as store:
            return store.fill(rows_of)

    def backup(self, target: Path) -> None:
        """JournalError: PostgreSQL's own tools do it."""
        raise JournalError(
            f"The journal {self.name} is backed up with PostgreSQL's own tools: "
            f"pg_dump --format=custom --file={target} URL, as of one moment, while the keeper runs."
        )

    def vacuum(self) -> tuple[int, int]:
        """JournalError: the server does it by itself."""
        raise JournalError(f"The server of {self.name} gives space back by itself (autovacuum), or by VACUUM FULL.")

    @contextlib.contextmanager
    def _looking(self) -> Iterator[Database]:
        with self.translated():
            db = Database(self._place)
            with contextlib.closing(db):
                yield db

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Database]:
        """A connection with one snapshot for all that is asked of it."""
        with self._looking() as db:
            self._require_version(db)
            db.execute("BEGIN")
            yield db

    def _require_version(self, db: Database) -> None:
        found = schema.version_of(db)
        if found == 0:
            raise JournalError(
                f"There is no journal in {self.name}. Start the keeper once, or set the right journal.url."
            )
        if found != schema.VERSION:
            raise JournalError(
                f"The journal {self.name} has version {found}, not {schema.VERSION}. "
                "Start this version's keeper on it once: it brings it up to date."
            )
