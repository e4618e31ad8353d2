"""For how long the event loop was held up. It is looked at all the time, because an order can meet the longest hold.

A callback that is due every 5 ms records by how much it was late. A hold of 20 ms is seen as 15 to 20 ms. It costs
about 0.2 % of a core.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

_EVERY_S: Final = 0.005
_WINDOW_S: Final = 10.0
_WINDOWS: Final = 6


class LoopLag:
    """Begins to look when made, in the running event loop; `close` ends it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._worst: deque[float] = deque([0.0], maxlen=_WINDOWS)
        self._window_ends = self._loop.time() + _WINDOW_S
        self._await_next(self._loop.time())

    def __repr__(self) -> str:
        return f"LoopLag({self.longest_s * 1e3:.1f} ms)"

    @property
    def longest_s(self) -> float:
        """The longest within about a minute."""
        return max(self._worst)

    def close(self) -> None:
        """Stop looking."""
        self._handle.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        self._worst[-1] = max(self._worst[-1], now - self._due)
        if now >= self._window_ends:
            self._worst.append(0.0)
            self._window_ends = now + _WINDOW_S
        self._await_next(now)

    def _await_next(self, now: float) -> None:
        self._due = now + _EVERY_S
        self._handle = self._loop.call_at(self._due, self._look)
