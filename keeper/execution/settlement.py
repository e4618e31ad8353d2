"""The consequences of a verdict: what the order reads now, what that means, and what happens to it next.

Success is three things: no error, the order reads Filled, and its position is there (promise 3). After every
failure the order and its market are read again, at a slot after the failure: an order that is no longer
pending was a lost race whatever the error said, and a price that is news may trigger it again at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import anyio
import anyio.lowlevel
from solders.pubkey import Pubkey

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.events import Event, MarketSeen, OrderSeen
from keeper.domain.orders import OnchainStatus, Order, OrderState
from keeper.domain.reports import FillWithoutPosition, Note, OrderSettled, Report
from keeper.errors import ChainError, JournalError, MalformedAccount
from keeper.execution.consequences import Consequence, Consequences, conclusion
from keeper.execution.fates import fate_of
from keeper.execution.fees import FeePolicy, fee_of
from keeper.execution.flights import Flight, Flights
from keeper.execution.lander import move_flight
from keeper.execution.points import point
from keeper.execution.relay import RelaySettlement
from keeper.journal import Journal
from keeper.journal.ops import AddSpend, Op
from keeper.journal.transitions import first_state
from keeper.solana.client import AccountBytes, ChainClient, LandedTransaction
from keeper.venue.layouts import decode_market, decode_order, decode_position
from keeper.venue.program import Program
from keeper.venue.program_errors import ProgramFailure, name_failure, programs_of

_MOST_READ_BACKS: Final = 200
_STEP: Final = 64
"""Fills looked at before the event loop may do something else: about 4 ms."""

_REFUSED_FIRST_S: Final = 0.5
_REFUSED_LAST_S: Final = 60.0
"""The pauses before an end that the journal refused is offered to it again; they double."""


class Resting(Protocol):
    """What settlement tells of an order afterwards; the engine in life."""

    def saw(self, event: Event) -> None:
        """News that settlement read itself."""
        ...

    def release(self, address: Pubkey, *, after_price_slot: int | None = None, delay_s: float = 0.0) -> None:
        """The order rests again."""
        ...


@dataclass(frozen=True, slots=True)
class ReadBack:
    """Accounts read together, at or after the slot of a verdict."""

    slot: int
    accounts: Mapping[Pubkey, AccountBytes | None]

    def order(self, address: Pubkey, owner: Pubkey) -> Order | None:
        """The order as it reads now; None when its account is gone, or is not an order."""
        account = self.accounts.get(address)
        if account is None or account.owner != owner:
            return None
        try:
            return decode_order(address, account.data, self.slot)
        except MalformedAccount:
            return None


@dataclass(slots=True)
class _Verdict:
    """What the end of one attempt changes: in the journal, and once the journal holds that, elsewhere."""

    flight: Flight
    before: Attempt
    ops: list[Op] = field(default_factory=list)
    after: list[Consequence] = field(default_factory=list)
    _moved: Attempt | None = None

    @classmethod
    def of(cls, flight: Flight) -> _Verdict:
        """Nothing yet, of this flight."""
        return cls(flight, flight.attempt)

    def take_back(self) -> None:
        """It did not happen."""
        self._moved, self.flight.attempt = self.flight.attempt, self.before

    def repeat(self) -> None:
        """After `take_back`: it is to be recorded after all."""
        if self._moved is not None:
            self.flight.attempt = self._moved


class Settlement:
    """Implements the lander's Settler for the keeper's own attempts; relayed ones go to RelaySettlement."""

    def __init__(
        self,
        *,
        client: ChainClient,
        program: Program,
        journal: Journal,
        flights: Flights,
        consequences: Consequences,
        fees: FeePolicy,
        resting: Resting,
        relays: RelaySettlement,
        report: Callable[[Report], None],
        accept_fills_without_position: bool = False,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._program = program
        self._journal = journal
        self._flights = flights
        self._consequences = consequences
        self._fees = fees
        self._resting = resting
        self._relays = relays
        self._report = report
        self._accept_bare_fills = accept_fills_without_position
        self._wall_time = wall_time

    # -- the lander's verdicts

    async def landed(self, flights: Sequence[Flight], slot: int) -> None:
        """Confirmed without an error: read back what it did."""
        wanted = [flight.attempt.order for flight in flights]
        wanted += [f.attempt.position for f in flights if f.attempt.position is not None]
        read = await self._read(wanted, slot)
        if read is None:
            return  # read back at the next poll; until then nothing is concluded
        verdicts = [_Verdict.of(flight) for flight in flights]
        for i, verdict in enumerate(verdicts):
            if i % _STEP == _STEP - 1:
                await anyio.lowlevel.checkpoint()
            flight, ops, after = verdict.flight, verdict.ops, verdict.after
            match flight.attempt.kind:
                case AttemptKind.EXECUTE:
                    self._filled(flight, read, ops, after)
                case AttemptKind.RATCHET:
                    self._ratcheted(flight, read, ops, after)
                case AttemptKind.RELAY:
                    self._relays.landed(flight, read.order(flight.attempt.order, self._program.id), ops, after)
        await self._commit(verdicts, "confirmed_journaled")

    async def failed(self, flights: Sequence[Flight], errs: Sequence[object], slot: int) -> None:
        """Confirmed with an error: name it, read the order and its market again, apply the fate's policy."""
        markets = [flight.order.market for flight in flights if flight.order is not None]
        # One slot later than the failure: the price that the chain refused by must not count as news.
        read = await self._read([*(f.attempt.order for f in flights), *markets], slot + 1)
        if read is None:
            return
        point("failed")
        verdicts = [_Verdict.of(flight) for flight in flights]
        named = await self._named(flights, errs)
        for i, (verdict, (failure, fee)) in enumerate(zip(verdicts, named, strict=True)):
            if i % _STEP == _STEP - 1:
                await anyio.lowlevel.checkpoint()
            flight, ops, after = verdict.flight, verdict.ops, verdict.after
            order = read.order(flight.attempt.order, self._program.id)
            fate = fate_of(failure.name, failure.program, self._program.id)
            if flight.attempt.kind is AttemptKind.RELAY:
                self._relays.failed(flight, failure, order, ops, after)
                continue
            if order is None or not order.pending:
                fate = Fate.LOST_RACE
            elif fate is Fate.LOST_RACE:
                # The program said that it was not pending, and now it is: it was cancelled and placed anew.
                fate = Fate.TRANSIENT
            self._end(flight, AttemptState.FAILED, fate, failure, fee, ops, after)
            self._after_failure(flight, fate, failure, order, slot, ops, after)
            market = self._market_news(flight, read)
            if market is not None:
                after.append(lambda news=market: self._resting.saw(news))  # type: ignore[misc]
        await self._commit(verdicts, "failed_journaled")

    async def expired(self, flights: Sequence[Flight], slot: int) -> None:
        """The third part of the rule: the order reads as it did before, at or after the finalized slot.

        And not before the order was last heard of: with a blockhash that was dead already when it was signed with, the
        finalized slot is from before the order was placed, and there its account is not gone but not there yet.
        """
        heard_of = max((flight.order.slot for flight in flights if flight.order is not None), default=0)
        read = await self._read([flight.attempt.order for flight in flights], max(slot, heard_of))
        if read is None:
            return
        point("expired")
        verdicts = [_Verdict.of(flight) for flight in flights]
        for verdict in verdicts:
            flight, ops, after = verdict.flight, verdict.ops, verdict.after
            order = read.order(flight.attempt.order, self._program.id)
            if flight.attempt.kind is AttemptKind.RELAY:
                self._relays.expired(flight, order, ops, after)
                continue
            fate = Fate.TRANSIENT if order is not None and order.pending else Fate.LOST_RACE
            detail = flight.refused or "its blockhash is too old, and no node knows it"
            failure = ProgramFailure("BlockhashExpired", None, None, None, detail)
            self._end(flight, AttemptState.EXPIRED, fate, failure, 0, ops, after)
            self._after_failure(flight, fate, failure, order, slot, ops, after)
        await self._commit(verdicts, "failed_journaled")

    async def finalized(self, flights: Sequence[Flight]) -> None:
        """Rooted: the only way that a success closes."""
        now = self._wall_time()
        verdicts = [_Verdict.of(flight) for flight in flights]
        for verdict in verdicts:
            flight = verdict.flight
            verdict.ops.append(
                move_flight(flight, AttemptState.FINALIZED, self._report, finalized_at=now, ended_at=now)
            )
            verdict.after.append(lambda f=flight: self._flights.remove(f))  # type: ignore[misc]
        await self._commit(verdicts, "finalized_journaled")

    # -- success

    def _filled(self, flight: Flight, read: ReadBack, ops: list[Op], after: list[Consequence]) -> None:
        attempt = flight.attempt
        order = read.order(attempt.order, self._program.id)
        if order is not None and order.pending:
            self._contradiction(flight)
            return
        position_ok = attempt.position is not None and self._position_is_there(attempt.position, order, read)
        bare_fill_ok = attempt.position is None and self._accept_bare_fills
        if order is not None and order.status is OnchainStatus.EXPIRED:
            fate, state, reason = (
                Fate.EXPIRED_ORDER,
                OrderState.EXPIRED,
                "The program marked it expired; nothing was filled.",
            )
        elif order is not None and order.status is not OnchainStatus.FILLED:
            fate, state = Fate.LOST_RACE, first_state(order.status)
            reason = f"It reads {order.status.word} on chain after the keeper's call."
        elif position_ok:
            fate, state, reason = Fate.EXECUTED, OrderState.FILLED, "Filled by this keeper, with its position."
        elif bare_fill_ok:
            fate, state = Fate.EXECUTED, OrderState.FILLED
            reason = "Filled by this keeper. This program revision creates no position; the operator allows that."
        else:
            fate, state = Fate.NO_POSITION, OrderState.FAILED
            reason = "It reads Filled but its position is not there. An operator has to look."
            self._report(FillWithoutPosition(attempt.order, attempt.signature, attempt.position))
        self._confirm(flight, fate, ops, after)
        position = attempt.position if fate is Fate.EXECUTED else None
        # Until an order that was closed since can be read again, its last known facts stand.
        known = order or flight.order
        ops += conclusion(attempt.order, known, state, reason, slot=read.slot, position=position)
        self._report(
            OrderSettled(
                attempt.order, attempt.signature, attempt.kind, fate, reason, fee_lamports=fee_of(flight.attempt)
            )
        )
        after.append(lambda: self._consequences.ended(attempt.order, read.slot))

    def _confirm(self, flight: Flight, fate: Fate, ops: list[Op], after: list[Consequence]) -> None:
        fee = fee_of(flight.attempt)
        ops.append(
            move_flight(
                flight,
                AttemptState.CONFIRMED,
                self._report,
                confirmed_at=self._wall_time(),
                seen_slot=flight.landed_slot,
                fate=fate,
                fee_lamports=fee,
            )
        )
        self._spend(flight, fee, ops, after)

        def done() -> None:
            # Only now: if the journal had not taken it, the next poll would read it back again.
            flight.read_back = True
            self._flights.landed(flight)

        after.append(done)

    def _position_is_there(self, address: Pubkey, order: Order | None, read: ReadBack) -> bool:
        account = read.accounts.get(address)
        if account is None or account.owner != self._program.id:
            return False
        try:
            position = decode_position(address, account.data, read.slot)
        except MalformedAccount:
            return False
        # The user may have closed the order since; then the position at the order's own PDA is proof enough.
        return order is None or (
            position.user == order.user
            and position.market == order.market
            and position.side is order.side
            and position.size_1e6 == order.filled_size_1e6
        )

    def _contradiction(self, flight: Flight) -> None:
        """Success, yet the order reads Pending at a slot after it: a node is wrong. Ask again, within bounds."""
        flight.read_backs += 1
        if flight.read_backs in (10, _MOST_READ_BACKS):
            detail = f"{flight.signature} succeeded, but the order still reads Pending ({flight.read_backs} reads)"
            self._report(
                Note(
                    "attempt.contradiction", detail, level="error", order=flight.attempt.order, attempt=flight.signature
                )
            )

    def _ratcheted(self, flight: Flight, read: ReadBack, ops: list[Op], after: list[Consequence]) -> None:
        attempt = flight.attempt
        order = read.order(attempt.order, self._program.id)
        fate = Fate.RATCHETED
        self._confirm(flight, fate, ops, after)
        self._report(
            OrderSettled(
                attempt.order, attempt.signature, attempt.kind, fate, "stop moved", fee_lamports=fee_of(flight.attempt)
            )
        )
        if order is not None:
            # The new stop goes into the book before the order is released, or it would be moved again at once.
            after.append(lambda: self._resting.saw(OrderSeen(order)))
        # A ratchet that landed can't land again: the order is free although its entry closes at finalized.
        after.append(lambda: self._resting.release(attempt.order))

    # -- failure

    async def _named(self, flights: Sequence[Flight], errs: Sequence[object]) -> list[tuple[ProgramFailure, int]]:
        """Each failure by name, from the status' error and, when a node still has them, the logs; and the fee."""
        named: list[tuple[ProgramFailure, int]] = []
        landed = await self._client.transactions([flight.signature for flight in flights])
        for flight, err, found in zip(flights, errs, landed, strict=True):
            logs: tuple[str, ...] = ()
            fee = fee_of(flight.attempt)
            if isinstance(found, LandedTransaction):
                logs, fee = found.logs, found.fee_lamports
            elif found is not None:
                detail = str(found)
                self._report(
                    Note("attempt.no_logs", detail, "debug", order=flight.attempt.order, attempt=flight.signature)
                )
            programs = programs_of(flight.attempt.wire)
            named.append((name_failure(err, programs, self._program.id, self._program.idl, logs), fee))
        return named

    def _end(
        self,
        flight: Flight,
        state: AttemptState,
        fate: Fate,
        failure: ProgramFailure,
        fee: int,
        ops: list[Op],
        after: list[Consequence],
    ) -> None:
        ops.append(
            move_flight(
                flight,
                state,
                self._report,
                ended_at=self._wall_time(),
                fate=fate,
                error_name=failure.name,
                error_program=None if failure.program is None else str(failure.program),
                error_detail=failure.detail or None,
                fee_lamports=fee,
            )
        )
        self._spend(flight, fee, ops, after)

    def _after_failure(
        self,
        flight: Flight,
        fate: Fate,
        failure: ProgramFailure,
        order: Order | None,
        slot: int,
        ops: list[Op],
        after: list[Consequence],
    ) -> None:
        if order is not None and order.pending:
            # The journal now holds the order as of this reading: the book must not go on with an older one, or what
            # is noted of the order next is older news to the journal and is ignored.
            after.append(lambda: self._resting.saw(OrderSeen(order)))
        # The flight goes before the release: a released order must not find its old attempt in the air.
        after.append(lambda: self._flights.remove(flight))
        attempt = flight.attempt
        self._consequences.apply(attempt, fate, failure, order, slot, ops, after)

    # -- shared

    async def _read(self, addresses: Sequence[Pubkey], slot: int) -> ReadBack | None:
        unique = list(dict.fromkeys(addresses))
        try:
            read_slot, accounts = await self._client.accounts(unique, min_context_slot=slot)
        except ChainError as e:
            self._report(Note("settlement.read_back", str(e), level="debug"))
            return None
        if read_slot < slot:
            return None  # a node that ignored minContextSlot: its answer is older than the verdict
        return ReadBack(read_slot, dict(zip(unique, accounts, strict=True)))

    def _market_news(self, flight: Flight, read: ReadBack) -> MarketSeen | None:
        if flight.order is None:
            return None
        account = read.accounts.get(flight.order.market)
        if account is None:
            return None
        try:
            return MarketSeen(decode_market(account.address, account.data, read.slot), time.monotonic_ns())
        except MalformedAccount:
            return None

    def _spend(self, flight: Flight, fee: int, ops: list[Op], after: list[Consequence]) -> None:
        """It has cost `fee`, and will cost no more."""
        if fee:
            ops.append(AddSpend(self._fees.day, fee))
            after.append(lambda: self._fees.spend(fee))
        after.append(lambda: self._fees.release(flight.signature))

    async def _commit(self, verdicts: Sequence[_Verdict], passed: str) -> None:
        """Durable first, consequences second: a crash in between finds the entry closed and the order resting.

        What the journal could not take did not happen: the flights are as they were, and asked about again. A disk
        that fails raises. An end that the journal refuses for its own sake is nobody else's trouble: the others of
        its batch are recorded one by one, and from then on it stands apart.
        """
        together = [verdict for verdict in verdicts if not verdict.flight.unrecorded]
        apart = [verdict for verdict in verdicts if verdict.flight.unrecorded]
        try:
            if together:
                await self._record(together, passed)
        except JournalError:
            if not self._journal.healthy:
                for verdict in apart:
                    verdict.take_back()
                raise
            apart = [*together, *apart]
            for verdict in together:
                verdict.repeat()
        for i, verdict in enumerate(apart):
            try:
                await self._record([verdict], passed)
            except JournalError as e:
                if not self._journal.healthy:
                    for other in apart[i + 1 :]:
                        other.take_back()
                    raise
                self._unrecorded(verdict.flight, e)
            else:
                verdict.flight.unrecorded, verdict.flight.refusals = "", 0

    async def _record(self, verdicts: Sequence[_Verdict], passed: str) -> None:
        """All of them, or none and a JournalError."""
        ops = [op for verdict in verdicts for op in verdict.ops]
        try:
            await self._journal.commit(*ops)
        except JournalError:
            for verdict in verdicts:
                verdict.take_back()
            raise
        point(passed)
        done = 0
        for verdict in verdicts:
            for consequence in verdict.after:
                done += 1
                if done % _STEP == 0:
                    await anyio.lowlevel.checkpoint()
                consequence()

    def _unrecorded(self, flight: Flight, error: JournalError) -> None:
        """It stays open, and blocks its own order. It is tried again, ever more rarely, and health tells of it."""
        flight.unrecorded, flight.refusals = str(error), flight.refusals + 1
        pause = min(_REFUSED_FIRST_S * 2.0 ** min(flight.refusals - 1, 16), _REFUSED_LAST_S)
        flight.next_poll_s = flight.next_send_s = time.monotonic() + pause
        detail = f"the journal refuses what became of it, so its order waits: {error}"
        self._report(
            Note("settlement.unrecorded", detail, "error", order=flight.attempt.order, attempt=flight.signature)
        )
