"""Ways to send beside the pool's nodes, all with the same bytes; and the ledger of who carried what, and what it said.

Nothing here decides. A sender is handed bytes that the journal holds, after the nodes were, by workers of its own: one
that hangs, lies, refuses or speaks something else is late for itself alone. What comes of an attempt is only ever what
the chain says (`keeper.execution.lander`).

The ledger is for people. It is gathered in memory, written twice a second, and half a second later than it happened:
what was armed is told to the journal after its send, and of what is armed the journal keeps no sends. A crash takes a
second of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Final

import anyio
from anyio.abc import TaskStatus
from solders.signature import Signature

from keeper.domain.attempts import AttemptState
from keeper.domain.errors import ChainError, JournalError, NotServed, RateLimited, Rejected
from keeper.domain.reports import Note, Report, WayAnswered, WayLanded, WaySent
from keeper.domain.ways import Answer, WayRow
from keeper.execution.flights import Flight
from keeper.journal import Journal
from keeper.journal.ops import NoteWays
from keeper.solana.broadcast import Broadcast
from keeper.solana.rpc import Reply
from keeper.solana.senders import Sender

_AT_ONCE: Final = 8
"""So many requests are with one sender at a time."""
_MOST_WAITING: Final = 1_024
"""So many attempts wait for one sender; it gets what comes then with the next resend."""
_SAVE_EVERY_S: Final = 0.5
_ROWS_AT_ONCE: Final = 512
_MOST_UNSAVED: Final = 16_384
"""So many sends are remembered while the journal takes none; the oldest are forgotten first."""
_LANDED: Final = frozenset({AttemptState.CONFIRMED, AttemptState.FINALIZED, AttemptState.FAILED})


class _Queue:
    """What waits for one sender. What waits already waits once."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.puts, self.takes = anyio.create_memory_object_stream[Flight](_MOST_WAITING)
        self.waiting: set[Signature] = set()

    def put(self, flight: Flight) -> None:
        """Have the attempt sent, if this is a way for it and there is room."""
        signature = flight.signature
        if signature in self.waiting or self.sender.rests or not self.sender.carries(flight.attempt.tip_account):
            return
        try:
            self.puts.send_nowait(flight)
        except anyio.WouldBlock:
            return
        self.waiting.add(signature)


class Ways:
    """The senders, and the ledger of all ways. `run` is to be going before anything is sent."""

    def __init__(self, senders: Sequence[Sender], journal: Journal, report: Callable[[Report], None]) -> None:
        self.senders = tuple(senders)
        self._journal = journal
        self._report = report
        self._queues = [_Queue(sender) for sender in senders]
        self._unsaved: dict[tuple[Signature, str], WayRow] = {}
        self._saving: dict[tuple[Signature, str], WayRow] = {}
        """What was unsaved at the last look, and is to be written now."""
        self._carried: dict[Signature, tuple[Flight, set[str]]] = {}
        """By attempt that was not seen in a block yet: which ways have carried it."""
        self._early: set[Signature] = set()
        """Handed to the senders while their turn with the nodes is yet to come."""
        self._faults: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Ways({', '.join(map(repr, self.senders))}, {len(self._unsaved) + len(self._saving)} to be written)"

    def carry(self, flights: Sequence[Flight], sending: Broadcast) -> Broadcast:
        """These attempts are on their way to the nodes: hand them to the senders too, and hear what all say."""
        for seat, _ in sending.begun:
            self._sent(seat.health.label, flights)
        self._hand(flight for flight in flights if flight.signature not in self._early)
        self._early.difference_update([flight.signature for flight in flights])
        return replace(sending, told=partial(self._answered, flights, time.monotonic()))

    def carry_early(self, flights: Sequence[Flight]) -> None:
        """The nodes have too much to answer for these to be sent to them now: the senders need not wait for that."""
        self._hand(flights)
        self._early.update(flight.signature for flight in flights)

    def _hand(self, flights: Iterable[Flight]) -> None:
        for flight in flights:
            for queue in self._queues:
                queue.put(flight)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Send and write the ledger until cancelled."""
        try:
            async with anyio.create_task_group() as tg:
                for queue in self._queues:
                    for _ in range(_AT_ONCE):
                        tg.start_soon(self._work, queue)
                task_status.started()
                while True:
                    await anyio.sleep(_SAVE_EVERY_S)
                    self._look_for_landed()
                    await self._save()
        finally:
            with anyio.CancelScope(shield=True):
                await self._save()
                await self._save()
                for sender in self.senders:
                    await sender.aclose()

    async def _work(self, queue: _Queue) -> None:
        sender = queue.sender
        async for flight in queue.takes:
            queue.waiting.discard(flight.signature)
            if sender.rests or not flight.attempt.state.in_flight or self._journal.lapsed():
                continue
            self._sent(sender.name, [flight])
            began_s = time.monotonic()
            reply = await sender.send(flight.attempt.wire)
            self._answered([flight], began_s, sender.name, [reply], sender.shown)
            self._tell(sender)

    def _tell(self, sender: Sender) -> None:
        """A line in the log when a sender begins to fail, fails otherwise, or is well again."""
        if self._faults.get(sender.name, "") != sender.fault:
            self._faults[sender.name] = sender.fault
            if sender.fault:
                self._report(Note("way.failing", sender.fault, level="warning"))
            else:
                self._report(Note("way.well", f"{sender.name} accepts again"))

    # -- the ledger

    def _sent(self, way: str, flights: Sequence[Flight]) -> None:
        now = time.time()
        for flight in flights:
            self._note(WayRow(flight.signature, way, now, 1))
            self._carried.setdefault(flight.signature, (flight, set()))[1].add(way)
        self._report(WaySent(way, len(flights)))

    def _answered(
        self,
        flights: Sequence[Flight],
        began_s: float,
        way: str,
        replies: Sequence[Reply],
        shown: Callable[[ChainError], str] = str,
    ) -> None:
        now, told = time.time(), dict[tuple[Answer, str | None], int]()
        for flight, reply in zip(flights, replies, strict=True):
            answer = answer_of(reply)
            detail = shown(reply)[:300] if isinstance(reply, ChainError) else None
            self._note(WayRow(flight.signature, way, now, 0, answer, detail, now))
            told[answer, detail] = told.get((answer, detail), 0) + 1
        for (answer, detail), attempts in told.items():
            self._report(WayAnswered(way, answer, attempts, time.monotonic() - began_s, detail))

    def _note(self, row: WayRow) -> None:
        known = self._unsaved.get((row.signature, row.way))
        self._unsaved[row.signature, row.way] = row if known is None else known.and_then(row)

    def _look_for_landed(self) -> None:
        for signature, (flight, ways) in list(self._carried.items()):
            attempt = flight.attempt
            if attempt.state in _LANDED:
                for way in ways:
                    self._report(WayLanded(way, attempt.order, signature))
            elif attempt.state.live:
                continue
            del self._carried[signature]

    async def _save(self) -> None:
        """Write what was gathered before the last time. What the journal does not take now is offered again."""
        while self._saving:
            keys = list(islice(self._saving, _ROWS_AT_ONCE))
            try:
                await self._journal.write(NoteWays(tuple(self._saving[key] for key in keys)))
            except JournalError as e:
                self._report(Note("ways.ledger", str(e), level="debug"))
                break
            for key in keys:
                del self._saving[key]
        later, self._unsaved = self._unsaved, {}
        for key, row in later.items():
            known = self._saving.get(key)
            self._saving[key] = row if known is None else known.and_then(row)
        for key in list(islice(self._saving, max(0, len(self._saving) - _MOST_UNSAVED))):
            del self._saving[key]


def answer_of(reply: Reply) -> Answer:
    """What a way's reply to `sendTransaction` says, in one word."""
    if not isinstance(reply, ChainError):
        return Answer.ACCEPTED
    if already_processed(reply):
        return Answer.ACCEPTED  # it had landed before
    return Answer.REFUSED if isinstance(reply, Rejected | RateLimited | NotServed) else Answer.UNCLEAR


def already_processed(reply: object) -> bool:
    """Whether it was refused because it had landed before."""
    return isinstance(reply, Rejected) and (reply.err == "AlreadyProcessed" or "already been processed" in str(reply))
