"""Notes that nobody waits for, kept until the next group: at most one an order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from msgspec.structs import replace

from keeper.domain.base58 import base58
from keeper.journal.ops import AddAttempt, Intend, Note, NoteOrder, NoteState, Op, ResetBudget, UseBudget

T = TypeVar("T")


@dataclass(slots=True)
class NoteBag:
    """Posted notes by order address, merged: the journal needs an order's latest facts, not each sighting."""

    notes: dict[str, Note] = field(default_factory=dict)

    def add(self, note: Note) -> bool:
        """Keep a note; whether it took a place of its own."""
        address = _address(note)
        earlier = self.notes.get(address)
        self.notes[address] = note if earlier is None else merge(earlier, note)
        return earlier is None

    def holds(self, note: Note) -> bool:
        """Whether a note on the same order waits already."""
        return _address(note) in self.notes

    def take(self, count: int) -> NoteBag:
        """Take out the `count` notes that have waited longest, or all."""
        if len(self.notes) <= count:
            taken, self.notes = self.notes, {}
            return NoteBag(taken)
        return NoteBag({address: self.notes.pop(address) for address in list(self.notes)[:count]})

    def __len__(self) -> int:
        return len(self.notes)


def _address(note: Note) -> str:
    return base58(note.order.address if isinstance(note, NoteOrder) else note.address)


def order_of(op: Op) -> str | None:
    """The order that an operation is on; None for one that no note's place in the queue matters to."""
    match op:
        case NoteOrder() | Intend():
            return base58(op.order.address)
        case NoteState() | UseBudget() | ResetBudget():
            return base58(op.address)
        case AddAttempt():
            return base58(op.attempt.order)
        case _:
            return None


def merge(earlier: Note, later: Note) -> Note:
    """One note that leaves the journal as the two would, one after the other, but for the state between them."""
    if isinstance(later, NoteState):
        # A state on top of facts: the facts stay, with the later word on what became of the order.
        return replace(
            earlier,
            state=later.state,
            reason=later.reason,
            triggered_at=_last(earlier.triggered_at, later.triggered_at),
            trigger_price_1e6=_last(earlier.trigger_price_1e6, later.trigger_price_1e6),
            trigger_slot=_last(earlier.trigger_slot, later.trigger_slot),
            position=_last(earlier.position, later.position),
            reopen=earlier.reopen or later.reopen,
            at=_last(earlier.at, later.at),
        )
    stale = isinstance(earlier, NoteOrder) and later.order.slot < earlier.order.slot
    if stale:
        return earlier
    keep_state = later.state is None
    return replace(
        later,
        state=earlier.state if keep_state else later.state,
        reason=earlier.reason if keep_state else later.reason,
        client_order_id=_last(
            earlier.client_order_id if isinstance(earlier, NoteOrder) else None, later.client_order_id
        ),
        triggered_at=_last(earlier.triggered_at, later.triggered_at),
        trigger_price_1e6=_last(earlier.trigger_price_1e6, later.trigger_price_1e6),
        trigger_slot=_last(earlier.trigger_slot, later.trigger_slot),
        position=_last(earlier.position, later.position),
        reopen=earlier.reopen or later.reopen,
    )


def _last(earlier: T | None, later: T | None) -> T | None:
    return earlier if later is None else later
