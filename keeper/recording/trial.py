"""What other rules would have decided of a recording, and what a recording says was decided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from keeper.domain.orders import OnchainStatus, order_of
from keeper.recording import entries
from keeper.recording.entries import Decided
from keeper.recording.replay import Replay, Trigger, first_triggers, key_of
from keeper.triggers.book import Change
from keeper.triggers.decision import Rules
from keeper.triggers.watchlist import Watched

_FILLED: Final = int(OnchainStatus.FILLED)
_UNREVIEWED: Final = 7
"""So many values an entry of a market has behind its time when that was not reviewed."""
_NEWS: Final = frozenset({Change.NEW, Change.CHANGED})


class Trial(Replay):
    """What these rules would have decided, had they been the rules; `triggers` are each order's first.

    Where the recorded keeper triggered an order and these rules have not yet, what followed of that (its attempt, its
    fill) did not happen: the order rests on until they trigger it, or its user ends it. Orders that these rules have
    triggered do nothing more. Stops are where the recorded keeper moved them.
    """

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        # No bound, so that no rest is left to another call that the recorded keeper did not make.
        self._trial = replace(rules, max_actions=None)
        self.triggers: dict[bytes, Trigger] = {}

    def _rules(self, recorded: Rules) -> Rules:
        return self._trial

    def _restore(self) -> None:
        super()._restore()
        if self._state is None:
            for order in self.told.triggers.keys() - self.triggers.keys():
                self.decision.book.watch(key_of(order), Watched.EVERYTHING)
            for order in self.triggers:
                self._stop_watching(order)

    def _same(self, what: str, recorded: object, replayed: object) -> None:
        """Other rules may differ."""

    def _decided(self, recorded: Decided, replayed: Decided, at_ns: int) -> None:
        if recorded:
            self.told.count(recorded, at_ns)
        if replayed:
            first_triggers(self.told, replayed, at_ns, self.triggers)
            for what, order, *_ in replayed:
                if what == entries.EXECUTE:
                    self._stop_watching(order)
                elif what == entries.EXPIRED:
                    self.decision.book.watch(key_of(order), Watched.EXPIRED)

    def _stop_watching(self, order: bytes) -> None:
        self.decision.book.watch(key_of(order), Watched.NOTHING)

    def _rests_on(self, order: bytes) -> bool:
        """Whether the recorded keeper has triggered it and these rules have not."""
        return order in self.told.triggers and order not in self.triggers

    def _order(
        self, at_ns: int, _source: str, order: bytes, slot: int, known_slot: int | None, change: str, fields: Any
    ) -> None:
        if change in _NEWS:
            self.decision.book.upsert(order_of(key_of(order), tuple(fields), slot))

    def _gone(self, at_ns: int, _source: str, order: bytes, slot: int, known_slot: int | None, known: bool) -> None:
        if known and not self._rests_on(order):
            self.decision.book.remove(key_of(order), slot)

    def _closed(self, at_ns: int, _source: str, order: bytes, slot: int, known_slot: int | None, known: bool) -> None:
        if known and not self._rests_on(order):
            self.decision.book.close(key_of(order), slot)

    def _ended(self, at_ns: int, source: str, order: bytes, slot: int, status: int) -> None:
        if status != _FILLED:
            self.decision.book.close(key_of(order), slot)

    def _watch(self, at_ns: int, order: bytes, watched: int) -> None:
        if order not in self.triggers and order not in self.told.triggers:
            super()._watch(at_ns, order, watched)


class Listing(Replay):
    """What a recording says was decided, with nothing decided again."""

    def __init__(self) -> None:
        super().__init__()
        self._plays = dict.fromkeys(self._plays, self._nothing) | {
            entries.BEGIN: self._begin,
            entries.HOLE: self._hole,
            entries.NAME: self._name,
            entries.MARKET: self._market_entry,
            entries.TIME: self._last,
            entries.REVIEW: self._last,
            entries.LOOK: self._last,
        }

    def _market_entry(self, at_ns: int, *values: Any) -> None:
        if len(values) > _UNREVIEWED:
            self._last(at_ns, values[-1])

    def _last(self, at_ns: int, *values: Any) -> None:
        recorded: Decided = values[-1]
        if recorded:
            self.told.count(recorded, at_ns)
