"""A verdict: what the end, or the landing, of one attempt changes, first in the journal and then in memory.

Verdicts are made by `keeper.execution.settlement` and `relay`, which change nothing but the attempt that they move; the
router has them recorded (`Recorder`) and carries out what they say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.attempts import Attempt, AttemptState
from keeper.domain.errors import JournalError
from keeper.domain.events import Event
from keeper.domain.reports import AttemptMoved, Note, Report
from keeper.execution.consequences import Following
from keeper.execution.flights import Flight
from keeper.execution.lifecycle import move
from keeper.execution.points import point
from keeper.journal import Journal
from keeper.journal.ops import MoveAttempt, Op

_REFUSED_FIRST_S: Final = 0.5
_REFUSED_LAST_S: Final = 60.0
"""The pauses before an end that the journal refused is offered to it again; they double."""


@dataclass(slots=True)
class Verdict:
    """`ops` is for the journal. Once that holds them: `news` was read on the way, `paid` is what left the key, in
    lamports, and in which slot (None: nothing is known of that yet), `read_back` says that it landed and waits to be
    rooted, `closed` that its entry is closed, `frees` that its signature can't land (again), so that it holds up its
    order no longer. `following` is what a failure means for the order; `ended` are the orders that are known not to be
    pending, and as of which slot. `stop` is why nothing more may be sent before an operator has looked, if so.
    """

    flight: Flight
    before: Attempt
    ops: list[Op] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    news: list[Event] = field(default_factory=list)
    paid: tuple[int, int] | None = None
    read_back: bool = False
    closed: bool = False
    frees: bool = False
    following: Following | None = None
    ended: dict[Pubkey, int] = field(default_factory=dict)
    stop: str | None = None
    _moved: Attempt | None = None

    @classmethod
    def of(cls, flight: Flight) -> Verdict:
        """Nothing yet, of this flight."""
        return cls(flight, flight.attempt)

    def move(self, state: AttemptState, **facts: object) -> None:
        """Move the attempt."""
        op, report = move_flight(self.flight, state, **facts)
        self.ops.append(op)
        self.reports.append(report)

    def take_back(self) -> None:
        """It did not happen."""
        self._moved, self.flight.attempt = self.flight.attempt, self.before

    def repeat(self) -> None:
        """After `take_back`: it is to be recorded after all."""
        if self._moved is not None:
            self.flight.attempt = self._moved


def move_flight(flight: Flight, state: AttemptState, **facts: object) -> tuple[MoveAttempt, AttemptMoved]:
    """Move a flight's attempt. The operation is the caller's to commit, the report to make."""
    flight.attempt, op = move(flight.attempt, state, **facts)
    attempt = flight.attempt
    slots = None
    if attempt.seen_slot is not None and attempt.trigger_slot is not None:
        slots = max(0, attempt.seen_slot - attempt.trigger_slot)
    since = None if flight.triggered_at_s is None else time.monotonic() - flight.triggered_at_s
    return op, AttemptMoved(
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


class Recorder:
    """Durable first: has verdicts in the journal before anybody acts on them."""

    def __init__(self, journal: Journal, report: Callable[[Report], None]) -> None:
        self._journal = journal
        self._report = report

    async def record(self, verdicts: Sequence[Verdict], passed: str) -> list[Verdict]:
        """Those that the journal holds now; `passed` names the point that is passed then.

        What the journal could not take did not happen: the flights are as they were, and asked about again. A disk
        that fails raises. An end that the journal refuses for its own sake is nobody else's trouble: the others of
        its batch are recorded one by one, and from then on it stands apart.
        """
        together = [verdict for verdict in verdicts if not verdict.flight.unrecorded]
        apart = [verdict for verdict in verdicts if verdict.flight.unrecorded]
        recorded: list[Verdict] = []
        try:
            if together:
                await self._commit(together, passed)
                recorded = together
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
                await self._commit([verdict], passed)
            except JournalError as e:
                if not self._journal.healthy:
                    # The disk, and no row's fault: what was recorded is carried out, the rest is asked about again.
                    for other in apart[i + 1 :]:
                        other.take_back()
                    break
                self._unrecorded(verdict.flight, e)
            else:
                verdict.flight.unrecorded, verdict.flight.refusals = "", 0
                recorded.append(verdict)
        return recorded

    async def _commit(self, verdicts: Sequence[Verdict], passed: str) -> None:
        """All of them, or none and a JournalError."""
        try:
            await self._journal.commit(*(op for verdict in verdicts for op in verdict.ops))
        except JournalError:
            for verdict in verdicts:
                verdict.take_back()
            raise
        point(passed)

    def _unrecorded(self, flight: Flight, error: JournalError) -> None:
        """It stays open, and blocks its own order. It is tried again, ever more rarely, and health tells of it."""
        flight.unrecorded, flight.refusals = str(error), flight.refusals + 1
        pause = min(_REFUSED_FIRST_S * 2.0 ** min(flight.refusals - 1, 16), _REFUSED_LAST_S)
        flight.may_poll_s = flight.next_poll_s = flight.next_send_s = time.monotonic() + pause
        detail = f"the journal refuses what became of it, so its order waits: {error}"
        self._report(
            Note("settlement.unrecorded", detail, "error", order=flight.attempt.order, attempt=flight.signature)
        )
