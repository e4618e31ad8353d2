"""After a restart every open attempt of the journal is resolved before anything new is signed; after an outage of the
journal what it holds is followed, though its disk said that it failed.

Resolved means looked up. One that landed is settled like any other; one that can still land is followed again,
its identical bytes resent, and blocks only its own order; one that can't is closed by the expiry rule. So a
kill between any two steps costs time, never a second signature (promises 1, 2 and 5; behaviour 11).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import anyio
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.orders import Order, OrderState
from keeper.domain.reports import Note, Report
from keeper.execution.armory import Armed, Armory, reading_of
from keeper.execution.consequences import WAITS_FOR_ACCOUNT
from keeper.execution.endings import UNREADABLE
from keeper.execution.flights import Flight, Flights
from keeper.execution.lander import Lander
from keeper.execution.orders import Orders, Reason
from keeper.execution.points import point
from keeper.execution.purse import Purse
from keeper.execution.router import Router
from keeper.execution.tries import HOUR_S
from keeper.journal import Journal
from keeper.journal.records import OrderRow
from keeper.venue.venue import Venue

_EXPIRED_WITHIN_S: Final = 86_400.0
"""Of the orders that expired so recently it is found out how their accounts ended, if they did."""
_RESTING: Final = frozenset(
    {OrderState.OPEN, OrderState.TRIGGERED, OrderState.EXECUTING, OrderState.CANCELLING, OrderState.FAILED}
)


class Recovery:
    """`load` before any order is seen, `resolve` before the executor starts, `reconcile` after the first list of
    orders; and then `look` now and then. With a share the journal is asked of its markets alone.
    """

    def __init__(
        self,
        journal: Journal,
        lander: Lander,
        flights: Flights,
        armory: Armory,
        router: Router,
        orders: Orders,
        purse: Purse,
        venue: Venue,
        report: Callable[[Report], None],
        *,
        dry_run: bool = False,
        share: frozenset[Pubkey] | None = None,
    ) -> None:
        self._journal = journal
        self._lander = lander
        self._flights = flights
        self._armory = armory
        self._router = router
        self._orders = orders
        self._purse = purse
        self._venue = venue
        self._report = report
        self._dry_run = dry_run
        self._share = share
        self._failures = 0
        self._lost: frozenset[Signature] = frozenset()

    async def load(self) -> list[Flight]:
        """Take the open attempts from the journal, and with them the records of their orders; and those of the orders
        that were tried before.
        """
        attempts = await self._journal.open_attempts(markets=self._share)
        rows = await self._journal.orders_at({attempt.order for attempt in attempts})
        # First: what was tried were the journal's orders, and a record that a cancel makes is of the book's.
        await self._load_tries()
        flights = [await self._flight(attempt, rows.get(attempt.order)) for attempt in attempts]
        for flight in flights:
            self._lander.track(flight)
        for flight in flights:
            if flight.attempt.state is AttemptState.ARMED:
                tries = self._orders.record(flight.attempt.order).tries
                tries.made = max(tries.made, flight.attempt.number)  # it may have been sent
        return flights

    async def look(self) -> None:
        """Follow what the journal holds although it was told that the commit failed. It was never sent, and blocks its
        order, or is a user's own that was taken and not answered for: it is sent now, or expires. A JournalError
        leaves it for the next look.

        What was committed a moment ago is not tracked yet, so only what two looks find is taken.
        """
        if self._failures == self._journal.writer.failures or not self._journal.healthy:
            return
        failures = self._journal.writer.failures
        attempts = {attempt.signature: attempt for attempt in await self._journal.open_attempts(markets=self._share)}
        known = {signature for _, armed in self._armory for signature in armed.signatures}
        lost = frozenset(attempts.keys() - self._flights.open.keys() - known)
        for signature in lost & self._lost:
            attempt = attempts[signature]
            self._lander.track(await self._flight(attempt, await self._journal.order(attempt.order)))
            detail = "the journal holds it, though its disk said that it failed; it is followed"
            self._report(Note("recovery.followed", detail, "warning", order=attempt.order, attempt=signature))
        self._lost = lost - self._lost
        if not self._lost:
            self._failures = failures

    async def _flight(self, attempt: Attempt, row: OrderRow | None) -> Flight:
        now = time.monotonic()
        # What was signed before the order was first seen is about another one that was at its address; unless it was
        # built from the very reading that is noted, which may have been noted a little later.
        of_another = (
            row is not None and attempt.signed_at < row.first_seen_at and attempt.built_from != reading_of(row.order)
        )
        flight = Flight(attempt, row.order if row and not of_another else None, 0, None, now, now, now)
        flight.read_back = attempt.state is AttemptState.CONFIRMED and attempt.fate is not None
        if attempt.kind is AttemptKind.RELAY:
            for prepared in await self._journal.prepared_of(attempt.order):
                if prepared.signature == attempt.signature:
                    flight.prepared, flight.cancels = prepared.id, prepared.cancels
            if flight.cancels and not flight.read_back:
                self._orders.cancel_relayed(flight.cancels, attempt.signature)
            return flight
        record = self._orders.record(attempt.order, _seen(row))
        flight.generation = 0 if of_another else record.generation
        if attempt.state is AttemptState.ARMED:
            # Free to be acted on, by these bytes alone. The lander asks after it, and does not send it.
            flight.next_send_s = math.inf
            armed = Armed(attempt, None, None, None, (attempt.signature,), now, committed=True, flight=flight)
            self._armory.put(attempt.order, armed)
        elif not _landed_ratchet(attempt):
            self._orders.block(record, Reason.ATTEMPT, attempt.signature)
            record.executes = attempt.kind is AttemptKind.EXECUTE
        if attempt.state.undecided:
            self._purse.hold(attempt)  # what landed already is among what was spent
        return flight

    async def _load_tries(self) -> None:
        rows = await self._journal.tried_orders(_RESTING, markets=self._share)
        while rows:
            for row in rows:
                if row.attempts_made or row.budget_used:
                    tries = self._orders.record(row.address, _seen(row)).tries
                    tries.made, tries.used, tries.failed = row.attempts_made, row.budget_used, row.budget_used
                if row.state is OrderState.FAILED:
                    self._failed_before(row)
            rows = await self._journal.tried_orders(_RESTING, markets=self._share, after=rows[-1].id)
        now = time.time()
        for order, signed_at in await self._journal.tried_since(now - HOUR_S, markets=self._share):
            # The ceiling is on what an order costs an hour, so a keeper that is restarted in a loop must not forget it.
            # An operator's retry is forgotten by a restart: the order then waits for the ceiling once more.
            self._orders.record(order).tries.recent.append(time.monotonic() - max(0.0, now - signed_at))

    def _failed_before(self, row: OrderRow) -> None:
        """An operator brings it back, or a change of its user's account if it waits for that; a price tick does not."""
        record = self._orders.record(row.address, _seen(row))
        if row.reason.startswith(UNREADABLE):
            self._orders.block(record, Reason.UNREADABLE, "not by the keeper's last run")
            return
        account = self._venue.user_account_of(row.order) if WAITS_FOR_ACCOUNT in row.reason else None
        self._orders.block(record, Reason.FAILED if account is None else Reason.ACCOUNT, account)

    async def resolve(self, flights: Sequence[Flight], *, deadline_s: float = 30.0) -> None:
        """Look each of them up once. Returns when the chain has answered for all, or at the deadline: what it
        did not answer for stays open, is followed on, and blocks its own order.
        """
        if not flights:
            return
        if self._dry_run:
            detail = f"dry run: {len(flights)} attempts of an earlier run are looked up, and not sent again"
            self._report(Note("recovery.dry_run", detail, level="warning"))
        self._report(Note("recovery.open_attempts", f"{len(flights)} open attempts in the journal; looking them up"))
        point("recovering")
        with anyio.move_on_after(deadline_s):
            while True:
                unasked = [flight for flight in flights if not flight.answered]
                if not unasked:
                    break
                await self._router.settle(await self._lander.poll(unasked))
                await anyio.sleep(0.05)
        left = sum(1 for flight in flights if flight.attempt.state.undecided)
        self._report(Note("recovery.resolved", f"{len(flights) - left} resolved, {left} could still land"))

    async def reconcile(self) -> int:
        """After the first list: orders that the journal believes to rest and the chain does not show.

        They ended while the keeper was down, as may have some that it called expired by the clock before. Each is read
        again at confirmed, and gets its named state. Returns how many there were.
        """
        believed = await self._journal.seen_orders(_RESTING, markets=self._share)
        believed += await self._journal.expired_orders(time.time() - _EXPIRED_WITHIN_S, markets=self._share)
        missing = [address for address in believed if self._orders.book.get(address) is None]
        for address in missing:
            self._router.seems_ended(address)
        return len(missing)


def _seen(row: OrderRow | None) -> Order | None:
    """The order, if it was ever read on chain."""
    return row.order if row is not None and row.order.slot > 0 else None


def _landed_ratchet(attempt: Attempt) -> bool:
    return attempt.kind is AttemptKind.RATCHET and attempt.fate is Fate.RATCHETED
