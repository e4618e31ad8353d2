"""From signed bytes to a verdict: send, rebroadcast, ask, and never conclude from silence.

A signature that was sent may land until its blockhash is too old. So: the same bytes are sent again and again,
statuses are asked for in groups of 256, and an attempt ends in one of three ways only. It failed on chain, at
confirmed. It succeeded, which closes at finalized. Or it can no longer land, by all three parts of the rule:
the FINALIZED block height is above its last valid height plus one; a look-up with history, on a node that is at
least that far, does not find it; and the order still reads as it did before, at or after that slot. No timer
ever decides. (Landing rules; behaviours 1 to 5, 8 and 10.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import anyio
from anyio.abc import TaskStatus

from keeper.domain.attempts import AttemptKind, AttemptState, blocks
from keeper.domain.reports import AttemptMoved, Note, Report
from keeper.errors import ChainError, JournalError, Rejected
from keeper.execution.flights import Flight, Flights
from keeper.execution.lifecycle import move
from keeper.execution.points import point
from keeper.journal import Journal
from keeper.journal.ops import MoveAttempt
from keeper.solana.client import STATUSES_PER_CALL, ChainClient, SignatureStatus
from keeper.solana.pool import BegunBroadcast
from keeper.telemetry.turns import Turns

# Agave keeps the statuses of its last 150 rooted slots at hand; older ones are found in the history only. Well below
# that, because the keeper and the node do not stand in the same slot.
_STATUS_CACHE_SLOTS: Final = 100

_SLOT_S: Final = 0.4
"""A slot's time on a public cluster."""


@dataclass(frozen=True, slots=True)
class LandingLimits:
    """Seconds. A young attempt is asked for often, an old one rarely: the pause is half its age, within
    `poll_min_s` and `poll_max_s`. `resend_every_s`: how often the same bytes go out again while it is in flight.
    `height_every_s`: how often the finalized block height is read while something could expire.
    """

    poll_min_s: float = 0.05
    poll_max_s: float = 1.0
    final_poll_s: float = 2.0
    resend_every_s: float = 2.0
    height_every_s: float = 2.0
    send_deadline_s: float = 5.0


class Settler(Protocol):
    """What the lander tells its verdicts to. Each call returns when the journal holds the consequence."""

    async def landed(self, flights: Sequence[Flight], slot: int) -> None:
        """Confirmed without an error, not read back yet. `slot`: read at or after it."""
        ...

    async def failed(self, flights: Sequence[Flight], errs: Sequence[object], slot: int) -> None:
        """Confirmed with an error, which is in the RPC's JSON shape."""
        ...

    async def expired(self, flights: Sequence[Flight], slot: int) -> None:
        """The height and history parts of the expiry rule hold as of finalized `slot`; the order is to be read."""
        ...

    async def finalized(self, flights: Sequence[Flight]) -> None:
        """Rooted and read back: closed."""
        ...


class Lander:
    """Brings every open attempt to its verdict. `run` is its loop; `launch` sends for the first time.

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
        dry_run: bool = False,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._journal = journal
        self._flights = flights
        self._limits = limits
        self._report = report
        self._dry_run = dry_run
        self._wall_time = wall_time
        self._settler: Settler | None = None
        self._wake = anyio.Event()
        self._shortest_pause_s = limits.poll_min_s
        self._final_height = 0
        self._final_slot = 0
        self._height_read_at = float("-inf")
        self.turns = Turns("lander")

    def settle_with(self, settler: Settler) -> None:
        """Name who hears the verdicts. Once, before `run`."""
        self._settler = settler

    def track(self, flight: Flight) -> None:
        """Begin to follow an attempt that the journal holds."""
        self._flights.add(flight)
        self._wake.set()

    def begin(self, flights: Sequence[Flight]) -> BegunBroadcast | None:
        """Put them on the wire at once, where that needs no waiting; then `launch`, with this. The journal must hold
        them already (promise 1).
        """
        return self._client.begin_send([flight.attempt.wire for flight in flights])

    async def launch(self, flights: Sequence[Flight], begun: BegunBroadcast | None = None) -> None:
        """Send for the first time. The journal must hold them already (promise 1)."""
        await self._send(flights, begun)
        self._wake.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Poll, rebroadcast and conclude until cancelled."""
        task_status.started()
        while True:
            await self.turns.turn()
            self._wake = anyio.Event()
            now = time.monotonic()
            flights = list(self._flights)
            due = [f for f in flights if f.next_poll_s <= now]
            resend = [f for f in flights if f.attempt.state.in_flight and f.next_send_s <= now]
            # Many attempts are asked for less often each: what changes, changes with the slot, not with the asking.
            self._shortest_pause_s = min(self._limits.poll_min_s * (1 + len(due) // STATUSES_PER_CALL), _SLOT_S)
            try:
                for start in range(0, len(due), STATUSES_PER_CALL):
                    await self.poll(due[start : start + STATUSES_PER_CALL])
                if resend:
                    await self._send([f for f in resend if self._flights.get(f.signature) is f])
            except JournalError as e:
                # Nothing is lost: what the journal could not take is asked of the chain again.
                self._report(Note("lander.journal", str(e), level="error"))
                await anyio.sleep(self._limits.poll_max_s)
            await self._pause()

    async def _pause(self) -> None:
        now = time.monotonic()
        nexts = [f.next_poll_s for f in self._flights]
        nexts += [f.next_send_s for f in self._flights if f.attempt.state.in_flight]
        if not nexts:
            with self.turns.rest():
                await self._wake.wait()
            return
        # Going through the flights takes about a microsecond each: that must not become a tenth of all time.
        rest_s = max(0.005, len(self._flights) * 1e-5)
        await anyio.sleep(rest_s)
        with anyio.move_on_after(max(min(nexts) - now - rest_s, 0.0)):
            await self._wake.wait()

    async def _send(self, flights: Sequence[Flight], begun: BegunBroadcast | None = None) -> None:
        if not flights:
            return
        if self._dry_run:
            # What an earlier run has sent may land by itself: it is looked up until it has, or no longer can.
            for flight in flights:
                flight.next_send_s = math.inf
            return
        for flight in flights:
            flight.next_send_s = time.monotonic() + self._limits.resend_every_s
        replies = await self._client.send(
            [flight.attempt.wire for flight in flights], deadline_s=self._limits.send_deadline_s, begun=begun
        )
        point("sent")
        ops: list[MoveAttempt] = []
        for flight, reply in zip(flights, replies, strict=True):
            flight.refused = str(reply) if isinstance(reply, Rejected) else ""
            taken = not isinstance(reply, ChainError) or _already_processed(reply)
            if taken and isinstance(reply, ChainError):
                flight.next_poll_s = time.monotonic()  # it landed before: only its status says how
            state = flight.attempt.state
            if state in (AttemptState.SIGNED, AttemptState.UNKNOWN) and taken:
                ops.append(self._move(flight, AttemptState.SENT, sent_at=self._wall_time()))
            elif state is AttemptState.SIGNED:
                detail = str(reply)[:300]
                ops.append(self._move(flight, AttemptState.UNKNOWN, error_detail=detail))
        if ops:
            await self._journal.commit(*ops)
            point("sent_journaled")

    async def poll(self, flights: Sequence[Flight]) -> None:
        """One round: statuses of these attempts, and what follows from them."""
        assert self._settler is not None, "settle_with comes first"
        await self._read_height(flights)
        slot, statuses = await self._client.statuses([flight.signature for flight in flights])
        unknown: list[Flight] = []
        for flight, status in zip(flights, statuses, strict=True):
            self._schedule(flight)
            flight.answered = flight.answered or not isinstance(status, ChainError)
            if status is None:
                unknown.append(flight)
        await self._conclude(flights, statuses)
        # Nodes look only at recent slots unless told otherwise: for an older attempt their silence says nothing.
        old = [f for f in unknown if self._past_height(f) or _seen_long_before(f, slot)]
        await self._dropped([f for f in unknown if f not in old], slot)
        if old:
            await self._last_look(old)

    async def _conclude(
        self, flights: Sequence[Flight], statuses: Sequence[SignatureStatus | ChainError | None]
    ) -> None:
        """What follows from the statuses that a node knows."""
        assert self._settler is not None, "settle_with comes first"
        ops: list[MoveAttempt] = []
        landed: list[Flight] = []
        failed: list[tuple[Flight, object]] = []
        final: list[Flight] = []
        read_at = 0
        for flight, status in zip(flights, statuses, strict=True):
            if status is None or isinstance(status, ChainError):
                continue
            if status.confirmation == "processed":
                ops += self._seen(flight, status)
                continue
            read_at = max(read_at, status.slot)
            if status.err is not None:
                failed.append((flight, status.err))
            elif not flight.read_back:
                flight.landed_slot = status.slot
                landed.append(flight)
            elif status.confirmation == "finalized":
                final.append(flight)
        if ops:
            await self._journal.commit(*ops)
            point("seen_journaled")
        if landed:
            point("landed")
            await self._settler.landed(landed, read_at)
            just_landed = set(landed)
            final += [
                f
                for f, s in zip(flights, statuses, strict=True)
                if f in just_landed and f.read_back and isinstance(s, SignatureStatus) and s.confirmation == "finalized"
            ]
        if failed:
            await self._settler.failed([f for f, _ in failed], [err for _, err in failed], read_at)
        if final:
            await self._settler.finalized(final)

    async def _dropped(self, flights: Sequence[Flight], slot: int) -> None:
        ops = [op for flight in flights for op in self._not_found(flight, slot)]
        if ops:
            await self._journal.commit(*ops)

    def _seen(self, flight: Flight, status: SignatureStatus) -> list[MoveAttempt]:
        if not flight.attempt.state.in_flight or flight.attempt.state is AttemptState.SEEN:
            return []
        return [self._move(flight, AttemptState.SEEN, seen_slot=status.slot)]

    def _not_found(self, flight: Flight, slot: int) -> list[MoveAttempt]:
        """The node does not know it. That means something only when it was known before and the node has passed
        the slot that it was seen in: then a fork dropped it, and the same bytes go out again.
        """
        attempt = flight.attempt
        if attempt.state not in (AttemptState.SEEN, AttemptState.CONFIRMED):
            return []
        if attempt.kind is AttemptKind.RATCHET and not blocks(attempt.kind, attempt.state):
            return []  # a confirmed ratchet has let go of its order; it only waits to be rooted
        if attempt.seen_slot is None or slot < attempt.seen_slot:
            return []
        flight.next_send_s = 0.0
        flight.read_back = False
        flight.landed_slot = None
        detail = f"was processed, is unknown now; {'not sent again: dry run' if self._dry_run else 'sent again'}"
        self._report(Note("attempt.dropped_by_fork", detail, order=attempt.order, attempt=attempt.signature))
        return [self._move(flight, AttemptState.SENT)]

    def _past_height(self, flight: Flight) -> bool:
        # lastValidBlockHeight is off by one: landing is still possible at it plus one.
        return self._final_height > flight.attempt.last_valid_block_height + 1

    async def _last_look(self, flights: Sequence[Flight]) -> None:
        """The second part of the rule: a look-up with history, on a node that has the finalized slot.

        What it finds is concluded like any other status: after a long stop of the keeper an attempt that landed is
        found only here.
        """
        assert self._settler is not None
        final_slot = self._final_slot
        slot, statuses = await self._client.statuses([f.signature for f in flights], search_history=True)
        await self._conclude(flights, statuses)
        if slot < final_slot:
            return  # the node is behind: its not knowing proves nothing
        gone = [f for f, status in zip(flights, statuses, strict=True) if status is None]
        await self._dropped(gone, slot)
        dead = [f for f in gone if f.attempt.state.in_flight and self._past_height(f)]
        if dead:
            await self._settler.expired(dead, final_slot)

    async def _read_height(self, flights: Sequence[Flight]) -> None:
        now = time.monotonic()
        if now - self._height_read_at < self._limits.height_every_s:
            return
        if not any(flight.attempt.state.in_flight for flight in flights):
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
            flight.next_poll_s = now + self._limits.final_poll_s
            return
        pause = (now - flight.born_at_s) / 2
        flight.next_poll_s = now + min(max(pause, self._shortest_pause_s), self._limits.poll_max_s)

    def _move(self, flight: Flight, state: AttemptState, **facts: object) -> MoveAttempt:
        return move_flight(flight, state, self._report, **facts)


def move_flight(flight: Flight, state: AttemptState, report: Callable[[Report], None], **facts: object) -> MoveAttempt:
    """Move a flight's attempt and report it; the operation is the caller's to commit."""
    flight.attempt, op = move(flight.attempt, state, **facts)
    attempt = flight.attempt
    slots = None
    if attempt.seen_slot is not None and attempt.trigger_slot is not None:
        slots = max(0, attempt.seen_slot - attempt.trigger_slot)
    since = None if flight.triggered_at_s is None else time.monotonic() - flight.triggered_at_s
    report(
        AttemptMoved(
            order=attempt.order,
            attempt=attempt.signature,
            kind=attempt.kind,
            number=attempt.number,
            state=state,
            fate=attempt.fate,
            error_name=attempt.error_name,
            detail=attempt.error_detail,
            slot=attempt.seen_slot,
            since_trigger_s=since,
            slots_since_trigger=slots,
        )
    )
    return op


def _seen_long_before(flight: Flight, slot: int) -> bool:
    seen = flight.attempt.seen_slot
    return seen is not None and slot - seen > _STATUS_CACHE_SLOTS


def _already_processed(reply: object) -> bool:
    return isinstance(reply, Rejected) and (reply.err == "AlreadyProcessed" or "already been processed" in str(reply))
