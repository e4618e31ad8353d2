"""The gate before the executor: open when nothing says stop.

Reasons are named and independent (a paused keeper, a program that was changed, a balance below its floor), so that
lifting one never lifts another. Whoever set a reason lifts it; the health report shows them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from keeper.domain.reports import GateChanged, Report

NO_POSITION: Final = "fill_without_position"
"""The keeper's own stop after a fill without its position (promise 3), through restarts: an operator lifts it."""


class Gate:
    """Closed while it has any reason."""

    def __init__(self, report: Callable[[Report], None]) -> None:
        self._reasons: dict[str, str] = {}
        self._report = report
        self._open = anyio.Event()
        self._open.set()
        self.is_open = True
        """Whether sending is allowed now."""

    def __repr__(self) -> str:
        return f"Gate({'open' if self.is_open else ', '.join(self._reasons.values())})"

    @property
    def reasons(self) -> dict[str, str]:
        """Why it is closed: a sentence by name."""
        return dict(self._reasons)

    def close(self, name: str, reason: str) -> None:
        """Stop sending because of `name`. Repeating it updates the sentence."""
        new = name not in self._reasons
        self._reasons[name] = reason
        self.is_open = False
        if self._open.is_set():
            self._open = anyio.Event()
        if new:
            self._report(GateChanged(False, reason))

    def lift(self, name: str) -> None:
        """`name` is no reason any more. Sending goes on when no other is left."""
        if self._reasons.pop(name, None) is not None and not self._reasons:
            self.is_open = True
            self._open.set()
            self._report(GateChanged(True, ""))

    async def opened(self) -> None:
        """Wait until it is open."""
        while self._reasons:
            await self._open.wait()
