"""Which of the loops that do the work is stuck. Its answer feeds /livez, a metric, and the supervisor's watchdog.

A task that hangs leaves a process that looks well: the sockets are open, the API answers, and no order is executed.
A restart helps, because the journal and the chain hold all that matters. A quiet market is no reason: a loop that
rests is well, unless there is work that it should have seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskStatus

from keeper.domain.reports import Note, Report
from keeper.telemetry.turns import Turns


@dataclass(slots=True)
class Loop:
    """`has_work` tells whether there is something that it should do now: resting is no excuse then."""

    turns: Turns
    has_work: Callable[[], bool] = lambda: True
    _seen: int = field(default=-1, init=False)
    _well_at: float = field(default=0.0, init=False)

    def still_for_s(self, now: float) -> float:
        """For how long it has not gone round although it should. Ask often: it compares with the last time."""
        if self.turns.count != self._seen or (self.turns.resting and not self.has_work()):
            self._seen, self._well_at = self.turns.count, now
        return now - self._well_at


class Watchdog:
    """Looks at the loops, and knows the stuck ones by name."""

    def __init__(
        self,
        loops: Sequence[Loop],
        *,
        stalled_after_s: float,
        report: Callable[[Report], None],
        observe: Callable[[str, float], None] = lambda _name, _still_s: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loops = loops
        self._stalled_after_s = stalled_after_s
        self._report = report
        self._observe = observe
        self._clock = clock
        self._stalled: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"Watchdog({len(self._loops)} loops, stalled: {', '.join(self._stalled) or 'none'})"

    @property
    def stalled(self) -> tuple[str, ...]:
        """The loops that are stuck, as of the last look."""
        return tuple(self._stalled)

    def look(self) -> None:
        """Compare once."""
        now = self._clock()
        for loop in self._loops:
            name = loop.turns.name
            still_s = loop.still_for_s(now)
            self._observe(name, still_s)
            if still_s > self._stalled_after_s:
                if name not in self._stalled:
                    sentence = f"the loop {name} has not gone round for {still_s:.1f} s"
                    self._report(Note("watchdog.stalled", sentence, level="error"))
                self._stalled[name] = still_s
            elif self._stalled.pop(name, None) is not None:
                self._report(Note("watchdog.recovered", f"the loop {name} goes round again", level="warning"))

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Look now and then, several times within the bound."""
        self.look()
        task_status.started()
        while True:
            await anyio.sleep(min(1.0, self._stalled_after_s / 4))
            self.look()
