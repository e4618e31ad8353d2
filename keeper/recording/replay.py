"""A recording, decided again: the recorded calls, made of a decision that leaves no entries.

Each answer is held against the recorded one. `keeper.recording.trial` asks what other rules would have decided.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from solders.pubkey import Pubkey

from keeper.domain.decimals import decimal
from keeper.domain.errors import KeeperError
from keeper.domain.events import ChainTime, MarketSeen
from keeper.domain.orders import Market, fields_of, order_of
from keeper.recording import entries
from keeper.recording.entries import Decided, Entry, decided
from keeper.triggers.checkpoint import Checkpoint, price_of, restored
from keeper.triggers.decision import Decision, Rules
from keeper.triggers.watchlist import Watched

_encode: Final = msgspec.msgpack.Encoder().encode
_WATCHED: Final = tuple(Watched)
_NOBODY: Final = Pubkey.default()
_SENSELESS: Final = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, struct.error)


def key_of(raw: bytes) -> Pubkey:
    """A public key from its 32 bytes. ValueError for any other number of them."""
    if len(raw) != 32:
        raise ValueError("a public key has 32 bytes")  # solders would panic
    return Pubkey.from_bytes(raw)


class Different(KeeperError):
    """The replay decided otherwise than the recording."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """An order's first trigger: when the deciding news arrived (`at_ns`, and unix nanoseconds), and by what price."""

    order: bytes
    market: bytes
    price_1e6: int
    slot: int
    at_ns: int
    wall_ns: int


def wall(unix_ns: int) -> str:
    """A moment in UTC, to the microsecond."""
    moment = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(microseconds=unix_ns // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass
class Told:
    """What a recording tells of itself, as far as it was read."""

    program: bytes = b""
    keeper: str = ""
    rules: Rules | None = None
    sessions: int = 0
    entries: int = 0
    decisions: int = 0
    missing: int = 0
    """Entries that were dropped: what they would have told is not replayed."""
    wall_less_monotonic_ns: int = 0
    at_ns: int = 0
    symbols: dict[bytes, str] = field(default_factory=dict)
    triggers: dict[bytes, Trigger] = field(default_factory=dict)
    """Each order's first, as recorded."""

    def wall(self, at_ns: int) -> str:
        """A moment of this machine's in UTC."""
        return wall(at_ns + self.wall_less_monotonic_ns)

    def market(self, address: bytes) -> str:
        """The market's name, or its address while that is not known."""
        return self.symbols.get(address) or str(key_of(address))

    def count(self, decisions: Decided, at_ns: int) -> None:
        """Count recorded decisions, and keep the first of each order."""
        self.decisions += len(decisions)
        first_triggers(self, decisions, at_ns, self.triggers)


def first_triggers(told: Told, decisions: Decided, at_ns: int, known: dict[bytes, Trigger]) -> None:
    """Put in `known` the executions of orders that it does not have yet."""
    for what, order, *rest in decisions:
        if what == entries.EXECUTE and order not in known:
            market, price_1e6, slot, _ = rest[0]
            wall_ns = at_ns + told.wall_less_monotonic_ns
            known[order] = Trigger(order, market, price_1e6, slot, at_ns, wall_ns)


class Replay:
    """Plays entries. Different at the first answer that is not the recorded one; KeeperError for entries without sense.

    `on_decided` hears of what is decided, with the moment.
    """

    def __init__(self, on_decided: Callable[[Decided, int], None] | None = None) -> None:
        self.told = Told()
        self._decision: Decision | None = None
        self._state: tuple[Checkpoint, int, list[bytes]] | None = None
        self._on_decided = on_decided
        self._keys: dict[bytes, Pubkey] = {}
        self._plays: Mapping[str, Callable[..., None]] = {
            entries.BEGIN: self._begin,
            entries.STATE: self._checkpoint,
            entries.PAGE: self._page,
            entries.HOLE: self._hole,
            entries.NAME: self._name,
            entries.SLOT: self._nothing,
            entries.UNREADABLE: self._nothing,
            entries.ENDED: self._ended,
            entries.MARKET: self._market,
            entries.FEED: self._feed,
            entries.TIME: self._time,
            entries.REVIEW: self._review,
            entries.ORDER: self._order,
            entries.LOOK: self._look,
            entries.GONE: self._gone,
            entries.CLOSED: self._closed,
            entries.REVIVED: self._revived,
            entries.WATCH: self._watch,
        }

    @property
    def decision(self) -> Decision:
        """The decision as it is now."""
        if self._decision is None:
            raise KeeperError("The recording does not begin with what it is of.")
        return self._decision

    def play(self, some: Iterable[Entry]) -> None:
        """Play these entries, in the order in which they were made."""
        plays, told = self._plays, self.told
        entry: Entry = ()
        try:
            for entry in some:
                told.at_ns = entry[1]
                plays[entry[0]](*entry[1:])
                told.entries += 1
        except _SENSELESS as e:
            raise KeeperError(f"Entry {told.entries + 1} makes no sense ({e!r}): {str(entry)[:200]}") from e

    # -- what a recording is

    def _rules(self, recorded: Rules) -> Rules:
        return recorded

    def _begin(self, at_ns: int, wall_ns: int, _why: str, version: str, program: bytes, rules: Any) -> None:
        told = self.told
        told.rules = msgspec.convert(rules, Rules)
        told.keeper, told.program = version, program
        told.sessions += 1
        self._state = None
        told.wall_less_monotonic_ns = wall_ns - at_ns
        self._decision = Decision(self._rules(told.rules))

    def _checkpoint(self, at_ns: int, state: Any, pages: int) -> None:
        checkpoint = msgspec.convert(state, Checkpoint, strict=False)
        self._state = (checkpoint, pages, [])
        self._restore()

    def _page(self, _at_ns: int, page: bytes) -> None:
        if self._state is None:
            raise KeeperError("A page of the book is of no state.")
        self._state[2].append(page)
        self._restore()

    def _restore(self) -> None:
        assert self._state is not None
        checkpoint, count, pages = self._state
        if len(pages) == count:
            self._decision = restored(self.decision.rules, checkpoint, pages)
            self._state = None

    def _hole(self, _at_ns: int, count: int) -> None:
        self.told.missing += count

    def _name(self, _at_ns: int, market: bytes, symbol: str) -> None:
        self.told.symbols[market] = symbol

    def _nothing(self, *_: object) -> None:
        """It says nothing to the decision."""

    def _ended(self, at_ns: int, source: str, order: bytes, slot: int, status: int) -> None:
        """What it did to the book has an entry of its own."""

    # -- what came in

    def _market(
        self,
        at_ns: int,
        _source: str,
        market: bytes,
        slot: int,
        price_1e6: int,
        updated_at_s: int,
        active: bool,
        taken: bool,
        now_s: float | None = None,
        recorded: Decided | None = None,
    ) -> None:
        decision = self.decision
        address = self._keys.get(market)
        if address is None:
            address = self._keys[market] = key_of(market)
        # The decision reads no more of it than this.
        seen = Market(address, "", "", _NOBODY, 0, active, price_1e6, updated_at_s, slot)
        self._same("news of a market", taken, decision.on_market(MarketSeen(seen, at_ns)))
        if now_s is not None and recorded is not None:
            self._decided(recorded, decided(decision.review(address, now_s, at_ns)), at_ns)

    def _feed(self, at_ns: int, _source: str, market: bytes, price: Any, taken: bool) -> None:
        news = None if price is None else price_of(price)
        self._same("news of a feed", taken, self.decision.on_feed(key_of(market), news))

    def _time(self, at_ns: int, _source: str, slot: int, unix_time_s: int, recorded: Decided) -> None:
        self._decided(recorded, decided(self.decision.on_time(ChainTime(slot, unix_time_s))), at_ns)

    def _review(self, at_ns: int, market: bytes, now_s: float, recorded: Decided) -> None:
        self._decided(recorded, decided(self.decision.review(key_of(market), now_s, at_ns)), at_ns)

    def _look(self, at_ns: int, order: bytes, now_s: float, recorded: Decided) -> None:
        known = self.decision.book.get(key_of(order))
        action = None if known is None else self.decision.look_at(known, now_s, at_ns)
        self._decided(recorded, [] if action is None else decided([action]), at_ns)

    def _order(
        self, at_ns: int, _source: str, order: bytes, slot: int, known_slot: int | None, change: str, fields: Any
    ) -> None:
        address = key_of(order)
        self._known(address, known_slot)
        if fields is None:
            known = self.decision.book.get(address)
            if known is None:
                raise Different(self._sentence("what is known of an order", "the same again", "nothing"))
            fields = fields_of(known)
        self._same("news of an order", change, self.decision.book.upsert(order_of(address, tuple(fields), slot)).value)

    def _gone(self, at_ns: int, _source: str, order: bytes, slot: int, known_slot: int | None, known: bool) -> None:
        address = key_of(order)
        self._known(address, known_slot)
        self._same("an order that is gone", known, self.decision.book.remove(address, slot))

    def _closed(self, at_ns: int, _source: str, order: bytes, slot: int, known_slot: int | None, known: bool) -> None:
        address = key_of(order)
        self._known(address, known_slot)
        self._same("an order that is not pending", known, self.decision.book.close(address, slot))

    def _revived(self, _at_ns: int, order: bytes) -> None:
        self.decision.book.forget_end(key_of(order))

    def _watch(self, _at_ns: int, order: bytes, watched: int) -> None:
        self.decision.book.watch(key_of(order), _WATCHED[watched])

    def _known(self, address: Pubkey, slot: int | None) -> None:
        """A list may have said the same of an order again, as of a later slot: no entry of its own told that."""
        book = self.decision.book
        known = book.get(address)
        self._same("whether an order is known", slot is not None, known is not None)
        if known is not None and slot is not None and slot != known.slot:
            book.still(address, fields_of(known), slot)

    # -- what it is held against

    def _same(self, what: str, recorded: object, replayed: object) -> None:
        if recorded != replayed:
            raise Different(self._sentence(what, recorded, replayed))

    def _decided(self, recorded: Decided, replayed: Decided, at_ns: int) -> None:
        if not recorded and not replayed:
            return
        if _encode(recorded) != _encode(replayed):
            raise Different(self._sentence("the decision", self._words(recorded), self._words(replayed)))
        self.told.count(recorded, at_ns)
        if self._on_decided is not None:
            self._on_decided(replayed, at_ns)

    def _sentence(self, what: str, recorded: object, replayed: object) -> str:
        told = self.told
        return (
            f"The first difference is at {told.wall(told.at_ns)} (entry {told.entries + 1}), in {what}. "
            f"Recorded: {recorded}. Replayed: {replayed}."
        )

    def _words(self, decisions: Decided) -> str:
        return "; ".join(words(self.told, decisions)) or "nothing"


def words(told: Told, decisions: Decided) -> Iterator[str]:
    """Each decision for people."""
    for what, order, *rest in decisions:
        name = str(key_of(order))
        if what == entries.EXPIRED:
            yield f"note that {name} is expired"
            continue
        market, price_1e6, slot, _ = rest[0]
        price = f"{told.market(market)} at {decimal(price_1e6)} (slot {slot})"
        if what == entries.EXECUTE:
            yield f"execute {name}, {price}"
        else:
            yield f"move the stop of {name} to {decimal(rest[1])}, {price}"
