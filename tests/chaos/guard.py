"""What watches several keepers: a guard in their database, and a witness that knows whose turn it is to send."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.journal.looking import NAME, SERVICE
from keeper.journal.postgres.connection import Database
from keeper.localnet import Bank
from tests.chaos.fleet import Fleet
from tests.chaos.witness import Witness

LATE_S: Final = 1.5
"""A keeper looks at its lease and then sends. In between others may have the processor for so long."""
_GUARD: Final = (
    "CREATE TABLE unlawful (sentence text NOT NULL)",
    # It asks in the keeper's transaction, a moment after the keeper's own statement asked.
    """
    CREATE FUNCTION note_taking() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.life <> OLD.life AND OLD.until > clock_timestamp() THEN
            INSERT INTO unlawful VALUES (format(
                '%s took %s over in term %s while the lease of %s ran', NEW.holder, NEW.what, NEW.term, OLD.holder
            ));
        END IF;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER guard BEFORE UPDATE ON leases FOR EACH ROW EXECUTE FUNCTION note_taking()",
    # Afterwards: what an insert would have been, before it met a row, is not yet what is held.
    f"""
    CREATE FUNCTION note_holding() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NOT starts_with(NEW.what, '{NAME}') AND NEW.until > clock_timestamp() THEN
            INSERT INTO unlawful
            SELECT format('%s holds %s while %s holds %s', NEW.holder, NEW.what, holder, what) FROM leases
            WHERE NOT starts_with(what, '{NAME}') AND until > clock_timestamp()
            AND (what = '{SERVICE}') <> (NEW.what = '{SERVICE}');
        END IF;
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER guard_all AFTER INSERT OR UPDATE ON leases FOR EACH ROW EXECUTE FUNCTION note_holding()",
    # Nobody takes over while it writes: that needs the turn, which it has. Who had the market last had it alone, or
    # had all of them.
    f"""
    CREATE FUNCTION note_writing() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        its text;
        latest leases;
    BEGIN
        IF TG_TABLE_NAME = 'orders' THEN
            its := NEW.market;
        ELSIF TG_TABLE_NAME = 'attempts' THEN
            SELECT market INTO its FROM orders WHERE address = NEW.order_address;
        ELSE
            SELECT market INTO its FROM orders WHERE id = NEW.order_ref;
        END IF;
        SELECT * INTO latest FROM leases WHERE what IN ('{SERVICE}', its) ORDER BY since DESC LIMIT 1;
        IF latest.holder IS DISTINCT FROM current_setting('application_name') THEN
            INSERT INTO unlawful VALUES (format(
                '%s wrote %s in term %s of %s on %s', current_setting('application_name'), TG_TABLE_NAME,
                latest.term, coalesce(latest.holder, 'nobody'), coalesce(latest.what, its, 'an unknown order')
            ));
        END IF;
        RETURN NULL;
    END $$
    """,
    *(
        f"CREATE TRIGGER guard AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION note_writing()"
        for table in ("orders", "attempts", "changes")
    ),
)
"""The keeper's sessions have its name as `application_name` (`as_keeper`)."""
_HOLDER: Final = (
    "SELECT holder, extract(epoch FROM since)::float8 FROM leases "
    f"WHERE what IN ('{SERVICE}', ?) AND until > clock_timestamp() ORDER BY since DESC LIMIT 1"
)


def as_keeper(url: str, name: str) -> str:
    """The URL with which this keeper's sessions are known for its own."""
    return f"{url}{'&' if '?' in url else '?'}application_name={name}"


def guard(url: str) -> None:
    """From now on the database notes who takes a lease that runs, who has a market while another has all of them, and
    who writes of an order of a market that another has.
    """
    with psycopg.connect(url, autocommit=True) as db:
        for statement in _GUARD:
            db.execute(statement.encode())


def unlawful(url: str) -> Sequence[str]:
    """What was noted since it was asked last, each once."""
    with psycopg.connect(url, autocommit=True) as db:
        return sorted({sentence for (sentence,) in db.execute("DELETE FROM unlawful RETURNING sentence")})


class SeveralWitness(Witness):
    """Sees also which keeper sends, and asks the database whose turn it is to, in the market of the order.

    While the database is down nobody can be asked what it holds: what was sent then is judged when it is back.
    """

    def __init__(self, bank: Bank, fleet: Fleet) -> None:
        super().__init__(bank)
        self._fleet = fleet
        self._unjudged: list[tuple[str, bytes, float]] = []
        self._leases: Database | None = None
        self._market_of: dict[Pubkey, Pubkey] = {}
        self.counts: Counter[str] = Counter()

    def attend(self, leases: Database | None) -> None:
        """Ask this database whose lease it is; None when there will be none for a while."""
        if self._leases is not None:
            self._leases.close()
        self._leases = leases

    def _sent(self, endpoint: str, wire: bytes) -> None:
        try:
            # In the order in which they came: each is judged by those before it.
            self._settle()
            super()._sent(endpoint, wire)
            if (market := self._market(Signature.from_bytes(wire[1:65]))) is not None:
                self.hold_to_lease(endpoint.partition("/")[0], market)
        except psycopg.OperationalError:
            self._unjudged.append((endpoint, wire, time.time()))

    def _market(self, signature: Signature) -> Pubkey | None:
        """The market of the order that it is about. None for what the journal does not have, which is told elsewhere:
        of an attempt, and of an order by `Home.verify`.
        """
        first = self._seen.get(signature)
        if first is None or self.journal is None:
            return None
        if first.order not in self._market_of and (row := self.journal.order(first.order)) is not None:
            self._market_of[first.order] = row.order.market
        return self._market_of.get(first.order)

    def settle(self) -> Sequence[str]:
        """Judge what could not be judged then; what was found."""
        before = len(self.violations)
        self._settle()
        return self.violations[before:]

    def _settle(self) -> None:
        """What was signed later than it was sent was not journaled before. Raises psycopg.OperationalError while the
        database is down.
        """
        while self._unjudged:
            endpoint, wire, at = self._unjudged[0]
            super()._sent(endpoint, wire)
            del self._unjudged[0]
            self.counts["sends judged later"] += 1
            attempt = None if self.journal is None else self.journal.attempt(Signature.from_bytes(wire[1:65]))
            if attempt is not None and attempt.signed_at > at:
                self._violation(f"{attempt.signature} was sent before it was in the journal (promise 1)")

    def hold_to_lease(self, keeper: str, market: Pubkey) -> None:
        """This keeper sends now, for an order of this market. Raises psycopg.OperationalError while the database is
        down.
        """
        if self._leases is None:
            return  # between two journals
        row: Any = self._leases.execute(_HOLDER, (str(market),)).fetchone()
        if row is None or row[0] == keeper:
            return
        holder, since = row
        self.counts["sends after a takeover"] += 1
        late_s = time.time() - max(since, self._fleet.free_since.get(keeper, 0.0))
        if late_s > LATE_S:
            self._violation(f"{keeper} sent {late_s:.1f} s after {holder} had taken over: two keepers send")
