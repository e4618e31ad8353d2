"""What can be written to the journal. One `commit` makes its operations durable together or not at all.

msgspec's structs, because ten of them are made for an execution, and a frozen dataclass takes six times as long.
"""

from __future__ import annotations

import msgspec
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptState, Fate
from keeper.domain.errors import JournalError
from keeper.domain.orders import Order, OrderState
from keeper.domain.ways import WayRow
from keeper.journal.records import PreparedRow, PreparedStatus, Source


class JournalConflict(JournalError):
    """The journal already holds something else: this idempotency key, or another status than the expected one."""


class LimitReached(JournalError):
    """A day's count has come to its limit."""


class TooLate(JournalError):
    """What was decided waited for the journal for so long that it has to be decided again."""


class AddAttempt(msgspec.Struct, frozen=True, gc=False):
    """Journal a signed transaction, before it leaves (promise 1). An armed one does not count as tried.

    Raises DuplicateAttempt when it is the keeper's own and the order already has one that could land.
    """

    attempt: Attempt


class MoveAttempt(msgspec.Struct, frozen=True, gc=False):
    """An attempt's next state, with what was learnt; None leaves a field as it is.

    An ended attempt (finalized, failed, expired, dry run) keeps its state: a move back to a live one is refused
    with JournalError, as is an unknown signature. A repeated end only adds what was learnt.
    """

    signature: Signature
    state: AttemptState
    sent_at: float | None = None
    seen_slot: int | None = None
    confirmed_at: float | None = None
    finalized_at: float | None = None
    ended_at: float | None = None
    fate: Fate | None = None
    error_name: str | None = None
    error_program: str | None = None
    error_detail: str | None = None
    fee_lamports: int | None = None
    position: Pubkey | None = None


class _Learnt(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a note tells beside the order's state. None leaves the row's field as it is; `at` is when it was learnt,
    unix seconds, and None is now. `reopen` lets a state follow that otherwise may not.
    """

    triggered_at: float | None = None
    trigger_price_1e6: int | None = None
    trigger_slot: int | None = None
    position: Pubkey | None = None
    reopen: bool = False
    at: float | None = None


class NoteOrder(_Learnt, frozen=True, gc=False):
    """An order's facts at its slot; the row is created at first sight.

    Facts older than the row's slot are ignored, with the state that was concluded from them; with `stands` the state
    is news all the same, because it was not. `state` None keeps
    the state; at first sight it is what the account's status says. Facts of another order than the row's (one that was
    made at its address since) begin a new generation: the budget is whole, and what was known of the other is gone.
    A state that may not follow the present one (`keeper.journal.transitions`) is ignored unless `reopen`, and an end is
    not told twice. Facts that are older than an end reopen nothing.

    A row of `changes` is added when the state or the reason really changed; sentences that differ only in their
    numbers are the same reason. `to_arm`: an attempt is armed by these facts, so they are refused like an intent's.
    """

    order: Order
    state: OrderState | None = None
    reason: str = ""
    source: Source = Source.CHAIN
    client_order_id: str | None = None
    to_arm: bool = False
    stands: bool = False


class NoteState(_Learnt, frozen=True, gc=False):
    """What became of an order whose facts did not change. The rules of `NoteOrder` hold.

    `slot` is the slot of the news, for the history. Raises JournalError when the journal doesn't know the order.
    """

    address: Pubkey
    state: OrderState
    reason: str
    slot: int | None = None


class Intend(msgspec.Struct, frozen=True, gc=False):
    """What the keeper is about to do for an order, before it does it (promise 1): the facts that it goes by, the signed
    attempt, and the state and the reason that the order then has. One operation, because a tick waits for it.

    The facts are NoteOrder's, the attempt AddAttempt's, with what each is refused for. `state` None keeps the state.
    The trigger's price and slot are the attempt's; `triggered_at` is when the price came in, unix seconds. Raises
    TooLate when it can be written only after `not_after`, unix seconds; and DuplicateAttempt for an order of which the
    journal knows, from a later slot than those facts, that it has ended.
    """

    order: Order
    attempt: Attempt
    reason: str
    triggered_at: float | None = None
    state: OrderState | None = None
    not_after: float | None = None


class Launched(Intend, frozen=True, gc=False):
    """An armed attempt was sent: the one intent that follows its send, because the attempt was committed before. The
    facts, the state and the trigger are as of `Intend`; the attempt is the journal's, `signed` from now on.

    JournalError when the journal doesn't have the attempt.
    """


class Disarm(msgspec.Struct, frozen=True, gc=False):
    """Forget an armed attempt, which was not sent and never will be: its row goes. One that isn't there is none to
    forget. DuplicateAttempt when it was sent.
    """

    signature: Signature


class UseBudget(msgspec.Struct, frozen=True, gc=False):
    """Take `n` from an order's retry budget."""

    address: Pubkey
    n: int = 1


class ResetBudget(msgspec.Struct, frozen=True, gc=False):
    """Give an order its whole retry budget back."""

    address: Pubkey


class AddPrepared(msgspec.Struct, frozen=True, gc=False):
    """Keep an unsigned transaction that is about to be handed out.

    Raises JournalConflict when its id or its idempotency key is taken: look at `prepared_by_key` and compare.
    """

    prepared: PreparedRow


class MovePrepared(msgspec.Struct, frozen=True, gc=False):
    """A prepared transaction's next status. With `expected`, JournalConflict when it has another one by now:
    of two requests that bring the same signed transaction, one goes on.
    """

    id: str
    status: PreparedStatus
    signature: Signature | None = None
    expected: PreparedStatus | None = None


class DropPrepared(msgspec.Struct, frozen=True, gc=False):
    """Forget a prepared transaction, and let go of its idempotency key. One that was submitted, and did not come to
    nothing, stays; one that isn't there is none to forget.
    """

    id: str


class SetMeta(msgspec.Struct, frozen=True, gc=False):
    """Keep a value under a key; None removes it."""

    key: str
    value: str | None


class CountOfDay(msgspec.Struct, frozen=True, gc=False):
    """Add `n` to a count that begins anew with each day. The value under the key is `DAY COUNT`, and never below 0.

    Raises LimitReached when it would be above `most`. Whoever else counts at the same moment, in another process too,
    comes before or after.
    """

    key: str
    day: str
    n: int
    most: int | None = None

    def after(self, value: str | None) -> str:
        """The value that follows."""
        day, _, number = (value or "").partition(" ")
        count = max(0, (int(number) if day == self.day else 0) + self.n)
        if self.most is not None and count > self.most:
            raise LimitReached(f"The count {self.key} has come to {self.most} on {self.day}.")
        return f"{self.day} {count}"


class AddSpend(msgspec.Struct, frozen=True, gc=False):
    """Add to what left the keeper's key on a day: fees, and the rent of positions. `day` is `YYYY-MM-DD`, UTC."""

    day: str
    lamports: int


class NoteWays(msgspec.Struct, frozen=True, gc=False):
    """By which ways attempts were sent since the last note of them, and what these said: `sends` are added up, and a
    newer answer takes an older one's place. Nothing is kept of an attempt that the journal has not, or has as armed.
    """

    rows: tuple[WayRow, ...]


Note = NoteOrder | NoteState
"""What may be posted without waiting."""

Op = (
    AddAttempt
    | MoveAttempt
    | NoteOrder
    | NoteState
    | NoteWays
    | Intend
    | Disarm
    | UseBudget
    | ResetBudget
    | AddPrepared
    | MovePrepared
    | DropPrepared
    | SetMeta
    | CountOfDay
    | AddSpend
)
