"""Whether the disk is quick enough to wait for on the event loop's thread."""

from __future__ import annotations

from collections import deque
from typing import Final

_REMEMBERED: Final = 5


class Pace:
    """How long the last commits took, fsync included. `below_s` 0: never quick."""

    def __init__(self, below_s: float) -> None:
        self._below_s = below_s
        self._last: deque[float] = deque(maxlen=_REMEMBERED)

    def __repr__(self) -> str:
        return f"Pace(slowest of the last {len(self._last)}: {max(self._last, default=0.0) * 1e3:.1f} ms)"

    def took(self, seconds: float) -> None:
        """A commit was done, on whichever thread."""
        self._last.append(seconds)

    @property
    def quick(self) -> bool:
        """Whether the slowest of the last few was quick. Not before there was one."""
        return self._below_s > 0 and bool(self._last) and max(self._last) <= self._below_s
