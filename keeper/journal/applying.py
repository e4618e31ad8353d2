"""What operations do to the loaded rows: pure, and the same for every store.

A caller's operations change copies; they become the group's truth only when all of them were accepted. So one
caller's refused operation leaves no trace in what the others commit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Final, TypeVar, assert_never

from keeper.domain.attempts import BLOCKING, Attempt, AttemptKind, AttemptState
from keeper.domain.base58 import base58
from keeper.domain.errors import DuplicateAttempt, JournalError
from keeper.domain.orders import Order, OrderState
from keeper.journal import ops as o
from keeper.journal.records import PreparedStatus, Source
from keeper.journal.rows import (
    ORDERS,
    STATES,
    KnownAttempt,
    KnownPrepared,
    NewChange,
    StoredOrder,
    from_stored,
    moved_value,
    to_stored,
)
from keeper.journal.touched import Rows
from keeper.journal.transitions import ALLOWED, CLOSED_STATES, first_state, must_move, reason_class

_ANEW: Final = "Another order was made at its address."
_FIRST_REASON: Final = {Source.CHAIN: "First seen on chain.", Source.API: "Asked for over HTTP."}
_KEPT: Final = frozenset({PreparedStatus.SUBMITTED.value, PreparedStatus.LANDED.value})
_PATCHES: Final = o.MoveAttempt.__struct_fields__[2:]
"""What `MoveAttempt` may fill in, beside the state."""

T = TypeVar("T")


def apply(rows: Rows, ops: Sequence[o.Op], now: float) -> None:
    """Do one caller's operations, all or none. `now` is unix seconds.

    Raises what an operation is refused with (JournalError and its kin, ValueError for a number that does not
    fit); `rows` is unchanged then.
    """
    caller = _Caller(rows, now)
    for op in ops:
        caller.do(op)
    rows.absorb(caller.mine)


def refused(rows: Rows, ops: Sequence[o.Op], now: float) -> JournalError | None:
    """`apply` for a store: the error of a refused caller, whatever it was refused with."""
    try:
        apply(rows, ops, now)
    except JournalError as error:
        return error
    except Exception as error:  # one caller's nonsense is not the others' loss
        found = JournalError(f"The journal can't keep this: {type(error).__name__}: {error}.")
        found.__cause__ = error
        return found
    return None


class _Caller:
    """One caller's view: its own copies over the group's rows."""

    __slots__ = ("_now", "_rows", "mine")

    def __init__(self, rows: Rows, now: float) -> None:
        self._rows, self._now = rows, now
        self.mine = Rows(rows.next_order_id, rows.next_change_id)

    def do(self, op: o.Op) -> None:
        match op:
            case o.Launched():
                self._note_order(op.order, op)
                self._launched(op.attempt)
            case o.Disarm():
                self._disarm(base58(op.signature))
            case o.Intend():
                if op.not_after is not None and self._now > op.not_after:
                    raise o.TooLate(f"The attempt at {base58(op.order.address)} waited too long for the journal.")
                self._note_order(op.order, op)
                self._add_attempt(op.attempt)
            case o.MoveAttempt():
                self._move_attempt(op)
            case o.NoteState():
                self._note_state(op)
            case o.AddAttempt():
                self._add_attempt(op.attempt)
            case o.NoteOrder():
                self._note_order(op.order, op)
            case o.UseBudget() | o.ResetBudget():
                row = self._known(base58(op.address))
                row.budget_used = row.budget_used + op.n if isinstance(op, o.UseBudget) else 0
                self._touch(row)
            case o.NoteWays():
                self.mine.add_ways(row for row in op.rows if self._was_sent(base58(row.signature)))
            case o.AddPrepared():
                self._add_prepared(op)
            case o.MovePrepared():
                self._move_prepared(op)
            case o.DropPrepared():
                self._drop_prepared(op)
            case o.SetMeta():
                self.mine.meta[op.key] = op.value
            case o.CountOfDay():
                self.mine.meta[op.key] = op.after(self.mine.meta.get(op.key, self._rows.meta.get(op.key)))
            case o.AddSpend():
                self.mine.spend[op.day] = self.mine.spend.get(op.day, 0) + op.lamports
            case _:
                assert_never(op)

    def _own(self, mine: dict[str, T], theirs: dict[str, T], key: str) -> T | None:
        row = mine.get(key)
        if row is None:
            known = theirs.get(key)
            if known is None:
                return None
            row = mine[key] = copy.copy(known)
        return row

    # --- orders

    def _known(self, address: str) -> StoredOrder:
        row = self._own(self.mine.orders, self._rows.orders, address)
        if row is None:
            raise JournalError(f"The journal does not know the order {address}: note it before its state.")
        return row

    def _touch(self, row: StoredOrder, at: float | None = None) -> None:
        row.version += 1
        row.updated_at = self._now if at is None else at

    def _note_order(self, order: Order, op: o.NoteOrder | o.Intend) -> None:
        """Facts, and the state that goes with them. Of an intent, and where the note says so, the state is news
        even where the facts are old.
        """
        address = base58(order.address)
        row = self._own(self.mine.orders, self._rows.orders, address)
        note = op if isinstance(op, o.NoteOrder) else None
        at = self._now if note is None or note.at is None else note.at
        if row is None:
            row = self._new_order(order, op, address, at)
            self._say(row, at, row.slot)
            return
        known_slot = from_stored(row.slot)
        if order.slot < known_slot or (order.slot == known_slot and _from_before_its_end(order, row)):
            acted_on = type(op) is o.Intend if note is None else note.to_arm
            if acted_on and STATES[row.state] in CLOSED_STATES:
                raise DuplicateAttempt(
                    f"The order {address} is {row.state} as of slot {from_stored(row.slot)}: "
                    f"what was read of it in slot {order.slot} is older."
                )
            stands = note is None or (note.stands and order.created_at == row.created_at)
            if note is not None and note.reopen and STATES[row.state] in CLOSED_STATES:
                stands = False  # it ended by later facts
            if stands and op.state is not None:
                self._conclude(row, op, op.state, at)
            return
        before = row.identity() if row.slot else None
        visible = row.take_facts(order)
        if visible and before is not None and before != row.identity():
            self._begin_generation(row, order, op, at)
            return
        if note is not None and note.client_order_id is not None and note.client_order_id != row.client_order_id:
            row.client_order_id = note.client_order_id
            visible = True
        if op.state is not None:
            visible |= self._conclude(row, op, op.state, at, touch=False)
        else:
            visible |= self._learn(row, op)
        if visible:
            self._touch(row, at)

    def _new_order(self, order: Order, op: o.NoteOrder | o.Intend, address: str, at: float) -> StoredOrder:
        note = op if isinstance(op, o.NoteOrder) else None
        source = Source.CHAIN if note is None else note.source
        told = ("", op.reason or _FIRST_REASON[source], source.value, at, at)
        row = StoredOrder(*(self.mine.next_order_id, *ORDERS.values(order), *told))
        row.client_order_id = None if note is None else note.client_order_id
        row.set_state(first_state(order.status) if op.state is None else op.state)
        self.mine.next_order_id += 1
        self._learn(row, op)
        self.mine.orders[address] = row
        return row

    def _begin_generation(self, row: StoredOrder, order: Order, op: o.NoteOrder | o.Intend, at: float) -> None:
        """Another order was made at the address: what was known of the one before is not its own."""
        row.set_state(first_state(order.status) if op.state is None else op.state)
        row.reason = op.reason or _ANEW
        row.triggered_at = row.trigger_price = row.trigger_slot = row.position = None
        row.budget_used, row.attempts_made, row.first_seen_at = 0, 0, at
        if isinstance(op, o.NoteOrder) and op.client_order_id is not None:
            row.client_order_id = op.client_order_id
        self._learn(row, op)
        self._say(row, at, row.slot)
        self._touch(row, at)

    def _note_state(self, op: o.NoteState) -> None:
        row = self._known(base58(op.address))
        self._conclude(row, op, op.state, self._now if op.at is None else op.at, op.slot)

    def _conclude(
        self,
        row: StoredOrder,
        op: o.Note | o.Intend,
        state: OrderState,
        at: float,
        slot: int | None = None,
        *,
        touch: bool = True,
    ) -> bool:
        """What a note says of the order; whether anything changed."""
        visible = self._learn(row, op)
        visible |= self._move_order(row, op, state, at, row.slot if slot is None else to_stored(slot))
        if visible and touch:
            self._touch(row, at)
        return visible

    def _learn(self, row: StoredOrder, op: o.Note | o.Intend) -> bool:
        """Fill in what the note knows of the trigger and the position; whether anything changed."""
        if isinstance(op, o.Intend):
            if op.triggered_at is None:
                return False
            price, slot, position = op.attempt.trigger_price_1e6, op.attempt.trigger_slot, None
        else:
            price, slot, position = op.trigger_price_1e6, op.trigger_slot, op.position
        before = (row.triggered_at, row.trigger_price, row.trigger_slot, row.position)
        if op.triggered_at is not None:
            row.triggered_at = op.triggered_at
        if price is not None:
            row.trigger_price = to_stored(price)
        if slot is not None:
            row.trigger_slot = to_stored(slot)
        if position is not None:
            row.position = base58(position)
        return before != (row.triggered_at, row.trigger_price, row.trigger_slot, row.position)

    def _move_order(self, row: StoredOrder, op: o.Note | o.Intend, state: OrderState, at: float, slot: int) -> bool:
        """Set state and reason as far as the rules allow; whether anything changed."""
        known, reopen = STATES[row.state], not isinstance(op, o.Intend) and op.reopen
        if not (reopen or (known, state) in ALLOWED):
            return False
        reason = op.reason
        if not reason:
            # Promise 5: a state has a reason. A note on the account has one in the account itself.
            if not isinstance(op, o.NoteOrder):
                raise JournalError(f"The state {state.value} of the order {row.address} needs a reason.")
            reason = row.reason if state is known else f"Its account reads {op.order.status.word}."
        if state is known and (reason == row.reason or (row.closed and not reopen)):
            return False  # an end is told once
        news = state is not known or reason_class(reason) != reason_class(row.reason)
        row.set_state(state)
        row.reason = reason
        if news:
            self._say(row, at, slot)
        return True

    def _say(self, row: StoredOrder, at: float, slot: int) -> None:
        mine = self.mine
        mine.changes.append(NewChange(mine.next_change_id, row.address, row.state, row.reason, at, slot))
        mine.next_change_id += 1

    # --- attempts

    def _add_attempt(self, attempt: Attempt) -> None:
        signature, order = base58(attempt.signature), base58(attempt.order)
        if self._added(signature) is not None:
            raise DuplicateAttempt(f"The attempt {signature} is in the journal already.")
        if (attempt.kind, attempt.state) in BLOCKING:
            live = self.mine.live[order] if order in self.mine.live else self._rows.live.get(order)
            if live is not None:
                raise DuplicateAttempt(
                    f"The order {order} has an attempt that could still land: {live}. "
                    "It must end before another is signed."
                )
            self.mine.live[order] = signature
        self.mine.added[signature] = attempt
        if attempt.state is not AttemptState.ARMED:
            self._count(order, attempt)

    def _count(self, order: str, attempt: Attempt) -> None:
        row = self._own(self.mine.orders, self._rows.orders, order)
        if row is not None:
            row.attempts_made = max(row.attempts_made, attempt.number)
            # What is signed for an order was signed after it was seen, also where its first note was written later.
            row.first_seen_at = min(row.first_seen_at, attempt.signed_at)
            self._touch(row)

    def _added(self, signature: str) -> Attempt | None:
        """The attempt, if an operation before this one in the same group added it."""
        mine = self.mine.added.get(signature)
        return mine if mine is not None or signature in self.mine.disarmed else self._rows.added.get(signature)

    def _was_sent(self, signature: str) -> bool:
        attempt = self._added(signature) or self._stored(signature)
        return attempt is not None and attempt.state is not AttemptState.ARMED

    def _stored(self, signature: str) -> KnownAttempt | None:
        known = self.mine.attempts.get(signature)
        if known is None:
            stored = self._rows.attempts.get(signature)
            if stored is None:
                return None
            known = self.mine.attempts[signature] = copy.copy(stored)
            known.patch = dict(stored.patch)
        return None if known.disarmed else known

    def _launched(self, attempt: Attempt) -> None:
        """An armed attempt was sent, and by which price. What is known of it already goes further than that."""
        signature = base58(attempt.signature)
        added, known = self._added(signature), self._stored(signature)
        state = added.state if added is not None else known.state if known is not None else AttemptState.SIGNED
        to = AttemptState.SIGNED if state is AttemptState.ARMED else state
        self._move_attempt(o.MoveAttempt(attempt.signature, to))
        price, slot = attempt.trigger_price_1e6, attempt.trigger_slot
        if added is not None:
            self.mine.added[signature] = added._replace(state=to, trigger_price_1e6=price, trigger_slot=slot)
        elif known is not None:
            known.patch["trigger_price"] = None if price is None else to_stored(price)
            known.patch["trigger_slot"] = None if slot is None else to_stored(slot)
        self._count(base58(attempt.order), attempt)

    def _disarm(self, signature: str) -> None:
        found = self._added(signature) or self._stored(signature)
        if found is None:
            return
        if found.state is not AttemptState.ARMED:
            raise DuplicateAttempt(f"The attempt {signature} was sent, so it can't be disarmed.")
        if isinstance(found, KnownAttempt):
            found.disarmed = True
            self.mine.live[found.order_address] = None
        else:
            if signature in self._rows.added:
                self.mine.disarmed[signature] = None
            self.mine.added.pop(signature, None)
            self.mine.live[base58(found.order)] = None

    def _move_attempt(self, op: o.MoveAttempt) -> None:
        signature = base58(op.signature)
        learnt = {name: value for name in _PATCHES if (value := getattr(op, name)) is not None}
        added = self._added(signature)
        if added is not None:
            must_move(signature, added.state, op.state)
            self.mine.added[signature] = added._replace(state=op.state, **learnt)
            self._moved(base58(added.order), added.kind, added.state, op.state)
            return
        known = self._stored(signature)
        if known is None:
            raise JournalError(f"The journal does not know the attempt {signature}.")
        must_move(signature, known.state, op.state)
        self._moved(known.order_address, known.kind, known.state, op.state)
        known.state = op.state
        known.patch["state"] = op.state.value
        for column, value in learnt.items():
            known.patch[column] = moved_value(column, value)

    def _moved(self, order: str, kind: AttemptKind, state: AttemptState, to: AttemptState) -> None:
        if (kind, state) in BLOCKING and (kind, to) not in BLOCKING:
            self.mine.live[order] = None
        self.mine.bumped[order] = None

    # --- prepared transactions

    def _add_prepared(self, op: o.AddPrepared) -> None:
        row = op.prepared
        if row.id in self.mine.prepared or row.id in self._rows.prepared:
            raise o.JournalConflict(f"There is a prepared transaction {row.id} already.")
        key = row.idempotency_key
        if key is not None:
            keys = self.mine.prepared_keys if key in self.mine.prepared_keys else self._rows.prepared_keys
            taken = keys.get(key)
            if taken is not None:
                raise o.JournalConflict(f"This idempotency key was used for the prepared transaction {taken}.")
            self.mine.prepared_keys[key] = row.id
        signature = None if row.signature is None else base58(row.signature)
        self.mine.prepared[row.id] = KnownPrepared(row.id, key, row.status.value, signature, row)

    def _move_prepared(self, op: o.MovePrepared) -> None:
        known = self._own(self.mine.prepared, self._rows.prepared, op.id)
        if known is None:
            raise JournalError(f"The journal does not know the prepared transaction {op.id}.")
        if op.expected is not None and known.status != op.expected.value:
            raise o.JournalConflict(f"The prepared transaction {op.id} is {known.status} by now.")
        known.status, known.moved = op.status.value, True
        if op.signature is not None:
            known.signature = base58(op.signature)

    def _drop_prepared(self, op: o.DropPrepared) -> None:
        known = self._own(self.mine.prepared, self._rows.prepared, op.id)
        if known is not None and known.status not in _KEPT:
            known.dropped = True
            if known.key is not None:
                self.mine.prepared_keys[known.key] = None


def _from_before_its_end(order: Order, row: StoredOrder) -> bool:
    """Of two readings of one slot the one in which the order has ended is the later one."""
    closed = order.created_at == row.created_at and bool(row.closed)
    return closed and order.pending and row.onchain_status != order.status
