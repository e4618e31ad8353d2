"""The right to write, as leases: for a time, by the database's clock, each in a term that no other holder has.

A keeper has one on its name while it runs. One keeper has that on the service, and the others stand by for it; or each
has those on its share of the markets. The database's clock alone says when a lease is over. A holder stops by itself
before that, by a clock of its own that goes on while the process, or the machine, is suspended.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable
from typing import Final

import psycopg

from keeper.domain.errors import JournalBusy
from keeper.journal.looking import NAME, SERVICE, Holder, working_lease
from keeper.journal.postgres.connection import Database, Place, explain, take_turn
from keeper.journal.sharing import share_of

_TAKE: Final = """
    INSERT INTO leases AS l
    SELECT new, %(name)s, %(life)s, 1, clock_timestamp() + %(for)s, clock_timestamp() FROM unnest(%(what)s::text[]) new
    WHERE NOT EXISTS (
        SELECT 1 FROM leases o WHERE o.until > clock_timestamp() AND o.life <> %(life)s
        AND NOT starts_with(o.what, 'keeper:') AND NOT starts_with(new, 'keeper:')
        AND (o.what = '*') <> (new = '*')
    )
    ON CONFLICT (what) DO UPDATE SET holder = excluded.holder, life = excluded.life, term = l.term + 1,
        until = clock_timestamp() + %(for)s, since = clock_timestamp()
        WHERE l.until <= clock_timestamp() OR l.life = excluded.life
    RETURNING what, term
"""
"""A life may take what is its own: it has a lease that it does not know of when the answer to its COMMIT was lost.
While one keeper works on all markets nobody takes one of them, and the other way round.
"""
_RENEW: Final = """
    UPDATE leases SET until = clock_timestamp() + %(for)s WHERE life = %(life)s AND until > clock_timestamp()
    RETURNING what, term
"""
_LEAVE: Final = "UPDATE leases SET until = clock_timestamp() WHERE life = %(life)s AND until > clock_timestamp()"
_GIVE_BACK: Final = f"{_LEAVE} AND what = ANY (%(what)s)"
_MINE: Final = """
    SELECT what FROM leases
    WHERE life = %(life)s AND until > clock_timestamp() AND NOT starts_with(what, 'keeper:')
"""
_PRESENT: Final = "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_HOLDERS: Final = """
    SELECT what, holder, term, extract(epoch FROM since)::float8, extract(epoch FROM until - clock_timestamp())::float8,
        coalesce(split_part(value, ' ', 2), ''), coalesce(split_part(value, ' ', 1), '') <> 'unfit',
        coalesce(split_part(value, ' ', 1), '') IN ('fit', 'unfit')
    FROM leases LEFT JOIN meta ON key = what WHERE until > clock_timestamp() ORDER BY what
"""
"""What a keeper says of itself is in `meta`, under what the lease on its name is on."""
FENCE: Final = """
    SELECT string_agg(what || ' ' || term, ',' ORDER BY what) FROM leases
    WHERE life = %s AND until > clock_timestamp() AND NOT starts_with(what, 'keeper:')
"""
"""Which leases still run, and in which terms: as `Leases.believed`. Asked with the turn taken, the answer holds until
the transaction ends: who takes a lease over takes the turn first.
"""
_LOOK_EVERY_S: Final = 0.1
_STEADY_S: Final = 0.5
"""So long the same keepers have to have been there before one gives markets back for another's sake; and so long a
keeper that has none waits for the rest of its share, when some of it is free.
"""


class Leases:
    """One keeper's leases, and the thread that renews them. Where the keepers share the markets `markets` are all that
    there are; None where one works on all of them. `fit` says whether this keeper can work.
    """

    def __init__(
        self,
        place: Place,
        name: str,
        lease_s: float,
        *,
        url: str = "",
        fit: Callable[[], bool] = lambda: True,
        markets: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self._db = Database(place)
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._good_until_s = 0.0
        self._on_news: Callable[[], None] = lambda: None
        self._url = url
        self._fit = fit
        self._markets = markets
        self.name: Final = name
        self.life: Final = uuid.uuid4().hex
        self.terms: dict[str, int] = {}
        """In which term each lease is held that gives the right to work; none before they are taken."""
        self.believed = ""
        """The same, in the words of `FENCE`."""
        self.lost: str | None = None
        """Set once for these terms, for good: another keeper has taken over."""
        self.moved: str | None = None
        """Why this keeper is to have other markets than it has; None while it has its share."""
        self._failed: str | None = None
        self.held: tuple[Holder, ...] = ()
        """Everybody's, as of the last look or renewal."""
        self._said = ""
        self._all: frozenset[str] = frozenset()
        """The markets that there are."""
        self._names: frozenset[str] = frozenset()
        """The keepers that divide them."""
        self._steady_since_s = 0.0
        self._some_since_s = 0.0
        """Since when a part of this keeper's share has been nobody's, while it has none; 0: it is not so."""
        self._values = {"name": name, "life": self.life, "for": f"{lease_s} seconds"}
        self._thread = threading.Thread(target=self._run, name="journal-leases", daemon=True)

    # --- before they are held

    def join(self) -> None:
        """Take the lease on the name, waiting for one that a keeper which is no more left behind. JournalBusy when that
        one is alive.
        """
        until = time.monotonic() + self._lease_s + 1.0
        while True:
            # One try begins after that: this process may have been stopped since the last.
            last = time.monotonic() > until
            if self._took([NAME + self.name]):
                break
            if last:
                raise JournalBusy(
                    f"Another keeper with the name {self.name} runs on {self._db.name}. Give each a cluster.name."
                )
            time.sleep(0.1)
        self._present()
        self._thread.start()

    def take(self, *, yields: bool = False) -> str | None:
        """Take the service's lease, if it is nobody's, or those on this keeper's share of the markets. None when it has
        what it is to have; else the name of who works, which is empty while nobody does. With `yields` the service's is
        left to another keeper.
        """
        with self._lock:
            return self._take_service(yields) if self._markets is None else self._take_share()

    def _take_service(self, yields: bool) -> str | None:
        while True:
            self.held = tuple(holders(self._db))
            if self.terms:
                return None
            working = working_lease(self.held)
            if yields or (working is not None and working.holder != self.name):
                return "" if working is None else working.holder
            sharing = next((lease for lease in self.held if not lease.on_name), None)
            began_s = _now_s()
            if terms := self._took([SERVICE]):
                self._hold(terms, began_s)
            elif working is not None:
                return working.holder  # an earlier life had this name
            elif sharing is not None:
                return f"{sharing.holder}, which shares the markets (cluster.share_markets)"

    def _take_share(self) -> str | None:
        """Whatever was believed before: a time of work begins with what the database says."""
        self._look()
        share, mine = self._share(), {what for (what,) in self._db.run(_MINE, self._values).fetchall()}
        if not mine and self._more_to_come(share):
            return ""
        if excess := mine - share:
            self._gave_back(excess)
        if wanted := share - mine:
            self._took(sorted(wanted))
        began_s = _now_s()
        held = dict(self._db.run(_RENEW, self._values).fetchall()) if share else {}
        if not (terms := {what: term for what, term in held.items() if what in share}):
            working = working_lease(self.held)
            return "" if working is None else f"{working.holder}, which does not share (cluster.share_markets)"
        self._hold(terms, began_s)
        return None

    def _more_to_come(self, share: frozenset[str]) -> bool:
        """Whether the others are about to give back more of what is to be this keeper's: each of them does when it has
        ended its work. Whoever began with the first of it would have to begin again with the next.
        """
        if not share or len(share) >= len(self._all) // max(1, len(self._names)):
            self._some_since_s = 0.0
            return False
        self._some_since_s = self._some_since_s or _now_s()
        return _now_s() - self._some_since_s < _STEADY_S

    def _hold(self, terms: dict[str, int], began_s: float) -> None:
        self._believe(terms)
        self.lost = self.moved = self._failed = None
        self._good_until_s = began_s + 0.9 * self._lease_s

    def _believe(self, terms: dict[str, int]) -> None:
        self.terms = terms
        self.believed = ",".join(f"{what} {term}" for what, term in sorted(terms.items()))

    def _took(self, what: Collection[str]) -> dict[str, int]:
        """The new terms of those that were taken; another holds the rest."""
        with self._db.transaction():
            if what != [NAME + self.name]:
                # Not while a holder before commits: what it committed is there for whoever has the lease next.
                take_turn(self._db)
            return dict(self._db.run(_TAKE, {"what": list(what), **self._values}).fetchall())

    def _gave_back(self, what: Iterable[str]) -> None:
        self._db.run(_GIVE_BACK, {"what": list(what), **self._values})

    # --- whose share is what

    def _look(self) -> None:
        """See which markets there are and what everybody holds, and say how this keeper is."""
        assert self._markets is not None, "the markets are shared"
        self._present()
        self._all = frozenset(self._markets())
        self.held = tuple(holders(self._db))
        running = [lease for lease in self.held if lease.on_name and lease.shares]
        fit = frozenset(lease.holder for lease in running if lease.fit)
        names = fit or frozenset(lease.holder for lease in running)
        if names != self._names:
            self._names, self._steady_since_s = names, _now_s()

    def _present(self) -> None:
        how = "whole" if self._markets is None else "fit" if self._fit() else "unfit"
        said = f"{how} {self._url}"
        if said != self._said:
            self._db.run(_PRESENT, (NAME + self.name, said))
            self._said = said

    def _share(self) -> frozenset[str]:
        held = {lease.what: lease.holder for lease in self.held if not lease.on_name}
        return share_of(self.name, self._names, self._all, held)

    def _see_moves(self) -> None:
        """Whether this keeper's share is another by now. What is nobody's is taken at once; what another lacks is given
        back when the same keepers have been there for a moment.
        """
        self._look()
        share, steady = self._share(), _now_s() - self._steady_since_s >= _STEADY_S
        comes, goes = share - self.terms.keys(), self.terms.keys() - share
        if comes or (goes and steady):
            n = len(comes) or len(goes)
            markets = f"{n} market{'s' * (n > 1)}"
            self.moved = (
                f"{self.name} {'takes' if comes else 'gives back'} {markets}: {len(self._names)} keepers share."
            )

    # --- while they are held

    def tell(self, on_news: Callable[[], None]) -> None:
        """Have `on_news` called, from the thread, when `trouble` or `lost` has changed."""
        self._on_news = on_news

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written now; None while the leases are good."""
        if not self.lapsed:
            return None
        # A server that waits for its own standby says nothing, and neither does a renewal that it holds up.
        return self.lost or self._failed or f"The lease of {self.name} is over: {self._db.name} did not answer in time."

    @property
    def lapsed(self) -> bool:
        """Whether a lease may be over: nothing more is signed or sent on the strength of it."""
        return self.lost is not None or _now_s() > self._good_until_s

    def rest(self) -> None:
        """Work no more for now: what is not to be this keeper's in its next time of work is given back at once."""
        self._on_news = lambda: None
        with self._lock, contextlib.suppress(psycopg.Error):
            self._look()
            if excess := self.terms.keys() - self._share():
                self._gave_back(excess)

    def close(self) -> None:
        """Give the leases back, so that another takes over at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(psycopg.Error):
            self._db.run(_LEAVE, self._values)
            self._db.run("DELETE FROM meta WHERE key = %s", (NAME + self.name,))
        self._db.close()

    def _run(self) -> None:
        told: tuple[str | None, str | None] = (None, None)
        renews_at_s = _now_s() + self._lease_s / 6
        while not self._stop.wait(self._lease_s / 6 if self._markets is None else _LOOK_EVERY_S):
            try:
                if self._markets is None or _now_s() >= renews_at_s:
                    renews_at_s = _now_s() + self._lease_s / 6
                    self.renew()
                if self._markets is not None and self.terms and self.moved is None:
                    with self._lock:
                        self._see_moves()
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
            self._took([NAME + self.name])
        self.held = tuple(holders(self._db))
        if not self.terms or self.lost is not None:
            return
        # One term further: taken anew below, by a COMMIT whose answer was lost.
        terms = {what: term + (held.get(what) == term + 1) for what, term in self.terms.items()}
        if over := sorted(what for what, term in terms.items() if held.get(what) != term):
            # It ran out: the database was away, or this process was. If nobody had it since, then nobody wrote, and
            # what is in memory is still the truth.
            taken = self._took(over)
            for what in over:
                if taken.get(what) != terms[what] + 1:
                    # With a term of its own it comes after another's that is over too.
                    by = "another keeper" if what in taken else holder_of(self._db, what) or "another keeper"
                    on = "" if what == SERVICE else f" on the market {what}"
                    self.lost = f"{by} took over from {self.name}{on} after term {terms[what]}."
                    return
            terms |= taken
        if terms != self.terms:
            self._believe(terms)
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
