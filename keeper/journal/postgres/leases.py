"""The right to write, as a lease: for a time, by the database's clock, in a term that no other holder has.

A keeper has one on its name while it runs. One keeper has that on the service, and the others stand by for it. The
database's clock alone says when a lease is over. A holder stops by itself before that, by a clock of its own that goes
on while the process, or the machine, is suspended.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import psycopg

from keeper.domain.errors import JournalBusy
from keeper.journal.looking import NAME, SERVICE, Holder, working_lease
from keeper.journal.postgres.connection import Database, Place, explain, take_turn

_TAKE: Final = """
    INSERT INTO leases AS l VALUES (%(what)s, %(name)s, %(life)s, 1, clock_timestamp() + %(for)s, clock_timestamp())
    ON CONFLICT (what) DO UPDATE SET holder = excluded.holder, life = excluded.life, term = l.term + 1,
        until = clock_timestamp() + %(for)s, since = clock_timestamp()
        WHERE l.until <= clock_timestamp() OR l.life = excluded.life
    RETURNING term
"""
"""A life may take what is its own: it has a lease that it does not know of when the answer to its COMMIT was lost."""
_RENEW: Final = """
    UPDATE leases SET until = clock_timestamp() + %(for)s WHERE life = %(life)s AND until > clock_timestamp()
    RETURNING what, term
"""
_LEAVE: Final = "UPDATE leases SET until = clock_timestamp() WHERE life = %(life)s AND until > clock_timestamp()"
_HOLDERS: Final = """
    SELECT what, holder, term, extract(epoch FROM since)::float8, extract(epoch FROM until - clock_timestamp())::float8
    FROM leases WHERE until > clock_timestamp() ORDER BY what
"""
FENCE: Final = "SELECT 1 FROM leases WHERE what = %s AND life = %s AND term = %s AND until > clock_timestamp()"
"""Whether this term still runs. Asked with the turn taken, the answer holds until the transaction ends: who takes the
lease over takes the turn first.
"""


class Leases:
    """One keeper's leases, and the thread that renews them."""

    def __init__(self, place: Place, name: str, lease_s: float) -> None:
        self._db = Database(place)
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._good_until_s = 0.0
        self._on_news: Callable[[], None] = lambda: None
        self.name: Final = name
        self.life: Final = uuid.uuid4().hex
        self.term = 0
        """The service's, as long as it is held; 0 before."""
        self.lost: str | None = None
        """Set once, for good: another keeper has taken over."""
        self._failed: str | None = None
        self.held: tuple[Holder, ...] = ()
        """Everybody's, as of the last look or renewal."""
        self._values = {"name": name, "life": self.life, "for": f"{lease_s} seconds"}
        self._thread = threading.Thread(target=self._run, name="journal-leases", daemon=True)

    # --- before it is held

    def join(self) -> None:
        """Take the lease on the name, waiting for one that a keeper which is no more left behind. JournalBusy when that
        one is alive.
        """
        until = time.monotonic() + self._lease_s + 1.0
        while not self._took(NAME + self.name):
            if time.monotonic() > until:
                raise JournalBusy(
                    f"Another keeper with the name {self.name} runs on {self._db.name}. Give each a cluster.name."
                )
            time.sleep(0.1)
        self._thread.start()

    def take(self, *, yields: bool = False) -> str | None:
        """Take the service's lease, if it is nobody's: None then, else the name of its holder. With `yields` it is
        left to another keeper, and the name is empty while nobody has it.
        """
        with self._lock:
            while True:
                self.held = tuple(holders(self._db))
                if self.term:
                    return None
                working = working_lease(self.held)
                if yields or (working is not None and working.holder != self.name):
                    return "" if working is None else working.holder
                began_s = _now_s()
                if term := self._took(SERVICE):
                    self.term, self._good_until_s = term, began_s + 0.9 * self._lease_s
                elif working is not None:
                    return working.holder  # an earlier life had this name

    def _took(self, what: str) -> int:
        """The new term; 0 when another holds it."""
        with self._db.transaction():
            if what == SERVICE:
                # Not while a holder before commits: what it committed is there for whoever has the lease next.
                take_turn(self._db)
            row: Any = self._db.run(_TAKE, {"what": what, **self._values}).fetchone()
        return 0 if row is None else int(row[0])

    # --- while it is held

    def tell(self, on_news: Callable[[], None]) -> None:
        """Have `on_news` called, from the thread, when `trouble` or `lost` has changed."""
        self._on_news = on_news

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written now; None while the lease is good."""
        if not self.lapsed:
            return None
        # A server that waits for its own standby says nothing, and neither does a renewal that it holds up.
        return self.lost or self._failed or f"The lease of {self.name} is over: {self._db.name} did not answer in time."

    @property
    def lapsed(self) -> bool:
        """Whether the lease may be over: nothing more is signed or sent on the strength of it."""
        return self.lost is not None or _now_s() > self._good_until_s

    def close(self) -> None:
        """Give the leases back, so that another takes over at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(psycopg.Error):
            self._db.run(_LEAVE, self._values)
        self._db.close()

    def _run(self) -> None:
        told: tuple[str | None, str | None] = (None, None)
        while not self._stop.wait(self._lease_s / 6):
            try:
                self.renew()
            except psycopg.Error as error:
                self._failed = explain(self._db.name, error)
            now = (self.trouble, self.lost)
            if now != told:
                told = now
                self._on_news()

    def renew(self) -> None:
        """Renew now, or take anew what nobody took since. From any thread; raises psycopg's errors."""
        with self._lock:
            try:
                self._renew()
            except psycopg.Error:
                self._db.rollback()
                raise

    def _renew(self) -> None:
        began_s = _now_s()
        held: dict[str, int] = dict(self._db.run(_RENEW, self._values).fetchall())
        if NAME + self.name not in held:
            self._took(NAME + self.name)
        self.held = tuple(holders(self._db))
        if not self.term or self.lost is not None:
            return
        if held.get(SERVICE) == self.term + 1:
            self.term += 1  # taken anew below, by a COMMIT whose answer was lost
        if held.get(SERVICE) != self.term:
            # It ran out: the database was away, or this process was. If nobody had it since, then nobody wrote, and
            # what is in memory is still the truth.
            term = self._took(SERVICE)
            if term != self.term + 1:
                # With a term of its own it comes after another's that is over too.
                by = "another keeper" if term else holder_of(self._db, SERVICE) or "another keeper"
                self.lost = f"{by} took over from {self.name} after term {self.term}."
                return
            self.term = term
        self._good_until_s = began_s + 0.9 * self._lease_s
        self._failed = None


def holder_of(db: Database, what: str) -> str | None:
    """Whose lease it is now."""
    return next((holder.holder for holder in holders(db) if holder.what == what), None)


def holders(db: Database) -> list[Holder]:
    """Who holds what now."""
    return [Holder(*row) for row in db.run(_HOLDERS).fetchall()]


def _now_s() -> float:
    """Seconds that go on while the process is stopped, and while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
