"""Which of the loops that do the work is stuck. Its answer feeds /livez, a metric, and the supervisor's watchdog.

A task that hangs leaves a process that looks well: the sockets are open, the API answers, and no order is executed.
A restart helps, because the journal and the chain hold all that matters. A quiet market is no reason for one: a loop
that rests is well, unless there is work for it.

QUANTDESK_STALL_AT="executor:3" makes the loop of that name stop at its third turn, for the tests of the watchdog.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field

import anyio
from anyio.abc import TaskStatus

from keeper.domain.reports import Note, Report
from keeper.domain.turns import Turns


@dataclass(slots=True)
class Loop:
    """One loop. `has_work` says whether there is something for it to do now: then it may not rest."""

    turns: Turns
    has_work: Callable[[], bool] = lambda: True
    _seen: int = field(default=-1, init=False)
    _well_at: float = field(default=0.0, init=False)

    def still_for_s(self, now: float) -> float:
        """For how long it has not gone round although it should. Ask often: it compares with the last time."""
        if self.turns.count != self._seen or (self.turns.resting and not self.has_work()):
            self._seen, self._well_at = self.turns.count, now
        return now - self._well_at


@dataclass(slots=True, repr=False)
class Watchdog:
    """Looks at the loops, and knows the stuck ones by name. `observe` is told of each loop for how long it is still."""

    loops: Sequence[Loop]
    _: KW_ONLY
    stalled_after_s: float
    report: Callable[[Report], None]
    observe: Callable[[str, float], None]
    stalled: tuple[str, ...] = field(default=(), init=False)
    """The loops that are stuck, as of the last look."""

    def __repr__(self) -> str:
        return f"Watchdog({len(self.loops)} loops, stalled: {', '.join(self.stalled) or 'none'})"

    def look(self) -> None:
        """Compare once."""
        now = time.monotonic()
        for loop in self.loops:
            name = loop.turns.name
            still_s = loop.still_for_s(now)
            self.observe(name, still_s)
            stuck, known = still_s > self.stalled_after_s, name in self.stalled
            if stuck and not known:
                self.stalled = (*self.stalled, name)
                self.report(
                    Note("watchdog.stalled", f"the loop {name} has not gone round for {still_s:.1f} s", "error")
                )
            elif known and not stuck:
                self.stalled = tuple(other for other in self.stalled if other != name)
                self.report(Note("watchdog.recovered", f"the loop {name} goes round again", level="warning"))

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Look several times within the bound, until cancelled."""
        self.look()
        task_status.started()
        while True:
            await anyio.sleep(min(1.0, self.stalled_after_s / 4))
            self.look()


async def _stall(turns: Turns) -> None:
    if turns.count >= _stall_at and turns.name.partition(" ")[0] == _stalled:
        await anyio.sleep_forever()


_stalled, _, _count = os.environ.get("QUANTDESK_STALL_AT", "").partition(":")
_stall_at = int(_count or 1)
if _stalled:
    Turns.at_turn = _stall
