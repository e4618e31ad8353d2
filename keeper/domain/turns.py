"""A loop's heartbeat: it says when it goes round, and when it has nothing to do.

The watchdog (`keeper.runtime.watchdog`) compares the counts. A loop that neither goes round nor rests is stuck.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import ClassVar


class Turns:
    """The turns of one loop. `name` is its kind and, after a space, which one of several it is."""

    at_turn: ClassVar[Callable[[Turns], Awaitable[None]] | None] = None
    """What a test has happen at each turn of every loop; the hot path asks this first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.resting = False

    def __repr__(self) -> str:
        return f"Turns({self.name}, {self.count}{', resting' if self.resting else ''})"

    async def turn(self) -> None:
        """The loop goes round. Does not wait."""
        self.count += 1
        if Turns.at_turn is not None:
            await Turns.at_turn(self)

    @contextlib.contextmanager
    def rest(self) -> Iterator[None]:
        """Around the loop's wait for work, which may take any time."""
        self.resting = True
        try:
            yield
        finally:
            self.resting = False
