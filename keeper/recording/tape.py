"""The decision and its book as they are when a recording is made: the same, and each call of them leaves an entry.

Everything that changes what is decided goes through these two, so that a replay is the same calls of a decision that
leaves no entries. A keeper that records nothing has the bare `Decision`.

What lists of accounts say again of orders that have not changed is not written down one by one: the entry of an order's
news has the slot that the book knew before, which tells that as far as it matters. Entries wait in a bounded list until
the recorder takes them. What does not fit is counted, and from then on nothing is kept until the recorder begins anew.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from solders.pubkey import Pubkey

from keeper.domain.actions import Action
from keeper.domain.events import AccountUnreadable, ChainTime, Event, MarketSeen, OrderSeen
from keeper.domain.intake import Intake
from keeper.domain.orders import Order, fields_of
from keeper.domain.prices import Price
from keeper.recording import entries
from keeper.recording.entries import Entry, decided
from keeper.triggers.book import Book, Change
from keeper.triggers.checkpoint import dump, price_values
from keeper.triggers.decision import Decision, Rules
from keeper.triggers.loading import Loading
from keeper.triggers.watchlist import Watched

MOST_ENTRIES = 65_536
"""So many may wait to be written: about 30 MB, and two minutes of 50 markets with a price in every slot."""
KEEPER = "keeper"
"""The source of what the keeper itself brings up: the end of an attempt, a pause that is over."""
_OF_A_BEGINNING = frozenset({entries.BEGIN, entries.STATE, entries.PAGE, entries.HOLE})
"""What is made anew when it begins again, and so is never missing."""


class Tape:
    """The entries that wait. `source` is who tells what is being taken in now. `loading`: the book is being filled, and
    has no state to speak of.
    """

    def __init__(self, most: int = MOST_ENTRIES) -> None:
        self._most = most
        self._entries: list[Entry] = []
        self._named: set[Pubkey] = set()
        self.source = KEEPER
        self.loading = False
        self.running = False
        self.missing = 0
        """How many entries were dropped since there was last a whole tape."""
        self.dropped = 0

    def __repr__(self) -> str:
        return f"Tape({len(self._entries)} entries wait, {self.dropped} were dropped)"

    def keep(self, *entry: Any) -> None:
        """Keep an entry, or count it when there is no room or none is wanted."""
        self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        if self.running and len(self._entries) < self._most:
            self._entries.append(entry)
            return
        self.running = False
        self.missing += 1
        self.dropped += 1

    def market(self, seen: MarketSeen, taken: bool) -> list[Any]:
        """Keep the entry of a market's account, which may be added to while it is the last one."""
        m = seen.market
        if m.address not in self._named:
            self._named.add(m.address)
            self.keep(entries.NAME, seen.received_at_ns, bytes(m.address), m.symbol)
        entry = [
            *(entries.MARKET, seen.received_at_ns, self.source, bytes(m.address), m.slot),
            *(m.last_oracle_price_1e6, m.last_oracle_update_s, m.is_active, taken),
        ]
        self._keep(entry)
        return entry

    def is_last(self, entry: object) -> bool:
        """Whether this is the last entry that was kept, and still here."""
        return bool(self._entries) and self._entries[-1] is entry

    def begin(self, *first: Entry) -> None:
        """Keep entries from now on, behind these, whether there is room for them or not."""
        self.running = True
        self.missing = 0
        self._named.clear()
        self._entries += first

    def state(self, decision: Decision) -> list[Entry]:
        """Entries of all that the decision knows now."""
        checkpoint, pages = dump(decision)
        at_ns = monotonic_ns()
        return [(entries.STATE, at_ns, checkpoint, len(pages)), *((entries.PAGE, at_ns, page) for page in pages)]

    def stop(self, taken: list[Entry]) -> None:
        """Keep nothing until it begins again. What waits is dropped, as what was taken has been."""
        self.running = False
        gone = [*taken, *self.take()]
        lost = sum(entry[0] not in _OF_A_BEGINNING for entry in gone)
        self.missing += lost + sum(entry[2] for entry in gone if entry[0] == entries.HOLE)
        self.dropped += lost

    def take(self) -> list[Entry]:
        """The entries that wait, which do so no longer."""
        taken, self._entries = self._entries, []
        return taken


class TapedBook(Book):
    """A book whose changes are written down. A change that is a part of another one is not written down by itself."""

    def __init__(self, rules: Rules, tape: Tape, decision: Decision) -> None:
        super().__init__(rules.executable, rules.trailing_step_ppm)
        self._tape = tape
        self._decision = decision
        self._inside = False

    def upsert(self, order: Order) -> Change:
        """As `Book.upsert`."""
        if self._inside:
            return super().upsert(order)
        known = self.slot(order.address)
        self._inside = True
        try:
            change = super().upsert(order)
        finally:
            self._inside = False
        fields = None if change is Change.SAME else fields_of(order)
        self._keep(entries.ORDER, order.address, order.slot, known, change.value, fields)
        return change

    def remove(self, address: Pubkey, slot: int) -> bool:
        """As `Book.remove`."""
        known = self.slot(address)
        was_known = super().remove(address, slot)
        self._keep(entries.GONE, address, slot, known, was_known)
        return was_known

    def close(self, address: Pubkey, slot: int) -> bool:
        """As `Book.close`."""
        if self._inside:
            return super().close(address, slot)
        known = self.slot(address)
        was_known = super().close(address, slot)
        self._keep(entries.CLOSED, address, slot, known, was_known)
        return was_known

    def forget_end(self, address: Pubkey) -> None:
        """As `Book.forget_end`."""
        super().forget_end(address)
        self._tape.keep(entries.REVIVED, monotonic_ns(), bytes(address))

    def watch(self, address: Pubkey, watched: Watched) -> None:
        """As `Book.watch`."""
        super().watch(address, watched)
        self._tape.keep(entries.WATCH, monotonic_ns(), bytes(address), watched)

    def loading(self) -> Loading:
        """As `Book.loading`. A load into an empty book is written down as the state that it leaves."""
        self._tape.loading = not len(self)
        return super().loading()

    def _loaded(self, twins: list[int]) -> None:
        self._inside = True
        try:
            super()._loaded(twins)
        finally:
            self._inside = self._tape.loading = False
        if self._tape.running:
            self._tape.begin(*self._tape.state(self._decision))

    def _keep(self, kind: str, address: Pubkey, *values: Any) -> None:
        self._tape.keep(kind, monotonic_ns(), self._tape.source, bytes(address), *values)


class TapedDecision(Decision):
    """A decision whose facts and answers are written down."""

    def __init__(self, rules: Rules, tape: Tape) -> None:
        super().__init__(rules)
        self.book: Book = TapedBook(rules, tape, self)
        self._tape = tape
        self._seen: list[Any] | None = None

    def on_market(self, seen: MarketSeen) -> bool:
        """As `Decision.on_market`."""
        taken = super().on_market(seen)
        self._seen = self._tape.market(seen, taken)
        return taken

    def on_feed(self, market: Pubkey, price: Price | None) -> bool:
        """As `Decision.on_feed`."""
        taken = super().on_feed(market, price)
        values = None if price is None else price_values(price)
        tape = self._tape
        tape.keep(entries.FEED, monotonic_ns(), tape.source, bytes(market), values, taken)
        return taken

    def on_time(self, time: ChainTime) -> list[Action]:
        """As `Decision.on_time`."""
        actions = super().on_time(time)
        tape = self._tape
        tape.keep(entries.TIME, monotonic_ns(), tape.source, time.slot, time.unix_time_s, decided(actions))
        return actions

    def review(self, market: Pubkey, now_s: float, at_ns: int) -> list[Action]:
        """As `Decision.review`."""
        actions = super().review(market, now_s, at_ns)
        seen, self._seen = self._seen, None
        if seen is not None and seen[1] == at_ns and seen[3] == bytes(market) and self._tape.is_last(seen):
            seen += now_s, decided(actions)
        else:
            self._tape.keep(entries.REVIEW, at_ns, bytes(market), now_s, decided(actions))
        return actions

    def look_at(self, order: Order, now_s: float, at_ns: int) -> Action | None:
        """As `Decision.look_at`."""
        action = super().look_at(order, now_s, at_ns)
        found = () if action is None else (action,)
        self._tape.keep(entries.LOOK, at_ns, bytes(order.address), now_s, decided(found))
        return action


class Heard:
    """An intake that says who told. `to` is where the facts go."""

    def __init__(self, tape: Tape, source: str, to: Intake[Any]) -> None:
        self._tape = tape
        self._source = source
        self._to = to
        self.unchanged = to.unchanged
        self.begin_load = to.begin_load
        self.end_load = to.end_load
        self.not_seen_since = to.not_seen_since

    def on_event(self, event: Event) -> None:
        """A fact, with its source known while it is taken in."""
        tape = self._tape
        tape.source = self._source
        try:
            self._to.on_event(event)
        finally:
            tape.source = KEEPER
        if type(event) is AccountUnreadable:
            self._keep(entries.UNREADABLE, event.address, event.slot, event.reason)
        elif type(event) is OrderSeen and not event.order.pending:
            self._keep(entries.ENDED, event.order.address, event.order.slot, event.order.status)

    def _keep(self, kind: str, address: Pubkey, *values: Any) -> None:
        self._tape.keep(kind, monotonic_ns(), self._source, bytes(address), *values)
