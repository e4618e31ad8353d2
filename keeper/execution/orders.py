"""One record an order: whether it may be acted on now, and if not, for which reasons and what lifts each of them.

An order that is pending on chain, and has no record or a record without a reason, is free: a fresh price that meets
it makes an attempt. Every reason has one way out, which its line in `Reason` names, and to lift one is to name it:
the others stay. An order that is made again at the address of one that was closed is a new generation, with a fresh
budget; what was true of the address stays (a signature that could still land), what was true of the order goes.

Nothing else in the keeper keeps such state. The book is told what to watch of each order, the readers of accounts ask
which orders wait for a reading, and the router looks again at whatever is free again (`freed`). Times are monotonic
seconds, and are passed in.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.orders import Order
from keeper.execution.tries import RetryLimits, Tries
from keeper.triggers.book import Book
from keeper.triggers.explain import never
from keeper.triggers.watchlist import Watched


class Reason(enum.IntEnum):
    """Why an order may not be acted on now, the one that says most first."""

    ATTEMPT = 0
    """An attempt was decided, is signed, or landed and is not rooted. Lifted by the end of that attempt."""
    CANCEL = 1
    """Its user's signed cancel is being landed. Lifted when that has landed, or no longer can."""
    ENDED = 2
    """It is not pending any more, by news at processed. Lifted by a reading at confirmed of what became of it."""
    EXPIRED = 3
    """It is past `expires_at` by the chain's clock. Lifted when its account ends."""
    FAILED = 4
    """Its budget is used up, or the program refused it for good. Lifted by an operator."""
    ACCOUNT = 5
    """Its user can't pay. Lifted when the user's margin account changes, or by an operator."""
    UNREADABLE = 6
    """Its account does not decode. Lifted by a reading that does."""
    PAUSE = 7
    """It was tried, and is tried again after a pause. Lifted by the end of the pause."""
    LATER_PRICE = 8
    """It was tried at the price of a slot, or would have been in a dry run. Lifted by a price from a later slot."""
    DRY_RUN = 9
    """Its execution was written down, and not sent. Lifted when its account ends, or by a restart."""


Detail = Signature | frozenset[Signature] | Pubkey | float | int | str | None
"""What belongs to a reason: an attempt's signature (None: not signed yet), those of the cancels, the slot of the news
of an end, the account that is waited for, the time at which a pause ends, the slot after which a price counts, or a
sentence.
"""

OF_THE_ADDRESS: Final = frozenset({Reason.ATTEMPT, Reason.CANCEL})
"""What could still land acts on whichever order is at the address by then, so these outlive a generation."""

RESTS: Final = "It rests until a fresh price meets its condition."


def rests(order: Order, book: Book) -> str:
    """Why a free order is not executed, for the journal: the same until the order is another."""
    return never(order, executes=book.executes(order)) or RESTS


_WATCHED: Final = {
    Reason.ATTEMPT: Watched.NOTHING,
    Reason.CANCEL: Watched.NOTHING,
    Reason.ENDED: Watched.NOTHING,
    Reason.EXPIRED: Watched.EXPIRED,
}
_ATTEMPT: Final = Reason.ATTEMPT
_AT_REST: Final = frozenset({Reason.PAUSE, Reason.LATER_PRICE})
_NOTHING: Final = Watched.NOTHING


@dataclass(slots=True, eq=False)
class Record:
    """What is known of one order beside its account. `generation` is unlike that of any other order, at this address
    or elsewhere; `order` is the order as it was when that began (`Order.identity` tells another one), None until it was
    read. `executes`: whether the attempt of its reason ATTEMPT is to execute it, and not to move its stop; `held` why
    that is not signed while it waits, for the journal.
    """

    address: Pubkey
    generation: int
    order: Order | None
    reasons: dict[Reason, Detail] = field(default_factory=dict)
    tries: Tries = field(default_factory=Tries)
    executes: bool = True
    held: str = ""

    def __repr__(self) -> str:
        reasons = ", ".join(f"{reason.name.lower()}={detail}" for reason, detail in sorted(self.reasons.items()))
        return f"Record({self.address}, generation {self.generation}, {reasons or 'free'}, {self.tries})"

    @property
    def watched(self) -> Watched:
        """What the book has to watch of the order."""
        return max((_WATCHED.get(reason, Watched.EXPIRY) for reason in self.reasons), default=Watched.EVERYTHING)

    def sentence(self, order: Order, now_s: float) -> str | None:
        """Why it may not be acted on, for people; None when it is free. `order` is the order as the book has it."""
        if not self.reasons:
            return None
        reason = min(self.reasons)
        detail = self.reasons[reason]
        match reason:
            case Reason.EXPIRED:
                return f"The order expired at {order.expires_at} (unix seconds, by the chain's clock)."
            case Reason.PAUSE:
                assert isinstance(detail, float)
                return f"The last attempt failed; it is tried again in {max(0.0, detail - now_s):.1f} s."
            case Reason.LATER_PRICE:
                why = "The chain refused it at its price in slot" if self.tries.failed else "It was looked at in slot"
                return f"{why} {detail}, and it waits for a later price."
            case Reason.UNREADABLE:
                return f"Its account can't be read: {detail}."
        return _SENTENCES[reason]


_SENTENCES: Final = {
    Reason.ATTEMPT: "An attempt at this order is under way.",
    Reason.CANCEL: "Its user's signed cancel is being landed.",
    Reason.ENDED: "It is not pending any more; what became of it is being read.",
    Reason.FAILED: "It failed; an operator can let it be tried again.",
    Reason.DRY_RUN: "Dry run: it would have been executed, and nothing is sent.",
    Reason.ACCOUNT: "Its user's account can't carry it; it is tried again when that account changes.",
}


class Orders:
    """The records of all orders that are not simply resting, and what follows from a change of one."""

    def __init__(self, book: Book, limits: RetryLimits) -> None:
        self.book = book
        self.limits = limits
        self.freed: dict[Pubkey, None] = {}
        """Orders that became free and have not been looked at since."""
        self.wake = asyncio.Event()
        """Set while there may be such orders."""
        self.ended = asyncio.Event()
        """Set when an order gets the reason ENDED."""
        self._records: dict[Pubkey, Record] = {}
        self._generations = itertools.count(1)
        self._by_reason: dict[Reason, dict[Pubkey, None]] = {reason: {} for reason in Reason}
        self._pauses: list[tuple[float, int, Pubkey]] = []
        self.waiting: dict[Pubkey, list[tuple[int, int, bytes]]] = {}
        """By market: the orders that wait for a later price, as (slot, generation, address), the earliest first."""

    def __repr__(self) -> str:
        blocked = ", ".join(f"{len(some)} {reason.name.lower()}" for reason, some in self._by_reason.items() if some)
        return f"Orders({len(self._records)} records: {blocked or 'none blocked'})"

    def __len__(self) -> int:
        return len(self._records)

    # -- questions

    def get(self, address: Pubkey) -> Record | None:
        """The order's record; None when it simply rests, or is unknown."""
        return self._records.get(address)

    def cancelled_by_another(self, address: Pubkey, signature: Signature) -> bool:
        """Whether a relayed cancel other than this transaction is in the air for the order."""
        record = self._records.get(address)
        return record is not None and bool(_cancels(record) - {signature})

    def addresses(self) -> list[Pubkey]:
        """The orders that have a record."""
        return list(self._records)

    def blocked(self, reason: Reason) -> Collection[Pubkey]:
        """The orders with this reason, the first one first."""
        return self._by_reason[reason].keys()

    def has(self, address: Pubkey, reason: Reason) -> bool:
        """Whether the order has this reason not to be acted on."""
        return address in self._by_reason[reason]

    def executing(self, address: Pubkey) -> bool:
        """Whether a signed attempt to execute the order is under way. One that is not signed yet may be given up
        without a word.
        """
        record = self._records.get(address)
        return record is not None and record.executes and record.reasons.get(_ATTEMPT) is not None

    def held(self, address: Pubkey) -> str:
        """Why an execution that was decided waits and is not signed; empty when none does."""
        record = self._records.get(address)
        if record is None or _ATTEMPT not in record.reasons or record.reasons[_ATTEMPT] is not None:
            return ""
        return record.held

    def free(self, address: Pubkey) -> bool:
        """Whether nothing speaks against acting on it."""
        record = self._records.get(address)
        return record is None or not record.reasons

    def only_tried(self, address: Pubkey) -> bool:
        """Whether nothing but its attempt holds it up."""
        record = self._records.get(address)
        return record is not None and record.reasons.keys() == {_ATTEMPT}

    def at_rest(self, address: Pubkey) -> bool:
        """Whether its state is open: it is free, or waits for time or a price alone."""
        record = self._records.get(address)
        return record is None or record.reasons.keys() <= _AT_REST

    def not_seen_since(self, slot: int, cursor: int) -> tuple[list[Pubkey], int | None]:
        """Orders of the book that nothing as new as `slot` is known of, in steps (`Book.older_than`). At the end those
        that can't be read and are not in the book any more: who closes one of them may do so unheard.
        """
        gone, following = self.book.older_than(slot, start=cursor)
        if following is None:
            gone += [address for address in self.blocked(Reason.UNREADABLE) if self.book.slot(address) is None]
        return gone, following

    # -- readings

    def record(self, address: Pubkey, order: Order | None = None) -> Record:
        """The record, made if there is none. `order` is the order as it was last read, if it was."""
        record = self._records.get(address)
        if record is None:
            record = self._records[address] = Record(address, next(self._generations), None)
        if record.order is None:
            record.order = order
        return record

    def seen(self, order: Order) -> None:
        """It was read, pending, and the book has it: so it has not ended and is readable, and it may be another order
        than the one that was known.
        """
        record = self._records.get(order.address)
        if record is None:
            return
        known = {*record.reasons}
        if record.order is None:
            record.order = order
        elif record.order.identity != order.identity:
            self._begin_generation(record, order)
        self._drop(record, {Reason.ENDED, Reason.UNREADABLE})
        if record.reasons.keys() != known:
            self._follow(record)

    def _begin_generation(self, record: Record, order: Order) -> None:
        record.generation, record.order = next(self._generations), order
        record.tries = Tries(made=record.tries.made)
        self._drop(record, record.reasons.keys() - OF_THE_ADDRESS)

    def _drop(self, record: Record, reasons: Iterable[Reason]) -> bool:
        found = [reason for reason in reasons if reason in record.reasons]
        for reason in found:
            del record.reasons[reason], self._by_reason[reason][record.address]
        return bool(found)

    def close(self, address: Pubkey, slot: int) -> None:
        """What became of it is known: as of `slot` it is not pending. Only what could still land at its address stays.

        A reading from a later slot that says pending brings it back, when a fork dropped what ended it.
        """
        self.book.close(address, slot)
        record = self._records.get(address)
        if record is None:
            return
        # Where newer news says that it is pending, it did not end.
        pending = self.book.get(address) is not None
        if self._drop(record, {Reason.ENDED} if pending else record.reasons.keys() - OF_THE_ADDRESS):
            self._follow(record)

    def let_go(self) -> None:
        """The keeper works no more: have the book watch everything again, for whose it will be next, and forget it all.
        What comes late has no effect on that book.
        """
        for address in self._records:
            self.book.watch(address, Watched.EVERYTHING)
        self.book = Book()
        self._records.clear()
        self.freed.clear()
        self.waiting.clear()
        self._pauses.clear()
        for some in self._by_reason.values():
            some.clear()

    # -- reasons

    def begin(self, order: Order, *, executes: bool = True) -> Record:
        """An attempt at this free order was decided: nothing else is decided of it until that has ended."""
        address = order.address
        record = self._records.get(address)
        if record is None:
            record = self._records[address] = Record(address, next(self._generations), order)
        assert not record.reasons, f"an attempt was decided at an order that is blocked: {record}"
        record.reasons[_ATTEMPT] = None
        record.executes, record.held = executes, ""
        self._by_reason[_ATTEMPT][address] = None
        self.book.watch(address, _NOTHING)
        return record

    def block(self, record: Record, reason: Reason, detail: Detail = None) -> None:
        """Add a reason, or renew its detail."""
        record.reasons[reason] = detail
        self._by_reason[reason][record.address] = None
        self.freed.pop(record.address, None)
        self.book.watch(record.address, record.watched)
        if reason is Reason.ENDED:
            self.ended.set()

    def pause(self, record: Record, until_s: float) -> None:
        """Let it rest until then; a longer pause that it has already stays."""
        known = record.reasons.get(Reason.PAUSE)
        if isinstance(known, float) and known >= until_s:
            return
        self.block(record, Reason.PAUSE, until_s)
        heapq.heappush(self._pauses, (until_s, record.generation, record.address))
        self.wake.set()

    def await_price(self, record: Record, market: Pubkey, after_slot: int) -> None:
        """Let it rest until there is a price of its market from after this slot."""
        self.block(record, Reason.LATER_PRICE, after_slot)
        self.wake.set()  # such a price may be known already
        heapq.heappush(self.waiting.setdefault(market, []), (after_slot, record.generation, bytes(record.address)))

    def lift(self, address: Pubkey, generation: int, *reasons: Reason) -> bool:
        """Lift reasons of this generation of the order; whether it had any of them. The others stay."""
        record = self._records.get(address)
        if record is None or record.generation != generation:
            return False
        lifted = self._drop(record, reasons)
        if lifted:
            self._follow(record)
        return lifted

    def attempt_over(self, address: Pubkey, signature: Signature | None) -> None:
        """This attempt can't land (again), whichever order is at the address by now. None: it was never signed."""
        record = self._records.get(address)
        if record is not None and _ATTEMPT in record.reasons and record.reasons[_ATTEMPT] == signature:
            self.lift(address, record.generation, _ATTEMPT)
        elif record is not None and not record.reasons and self.book.get(address) is None:
            del self._records[address]  # armed before a restart it held up nothing, and its order has ended since

    def cancel_relayed(self, addresses: Iterable[Pubkey], signature: Signature) -> None:
        """Their user's signed cancel can land from now on."""
        for address in addresses:
            record = self.record(address, self.book.get(address))
            self.block(record, Reason.CANCEL, _cancels(record) | {signature})

    def cancel_over(self, addresses: Iterable[Pubkey], signature: Signature) -> None:
        """This cancel has landed, or no longer can. Another one keeps the reason."""
        for address in addresses:
            record = self._records.get(address)
            if record is None or signature not in _cancels(record):
                continue
            left = _cancels(record) - {signature}
            if left:
                record.reasons[Reason.CANCEL] = left
            else:
                self.lift(address, record.generation, Reason.CANCEL)

    def _follow(self, record: Record) -> None:
        """Have the book watch what is to be watched now; and keep no record of what simply rests, or is not there."""
        address = record.address
        self.book.watch(address, record.watched)
        if record.reasons:
            return
        known = self.book.get(address) is not None
        if not known or record.tries == _NEVER_TRIED:
            del self._records[address]
        if known:
            self.freed[address] = None
            self.wake.set()

    # -- what time and prices lift

    def pauses_over(self, now_s: float) -> None:
        """Lift the pauses that are over."""
        while self._pauses and self._pauses[0][0] <= now_s:
            until_s, generation, address = heapq.heappop(self._pauses)
            record = self._records.get(address)
            if record is not None and record.reasons.get(Reason.PAUSE) == until_s:
                self.lift(address, generation, Reason.PAUSE)

    def next_pause_over_s(self) -> float | None:
        """When the next pause is over."""
        return self._pauses[0][0] if self._pauses else None

    def price_came(self, market: Pubkey, slot: int, limit: int | None = None) -> int:
        """There is a price as of this slot: lift what waited for it, at most `limit` orders; how many they were."""
        heap = self.waiting.get(market)
        lifted = 0
        while heap and heap[0][0] < slot and lifted != limit:
            after_slot, generation, raw = heapq.heappop(heap)
            address = Pubkey.from_bytes(raw)
            record = self._records.get(address)
            if record is not None and record.reasons.get(Reason.LATER_PRICE) == after_slot:
                lifted += self.lift(address, generation, Reason.LATER_PRICE)
        if heap is not None and not heap:
            del self.waiting[market]
        return lifted


def _cancels(record: Record) -> frozenset[Signature]:
    known = record.reasons.get(Reason.CANCEL)
    return known if isinstance(known, frozenset) else frozenset()


_NEVER_TRIED: Final = Tries()
