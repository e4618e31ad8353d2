"""The rows that a group of operations looks at, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptState
from keeper.domain.base58 import base58
from keeper.domain.ways import WayRow
from keeper.journal import ops as o
from keeper.journal.rows import (
    ORDER_COLUMNS,
    KnownAttempt,
    KnownPrepared,
    NewChange,
    StoredOrder,
    Values,
    order_values,
)

Updates = dict[tuple[str, ...], list[Values]]
"""Rows that change, by the columns that do: each row's id, and then their values."""


@dataclass(slots=True)
class Wanted:
    """The keys of the rows that operations are going to look at."""

    orders: dict[str, None] = field(default_factory=dict)
    live: dict[str, None] = field(default_factory=dict)
    """Orders of which the live attempt is asked for."""
    attempts: dict[str, None] = field(default_factory=dict)
    prepared: dict[str, None] = field(default_factory=dict)
    prepared_keys: dict[str, None] = field(default_factory=dict)
    meta: dict[str, None] = field(default_factory=dict)

    def of(self, ops: Iterable[o.Op]) -> None:
        """Add what these look at."""
        for op in ops:
            match op:
                case o.Launched():
                    self.orders[base58(op.order.address)] = self.attempts[base58(op.attempt.signature)] = None
                case o.Intend():
                    address = base58(op.order.address)
                    self.orders[address] = self.live[address] = None
                case o.NoteOrder():
                    self.orders[base58(op.order.address)] = None
                case o.NoteState() | o.UseBudget() | o.ResetBudget():
                    self.orders[base58(op.address)] = None
                case o.AddAttempt():
                    address = base58(op.attempt.order)
                    self.live[address] = None
                    if op.attempt.state is not AttemptState.ARMED:
                        self.orders[address] = None
                case o.MoveAttempt() | o.Disarm():
                    self.attempts[base58(op.signature)] = None
                case o.NoteWays():
                    self.attempts.update(dict.fromkeys(base58(row.signature) for row in op.rows))
                case o.AddPrepared():
                    self.prepared[op.prepared.id] = None
                    if op.prepared.idempotency_key is not None:
                        self.prepared_keys[op.prepared.idempotency_key] = None
                case o.MovePrepared() | o.DropPrepared():
                    self.prepared[op.id] = None
                case o.CountOfDay():
                    self.meta[op.key] = None
                case o.SetMeta() | o.AddSpend():
                    pass


@dataclass(slots=True)
class Rows:
    """The rows that a group touches, by key; what is not here does not exist. `loaded` are the orders as they were."""

    next_order_id: int = 1
    next_change_id: int = 1
    loaded: dict[str, StoredOrder] = field(default_factory=dict)
    orders: dict[str, StoredOrder] = field(default_factory=dict)
    attempts: dict[str, KnownAttempt] = field(default_factory=dict)
    added: dict[str, Attempt] = field(default_factory=dict)
    disarmed: dict[str, None] = field(default_factory=dict)
    """Of those that an earlier caller of the group added: what is not to be added after all."""
    live: dict[str, str | None] = field(default_factory=dict)
    """By order: the signature of the keeper's own attempt that could still land."""
    prepared: dict[str, KnownPrepared] = field(default_factory=dict)
    prepared_keys: dict[str, str | None] = field(default_factory=dict)
    """By idempotency key: the id of the prepared transaction that has it."""
    meta: dict[str, str | None] = field(default_factory=dict)
    spend: dict[str, int] = field(default_factory=dict)
    """Lamports to add, by day."""
    bumped: dict[str, None] = field(default_factory=dict)
    """Orders of which an attempt moved: what their readers see has changed, so their version rises."""
    changes: list[NewChange] = field(default_factory=list)
    ways: dict[tuple[Signature, str], WayRow] = field(default_factory=dict)
    """What is to be added to the sends of attempts, by attempt and way."""

    def add_ways(self, rows: Iterable[WayRow]) -> None:
        """Add to what is known of sends."""
        for row in rows:
            key = row.signature, row.way
            known = self.ways.get(key)
            self.ways[key] = row if known is None else known.and_then(row)

    def absorb(self, mine: Rows) -> None:
        """Take what a caller changed."""
        self.orders.update(mine.orders)
        self.attempts.update(mine.attempts)
        for signature in mine.disarmed:
            del self.added[signature]
        self.added.update(mine.added)
        self.live.update(mine.live)
        self.prepared.update(mine.prepared)
        self.prepared_keys.update(mine.prepared_keys)
        self.meta.update(mine.meta)
        self.bumped.update(mine.bumped)
        for day, lamports in mine.spend.items():
            self.spend[day] = self.spend.get(day, 0) + lamports
        self.changes += mine.changes
        self.add_ways(mine.ways.values())
        self.next_order_id, self.next_change_id = mine.next_order_id, mine.next_change_id

    # -- what a store has to write

    def order_writes(self) -> tuple[list[Values], Updates]:
        """The new orders, and those that changed: only the columns that did, so that the indexes of the others are left
        alone. What is written here has its version already, and is bumped no more.
        """
        new: list[Values] = []
        changed: Updates = {}
        for address, order in self.orders.items():
            before = self.loaded.get(address)
            if before is None:
                self.bumped.pop(address, None)
                new.append(order_values(order))
            elif before is not order:
                both = zip(ORDER_COLUMNS, order_values(before), order_values(order), strict=True)
                patch = {column: value for column, known, value in both if value is not known and value != known}
                if patch:
                    self.bumped.pop(address, None)
                    changed.setdefault(tuple(patch), []).append((order.id, *patch.values()))
        return new, changed

    def attempt_writes(self) -> tuple[list[int], Updates]:
        """The ids of the stored attempts that go, and those that moved."""
        gone: list[int] = []
        moved: Updates = {}
        for known in self.attempts.values():
            if known.disarmed:
                gone.append(known.id)
            elif known.patch:
                moved.setdefault(tuple(known.patch), []).append((known.id, *known.patch.values()))
        return gone, moved

    def change_writes(self) -> list[Values]:
        """The new changes, by `CHANGE_COLUMNS`."""
        return [(c.id, self.orders[c.order].id, c.state, c.reason, c.at, c.slot) for c in self.changes]

    def prepared_writes(self) -> list[KnownPrepared]:
        """What goes comes first: it lets go of its idempotency key, for one that comes."""
        return sorted(self.prepared.values(), key=lambda known: not known.dropped)
