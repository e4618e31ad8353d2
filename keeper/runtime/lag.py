"""How long the event loop was held up: looked at all the time, because the longest is what an order can meet.

A callback that is due every 5 ms notes by how much it was late. What held the loop up for 20 ms is seen as 15 to
20 ms. It costs about 0.2 % of a core.
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
        self._due = self._loop.time() + _EVERY_S
        self._handle = self._loop.call_at(self._due, self._look)

    def __repr__(self) -> str:
        return f"LoopLag({self.longest_s * 1e3:.1f} ms)"

    @property
    def longest_s(self) -> float:
        """The longest within about a minute."""
        return max(self._worst)

    def close(self) -> None:
        """Look no more."""
        self._handle.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        self._worst[-1] = max(self._worst[-1], now - self._due)
        if now >= self._window_ends:
            self._worst.append(0.0)
            self._window_ends = now + _WINDOW_S
        self._due = now + _EVERY_S
        self._handle = self._loop.call_at(self._due, self._look)
