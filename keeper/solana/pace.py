"""How fast slots pass: measured, because it changes. Lives are counted in blocks; this is what they are in seconds."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Final

_INTERVALS: Final = 11
_LEAST_S: Final = 0.9
"""Slots are whole: over a shorter time than this their number says little."""
QUICKEST_S: Final = 0.1
"""About half of what the quickest cluster takes."""
SLOWEST_S: Final = 5.0


class Pace:
    """The mean of the middle third of the latest measurements, so that a wrong slot now and then, or a pause of the
    chain or of this process, does not move it. A slot that has not grown measures nothing: a chain that stands still
    has no pace.
    """

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._slots_per_s: deque[float] = deque(maxlen=_INTERVALS)

    def __repr__(self) -> str:
        return f"Pace({self.slot_s:.3f} s a slot, {len(self._slots_per_s)} measurements)"

    @property
    def measured(self) -> bool:
        """Whether there is a measurement."""
        return bool(self._slots_per_s)

    @property
    def slots_per_s(self) -> float:
        """As measured; before that, as many as with slots of `QUICKEST_S`."""
        if not self._slots_per_s:
            return 1 / QUICKEST_S
        in_order, cut = sorted(self._slots_per_s), len(self._slots_per_s) // 3
        return statistics.fmean(in_order[cut : len(in_order) - cut])

    @property
    def slot_s(self) -> float:
        """Seconds a slot, at least `QUICKEST_S` and at most `SLOWEST_S`. Before the first measurement it is the least,
        so that what lives for so many blocks is held to live too short a time rather than too long a one. A block takes
        a little longer than a slot, since some slots have none.
        """
        return min(max(1 / self.slots_per_s, QUICKEST_S), SLOWEST_S)

    def observe(self, slot: int, now: float) -> None:
        """The chain stood in `slot` at monotonic time `now`."""
        if self._last is not None:
            known, at = self._last
            if now - at < _LEAST_S or slot == known:
                return
            if slot > known:
                self._slots_per_s.append((slot - known) / (now - at))
        self._last = slot, now
