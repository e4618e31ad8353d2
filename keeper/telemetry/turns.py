"""A loop's heartbeat: it says when it goes round, and when it has nothing to do.

The watchdog (`keeper.runtime.watchdog`) compares the counts. A loop that neither goes round nor rests is stuck.
QUANTDESK_STALL_AT="executor:3" makes the loop of that name stop at its third turn, for the tests of the watchdog.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

import anyio

_stalled, _, _count = os.environ.get("QUANTDESK_STALL_AT", "").partition(":")
_at: Final = int(_count or 1)


stalls: Final = bool(_stalled)
"""Whether a test wants a loop to stick at all: the hot path asks this first."""


class Turns:
    """The turns of one loop. `name` is its kind and, after a space, which one of several it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.resting = False

    def __repr__(self) -> str:
        return f"Turns({self.name}, {self.count}{', resting' if self.resting else ''})"

    async def turn(self) -> None:
        """The loop goes round. Does not wait."""
        self.count += 1
        if _stalled and self.count >= _at and self.name.partition(" ")[0] == _stalled:
            await anyio.sleep_forever()

    @contextlib.contextmanager
    def rest(self) -> Iterator[None]:
        """Around the loop's wait for work, which may take any time."""
        self.resting = True
        try:
            yield
        finally:
            self.resting = False
