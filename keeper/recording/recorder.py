"""The recorder: takes the entries from the tape a few times a second and has them written, in a thread.

Nothing waits for it. A slow disk makes the tape run over, one that fails or is full ends the recording; both are one
word (`state`), and what is missing is counted. When the disk takes entries again, the recording goes on behind a hole,
with the decision's whole state, so that what follows can be replayed.
"""

from __future__ import annotations

import datetime
import errno
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus
from solders.pubkey import Pubkey

from keeper import __version__
from keeper.domain import reports
from keeper.domain.reports import Report
from keeper.recording import entries
from keeper.recording.entries import Entry
from keeper.recording.folder import Folder, NoRoom
from keeper.recording.tape import Tape, TapedDecision
from keeper.solana.watch import WatchHealth
from keeper.triggers.decision import Rules

_EVERY_S: Final = 0.25
_AGAIN_S: Final = 60.0
_LAST_S: Final = 2.0

RECORDING, BEHIND, FULL, FAILED = "recording", "behind", "full", "failed"
STATES: Final = (RECORDING, BEHIND, FULL, FAILED)
_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Recorder:
    """Writes down what `decision` is told and answers. `state` is one of `STATES`, and `detail` a sentence when it is
    not recording. A tape that ran over is `behind` until the writer has caught up.
    """

    def __init__(
        self,
        rules: Rules,
        folder: Folder,
        program: Pubkey,
        report: Callable[[Report], None],
        *,
        now_s: Callable[[], float] = time.time,
        again_s: float = _AGAIN_S,
    ) -> None:
        self.state = RECORDING
        self.detail = ""
        self.tape = Tape()
        self.decision = TapedDecision(rules, self.tape)
        self._folder = folder
        self._program = program
        self._report = report
        self._now_s = now_s
        self._again_s = again_s
        self._day = self._today()
        self._again_at_s: float | None = None
        self._slots: dict[str, int] = {}
        self.tape.begin(self._begin("start"))

    def __repr__(self) -> str:
        return f"Recorder({self.state}, {self._folder!r}, {self.tape!r})"

    @property
    def written_bytes(self) -> int:
        """What was written since the start."""
        return self._folder.written_bytes

    async def run(
        self, watches: Iterable[WatchHealth] = (), *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Write until cancelled, and then the rest, for two seconds at most. Ready at once."""
        known = list(watches)
        task_status.started()
        try:
            while True:
                await self.turn(known)
                await anyio.sleep(_EVERY_S)
        finally:
            with anyio.move_on_after(_LAST_S, shield=True):
                await self._write(self.tape.take())
                await anyio.to_thread.run_sync(self._folder.close, abandon_on_cancel=True)

    async def turn(self, watches: Iterable[WatchHealth] = ()) -> None:
        """Write what waits; begin another file on another day, and begin anew after a hole."""
        for watch in watches:
            if watch.last_heard_at is not None and self._slots.get(watch.label) != watch.last_slot:
                self._slots[watch.label] = watch.last_slot
                self.tape.keep(entries.SLOT, round(watch.last_heard_at * 1e9), watch.label, watch.last_slot)
        today = self._today()
        if today != self._day and not self.tape.loading:
            rest = self.tape.take()
            if self.tape.running:  # in the same step as the rest was taken: nothing is in both files, or in neither
                self._go_on("day", 0)
            await self._write(rest)
            self._day = today
            if self.state == FULL:
                self._again_at_s = 0.0
        if not self.tape.running and not self.tape.loading and self._may_go_on():
            self._go_on("hole", self.tape.missing)
        await self._write(self.tape.take())

    def _today(self) -> datetime.date:
        return datetime.datetime.fromtimestamp(self._now_s(), datetime.UTC).date()

    def _may_go_on(self) -> bool:
        return self.state == BEHIND or (self._again_at_s is not None and time.monotonic() >= self._again_at_s)

    def _go_on(self, why: str, missing: int) -> None:
        first = [self._begin(why)]
        if missing:
            first.append((entries.HOLE, time.monotonic_ns(), missing))
        self.tape.begin(*first, *self.tape.state(self.decision))

    def _begin(self, why: str) -> Entry:
        rules = asdict(self.decision.rules) | {"executable": sorted(map(int, self.decision.rules.executable))}
        wall_ns = round(self._now_s() * 1e9)
        return (entries.BEGIN, time.monotonic_ns(), wall_ns, why, __version__, bytes(self._program), rules)

    async def _write(self, taken: list[Entry]) -> None:
        if taken:
            try:
                await anyio.to_thread.run_sync(self._folder.write, self._day, taken, abandon_on_cancel=True)
            except NoRoom as e:
                self._stop(FULL, f"{e}: raise record.max_bytes; it goes on tomorrow", None, len(taken))
                return
            except OSError as e:
                word = FULL if e.errno in _FULL_ERRORS else FAILED
                self._stop(word, f"the disk refuses: {e.strerror}", time.monotonic() + self._again_s, len(taken))
                return
        if self.tape.running and self.state != RECORDING:
            self.state, self.detail = RECORDING, ""
            self._report(reports.Note("record.recording", "the recording goes on"))
        elif not self.tape.running and self.state == RECORDING:
            self.state, self.detail = BEHIND, "the disk is too slow"
            self._report(reports.Note("record.behind", self.detail, level="warning"))

    def _stop(self, state: str, detail: str, again_at_s: float | None, lost: int) -> None:
        self.tape.stop(lost)
        self._again_at_s = again_at_s
        if state != self.state:
            self._report(reports.Note(f"record.{state}", detail, level="warning"))
        self.state, self.detail = state, detail
