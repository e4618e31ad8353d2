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
from typing import Final, Protocol

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus
from solders.pubkey import Pubkey

from keeper import __version__
from keeper.domain import reports
from keeper.domain.health import RecordingState
from keeper.domain.reports import Report
from keeper.recording import entries
from keeper.recording.entries import Entry
from keeper.recording.folder import Folder, NoRoom
from keeper.recording.tape import Tape, TapedDecision
from keeper.triggers.decision import Rules

_EVERY_S: Final = 0.25
_AGAIN_S: Final = 60.0
_LAST_S: Final = 2.0

_SLOW: Final = "the disk is too slow"
_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def begin_entry(rules: Rules, program: Pubkey, wall_ns: int, why: str) -> Entry:
    """What a recording is of; now is `wall_ns` by the wall's clock."""
    plain = asdict(rules) | {"executable": sorted(map(int, rules.executable))}
    return (entries.BEGIN, time.monotonic_ns(), wall_ns, why, __version__, bytes(program), plain)


class Told(Protocol):
    """How far a source of news is: the newest slot that it told of, and when it was last heard (monotonic seconds)."""

    label: str
    last_heard_at: float | None
    last_slot: int


class Recorder:
    """Writes down what `decision` is told and answers. A tape that ran over is `behind` until it is begun anew."""

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
        self._state: RecordingState = RecordingState.RECORDING
        self._detail = ""
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
    def state(self) -> RecordingState:
        """Whether it records now."""
        # A disk that hangs is behind before the writer can say so.
        return (
            RecordingState.BEHIND if self._state is RecordingState.RECORDING and not self.tape.running else self._state
        )

    @property
    def detail(self) -> str:
        """A sentence on why it is not recording."""
        return self._detail or ("" if self.tape.running else _SLOW)

    @property
    def dropped(self) -> int:
        """The entries that found no room on the tape."""
        return self.tape.dropped

    @property
    def written_bytes(self) -> int:
        """What was written since the start."""
        return self._folder.written_bytes

    async def run(
        self, watches: Iterable[Told] = (), *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
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

    async def turn(self, watches: Iterable[Told] = ()) -> None:
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
            if self.state is RecordingState.FULL:
                self._again_at_s = 0.0
        if not self.tape.running and not self.tape.loading and self._may_go_on():
            self._go_on("hole", self.tape.missing)
        await self._write(self.tape.take())

    def _today(self) -> datetime.date:
        return datetime.datetime.fromtimestamp(self._now_s(), datetime.UTC).date()

    def _may_go_on(self) -> bool:
        if self._state is RecordingState.RECORDING:
            return False  # what is wrong is said first
        return self._again_at_s is not None and time.monotonic() >= self._again_at_s

    def _go_on(self, why: str, missing: int) -> None:
        first = [self._begin(why)]
        if missing:
            first.append((entries.HOLE, time.monotonic_ns(), missing))
        self.tape.begin(*first, *self.tape.state(self.decision))

    def _begin(self, why: str) -> Entry:
        return begin_entry(self.decision.rules, self._program, round(self._now_s() * 1e9), why)

    async def _write(self, taken: list[Entry]) -> None:
        if taken:
            try:
                await anyio.to_thread.run_sync(self._folder.write, self._day, taken, abandon_on_cancel=True)
            except NoRoom as e:
                self._stop(RecordingState.FULL, f"{e} (record.max_bytes); it goes on tomorrow", None, taken)
                return
            except Exception as e:  # whatever it is: the keeper goes on
                full = isinstance(e, OSError) and e.errno in _FULL_ERRORS
                why = e.strerror if isinstance(e, OSError) and e.strerror else str(e) or repr(e)
                state = RecordingState.FULL if full else RecordingState.FAILED
                self._stop(state, why, time.monotonic() + self._again_s, taken)
                return
        if self.tape.running and self._state is not RecordingState.RECORDING:
            self._state, self._detail = RecordingState.RECORDING, ""
            self._report(reports.Note("record.recording", "the recording goes on"))
        elif not self.tape.running and self._state is RecordingState.RECORDING:
            self._state, self._detail = RecordingState.BEHIND, _SLOW
            self._again_at_s = time.monotonic() + self._again_s  # at once, the state would make it slower still
            self._report(reports.Note("record.behind", _SLOW, level="warning"))

    def _stop(self, state: RecordingState, detail: str, again_at_s: float | None, taken: list[Entry]) -> None:
        self.tape.stop(taken)
        self._again_at_s = again_at_s
        if state != self._state:
            self._report(reports.Note(f"record.{state}", detail, level="warning"))
        self._state, self._detail = state, detail
