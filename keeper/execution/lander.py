"""From signed bytes to a verdict: send, rebroadcast, ask, and never conclude from silence.

A signature that was sent may land until its blockhash is too old. So: the same bytes are sent again and again,
statuses are asked for in groups of 256, and an attempt ends in one of three ways only. It failed on chain, at
confirmed. It succeeded, which closes when it is final (`keeper.solana.consensus`). Or it can no longer land, by all
three parts of the rule: the FINALIZED block height is above its last valid height plus one; a look-up with history, on
a node that is at least that far, does not find it; and the order still reads as it did before, at or after that slot.
No timer ever decides. (Landing rules; behaviours 1 to 5, 8 and 10.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import anyio

from keeper.domain.attempts import BLOCKING, AttemptKind, AttemptState
from keeper.domain.errors import ChainError, KeeperError, RateLimited, Rejected
from keeper.domain.reports import Note, Report
from keeper.domain.turns import Turns
from keeper.execution.flights import Flight, Flights
from keeper.execution.limits import LandingLimits
from keeper.execution.points import point
from keeper.execution.verdicts import move_flight
from keeper.execution.ways import Ways, already_processed
from keeper.journal import Journal
from keeper.journal.ops import MoveAttempt
from keeper.solana.broadcast import Broadcast
from keeper.solana.client import STATUSES_PER_CALL, ChainClient, SignatureStatus

# Agave keeps the statuses of its last 150 rooted slots at hand; older ones are found in the history only. Well below
# that, because the keeper and the node do not stand in the same slot.
_STATUS_CACHE_SLOTS: Final = 100
_SLOT_SHARE: Final = 0.25
"""Of a slot: an attempt is asked for no more often."""


@dataclass(slots=True)
class Landing:
    """Attempts that came to the same kind of end. `slot`: what became of them is read at or after it. `errs` are the
    failures', in the RPC's JSON shape, beside `flights`.
    """

    slot: int = 0
    flights: list[Flight] = field(default_factory=list)
    errs: list[object] = field(default_factory=list)

    def own_first(self) -> list[Landing]:
        """The keeper's own attempts, and then users' transactions, as far as there are any."""
        own, users = Landing(self.slot), Landing(self.slot)
        for i, flight in enumerate(self.flights):
            some = users if flight.attempt.kind is AttemptKind.RELAY else own
            some.flights.append(flight)
            some.errs += self.errs[i : i + 1]
        return [some for some in (own, users) if some.flights]


@dataclass(slots=True)
class Polled:
    """What one round of asking found. `landed`: confirmed without an error, not read back yet. `failed`: confirmed with
    an error. `final`: rooted, to be closed if read back. `dead`: the height and history parts of the expiry rule hold.
    `dropped`: processed or confirmed once, and unknown now, by a fork. `seen`: armed before a restart, and known to the
    chain, so it was sent.
    """

    landed: Landing = field(default_factory=Landing)
    failed: Landing = field(default_factory=Landing)
    dead: Landing = field(default_factory=Landing)
    final: list[Flight] = field(default_factory=list)
    dropped: list[Flight] = field(default_factory=list)
    seen: list[Flight] = field(default_factory=list)


class Lander:
    """Sends, sends again and asks, for every open attempt. What an end means is not its to say (`Settlement`).

    `ways`: what carries the bytes beside the pool's nodes, and keeps the ledger; None when there are no senders.

    In a `dry_run` nothing is sent, whoever asks: open attempts of an earlier run are only looked up.
    """

    def __init__(
        self,
        client: ChainClient,
        journal: Journal,
        flights: Flights,
        limits: LandingLimits,
        report: Callable[[Report], None],
        *,
        ways: Ways | None = None,
        dry_run: bool = False,
    ) -> None:
        self._client = client
        self._journal = journal
        self._flights = flights
        self._limits = limits
        self._report = report
        self._ways = ways
        self._dry_run = dry_run
        self._wake = anyio.Event()
        self._shortest_pause_s = limits.poll_min_s
        self._final_height = 0
        self._final_slot = 0
        self._height_read_at = float("-inf")
        self.turns = Turns("lander")

    def track(self, flight: Flight) -> None:
        """Begin to follow an attempt that the journal holds."""
        self._flights.open[flight.signature] = flight
        self._wake.set()

    # -- sending

    def begin(self, flights: Sequence[Flight]) -> Broadcast | None:
        """Put the bytes on the wire; `heard` takes what the nodes say. The journal must hold them already (promise 1).
        None in a dry run, and once another keeper may have taken over.
        """
        now = time.monotonic()
        for flight in flights:
            # In a dry run what an earlier run has sent is looked up until it has landed by itself, or no longer can.
            flight.next_send_s = math.inf if self._dry_run else now + self._limits.resend_every_s
        self._wake.set()
        if self._dry_run or not flights or self._journal.lapsed():
            return None
        wires = [flight.attempt.wire for flight in flights]
        sending = self._client.pool.send(wires, deadline_s=self._limits.send_deadline_s)
        return sending if self._ways is None else self._ways.carry(flights, sending)

    def wait(self, flights: Sequence[Flight]) -> None:
        """`begin` is yet to come for these, because the nodes are slow to answer for others."""
        if self._ways is not None:
            self._ways.carry_early(flights)

    async def heard(self, flights: Sequence[Flight], sending: Broadcast | None) -> None:
        """Wait for the nodes' replies and note them. They prove nothing: a refusal is no verdict, nor is an OK."""
        if sending is None:
            return
        replies = await sending.replies()
        point("sent")
        ops: list[MoveAttempt] = []
        for flight, reply in zip(flights, replies, strict=True):
            flight.refused = str(reply) if isinstance(reply, Rejected) else ""
            taken = not isinstance(reply, ChainError) or already_processed(reply)
            if taken and isinstance(reply, ChainError):
                flight.next_poll_s = time.monotonic()  # it landed before: only its status says how
            if isinstance(reply, RateLimited) and reply.retry_after_s is not None:
                flight.next_send_s = min(flight.next_send_s, time.monotonic() + reply.retry_after_s)
            state = flight.attempt.state
            if state in (AttemptState.SIGNED, AttemptState.UNKNOWN) and taken:
                ops.append(self._move(flight, AttemptState.SENT, sent_at=time.time()))
            elif state is AttemptState.SIGNED:
                ops.append(self._move(flight, AttemptState.UNKNOWN, error_detail=str(reply)[:300]))
        if ops:
            await self._journal.commit(*ops)
            point("sent_journaled")

    async def launch(self, flights: Sequence[Flight], sending: Broadcast | None = None) -> None:
        """Send for the first time, unless `sending` has begun already, and note what the nodes say. They are journaled
        and tracked: what goes wrong here is made good by the next round.
        """
        try:
            await self.heard(flights, sending or self.begin(flights))
        except KeeperError as e:
            self._report(Note("lander.launch", str(e), level="warning"))
        self._wake.set()

    async def resend(self) -> None:
        """Send again what is due. The identical bytes, always."""
        now = time.monotonic()
        due = [f for f in self._flights if f.attempt.state.in_flight and f.next_send_s <= now]
        await self.heard(due, self.begin(due))

    # -- asking

    def due(self) -> list[list[Flight]]:
        """The attempts that are to be asked for now, in groups of one call each. Those that are half-way to their turn
        come along where a call has room for them: a node counts calls, and those of sends come first.
        """
        now = time.monotonic()
        due = [flight for flight in self._flights if flight.next_poll_s <= now]
        room = -len(due) % STATUSES_PER_CALL
        if room:
            half_way = (f for f in self._flights if f.may_poll_s <= now < f.next_poll_s)
            due += islice(half_way, room)
        groups = [due[start : start + STATUSES_PER_CALL] for start in range(0, len(due), STATUSES_PER_CALL)]
        # Many attempts are asked for less often each: what changes, changes with the slot, not with the asking.
        slot_s = self._client.pool.pace.slot_s
        often_s = max(self._limits.poll_min_s, slot_s * _SLOT_SHARE)
        self._shortest_pause_s = min(often_s * (1 + len(groups)), max(slot_s, often_s))
        if not self._client.pool.awake():
            # Every node refuses or fails: what it has left of calls is for the sends.
            self._shortest_pause_s = self._limits.poll_max_s
        return groups

    async def pause(self, *, at_least_s: float = 0.0) -> None:
        """Wait until something is due, or new."""
        self._wake = anyio.Event()
        now = time.monotonic()
        flights = list(self._flights)
        nexts = [f.next_poll_s for f in flights]
        nexts += [f.next_send_s for f in flights if f.attempt.state.in_flight]
        if not nexts:
            with self.turns.rest():
                await self._wake.wait()
            return
        # Going through the flights takes about a microsecond each: that must not become a tenth of all time.
        rest_s = max(0.005, at_least_s, len(flights) * 1e-5)
        await anyio.sleep(rest_s)
        with anyio.move_on_after(max(min(nexts) - now - rest_s, 0.0)):
            await self._wake.wait()

    async def poll(self, flights: Sequence[Flight]) -> Polled:
        """One round: the statuses of these attempts, and what they say."""
        await self._read_height(flights)
        slot, statuses = await self._client.statuses([flight.signature for flight in flights])
        polled = Polled()
        unknown: list[Flight] = []
        for flight, status in zip(flights, statuses, strict=True):
            self._schedule(flight)
            flight.answered = flight.answered or not isinstance(status, ChainError)
            if status is None:
                unknown.append(flight)
        ops = self._sort(flights, statuses, polled)
        # Nodes look only at recent slots unless told otherwise: for an older attempt their silence says nothing.
        old = [f for f in unknown if self._past_height(f) or _seen_long_before(f, slot)]
        ops += self._dropped([f for f in unknown if f not in old], slot, polled)
        if old:
            ops += await self._last_look(old, polled)
        if ops:
            await self._journal.commit(*ops)
            point("seen_journaled")
        if polled.landed.flights:
            point("landed")
        return polled

    def _sort(
        self, flights: Sequence[Flight], statuses: Sequence[SignatureStatus | ChainError | None], polled: Polled
    ) -> list[MoveAttempt]:
        """What the statuses that a node knows say."""
        ops: list[MoveAttempt] = []
        for flight, status in zip(flights, statuses, strict=True):
            if status is None or isinstance(status, ChainError):
                continue
            if flight.attempt.state is AttemptState.ARMED:
                polled.seen.append(flight)
            if status.confirmation == "processed":
                if flight.attempt.state.undecided and flight.attempt.state is not AttemptState.SEEN:
                    ops.append(self._move(flight, AttemptState.SEEN, seen_slot=status.slot))
                continue
            if status.err is not None:
                polled.failed.flights.append(flight)
                polled.failed.errs.append(status.err)
                polled.failed.slot = max(polled.failed.slot, status.slot)
            elif not flight.read_back:
                flight.landed_slot = status.slot
                polled.landed.flights.append(flight)
                polled.landed.slot = max(polled.landed.slot, status.slot)
            if status.err is None and self._client.consensus.is_final(status.confirmation, status.slot):
                polled.final.append(flight)
        return ops

    def _dropped(self, flights: Sequence[Flight], slot: int, polled: Polled) -> list[MoveAttempt]:
        """The node does not know them. That means something only of one that was known before, when the node has passed
        the slot that it was seen in: then a fork dropped it, and the same bytes go out again.
        """
        ops: list[MoveAttempt] = []
        for flight in flights:
            attempt = flight.attempt
            if attempt.state not in (AttemptState.SEEN, AttemptState.CONFIRMED):
                continue
            if attempt.kind is AttemptKind.RATCHET and (attempt.kind, attempt.state) not in BLOCKING:
                continue  # a confirmed ratchet has let go of its order; it only waits to be rooted
            if attempt.seen_slot is None or slot < attempt.seen_slot:
                continue
            flight.next_send_s = 0.0
            flight.read_back = False
            flight.landed_slot = None
            detail = f"was processed, is unknown now; {'not sent again: dry run' if self._dry_run else 'sent again'}"
            self._report(Note("attempt.dropped_by_fork", detail, order=attempt.order, attempt=attempt.signature))
            polled.dropped.append(flight)
            ops.append(self._move(flight, AttemptState.SENT))
        return ops

    def _past_height(self, flight: Flight) -> bool:
        # lastValidBlockHeight is off by one: landing is still possible at it plus one.
        return self._final_height > flight.attempt.last_valid_block_height + 1

    async def _last_look(self, flights: Sequence[Flight], polled: Polled) -> list[MoveAttempt]:
        """The second part of the rule: a look-up with history, on a node that has the finalized slot.

        What it finds is concluded like any other status: after a long stop of the keeper an attempt that landed is
        found only here.
        """
        final_slot = self._final_slot
        slot, statuses = await self._client.statuses([f.signature for f in flights], search_history=True)
        ops = self._sort(flights, statuses, polled)
        if slot < final_slot:
            return ops  # the node is behind: its not knowing proves nothing
        gone = [f for f, status in zip(flights, statuses, strict=True) if status is None]
        ops += self._dropped(gone, slot, polled)
        polled.dead.flights = [f for f in gone if f.attempt.state.undecided and self._past_height(f)]
        polled.dead.slot = final_slot
        return ops

    async def _read_height(self, flights: Sequence[Flight]) -> None:
        now = time.monotonic()
        if now - self._height_read_at < self._limits.height_every_s:
            return
        if not any(flight.attempt.state.undecided for flight in flights):
            return
        self._height_read_at = now
        try:
            height, slot = await self._client.block_height_and_slot()
        except ChainError:
            return  # without a height nothing expires, which is the safe side
        # Nodes differ: a lower height than one already seen is an older view, not news.
        if height >= self._final_height:
            self._final_height, self._final_slot = height, slot

    def _schedule(self, flight: Flight) -> None:
        now = time.monotonic()
        if flight.read_back:
            pause_s = self._limits.final_poll_s
        else:
            age_s = now - flight.born_at_s
            pause_s = min(max(age_s / 2, self._shortest_pause_s), self._limits.poll_max_s)
        flight.may_poll_s, flight.next_poll_s = now + pause_s / 2, now + pause_s

    def _move(self, flight: Flight, state: AttemptState, **facts: object) -> MoveAttempt:
        op, report = move_flight(flight, state, **facts)
        self._report(report)
        return op


def _seen_long_before(flight: Flight, slot: int) -> bool:
    seen = flight.attempt.seen_slot
    return seen is not None and slot - seen > _STATUS_CACHE_SLOTS
