"""Which slot the endpoints' lag is measured against, so that a node that says too much benches nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from keeper.solana.pace import Pace

_GENEROUS: Final = 2.0
"""Slots may pass so many times faster than they did, before a slot is called impossible."""


class Agreement:
    """Which of the endpoints' slots the others' lag is measured against.

    Of three or more it is the second highest: one liar can't move it, and what only one has reached proves nothing
    of the others. Of two, the higher, unless more slots than can have passed lie between it and the last slot that
    two agreed on (`within` slots of each other); then it is the lower. Before any agreement the higher is believed:
    a node that is late is common, one that says too much is not. (docs/decisions/0009.) What two agreed on, or the only
    one says, is what `pace` is measured by.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._slot: int | None = None
        self._at = 0.0

    def top(self, slots: Sequence[int], now: float, within: int) -> int:
        """The slot to be measured against, by what was said at monotonic time `now`; 0 when nothing was."""
        if len(slots) < 2:
            for slot in slots:
                self._pace.observe(slot, now)
            return max(slots, default=0)
        second, first = sorted(slots)[-2:]
        possible = self._possible(first, now, within)
        # An impossible one is no partner to agree with; then the other's word does, as long as it keeps the pace.
        if first - second <= within or (not possible and self._keeps_pace(second, now)):
            self._slot, self._at = second, now
            self._pace.observe(second, now)
        return second if len(slots) > 2 or not possible else first

    def _possible(self, slot: int, now: float, within: int) -> bool:
        if self._slot is None:
            return True
        return slot - self._slot <= within + _GENEROUS * self._pace.slots_per_s * (now - self._at)

    def _keeps_pace(self, slot: int, now: float) -> bool:
        passed = slot - (self._slot or 0)
        # Nothing measured yet: any progress is as good a pace as any.
        least = self._pace.slots_per_s * (now - self._at) / _GENEROUS if self._pace.measured else 1
        return self._slot is not None and passed >= least
