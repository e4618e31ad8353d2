"""A line that repeats is written a few times and then counted: a fault that lasts a night must not fill the disk."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import structlog


@dataclass(slots=True)
class _Seen:
    since: float
    written: int = 0
    dropped: int = 0


@dataclass(slots=True, kw_only=True, repr=False)
class LimitRepeats:
    """A structlog processor: `burst` lines of one kind in `window_s` seconds, then none until the window is over; the
    next one says how many were dropped, in `suppressed`.

    Lines are of one kind when their event, order and attempt are the same, so that no order's lines are lost to
    another order's trouble. It remembers `most` kinds, the latest.
    """

    burst: int = 10
    window_s: float = 60.0
    most: int = 1_024
    clock: Callable[[], float] = time.monotonic
    _seen: OrderedDict[tuple[object, object, object], _Seen] = field(default_factory=OrderedDict, init=False)

    def __repr__(self) -> str:
        return f"LimitRepeats({len(self._seen)} kinds)"

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Pass the line on, or drop it."""
        kind = (event.get("event"), event.get("order"), event.get("attempt"))
        now = self.clock()
        seen = self._seen.get(kind)
        if seen is None:
            if len(self._seen) >= self.most:
                self._seen.popitem(last=False)
            seen = self._seen[kind] = _Seen(now)
        self._seen.move_to_end(kind)
        if now - seen.since >= self.window_s:
            if seen.dropped:
                event["suppressed"] = seen.dropped
            seen.since, seen.written, seen.dropped = now, 0, 0
        if seen.written >= self.burst:
            seen.dropped += 1
            raise structlog.DropEvent
        seen.written += 1
        return event
