"""What a group's operations do to the loaded rows: pure, so that it is tested with no database.

A caller's operations change copies; they become the group's truth only when all of them were accepted. So one
caller's refused operation leaves no trace in what the others commit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, assert_never

from keeper.domain.attempts import Attempt, AttemptState, blocks
from keeper.domain.base58 import base58
from keeper.errors import DuplicateAttempt, JournalError
from keeper.journal import ops as o
from keeper.journal.drafts import (
    PATCH_COLUMNS,
    AttemptDraft,
    ChangeDraft,
    OrderDraft,
    PreparedDraft,
    facts_of,
)
from keeper.journal.integers import from_stored, to_stored, to_stored_opt
from keeper.journal.records import Source
from keeper.journal.transitions import CLOSED_STATES, allowed, first_state

_NUMBERS: Final = re.compile(r"\d+(?:[.,]\d+)*")
_ANEW: Final = "Another order was made at its address."
_FIRST_REASON: Final = {Source.CHAIN: "First seen on chain.", Source.API: "Asked for over HTTP."}


def reason_class(reason: str) -> str:
    """A reason without its numbers: 'Price 95.1 is above 95.' and 'Price 96 is above 95.' are the same."""
    return _NUMBERS.sub("#", reason)


@dataclass(slots=True)
class Rows:
    """The rows that a group touches, by key. None says that the row was looked for and is not there."""

    orders: dict[str, OrderDraft | None] = field(default_factory=dict)
    attempts: dict[str, AttemptDraft | None] = field(default_factory=dict)
    live: dict[str, str | None] = field(default_factory=dict)
    """By order: the signature of the keeper's own attempt that could still land."""
    prepared: dict[str, PreparedDraft | None] = field(default_factory=dict)
    prepared_keys: dict[str, str | None] = field(default_factory=dict)
    """By idempotency key: the id of the prepared transaction that has it."""
    meta: dict[str, str | None] = field(default_factory=dict)
    spend: dict[str, int] = field(default_factory=dict)
    """Lamports to add, by day."""
    bumped: dict[str, None] = field(default_factory=dict)
    """Orders of which an attempt moved: what their readers see has changed, so their version rises."""
    changes: list[ChangeDraft] = field(default_factory=list)
    next_order_id: int = 1
    next_change_id: int = 1

    def absorb(self, other: Rows) -> None:
        """Take what a caller changed."""
        self.orders.update(other.orders)
        self.attempts.update(other.attempts)
        self.live.update(other.live)
        self.prepared.update(other.prepared)
        self.prepared_keys.update(other.prepared_keys)
        self.meta.update(other.meta)
        self.bumped.update(other.bumped)
        for day, lamports in other.spend.items():
            self.spend[day] = self.spend.get(day, 0) + lamports
        self.changes.extend(other.changes)
        self.next_order_id = other.next_order_id
        self.next_change_id = other.next_change_id


def apply(base: Rows, ops: Iterable[o.Op], now: float) -> None:
    """Do one caller's operations, all or none. `now` is unix seconds.

    Raises what an operation is refused with (JournalError and its kin, ValueError for a number that does not
    fit); `base` is unchanged then.
    """
    caller = _Caller(base, now)
    for op in ops:
        caller.do(op)
    base.absorb(caller.mine)


class _Caller:
    """One caller's view: its own copies over the group's rows."""

    __slots__ = ("_base", "_now", "mine")

    def __init__(self, base: Rows, now: float) -> None:
        self._base = base
        self._now = now
        self.mine = Rows(next_order_id=base.next_order_id, next_change_id=base.next_change_id)

    def do(self, op: o.Op) -> None:
        match op:
            case o.MoveAttempt():
                self._move_attempt(op)
            case o.NoteState():
                self._note_state(op)
            case o.AddAttempt():
                self._add_attempt(op.attempt)
            case o.NoteOrder():
                self._note_order(op)
            case o.Intend():
                self._intend(op)
            case o.UseBudget():
                draft = self._known(base58(op.address))
                draft.budget_used += op.n
                draft.next_attempt_at = op.next_attempt_at
                self._touched(draft, self._now)
            case o.ResetBudget():
                draft = self._known(base58(op.address))
                draft.budget_used = 0
                draft.next_attempt_at = None
                self._touched(draft, self._now)
            case o.AddPrepared():
                self._add_prepared(op)
            case o.MovePrepared():
                self._move_prepared(op)
            case o.SetMeta():
                self.mine.meta[op.key] = op.value
            case o.AddSpend():
                self.mine.spend[op.day] = self.mine.spend.get(op.day, 0) + op.lamports
            case _:
                assert_never(op)

    # --- orders

    def _order(self, address: str) -> OrderDraft | None:
        draft = self.mine.orders.get(address)
        if draft is None:
            stored = self._base.orders.get(address)
            if stored is None:
                return None
            draft = self.mine.orders[address] = stored.copy()
        return draft

    def _known(self, address: str) -> OrderDraft:
        draft = self._order(address)
        if draft is None:
            raise JournalError(f"The journal does not know the order {address}: note it before its state.")
        return draft

    @staticmethod
    def _touched(draft: OrderDraft, at: float) -> None:
        draft.version += 1
        draft.updated_at = at
        draft.dirty = True

    def _note_order(self, op: o.NoteOrder) -> None:
        address = base58(op.order.address)
        at = self._now if op.at is None else op.at
        facts = facts_of(op.order)
        draft = self._order(address)
        if draft is None:
            draft = self._new_order(op, address, facts, at)
            self._say(draft, at, draft.slot)
            return
        if op.order.slot < from_stored(draft.slot):
            return
        visible = facts != draft.facts
        anew = visible and from_stored(draft.slot) > 0 and _identity(facts) != _identity(draft.facts)
        if visible:
            draft.new_facts = True
            draft.facts = facts
        draft.slot = to_stored(op.order.slot)
        if anew:
            self._begin_generation(draft, op, at)
            return
        if op.client_order_id is not None and op.client_order_id != draft.client_order_id:
            draft.client_order_id = op.client_order_id
            draft.new_keys = visible = True
        visible |= self._learn(draft, op)
        if op.state is not None:
            visible |= self._move_order(draft, op, at, draft.slot)
        if visible:
            draft.version += 1
            draft.updated_at = at
        draft.dirty = True

    def _begin_generation(self, draft: OrderDraft, op: o.NoteOrder, at: float) -> None:
        """Another order was made at the address: what was known of the one before is not its own."""
        closed = draft.closed
        draft.state = first_state(op.order.status) if op.state is None else op.state
        draft.reason = op.reason or _ANEW
        draft.triggered_at = draft.trigger_price = draft.trigger_slot = draft.position = None
        draft.budget_used, draft.next_attempt_at, draft.attempts_made = 0, None, 0
        draft.new_state = True
        if op.client_order_id is not None:
            draft.client_order_id = op.client_order_id
        draft.new_keys |= draft.closed is not closed or op.client_order_id is not None
        self._learn(draft, op)
        self._say(draft, at, draft.slot)
        self._touched(draft, at)

    def _intend(self, op: o.Intend) -> None:
        attempt = op.attempt
        self._note_order(o.NoteOrder(op.order))
        if op.state is not None:
            self._note_state(
                o.NoteState(
                    op.order.address,
                    op.state,
                    op.reason,
                    slot=op.order.slot,
                    triggered_at=op.triggered_at,
                    trigger_price_1e6=None if op.triggered_at is None else attempt.trigger_price_1e6,
                    trigger_slot=None if op.triggered_at is None else attempt.trigger_slot,
                )
            )
        self._add_attempt(attempt)

    def _new_order(self, op: o.NoteOrder, address: str, facts: tuple[int | str | None, ...], at: float) -> OrderDraft:
        draft = OrderDraft(
            id=self.mine.next_order_id,
            address=address,
            facts=facts,
            slot=to_stored(op.order.slot),
            state=first_state(op.order.status) if op.state is None else op.state,
            reason=op.reason or _FIRST_REASON[op.source],
            triggered_at=None,
            trigger_price=None,
            trigger_slot=None,
            position=None,
            budget_used=0,
            next_attempt_at=None,
            attempts_made=0,
            client_order_id=op.client_order_id,
            source=op.source.value,
            version=1,
            first_seen_at=at,
            updated_at=at,
            is_new=True,
            dirty=True,
        )
        self.mine.next_order_id += 1
        self._learn(draft, op)
        self.mine.orders[address] = draft
        return draft

    def _note_state(self, op: o.NoteState) -> None:
        draft = self._known(base58(op.address))
        at = self._now if op.at is None else op.at
        visible = self._learn(draft, op)
        visible |= self._move_order(draft, op, at, draft.slot if op.slot is None else to_stored(op.slot))
        if visible:
            self._touched(draft, at)

    def _learn(self, draft: OrderDraft, op: o.Note) -> bool:
        """Fill in what the note knows; whether anything changed."""
        before = (draft.triggered_at, draft.trigger_price, draft.trigger_slot, draft.position)
        if op.triggered_at is not None:
            draft.triggered_at = op.triggered_at
        if op.trigger_price_1e6 is not None:
            draft.trigger_price = to_stored(op.trigger_price_1e6)
        if op.trigger_slot is not None:
            draft.trigger_slot = to_stored(op.trigger_slot)
        if op.position is not None:
            draft.position = str(op.position)
        return before != (draft.triggered_at, draft.trigger_price, draft.trigger_slot, draft.position)

    def _move_order(self, draft: OrderDraft, op: o.Note, at: float, slot: int) -> bool:
        """Set state and reason as far as the rules allow; whether anything changed."""
        state = op.state
        assert state is not None
        if not (op.reopen or allowed(draft.state, state)):
            return False
        reason = op.reason
        if not reason:
            # Promise 5: a state has a reason. A note on the account has one in the account itself.
            if not isinstance(op, o.NoteOrder):
                raise JournalError(f"The state {state.value} of the order {draft.address} needs a reason.")
            reason = draft.reason if state is draft.state else f"Its account reads {op.order.status.word}."
        if state is draft.state and (reason == draft.reason or (draft.closed and not op.reopen)):
            return False  # an end is told once
        news = state is not draft.state or reason_class(reason) != reason_class(draft.reason)
        if state is not draft.state:
            draft.new_state = True
            draft.new_keys |= (state in CLOSED_STATES) is not draft.closed
        draft.state = state
        draft.reason = reason
        if news:
            self._say(draft, at, slot)
        return True

    def _say(self, draft: OrderDraft, at: float, slot: int) -> None:
        self.mine.changes.append(ChangeDraft(self.mine.next_change_id, draft.id, draft.state, draft.reason, at, slot))
        self.mine.next_change_id += 1

    # --- attempts

    def _live(self, order: str) -> str | None:
        if order in self.mine.live:
            return self.mine.live[order]
        return self._base.live.get(order)

    def _add_attempt(self, attempt: Attempt) -> None:
        signature, order = base58(attempt.signature), base58(attempt.order)
        if attempt.state is AttemptState.INTENDED:
            raise JournalError("An attempt is journaled once it is signed, not before.")
        if self.mine.attempts.get(signature) or self._base.attempts.get(signature):
            raise DuplicateAttempt(f"The attempt {signature} is in the journal already.")
        if blocks(attempt.kind, attempt.state):
            live = self._live(order)
            if live is not None:
                raise DuplicateAttempt(
                    f"The order {order} has an attempt that could still land: {live}. "
                    "It must end before another is signed."
                )
            self.mine.live[order] = signature
        self.mine.attempts[signature] = AttemptDraft(0, signature, order, attempt.kind, attempt.state, attempt)
        draft = self._order(order)
        if draft is not None:
            draft.attempts_made = max(draft.attempts_made, attempt.number)
            self._touched(draft, self._now)

    def _move_attempt(self, op: o.MoveAttempt) -> None:
        signature = base58(op.signature)
        draft = self.mine.attempts.get(signature)
        if draft is None:
            stored = self._base.attempts.get(signature)
            if stored is None:
                raise JournalError(f"The journal does not know the attempt {signature}.")
            draft = self.mine.attempts[signature] = stored.copy()
        if not draft.state.live and op.state is not draft.state:
            raise JournalError(
                f"The attempt {signature} has ended as {draft.state.value} and can't become {op.state.value}."
            )
        if op.state is AttemptState.INTENDED:
            raise JournalError(f"The attempt {signature} is signed: it can't become intended again.")
        blocked = blocks(draft.kind, draft.state)
        draft.state = op.state
        draft.moved = True
        for column in PATCH_COLUMNS:
            value = getattr(op, column)
            if value is not None:
                draft.patch[column] = _stored(column, value)
        if blocked and not blocks(draft.kind, op.state):
            self.mine.live[draft.order] = None
        self.mine.bumped[draft.order] = None

    # --- prepared transactions

    def _add_prepared(self, op: o.AddPrepared) -> None:
        row = op.prepared
        if self.mine.prepared.get(row.id) or self._base.prepared.get(row.id):
            raise o.JournalConflict(f"There is a prepared transaction {row.id} already.")
        key = row.idempotency_key
        if key is not None:
            taken = self.mine.prepared_keys.get(key) or self._base.prepared_keys.get(key)
            if taken is not None:
                raise o.JournalConflict(f"This idempotency key was used for the prepared transaction {taken}.")
            self.mine.prepared_keys[key] = row.id
        signature = None if row.signature is None else str(row.signature)
        self.mine.prepared[row.id] = PreparedDraft(row.id, key, row.status.value, signature, row)

    def _move_prepared(self, op: o.MovePrepared) -> None:
        draft = self.mine.prepared.get(op.id)
        if draft is None:
            stored = self._base.prepared.get(op.id)
            if stored is None:
                raise JournalError(f"The journal does not know the prepared transaction {op.id}.")
            draft = self.mine.prepared[op.id] = stored.copy()
        if op.expected is not None and draft.status != op.expected.value:
            raise o.JournalConflict(f"The prepared transaction {op.id} is {draft.status} by now.")
        draft.status = op.status.value
        draft.moved = True
        if op.signature is not None:
            draft.signature = str(op.signature)


def _identity(facts: tuple[int | str | None, ...] | None) -> tuple[int | str | None, ...]:
    """What an order's account keeps for life: all but its stop, which a ratchet moves, its fill and its status."""
    if facts is None:
        return ()
    kind, side, size, price, _, distance, leverage, _, order_id, created, expires, _, user, market = facts
    return kind, side, size, price, distance, leverage, order_id, created, expires, user, market


def _stored(column: str, value: object) -> object:
    """A `MoveAttempt` field as its column holds it."""
    if column == "position":
        return str(value)
    if column in ("seen_slot", "fee_lamports"):
        assert isinstance(value, int)
        return to_stored_opt(value)
    return value
