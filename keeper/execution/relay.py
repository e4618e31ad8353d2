"""Relaying a user's own signed transaction: accept, journal, land, and say what became of it.

The checks are done before (`keeper.venue.relay_checks`). From here on a relayed transaction lives like any other
attempt: journaled before it is sent, the identical bytes resent until it lands or can no longer land. While a
user's signed cancel is in the air the keeper does not execute that order.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.errors import DryRun, JournalError
from keeper.domain.events import OrderSeen
from keeper.domain.orders import OnchainStatus, Order, OrderState
from keeper.domain.reports import OrderSettled, Report
from keeper.execution.consequences import WAITS_FOR_ACCOUNT, conclusion
from keeper.execution.endings import GONE
from keeper.execution.flights import Flight
from keeper.execution.lander import Lander
from keeper.execution.orders import Orders, Reason
from keeper.execution.points import point
from keeper.execution.verdicts import Verdict
from keeper.journal import Journal
from keeper.journal.ops import AddAttempt, MovePrepared, NoteOrder, NoteState, Op
from keeper.journal.records import PreparedRow, PreparedStatus, Source
from keeper.journal.transitions import first_state
from keeper.venue.program_errors import ProgramFailure


class RelayDesk:
    """Takes checked transactions in. `tasks` is where the first send runs, so that the caller need not wait."""

    def __init__(
        self,
        journal: Journal,
        lander: Lander,
        orders: Orders,
        tasks: TaskGroup,
        report: Callable[[Report], None],
        *,
        dry_run: bool = False,
    ) -> None:
        self._dry_run = dry_run
        self._journal = journal
        self._lander = lander
        self._orders = orders
        self._tasks = tasks
        self._report = report

    async def submit(self, prepared: PreparedRow, wire: bytes, placed: Order | None = None) -> None:
        """Journal it, then send it. When this returns it is durable and on its way. `placed` is the order that it is
        to make, with the terms of these very bytes; None for one that only cancels.

        Raises JournalConflict when it was submitted meanwhile; other JournalErrors when nothing was accepted, and
        DryRun when nothing is sent at all.
        """
        if self._dry_run:
            # Its user may still send it: a transaction that the keeper had accepted, and sat on, would be worse.
            raise DryRun("The keeper runs dry (execution.dry_run): it sends nothing, so it takes nothing to relay.")
        signature = Signature.from_bytes(wire[1:65])
        attempt = Attempt(
            signature=signature,
            kind=AttemptKind.RELAY,
            order=prepared.order,
            wire=wire,
            blockhash=prepared.blockhash,
            last_valid_block_height=prepared.last_valid_block_height,
            state=AttemptState.SIGNED,
            number=1,
            signed_at=time.time(),
        )
        reason = f"Its user's signed {prepared.kind.value} transaction is being landed."
        why = reason if placed is None else f"{reason} The order {placed.address} is to take its place."
        notes: list[Op] = [NoteState(address, OrderState.CANCELLING, why) for address in prepared.cancels]
        if placed is not None:
            # An address whose earlier transaction never landed begins anew.
            name = prepared.client_order_id
            notes.append(NoteOrder(placed, OrderState.SUBMITTED, reason, Source.API, name, reopen=True))
        # Before the journal: what is signed while that writes would be one execution too many.
        self._orders.cancel_relayed(prepared.cancels, signature)
        try:
            # Shielded: a caller that goes away must not leave an attempt in the journal that nobody follows.
            with anyio.CancelScope(shield=True):
                await self._journal.commit(
                    *notes,
                    AddAttempt(attempt),
                    MovePrepared(prepared.id, PreparedStatus.SUBMITTED, signature, expected=PreparedStatus.PREPARED),
                )
        except JournalError:
            self._orders.cancel_over(prepared.cancels, signature)
            raise
        point("relay_journaled")
        if self._tasks.cancel_scope.cancel_called:
            return  # this keeper works no more: who does next finds it open, and lands it
        now = time.monotonic()
        flight = Flight(attempt, None, 0, None, now, now, now, prepared=prepared.id, cancels=prepared.cancels)
        self._lander.track(flight)
        self._tasks.start_soon(self._lander.launch, [flight], self._lander.begin([flight]))


# -- what its end means


ReadOrder = Callable[[Pubkey], Order | None]
"""What an address had when it was read back; None when that was no order."""


def landed(verdict: Verdict, read: ReadOrder, gone: Callable[[Pubkey], int | None], orders: Orders) -> None:
    """Confirmed: each order is what its account says. `gone` is the slot as of which an address had no account, None
    where it had one.
    """
    flight = verdict.flight
    verdict.move(AttemptState.CONFIRMED, confirmed_at=time.time(), seen_slot=flight.landed_slot, fate=Fate.RELAYED)
    _move_prepared(verdict, PreparedStatus.LANDED)
    reason, made = "Its user's transaction landed.", flight.attempt.order
    for address in flight.orders:
        order = read(address)
        if order is None:
            if (slot := gone(address)) is not None:
                # Closed before it could be read: the watch may have heard nothing of it at all.
                state = OrderState.CANCELLED if address in flight.cancels else OrderState.DROPPED
                verdict.ops.append(NoteState(address, state, f"{reason} {GONE}", slot=slot))
                verdict.ended[address] = slot
            continue
        # The watch may have told more of it since: an older reading is ignored. And that the keeper executes it, would
        # if it might, or did already, is told where that happens: the user's transaction placed it, and did not fill
        # it. So is what a cancel that was relayed since is about to do. That its stop is being moved is told nowhere.
        told = order.status is OnchainStatus.FILLED or orders.executing(address) or bool(orders.held(address))
        told = told or orders.cancelled_by_another(address, flight.signature)
        replaced = address in flight.cancels and made not in flight.cancels
        why = f"{reason} The order {made} took its place." if replaced else reason
        verdict.ops.append(NoteOrder(order) if told else NoteOrder(order, first_state(order.status), why))
        verdict.news.append(OrderSeen(order))
        if not order.pending and not told:
            verdict.ended[address] = order.slot
    _settled(verdict, Fate.RELAYED, reason, None)
    verdict.read_back = verdict.frees = True


def failed(verdict: Verdict, failure: ProgramFailure, read: ReadOrder, slot: int, orders: Orders) -> None:
    """The program refused the user's transaction. `read` is as of `slot`."""
    verdict.move(
        AttemptState.FAILED,
        ended_at=time.time(),
        fate=Fate.REFUSED,
        error_name=failure.name,
        error_program=None if failure.program is None else str(failure.program),
        error_detail=failure.detail or None,
    )
    _move_prepared(verdict, PreparedStatus.FAILED)
    reason = f"The program refused its user's transaction with {failure.name}."
    _came_to_nothing(verdict, read, slot, OrderState.REJECTED, reason, orders)
    _settled(verdict, Fate.REFUSED, reason, failure.name)


def expired(verdict: Verdict, read: ReadOrder, slot: int, orders: Orders) -> None:
    """It can no longer land. `read` is as of `slot`."""
    verdict.move(AttemptState.EXPIRED, ended_at=time.time(), fate=Fate.TRANSIENT, error_name="BlockhashExpired")
    _move_prepared(verdict, PreparedStatus.EXPIRED)
    reason = "Its user's transaction can no longer land: its blockhash is too old."
    _came_to_nothing(verdict, read, slot, OrderState.DROPPED, reason, orders)
    _settled(verdict, Fate.TRANSIENT, reason, "BlockhashExpired")


def _came_to_nothing(
    verdict: Verdict, read: ReadOrder, slot: int, state: OrderState, reason: str, orders: Orders
) -> None:
    verdict.closed = verdict.frees = True
    for address in verdict.flight.orders:
        order = read(address)
        if order is not None:
            _stands(verdict, order, reason, orders)
        elif address in verdict.flight.cancels:
            # There was an order to cancel, and it was closed meanwhile, of which the watch may not have heard.
            verdict.ops.append(NoteState(address, OrderState.DROPPED, GONE, slot=slot))
            verdict.ended[address] = slot
        else:
            verdict.ops.append(NoteState(address, state, reason))


def _stands(verdict: Verdict, order: Order, reason: str, orders: Orders) -> None:
    """It exists, so this was a cancel that failed, or somebody landed the order by another way."""
    address = order.address
    # The book must not go on with an older reading: what is noted by that is older news to the journal, and ignored.
    verdict.news.append(OrderSeen(order))
    if not order.pending:
        # How it ended is told by the execution that filled it, alarm and all, or else read by `Endings`.
        verdict.ops.append(NoteOrder(order))
        return
    verdict.ops += conclusion(address, order, first_state(order.status), reason)
    # What the cancel was laid over holds again.
    if orders.executing(address):
        verdict.ops.append(NoteState(address, OrderState.EXECUTING, "An attempt at it is on its way."))
    elif held := orders.held(address):
        verdict.ops.append(NoteState(address, OrderState.TRIGGERED, held))
    elif orders.has(address, Reason.ACCOUNT):
        verdict.ops.append(NoteState(address, OrderState.FAILED, f"{reason} It failed before; {WAITS_FOR_ACCOUNT}."))
    elif orders.has(address, Reason.FAILED):
        verdict.ops.append(
            NoteState(address, OrderState.FAILED, f"{reason} It failed before; an operator has to look.")
        )


def _move_prepared(verdict: Verdict, status: PreparedStatus) -> None:
    if verdict.flight.prepared is not None:
        verdict.ops.append(MovePrepared(verdict.flight.prepared, status))


def _settled(verdict: Verdict, fate: Fate, reason: str, error_name: str | None) -> None:
    attempt = verdict.flight.attempt
    verdict.reports.append(OrderSettled(attempt.order, attempt.signature, AttemptKind.RELAY, fate, reason, error_name))
