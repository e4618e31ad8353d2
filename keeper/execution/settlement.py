"""What an attempt's end means: the accounts are read at or after its slot, and that gives a verdict.

Success is three things: no error, the order reads Filled, and its position is there (promise 3). After every
failure the order and its market are read again, at a slot after the failure: an order that is no longer
pending was a lost race whatever the error said, and a price that is news may trigger it again at once.

Nothing takes effect here: verdicts are recorded and carried out by the router.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
import anyio.lowlevel
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptKind, AttemptState, Fate
from keeper.domain.errors import ChainError, MalformedAccount
from keeper.domain.events import MarketSeen, OrderSeen
from keeper.domain.orders import OnchainStatus, Order, OrderState
from keeper.domain.reports import FillAccepted, FillWithoutPosition, Note, OrderSettled, Report
from keeper.execution import relay
from keeper.execution.consequences import conclusion, following, ops_of
from keeper.execution.flights import Flight
from keeper.execution.gate import NO_POSITION
from keeper.execution.lander import Landing
from keeper.execution.orders import Orders
from keeper.execution.points import point
from keeper.execution.purse import Purse, fee_of
from keeper.execution.verdicts import Verdict
from keeper.journal.ops import AddSpend, Disarm, NoteOrder, SetMeta
from keeper.journal.transitions import first_state
from keeper.solana.client import AccountBytes, ChainClient, LandedTransaction
from keeper.solana.gone import accounts_or_gone
from keeper.venue.program_errors import ProgramFailure
from keeper.venue.venue import Venue

_MOST_READ_BACKS: Final = 200
_STEP: Final = 64
"""Fills looked at before the event loop may do something else: about 4 ms."""


@dataclass(frozen=True, slots=True)
class ReadBack:
    """Accounts read together, at or after the slot of a verdict."""

    slot: int
    accounts: Mapping[Pubkey, AccountBytes | None]
    venue: Venue

    def order(self, address: Pubkey) -> Order | None:
        """The order as it reads now; None when its account is gone, or is not an order."""
        try:
            return self.venue.order(self.accounts.get(address), self.slot)
        except MalformedAccount:
            return None

    def gone(self, address: Pubkey) -> int | None:
        """The slot as of which its account is gone; None while there is one, whatever that is."""
        return self.slot if self.accounts.get(address) is None else None

    def has_position(self, address: Pubkey, order: Order | None) -> bool:
        """Whether the position of this order's fill is there. The user may have closed the order since: then a
        position at the order's own PDA is proof enough.
        """
        try:
            position = self.venue.position(self.accounts.get(address), self.slot)
        except MalformedAccount:
            return False
        if position is None:
            return False
        return order is None or (
            position.user == order.user
            and position.market == order.market
            and position.side is order.side
            and position.size_1e6 == order.filled_size_1e6
        )

    def market_news(self, address: Pubkey | None) -> list[MarketSeen]:
        """The market as it reads now, as news."""
        try:
            market = None if address is None else self.venue.market(self.accounts.get(address), self.slot)
        except MalformedAccount:
            market = None
        return [] if market is None else [MarketSeen(market, time.monotonic_ns())]


class Settlement:
    """Makes verdicts of the keeper's own attempts and, by `keeper.execution.relay`, of relayed ones."""

    def __init__(
        self,
        client: ChainClient,
        venue: Venue,
        orders: Orders,
        purse: Purse,
        report: Callable[[Report], None],
        *,
        accept_fills_without_position: bool,
    ) -> None:
        self._client = client
        self._venue = venue
        self._orders = orders
        self._purse = purse
        self._report = report
        self._accept_bare_fills = accept_fills_without_position

    async def landed(self, landing: Landing) -> list[Verdict]:
        """Confirmed without an error: read back what it did. Nothing is concluded until it could be read."""
        flights = landing.flights
        wanted = [address for flight in flights for address in flight.orders]
        wanted += [f.attempt.position for f in flights if f.attempt.position is not None]
        read = await self._read(wanted, landing.slot)
        if read is None:
            return []
        verdicts = [Verdict.of(flight) for flight in flights]
        for i, verdict in enumerate(verdicts):
            if i % _STEP == _STEP - 1:
                await anyio.lowlevel.checkpoint()
            order = read.order(verdict.flight.attempt.order)
            match verdict.flight.attempt.kind:
                case AttemptKind.EXECUTE:
                    self._filled(verdict, order, read)
                case AttemptKind.RATCHET:
                    self._ratcheted(verdict, order)
                case AttemptKind.RELAY:
                    relay.landed(verdict, partial(self._newest, read), read.gone, self._orders)
        return [verdict for verdict in verdicts if verdict.ops]

    async def failed(self, landing: Landing) -> list[Verdict]:
        """Confirmed with an error: name it, read the order and its market again, apply the fate's policy."""
        flights = landing.flights
        markets = [flight.order.market for flight in flights if flight.order is not None]
        # One slot later than the failure: the price that the chain refused by must not count as news.
        wanted = [address for flight in flights for address in flight.orders]
        read = await self._read([*wanted, *markets], landing.slot + 1)
        if read is None:
            return []
        point("failed")
        verdicts = [Verdict.of(flight) for flight in flights]
        named = await self._named(flights, landing.errs)
        for i, (verdict, (failure, fee)) in enumerate(zip(verdicts, named, strict=True)):
            if i % _STEP == _STEP - 1:
                await anyio.lowlevel.checkpoint()
            if verdict.flight.attempt.kind is AttemptKind.RELAY:
                relay.failed(verdict, failure, partial(self._newest, read), read.slot, self._orders)
                continue
            order = self._newest(read, verdict.flight.attempt.order)
            fate = failure.fate
            if order is None or not order.pending:
                fate = Fate.LOST_RACE
            elif fate is Fate.LOST_RACE:
                # The program said that it was not pending, and now it is: it was cancelled and placed anew.
                fate = Fate.TRANSIENT
            self._failure(verdict, AttemptState.FAILED, fate, failure, fee, order, landing.slot)
            verdict.news += read.market_news(verdict.flight.order.market if verdict.flight.order else None)
        return verdicts

    async def expired(self, landing: Landing) -> list[Verdict]:
        """The third part of the rule: the order reads as it did before, at or after the finalized slot.

        And not before the order was last heard of: with a blockhash that was dead already when it was signed with, the
        finalized slot is from before the order was placed, and there its account is not gone but not there yet.
        """
        flights = landing.flights
        heard_of = max((flight.order.slot for flight in flights if flight.order is not None), default=0)
        read = await self._read([a for flight in flights for a in flight.orders], max(landing.slot, heard_of))
        if read is None:
            return []
        point("expired")
        verdicts = [Verdict.of(flight) for flight in flights]
        for verdict in verdicts:
            flight = verdict.flight
            if flight.attempt.kind is AttemptKind.RELAY:
                relay.expired(verdict, partial(self._newest, read), read.slot, self._orders)
                continue
            order = self._newest(read, flight.attempt.order)
            if flight.attempt.state is AttemptState.ARMED:
                self._disarmed(verdict, order, read.slot)
                continue
            fate = Fate.TRANSIENT if order is not None and order.pending else Fate.LOST_RACE
            detail = flight.refused or "its blockhash is too old, and no node knows it"
            failure = ProgramFailure("BlockhashExpired", None, None, None, detail, fate)
            self._failure(verdict, AttemptState.EXPIRED, fate, failure, 0, order, landing.slot)
        return verdicts

    def _disarmed(self, verdict: Verdict, order: Order | None, slot: int) -> None:
        """It was armed before a restart, and never landed: no try at its order, and nothing of it stays."""
        attempt = verdict.flight.attempt
        verdict.ops.append(Disarm(attempt.signature))
        verdict.paid = 0, slot
        verdict.closed = verdict.frees = True
        if order is not None and order.pending:
            verdict.news.append(OrderSeen(order))
        detail = "it was armed before the restart, and can't land any more"
        verdict.reports.append(Note("attempt.disarmed", detail, order=attempt.order, attempt=attempt.signature))

    def finalized(self, flights: Sequence[Flight]) -> list[Verdict]:
        """Rooted: the only way that a success closes."""
        now = time.time()
        verdicts = [Verdict.of(flight) for flight in flights]
        for verdict in verdicts:
            verdict.move(AttemptState.FINALIZED, finalized_at=now, ended_at=now)
            verdict.closed = verdict.frees = True
        return verdicts

    # -- success

    def _filled(self, verdict: Verdict, order: Order | None, read: ReadBack) -> None:
        flight, attempt = verdict.flight, verdict.flight.attempt
        another = order if order is not None and order.pending else None
        if another is not None:
            if not _made_again(flight, another):
                self._contradiction(flight)
                return
            order = None
        if order is not None and order.status is OnchainStatus.EXPIRED:
            fate, state = Fate.EXPIRED_ORDER, OrderState.EXPIRED
            reason = "The program marked it expired; nothing was filled."
        elif order is not None and order.status is not OnchainStatus.FILLED:
            fate, state = Fate.LOST_RACE, first_state(order.status)
            reason = f"It reads {order.status.word} on chain after the keeper's call."
        elif attempt.position is not None and read.has_position(attempt.position, order):
            fate, state, reason = Fate.EXECUTED, OrderState.FILLED, "Filled by this keeper, with its position."
        elif attempt.position is None and self._accept_bare_fills:
            fate, state = Fate.EXECUTED, OrderState.FILLED
            reason = "Filled by this keeper. This program revision creates no position; the operator allows that."
            verdict.reports.append(FillAccepted(attempt.order, attempt.signature))
        else:
            fate, state = Fate.NO_POSITION, OrderState.FAILED
            reason = "It reads Filled but its position is not there. An operator has to look."
            verdict.reports.append(FillWithoutPosition(attempt.order, attempt.signature, attempt.position))
            verdict.stop = (
                f"the order {attempt.order} was filled by {attempt.signature} and its position {attempt.position} is "
                "not there: an operator has to look, and to resume the keeper (keeper resume)"
            )
            verdict.ops.append(SetMeta(NO_POSITION, verdict.stop))
        self._confirmed(verdict, fate, reason)
        position = attempt.position if fate is Fate.EXECUTED else None
        if another is not None:
            # A note with the facts of its own order is ignored once the journal knows the other one.
            known = flight.order
            verdict.ops += [] if known is None else [NoteOrder(known, state, reason, position=position)]
            verdict.news.append(OrderSeen(another))
            return
        # Until an order that was closed since can be read again, its last known facts stand. An alarm outweighs them:
        # of an order that was made at the address unheard of, they alone say Filled.
        known, alarm = order or flight.order, fate is Fate.NO_POSITION
        slot = read.slot
        verdict.ops += conclusion(attempt.order, known, state, reason, slot=slot, position=position, reopen=alarm)
        verdict.ended[attempt.order] = slot

    def _ratcheted(self, verdict: Verdict, order: Order | None) -> None:
        self._confirmed(verdict, Fate.RATCHETED, "stop moved")
        if order is not None:
            # The new stop goes into the book before the order is released, or it would be moved again at once.
            verdict.news.append(OrderSeen(order))
            if order.pending and self._orders.only_tried(order.address):
                # What came while it was moved left its state to the attempt.
                verdict.ops.append(NoteOrder(order, OrderState.OPEN, stands=True))
        # A ratchet that landed can't land again: the order is free although its entry closes at finalized.
        verdict.frees = True

    def _confirmed(self, verdict: Verdict, fate: Fate, reason: str) -> None:
        flight = verdict.flight
        fee = fee_of(flight.attempt)
        # A position that is not there any more was paid for all the same.
        rent = self._purse.rent_of(flight.attempt) if fate in (Fate.EXECUTED, Fate.NO_POSITION) else 0
        verdict.move(
            AttemptState.CONFIRMED,
            confirmed_at=time.time(),
            seen_slot=flight.landed_slot,
            fate=fate,
            fee_lamports=fee,
        )
        self._settled(verdict, fate, reason, None, fee, rent, flight.landed_slot or 0, flight.attempt.tip_lamports)
        verdict.read_back = True

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
            named.append((self._venue.failure(err, flight.attempt.wire, logs), fee))
        return named

    def _failure(
        self,
        verdict: Verdict,
        state: AttemptState,
        fate: Fate,
        failure: ProgramFailure,
        fee: int,
        order: Order | None,
        slot: int,
    ) -> None:
        flight = verdict.flight
        verdict.move(
            state,
            ended_at=time.time(),
            fate=fate,
            error_name=failure.name,
            error_program=None if failure.program is None else str(failure.program),
            error_detail=failure.detail or None,
            fee_lamports=fee,
        )
        address = flight.attempt.order
        follows = following(self._orders, self._venue, address, flight.generation, fate, failure, order, slot)
        verdict.following = follows
        verdict.ops += ops_of(follows)
        self._settled(verdict, fate, follows.reason, failure.name, fee, 0, slot)
        if order is not None and order.pending:
            # The journal now holds the order as of this reading: the book must not go on with an older one, or what
            # is noted of the order next is older news to the journal and is ignored.
            verdict.news.append(OrderSeen(order))
        verdict.closed = verdict.frees = True

    # -- shared

    async def _read(self, addresses: Sequence[Pubkey], slot: int) -> ReadBack | None:
        unique = list(dict.fromkeys(addresses))
        try:
            read_slot, accounts = await accounts_or_gone(self._client, unique, min_context_slot=slot)
        except ChainError as e:
            self._report(Note("settlement.read_back", str(e), level="debug"))
            return None
        if read_slot < slot:
            return None  # a node that ignored minContextSlot: its answer is older than the verdict
        return ReadBack(read_slot, dict(zip(unique, accounts, strict=True)), self._venue)

    def _newest(self, read: ReadBack, address: Pubkey) -> Order | None:
        """The order as it was read back; or as the book has it, pending, from a later slot, where news came first.

        Otherwise the journal would hold for gone what the book goes on watching.
        """
        known = self._orders.book.get(address)
        return known if known is not None and known.slot > read.slot else read.order(address)

    def _settled(
        self,
        verdict: Verdict,
        fate: Fate,
        reason: str,
        error_name: str | None,
        fee: int,
        rent: int,
        slot: int,
        tip: int | None = None,
    ) -> None:
        """It has cost this fee, rent and tip by `slot`, and will cost no more."""
        attempt, paid = verdict.flight.attempt, fee + rent + (tip or 0)
        verdict.paid = paid, slot
        if paid:
            verdict.ops.append(AddSpend(self._purse.day, paid))
        verdict.reports.append(
            OrderSettled(attempt.order, attempt.signature, attempt.kind, fate, reason, error_name, fee, rent, tip)
        )


def _made_again(flight: Flight, order: Order) -> bool:
    """Whether this order was made at the address after the one that was closed, which the flight is about."""
    return flight.generation == 0 if flight.order is None else flight.order.identity != order.identity
