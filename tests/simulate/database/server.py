"""The server: rows in a SQLite file, and what PostgreSQL has beside them, as far as keepers count on it.

Sessions end when their process does, when they are idle in a transaction for three seconds, and when the server stops;
the writers' turn is one session's until its transaction ends; leases change in the moment of their COMMIT, and who else
wants to change the same ones waits for that. A COMMIT without `synchronous_commit` may be lost when another server
takes over, and all that came after it is lost with it; a durable COMMIT makes all before it durable.

What the keepers may not do is noted as it happens (`unlawful`), whatever they believe.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from solders.signature import Signature

from keeper.journal.looking import NAME, SERVICE
from keeper.journal.machine import Condition
from keeper.journal.postgres import schema
from keeper.journal.sqlite.files import open_writer
from tests.simulate.database.words import add_functions

_FILE: Final = "journal.sqlite"
_IDLE_S: Final = 3.0
_LOCK_WAIT_S: Final = 5.0
"""`keeper.journal.postgres.connection.BOUNDS`."""
_LEASES: Final = """
    CREATE TABLE leases (
        what TEXT PRIMARY KEY, holder TEXT NOT NULL, life TEXT NOT NULL, term INTEGER NOT NULL, until REAL NOT NULL,
        since REAL NOT NULL
    );
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_JOURNAL: Final = "CREATE TABLE keeper_journal (version INTEGER, next_order_id INTEGER, next_change_id INTEGER)"
_MARKETS: Final = {
    "orders": "new.market",
    "attempts": "(SELECT market FROM orders WHERE address = new.order_address)",
}
"""What a row that is written is about, by its table."""


class Lost(Exception):
    """The connection is gone: what was asked last may have been done, or not."""


class Waited(Exception):
    """Another session had what was asked for, for too long."""


class World(Protocol):
    """The time that a server lives in."""

    def now(self) -> float:
        """Unix seconds, by the server's clock."""
        ...

    def sleep(self, seconds: float) -> None:
        """The thread that runs waits; not at all where it may not."""
        ...

    def may_wait(self) -> bool:
        """Whether the thread that runs may."""
        ...

    def condition(self) -> Condition:
        """Among the threads of all keepers."""
        ...


@dataclass(slots=True, eq=False)
class Client:
    """One life of a keeper, as the server knows it, and its way there."""

    name: str
    cut: bool = False
    """Whether nothing that it sends arrives, and no answer."""
    torn_in: int | None = None
    """After so many COMMITs the connection tears in the middle of one."""
    gone: Callable[[], None] = lambda: None
    """Raises when the process that asks is no more."""
    on_commit: Callable[[bool], None] = lambda before: None
    """Told before and after each COMMIT of the journal."""


@dataclass(slots=True, eq=False)
class Session:
    """One connection, at the server's end."""

    client: Client
    rows: sqlite3.Connection
    ended: str | None = None
    """Why the server has ended it."""
    inside: bool = False
    """Whether a transaction is open."""
    durable: bool = True
    changes: int = 0
    """How many rows it had changed when its transaction began."""
    last_at: float = 0.0
    """When it was last heard of."""
    pending: list[tuple[str, Any, float]] = field(default_factory=list)
    """What it has done to leases, with when, to be done at its COMMIT."""
    locked: set[str] = field(default_factory=set)
    """The leases that its transaction has changed."""
    wrote: set[str] = field(default_factory=set)
    """The markets of whose orders its transaction has written."""


class Server:
    """See the module. `unlawful` are sentences; `counts` says what happened."""

    def __init__(self, folder: Path, world: World, dice: random.Random) -> None:
        self._folder, self._world, self._dice = folder, world, dice
        self._generation = 0
        self.lock = world.condition()
        self.slow_s = 0.0
        """How long a COMMIT takes beyond the usual."""
        self.full = False
        self.up = True
        self.unlawful: list[str] = []
        self.counts: Counter[str] = Counter()
        self.commits = 0
        self.cut_tails = 0
        """How often COMMITs were lost."""
        self.unsynced = False
        """Whether a COMMIT came after what is durable."""
        self.sessions: list[Session] = []
        self._turn: Session | None = None
        self._turn_free_at = 0.0
        self._lives: dict[str, Client] = {}
        """By the life's id in the leases."""
        self._at = 0.0
        self._leases = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._leases.executescript(_LEASES)
        add_functions(self._leases, lambda: self._at)
        self._keep = self._begin(b"", b"")
        self._durable_wal = self._wal()

    # -- its files

    @property
    def path(self) -> Path:
        """The file with the rows."""
        return self._folder / f"server-{self._generation}" / _FILE

    def _begin(self, db: bytes, wal: bytes) -> sqlite3.Connection:
        self._generation += 1
        self.path.parent.mkdir(parents=True)
        if db:
            self.path.write_bytes(db)
            self.path.with_name(f"{_FILE}-wal").write_bytes(wal)
        self.path.touch(mode=0o600)
        conn: sqlite3.Connection = open_writer(self.path).conn
        if not db:
            conn.execute(_JOURNAL)
            conn.execute("INSERT INTO keeper_journal VALUES (?, 1, 1)", (schema.VERSION,))
        return conn

    def _wal(self) -> int:
        wal = self.path.with_name(f"{_FILE}-wal")
        return wal.stat().st_size if wal.exists() else 0

    def _synced(self) -> None:
        self._durable_wal, self.unsynced = self._wal(), False

    def holds(self, signature: Signature) -> bool:
        """Whether this attempt is among what is durable."""
        folder = self._folder / "durable"
        folder.mkdir(exist_ok=True)
        path = folder / _FILE
        path.write_bytes(self.path.read_bytes())
        path.with_name(f"{_FILE}-wal").write_bytes(self._durable())
        with contextlib.closing(sqlite3.connect(path)) as conn:
            return conn.execute("SELECT 1 FROM attempts WHERE signature = ?", (str(signature),)).fetchone() is not None

    def _durable(self) -> bytes:
        return self.path.with_name(f"{_FILE}-wal").read_bytes()[: self._durable_wal]

    # -- what happens to it

    def stop(self) -> None:
        """It answers nobody, and every session ends."""
        self.up = False
        for session in list(self.sessions):
            self.end(session, "the database system is shutting down")

    def start(self) -> None:
        """It takes connections again."""
        self.up = True

    def fail_over(self) -> None:
        """Another server is to take over, when this is started again: what was not durable is lost."""
        self.stop()
        lost = self._wal() - self._durable_wal
        db, wal = self.path.read_bytes(), self._durable()
        self._keep.close()
        self._keep = self._begin(db, wal)
        self._durable_wal, self.unsynced = self._wal(), False
        self.cut_tails += lost > 0
        self.counts["COMMITs lost by a failover"] += lost > 0

    def end(self, session: Session, why: str) -> None:
        """End a session: what it had not committed never was."""
        if session.ended is not None:
            return
        session.ended = why
        self.sessions.remove(session)
        self._over(session)
        session.rows.close()

    def hang_up(self, client: Client) -> None:
        """The client's process is no more, and its machine says so."""
        for session in [each for each in self.sessions if each.client is client]:
            self.end(session, "the client is gone")

    # -- sessions

    def connect(self, client: Client) -> Session:
        """Raises Lost when nobody answers."""
        if not self.up:
            raise Lost("connection refused")
        rows = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=256)
        rows.execute("PRAGMA synchronous = OFF")
        rows.execute("PRAGMA foreign_keys = ON")
        rows.execute("PRAGMA wal_autocheckpoint = 0")
        session = Session(client, rows, last_at=self._world.now())
        add_functions(rows, self._world.now)
        rows.create_function("wrote", 1, session.wrote.add)
        for table, market in _MARKETS.items():
            for kind in ("INSERT", "UPDATE"):
                guard = f"CREATE TEMP TRIGGER {kind}_{table} AFTER {kind} ON main.{table}"
                rows.execute(f"{guard} BEGIN SELECT wrote({market}); END")
        self.sessions.append(session)
        return session

    def heard(self, session: Session) -> None:
        """A statement of it arrives. Raises Lost when the session is no more."""
        self._let_go_of_idle()
        if session.ended is not None:
            raise Lost(session.ended)
        session.last_at = self._world.now()

    def _let_go_of_idle(self) -> None:
        now = self._world.now()
        for session in [each for each in self.sessions if each.inside and now >= each.last_at + _IDLE_S]:
            self.counts["sessions ended in a transaction"] += 1
            self.end(session, "terminating connection due to idle-in-transaction timeout")

    def take_turn(self, session: Session) -> None:
        """Wait for the writers' turn, which ends with the transaction."""
        self._wait(session, lambda: self._turn is session or (self._turn is None and self._now() >= self._turn_free_at))
        if self._turn is not session:
            self._turn = session
            session.rows.execute("BEGIN IMMEDIATE")
            session.changes = session.rows.total_changes

    def _now(self) -> float:
        return self._world.now()

    def _wait(self, session: Session, free: Callable[[], bool]) -> None:
        until = self._now() + _LOCK_WAIT_S
        waiting = session.inside
        with self.lock:
            while not free():
                if self._now() >= until:
                    raise Waited("canceling statement due to lock timeout")
                session.inside = False  # it is not idle
                idle = [each.last_at + _IDLE_S for each in self.sessions if each.inside]
                times = [until, *idle] + ([self._turn_free_at] if self._turn is None else [])
                self.lock.wait(max(0.0005, min(at for at in times if at > self._now() - 1e-9) - self._now()))
                session.inside = waiting
                session.client.gone()
                if session.ended is not None:
                    raise Lost(session.ended)
                session.last_at = self._now()
                self._let_go_of_idle()

    # -- leases

    def ask_leases(self, session: Session, sql: str, args: Any) -> list[Any]:
        """A statement about leases, or about what keepers say of themselves. What it changes inside a transaction is
        changed at its COMMIT; the rows that it gives are those of then.
        """
        if sql.lstrip().startswith("SELECT"):
            self._at = self._now()
            return self._leases.execute(sql, args).fetchall()
        touched = self._touched(args)
        others = [each for each in self.sessions if each is not session]
        self._wait(session, lambda: not any(touched & each.locked for each in others))
        self._at = self._now()
        if not session.inside:
            return self._change(session, sql, args)
        self._leases.execute("SAVEPOINT trying")
        rows = self._leases.execute(sql, args).fetchall()
        self._leases.execute("ROLLBACK TO trying")
        self._leases.execute("RELEASE trying")
        session.pending.append((sql, args, self._at))
        session.locked |= touched
        return rows

    def _touched(self, args: Any) -> set[str]:
        if not isinstance(args, dict):
            return set()
        if "what" in args:
            what = args["what"]
            if not what.startswith("["):
                return {what}  # one alone
            rows = self._leases.execute("SELECT value FROM json_each(?)", (what,))
        else:
            rows = self._leases.execute("SELECT what FROM leases WHERE life = ?", (args["life"],))
        return {what for (what,) in rows}

    def _change(self, session: Session, sql: str, args: Any) -> list[Any]:
        before = self._held()
        rows = self._leases.execute(sql, args).fetchall()
        for what, (holder, life, _) in self._held().items():
            old = before.get(what)
            self._lives.setdefault(life, session.client)
            if old is not None and old[1] != life and old[2] > self._at:
                self.unlawful.append(f"{holder} took the lease on {what} over while that of {old[0]} ran")
            if old is not None and old[1] != life and not what.startswith(NAME):
                self.counts["leases taken over"] += 1
        self._synced()  # its record comes after all records before it, and is flushed
        return rows

    def _held(self) -> dict[str, tuple[str, str, float]]:
        found = self._leases.execute("SELECT what, holder, life, until FROM leases")
        return {what: (holder, life, until) for what, holder, life, until in found}

    def holder(self, market: str) -> tuple[Client, float] | None:
        """Whose the market is now, and since when; None when nobody has the right to work on it."""
        for what in (SERVICE, market):
            row = self._leases.execute(
                "SELECT life, since FROM leases WHERE what = ? AND until > ?", (what, self._now())
            ).fetchone()
            if row is not None:
                return self._lives[row[0]], row[1]
        return None

    def shares_are_even(self, keepers: int) -> bool:
        """Whether so many keepers work, and none has two markets more than another."""
        rows = self._leases.execute(
            "SELECT count(*) FROM leases WHERE until > ? AND NOT starts_with(what, ?) GROUP BY holder",
            (self._now(), NAME),
        )
        counts = [n for (n,) in rows]
        return len(counts) == keepers and max(counts) - min(counts) <= 1

    # -- the end of a transaction

    def commit(self, session: Session) -> None:
        """What the session did becomes so, in one step."""
        journal = session.rows.in_transaction and session.rows.total_changes > session.changes
        if self.full and journal:
            self.rollback(session)
            raise sqlite3.OperationalError("could not extend file: No space left on device")
        if session.wrote:
            self._guard(session)
        if session.rows.in_transaction:
            session.rows.execute("COMMIT")
        for sql, args, at in session.pending:
            self._at = at
            self._change(session, sql, args)
        if journal:
            self.commits += 1
            self.unsynced = True
        if session.durable:
            self._synced()
        if self.slow_s and self._turn is session:
            self._turn_free_at = self._now() + self.slow_s * self._dice.random()
        self._over(session)

    def _guard(self, session: Session) -> None:
        held = self._held()
        for market in sorted(filter(None, session.wrote)):
            everything = held.get(SERVICE)
            lease = held.get(market, everything)
            if everything is not None and everything[2] > self._now():
                lease = everything
            if lease is None or self._lives[lease[1]] is not session.client:
                whose = "nobody" if lease is None else lease[0]
                self.unlawful.append(f"{session.client.name} wrote of the market {market}, which was {whose}'s")

    def rollback(self, session: Session) -> None:
        """Nothing of what the session did since its BEGIN ever was."""
        if session.rows.in_transaction:
            session.rows.execute("ROLLBACK")
        self._over(session)

    def _over(self, session: Session) -> None:
        if session.ended is not None and session.rows.in_transaction:
            session.rows.execute("ROLLBACK")
        session.inside, session.durable = False, True
        session.pending.clear()
        session.locked.clear()
        session.wrote.clear()
        if self._turn is session:
            self._turn = None
        with self.lock:
            self.lock.notify(len(self.sessions) + 1)
