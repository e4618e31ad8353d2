"""What waits to be written: callers' operations, upkeep, and posted notes.

A *caller* waits for its operations. A *note* is posted and nobody waits for it: notes on one order are merged, so a
*bag* of them holds at most one an order. *Upkeep* does a transaction of its own.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from keeper.domain.base58 import base58
from keeper.domain.errors import JournalError
from keeper.journal.ops import AddAttempt, Intend, Note, NoteOrder, NoteState, Op, ResetBudget, UseBudget
from keeper.journal.store import Store
from keeper.journal.transitions import ALLOWED

GROUP_OPS = 2_048
"""A group takes callers until it has this many operations: it bounds how long its first caller waits."""

_LEARNT: Final[tuple[str, ...]] = ("triggered_at", "trigger_price_1e6", "trigger_slot", "position")


@dataclass(slots=True)
class Caller:
    """Somebody's operations, and the future that wakes him. Without `durable` a power cut may take them."""

    ops: Sequence[Op]
    done: asyncio.Future[object]
    durable: bool = True
    result: None = None
    error: JournalError | None = None


Work = Callable[[Store], object]
"""Upkeep: it runs between groups, on the writer's thread."""


@dataclass(slots=True)
class Upkeep:
    """Upkeep that somebody waits for."""

    work: Work
    done: asyncio.Future[object]
    result: object = None
    error: JournalError | None = None


@dataclass(slots=True)
class Bag:
    """Posted notes by order address, merged: the journal needs an order's latest facts, not each sighting."""

    notes: dict[str, Note] = field(default_factory=dict)

    def take(self, count: int) -> Bag:
        """Take out the `count` notes that have waited longest, or all."""
        if len(self.notes) <= count:
            taken, self.notes = self.notes, {}
            return Bag(taken)
        return Bag({address: self.notes.pop(address) for address in list(self.notes)[:count]})

    def __len__(self) -> int:
        return len(self.notes)


Waiting = Caller | Upkeep
Item = Waiting | Bag
Group = list[Caller | Bag]


@dataclass(slots=True)
class Queue:
    """What waits, in order. A bag at its end takes further notes; a caller behind it closes it."""

    items: collections.deque[Item] = field(default_factory=collections.deque)
    notes: int = 0
    first_note_at: float = 0.0
    urgent: int = 0
    """How many callers and upkeeps wait: without any, notes may wait for company."""

    def push(self, item: Waiting) -> None:
        """Somebody waits from now on."""
        self.items.append(item)
        self.urgent += 1

    def post(self, note: Note, most: int) -> bool | None:
        """Keep a note: True when it is the first that waits. None when there is no room: one that is merged with a note
        that waits already takes none.
        """
        last = self.items[-1] if self.items else None
        address = address_of(note)
        earlier = last.notes.get(address) if isinstance(last, Bag) else None
        if isinstance(last, Bag) and earlier is not None and mergeable(earlier, note):
            last.notes[address] = merge(earlier, note)
            return False
        if self.notes >= most:
            return None
        if not isinstance(last, Bag) or earlier is not None:
            last = Bag()
            self.items.append(last)
        last.notes[address] = note
        self.notes += 1
        if self.notes == 1:
            self.first_note_at = time.perf_counter()
        return self.notes == 1

    def pop(self) -> Group | Upkeep:
        """The next group, or one upkeep, which never shares one."""
        first = self.items[0]
        if isinstance(first, Upkeep):
            self.items.popleft()
            self.urgent -= 1
            return first
        group: Group = []
        ops = 0
        while self.items and ops < GROUP_OPS:
            item = self.items[0]
            if isinstance(item, Upkeep):
                break
            if isinstance(item, Bag):
                taken = item.take(GROUP_OPS)
                if not item:
                    self.items.popleft()
                self.notes -= len(taken)
                ops += len(taken)
                group.append(taken)
            else:
                self.items.popleft()
                self.urgent -= 1
                ops += len(item.ops)
                group.append(item)
        return group

    def put_back(self, bags: Sequence[Bag]) -> None:
        """To the front again: they were not written."""
        for bag in reversed(bags):
            self.items.appendleft(bag)
            self.notes += len(bag)
            self.first_note_at = time.perf_counter()

    def take_notes_on(self, ops: Sequence[Op]) -> list[Bag]:
        """Take out the waiting notes on the orders of these operations, which were posted before them."""
        addresses = {address for op in ops if (address := order_of(op)) is not None}
        taken: list[Bag] = []
        for item in self.items:
            if isinstance(item, Bag):
                mine = {address: item.notes.pop(address) for address in addresses & item.notes.keys()}
                if mine:
                    taken.append(Bag(mine))
                    self.notes -= len(mine)
        self.items = collections.deque(item for item in self.items if not isinstance(item, Bag) or item)
        return taken


def address_of(note: Note) -> str:
    """The order that a note is on."""
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


def mergeable(earlier: Note, later: Note) -> bool:
    """Whether one note can say both: not where one has facts and the other none, or the later one may be on another
    order that was made at the address, nor where the rules would let its state not follow, nor where the facts may be
    old and one state stands without them.
    """
    if type(earlier) is not type(later):
        return False
    if isinstance(earlier, NoteOrder) and isinstance(later, NoteOrder):
        if earlier.order.identity != later.order.identity:
            return False
        if earlier.stands != later.stands and earlier.state is not None and later.state is not None:
            return False
    if earlier.state is None or later.state is None:
        return True
    return later.reopen or (earlier.state, later.state) in ALLOWED


def merge(earlier: Note, later: Note) -> Note:
    """One note that leaves the journal as the two would, one after the other, but for the state between them."""
    names = _LEARNT
    if isinstance(earlier, NoteOrder) and isinstance(later, NoteOrder):
        if later.order.slot < earlier.order.slot:
            if not later.stands:
                return earlier
            later = replace(later, order=earlier.order, client_order_id=None)
        names = (*_LEARNT, "client_order_id")
    known = {name: getattr(earlier if getattr(later, name) is None else later, name) for name in names}
    word = earlier if later.state is None else later
    if isinstance(word, NoteOrder):
        known["stands"] = word.stands
    return replace(later, state=word.state, reason=word.reason, reopen=earlier.reopen or later.reopen, **known)
