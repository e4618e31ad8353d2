"""After a restart: every open attempt of the journal is resolved before anything new is signed.

Resolved means looked up. One that landed is settled like any other; one that can still land is followed again,
its identical bytes resent, and blocks only its own order; one that can't is closed by the expiry rule. So a
kill between any two steps costs time, never a second signature (promises 1, 2 and 5; behaviour 11).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptKind, AttemptState, Fate
from keeper.domain.orders import OrderState
from keeper.domain.reports import Note, Report
from keeper.execution.consequences import WAITS_FOR_ACCOUNT
from keeper.execution.engine import Engine
from keeper.execution.fees import FeePolicy
from keeper.execution.flights import Flight
from keeper.execution.lander import Lander
from keeper.execution.points import point
from keeper.execution.relay import RelaySettlement
from keeper.execution.tries import HOUR_S, Tries
from keeper.journal import Journal
from keeper.journal.records import OrderRow
from keeper.venue.program import Program

_RESTING = frozenset(
    {OrderState.OPEN, OrderState.TRIGGERED, OrderState.EXECUTING, OrderState.CANCELLING, OrderState.FAILED}
)


class Recovery:
    """Runs once, after the first snapshot would show the orders and before the executor starts."""

    def __init__(
        self,
        journal: Journal,
        lander: Lander,
        engine: Engine,
        relays: RelaySettlement,
        tries: Tries,
        fees: FeePolicy,
        program: Program,
        keeper: Pubkey,
        report: Callable[[Report], None],
        *,
        dry_run: bool = False,
    ) -> None:
        self._dry_run = dry_run
        self._program = program
        self._keeper = keeper
        self._journal = journal
        self._lander = lander
        self._engine = engine
        self._relays = relays
        self._tries = tries
        self._fees = fees
        self._report = report

    async def load(self) -> list[Flight]:
        """Take the open attempts from the journal and suspend their orders, before any order is seen."""
        flights: list[Flight] = []
        now = time.monotonic()
        for attempt in await self._journal.open_attempts():
            row = await self._journal.order(attempt.order)
            flight = Flight(attempt, row.order if row else None, None, now, now, now)
            if attempt.kind is AttemptKind.RELAY:
                for prepared in await self._journal.prepared_of(attempt.order):
                    if prepared.signature == attempt.signature:
                        self._relays.remember(attempt.signature, prepared.id, prepared.kind)
                if row is not None and row.state is OrderState.CANCELLING:
                    self._engine.suspend(attempt.order)
            elif not _landed_ratchet(flight):
                self._engine.suspend(attempt.order)
            if attempt.kind is not AttemptKind.RELAY and attempt.state.in_flight:
                self._fees.hold(attempt)  # what landed already is among what was spent
            flight.read_back = attempt.state is AttemptState.CONFIRMED and attempt.fate is not None
            self._lander.track(flight)
            flights.append(flight)
        await self._load_tries()
        return flights

    async def _load_tries(self) -> None:
        cursor: str | None = None
        states = [OrderState.OPEN, OrderState.TRIGGERED, OrderState.EXECUTING, OrderState.FAILED]
        while True:
            page = await self._journal.orders(states=states, cursor=cursor, limit=500)
            for row in page.items:
                if row.attempts_made or row.budget_used:
                    self._tries.load(row.address, row.attempts_made, row.budget_used)
                if row.state is OrderState.FAILED:
                    # An operator, or a change of its user's account, brings it back; a price tick does not.
                    self._engine.suspend(row.address)
                    self._wait_again(row)
            cursor = page.cursor
            if cursor is None:
                break
        now = time.time()
        for order, signed_at in await self._journal.tried_since(now - HOUR_S):
            self._tries.load_recent(order, now - signed_at)

    def _wait_again(self, row: OrderRow) -> None:
        """One that failed because its user could not pay goes on waiting for the user's account."""
        account = self._program.user_account_of(row.order, self._keeper)
        if WAITS_FOR_ACCOUNT in row.reason and account is not None:
            self._engine.wait_for_account(row.order, account)

    async def resolve(self, flights: list[Flight], *, deadline_s: float = 30.0) -> None:
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
                await self._lander.poll(unasked)
                await anyio.sleep(0.05)
        left = sum(1 for flight in flights if flight.attempt.state.in_flight)
        self._report(Note("recovery.resolved", f"{len(flights) - left} resolved, {left} could still land"))

    async def reconcile(self) -> int:
        """After the first snapshot: orders that the journal believes to rest and the chain does not show.

        They ended while the keeper was down. Each is read again at confirmed, and gets its named state. Returns
        how many there were.
        """
        believed = await self._journal.seen_orders(_RESTING)
        missing = [address for address in believed if self._engine.order(address) is None]
        for address in missing:
            self._engine.seems_ended(address)
        return len(missing)


def _landed_ratchet(flight: Flight) -> bool:
    attempt = flight.attempt
    return attempt.kind is AttemptKind.RATCHET and attempt.fate is Fate.RATCHETED
