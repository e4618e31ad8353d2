"""Relaying a user's own signed transaction: accept, journal, land, and say what became of it.

The checks are done before (`keeper.venue.relay_checks`). From here on a relayed transaction lives like any other
attempt: journaled before it is sent, the identical bytes resent until it lands or can no longer land. While a
user's signed cancel is in the air the keeper does not execute that order.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from anyio.abc import TaskGroup
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.events import Event, OrderSeen
from keeper.domain.orders import OnchainStatus, Order, OrderState
from keeper.domain.reports import Note, OrderSettled, Report
from keeper.errors import DryRun, KeeperError
from keeper.execution.consequences import conclusion
from keeper.execution.flights import Flight, Flights
from keeper.execution.lander import Lander, move_flight
from keeper.execution.points import point
from keeper.journal import Journal
from keeper.journal.ops import AddAttempt, MovePrepared, NoteOrder, NoteState, Op
from keeper.journal.records import PreparedKind, PreparedRow, PreparedStatus
from keeper.journal.transitions import first_state
from keeper.venue.program_errors import ProgramFailure


class RelayRest(Protocol):
    """What relaying tells of an order; the engine in life."""

    def saw(self, event: Event) -> None:
        """News that was read back."""
        ...

    def suspend(self, address: Pubkey) -> None:
        """Do not execute it: its user's signed cancel is being landed."""
        ...

    def release(self, address: Pubkey, *, after_price_slot: int | None = None, delay_s: float = 0.0) -> None:
        """The cancel came to nothing: the order rests again."""
        ...

    def forget(self, address: Pubkey, slot: int) -> None:
        """Nothing more will come of it."""
        ...


class RelaySettlement:
    """What a relayed transaction's end means. Used by Settlement, inside its one commit."""

    def __init__(
        self,
        flights: Flights,
        rest: RelayRest,
        report: Callable[[Report], None],
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self._flights = flights
        self._rest = rest
        self._report = report
        self._wall_time = wall_time
        self._prepared: dict[Signature, tuple[str, PreparedKind]] = {}

    def remember(self, signature: Signature, prepared_id: str, kind: PreparedKind) -> None:
        """Which prepared transaction a relayed signature belongs to."""
        self._prepared[signature] = (prepared_id, kind)

    def kind_of(self, signature: Signature) -> PreparedKind | None:
        """What the relayed transaction does; None when it is not known (any more)."""
        entry = self._prepared.get(signature)
        return None if entry is None else entry[1]

    def landed(self, flight: Flight, order: Order | None, ops: list[Op], after: list[Callable[[], None]]) -> None:
        """Confirmed: the order is what its account says."""
        now = self._wall_time()
        ops.append(
            move_flight(
                flight,
                AttemptState.CONFIRMED,
                self._report,
                confirmed_at=now,
                seen_slot=flight.landed_slot,
                fate=Fate.RELAYED,
            )
        )
        self._move_prepared(flight, PreparedStatus.LANDED, ops)
        reason = "Its user's transaction landed."
        if order is not None:
            # The watch may have told more of it since: an older reading is ignored. And what the keeper does with it,
            # or did already, is told where that happens: the user's transaction placed it, and did not fill it.
            acted_on = order.status is OnchainStatus.FILLED or self._flights.own(order.address) is not None
            ops.append(NoteOrder(order) if acted_on else NoteOrder(order, first_state(order.status), reason))
            after.append(lambda: self._rest.saw(OrderSeen(order)))
        self._done(flight, Fate.RELAYED, reason, None, after)
        after.append(lambda: setattr(flight, "read_back", True))

    def failed(
        self,
        flight: Flight,
        failure: ProgramFailure,
        order: Order | None,
        ops: list[Op],
        after: list[Callable[[], None]],
    ) -> None:
        """The program refused the user's transaction."""
        now = self._wall_time()
        ops.append(
            move_flight(
                flight,
                AttemptState.FAILED,
                self._report,
                ended_at=now,
                fate=Fate.REFUSED,
                error_name=failure.name,
                error_program=None if failure.program is None else str(failure.program),
                error_detail=failure.detail or None,
            )
        )
        self._move_prepared(flight, PreparedStatus.FAILED, ops)
        reason = f"The program refused its user's transaction with {failure.name}."
        self._came_to_nothing(flight, order, OrderState.REJECTED, reason, ops, after)
        self._done(flight, Fate.REFUSED, reason, failure.name, after)
        after.append(lambda: self._flights.remove(flight))

    def expired(self, flight: Flight, order: Order | None, ops: list[Op], after: list[Callable[[], None]]) -> None:
        """It can no longer land."""
        ops.append(
            move_flight(
                flight,
                AttemptState.EXPIRED,
                self._report,
                ended_at=self._wall_time(),
                fate=Fate.TRANSIENT,
                error_name="BlockhashExpired",
            )
        )
        self._move_prepared(flight, PreparedStatus.EXPIRED, ops)
        reason = "Its user's transaction can no longer land: its blockhash is too old."
        self._came_to_nothing(flight, order, OrderState.DROPPED, reason, ops, after)
        self._done(flight, Fate.TRANSIENT, reason, "BlockhashExpired", after)
        after.append(lambda: self._flights.remove(flight))

    def _came_to_nothing(
        self,
        flight: Flight,
        order: Order | None,
        state: OrderState,
        reason: str,
        ops: list[Op],
        after: list[Callable[[], None]],
    ) -> None:
        address = flight.attempt.order
        if order is None:
            ops.append(NoteState(address, state, reason))
            return
        # It exists, so this was a cancel that failed, or somebody landed the order by another way.
        ops += conclusion(address, order, first_state(order.status), reason)
        if order.pending:
            after.append(lambda: self._rest.release(address))
        else:
            after.append(lambda: self._rest.forget(address, order.slot))

    def _move_prepared(self, flight: Flight, status: PreparedStatus, ops: list[Op]) -> None:
        entry = self._prepared.get(flight.signature)
        if entry is not None:
            ops.append(MovePrepared(entry[0], status))

    def _done(
        self, flight: Flight, fate: Fate, reason: str, error_name: str | None, after: list[Callable[[], None]]
    ) -> None:
        self._report(OrderSettled(flight.attempt.order, flight.signature, AttemptKind.RELAY, fate, reason, error_name))
        after.append(lambda: self._prepared.pop(flight.signature, None) and None)


class RelayDesk:
    """Takes checked transactions in. `tasks` is where the first send runs, so that the caller need not wait."""

    def __init__(
        self,
        journal: Journal,
        lander: Lander,
        settlement: RelaySettlement,
        rest: RelayRest,
        tasks: TaskGroup,
        report: Callable[[Report], None],
        *,
        dry_run: bool = False,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self._dry_run = dry_run
        self._journal = journal
        self._lander = lander
        self._settlement = settlement
        self._rest = rest
        self._tasks = tasks
        self._report = report
        self._wall_time = wall_time

    async def submit(self, prepared: PreparedRow, wire: bytes) -> None:
        """Journal it, then send it. When this returns it is durable and on its way.

        Raises JournalConflict when it was submitted meanwhile; other JournalErrors when nothing was accepted, and
        DryRun when nothing is sent at all.
        """
        if self._dry_run:
            # Its user may still send it: a transaction that the keeper had accepted, and sat on, would be worse.
            raise DryRun("The keeper runs dry (execution.dry_run): it sends nothing, so it takes nothing to relay.")
        order = prepared.order
        signature = Signature.from_bytes(wire[1:65])
        attempt = Attempt(
            signature=signature,
            kind=AttemptKind.RELAY,
            order=order,
            wire=wire,
            blockhash=prepared.blockhash,
            last_valid_block_height=prepared.last_valid_block_height,
            state=AttemptState.SIGNED,
            number=1,
            signed_at=self._wall_time(),
        )
        cancel = prepared.kind is PreparedKind.CANCEL
        state = OrderState.CANCELLING if cancel else OrderState.SUBMITTED
        reason = f"Its user's signed {prepared.kind.value} transaction is being landed."
        await self._journal.commit(
            AddAttempt(attempt),
            MovePrepared(prepared.id, PreparedStatus.SUBMITTED, signature, expected=PreparedStatus.PREPARED),
            NoteState(order, state, reason),
        )
        point("relay_journaled")
        if cancel:
            self._rest.suspend(order)
        self._settlement.remember(signature, prepared.id, prepared.kind)
        now = time.monotonic()
        flight = Flight(attempt, None, now, now, now, now)
        self._lander.track(flight)
        self._tasks.start_soon(self._launch, flight)

    async def _launch(self, flight: Flight) -> None:
        send: Callable[[list[Flight]], Awaitable[None]] = self._lander.launch
        try:
            await send([flight])
        except KeeperError as e:
            # It is journaled and tracked: the lander's own loop sends it again.
            self._report(
                Note("relay.launch", str(e), level="warning", order=flight.attempt.order, attempt=flight.signature)
            )
