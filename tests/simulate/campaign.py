"""Many episodes: each in a fork of one ground, in as many processes as there are cores, and one hash over all of them.

Episodes know nothing of each other, so who plays which makes no difference: the campaign's hash is over the episodes'
hashes in their order, whoever played them.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from keeper.app import wiring
from keeper.app.program import load_program
from keeper.config.settings import ProgramSettings
from keeper.telemetry.logs import set_level
from tests.simulate import handing, sharer
from tests.simulate.dice import clock, real_perf_counter
from tests.simulate.episode import Episode, Outcome
from tests.simulate.ground import Ground
from tests.simulate.loop import owner, scopes_in_order
from tests.simulate.scenario import Scenario, draw
from tests.simulate.trace import Trace

_FIRST: Final = (0, 1)
_EPISODE_WITHIN_S: Final = 120
"""Seconds of a processor after which an episode is given up: nothing in it can need so many but a mistake of ours. And
ten times as many of real time, in which a busy machine gets to it.
"""


@dataclass(slots=True)
class Result:
    """One episode's outcome, as it comes back from its process."""

    episode: int
    digest: str
    violations: list[str]
    counts: dict[str, int]
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Totals:
    """The results so far."""

    seconds: float = 0.0
    results: dict[int, tuple[str, list[str]]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """Take in one episode."""
        self.results[result.episode] = (result.digest, result.violations)
        self.counts.update(result.counts)

    @property
    def violations(self) -> dict[int, list[str]]:
        """By episode."""
        return {n: violations for n, (_, violations) in sorted(self.results.items()) if violations}

    def digest(self) -> str:
        """SHA-256 over the episodes' traces, in their order."""
        text = "".join(f"{n} {digest}\n" for n, (digest, _) in sorted(self.results.items()))
        return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def folder() -> Iterator[Path]:
    """Where the files are: in memory, since the disk is simulated. They are gone at the end."""
    shm = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="keeper-simulation-", dir=shm if os.access(shm, os.W_OK) else None))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def ground(folder: Path) -> Ground:
    """The ground, ready to be forked from."""
    scopes_in_order()
    sharer.take_over()
    handing.take_over()
    # Whatever is read, compiled or cached at its first use is so in all forks, after one episode on another ground.
    program = load_program(ProgramSettings())
    # And an IDL is read once: it never changes, and a start spends a tenth of its time on it.
    vars(wiring)["load_program"] = lambda settings: program
    for keepers in (1, 2):
        first = Episode(Ground(folder / f"first-{keepers}"), draw(*_FIRST, keepers))
        _logs_into(first.stage.trace, folder)
        first.play()
        clock.passed_s = clock.off_s = 0.0
    made = Ground(folder)
    # A fork copies the pages that it writes to: let none of these be written to by the collector.
    gc.collect()
    gc.freeze()
    return made


def play(made: Ground, scenario: Scenario, *, keep: bool = False) -> Outcome:
    """Play a scenario in a process of its own, whose end takes everything with it."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _play_here(made, scenario, keep, theirs)
    os.close(theirs)
    text = _read(ours, pid)
    os.close(ours)
    _, status = os.waitpid(pid, 0)
    if not text:
        code = os.waitstatus_to_exitcode(status)
        return Outcome([f"the simulation's process ended with {code}"], digest="none")
    said = json.loads(text)
    return Outcome(said["violations"], Counter(said["counts"]), said["digest"], said["lines"])


def _read(ours: int, pid: int) -> bytes:
    parts: list[bytes] = []
    ends = real_perf_counter() + 10 * _EPISODE_WITHIN_S
    while True:
        ready, _, _ = select.select([ours], [], [], max(0.0, ends - real_perf_counter()))
        if not ready:
            os.kill(pid, signal.SIGKILL)
            return b""
        part = os.read(ours, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _play_here(made: Ground, scenario: Scenario, keep: bool, out: int) -> None:
    folder = made.folder / f"episode-{os.getpid()}"
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (_EPISODE_WITHIN_S, _EPISODE_WITHIN_S))
        gc.disable()  # an episode is short; and what a collector ends, it ends at no step of ours
        gc.collect = lambda generation=2: 0  # nor when a keeper's start asks for it
        made.folder = folder
        episode = Episode(made, scenario, keep=keep)
        _logs_into(episode.stage.trace, folder)
        outcome = episode.play()
        said: dict[str, Any] = {
            "violations": [text.replace(str(folder), "~") for text in outcome.violations],
            "counts": outcome.counts,
            "digest": outcome.digest,
            "lines": outcome.lines,
        }
        _write(out, json.dumps(said).encode())
        code = 0
    except BrokenPipeError:
        pass  # nobody wants to know any more
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(code)  # its keepers' threads and tasks are in the middle of things


def _write(out: int, content: bytes) -> None:
    while content:
        content = content[os.write(out, content) :]


def _logs_into(trace: Trace, folder: Path) -> None:
    """What the keeper logs is part of the trace."""

    def note(_logger: object, level: str, event: Any) -> Any:
        name = event.pop("event")
        text = f"{name} {' '.join(f'{key}={value}' for key, value in event.items())}"
        if isinstance(whose := owner.get(), sharer.Sharer):
            text = f"{whose.client.name} {text}"
        trace.note("log", text.replace(str(folder), "~"))
        raise structlog.DropEvent

    structlog.configure(processors=[note], cache_logger_on_first_use=False)
    set_level("info")


def run(
    seed: int,
    episodes: range,
    workers: int,
    progress: Callable[[Totals, Result], bool],
    keepers: int | None = None,
) -> Totals:
    """Play them. `progress` is told of each, and says whether to go on. `keepers`: see `draw`."""
    with folder() as root:
        return _run(seed, episodes, workers, progress, keepers, root)


def _run(
    seed: int,
    episodes: range,
    workers: int,
    progress: Callable[[Totals, Result], bool],
    keepers: int | None,
    root: Path,
) -> Totals:
    totals = Totals()
    begun = real_perf_counter()
    channels: dict[int, tuple[int, bytearray]] = {}
    for worker in range(workers):
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            _work(seed, episodes[worker::workers], keepers, root / f"worker-{worker}", theirs)
        os.close(theirs)
        channels[ours] = (pid, bytearray())
    pids = [pid for pid, _ in channels.values()]
    try:
        while channels:
            ready, _, _ = select.select(list(channels), [], [])
            for ours in ready:
                part = os.read(ours, 1 << 20)
                buffer = channels[ours][1]
                buffer += part
                *lines, rest = bytes(buffer).split(b"\n")
                buffer[:] = rest
                for line in lines:
                    result = Result(**json.loads(line))
                    totals.add(result)
                    totals.seconds = real_perf_counter() - begun
                    if not progress(totals, result):
                        return totals
                if not part:
                    os.close(ours)
                    del channels[ours]
    finally:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        for pid in pids:
            os.waitpid(pid, 0)
    return totals


def _work(seed: int, episodes: range, keepers: int | None, folder: Path, out: int) -> None:
    try:
        made = ground(folder)
        for episode in episodes:
            outcome = play(made, draw(seed, episode, keepers))
            line = {
                "episode": episode,
                "digest": outcome.digest,
                "violations": outcome.violations,
                "counts": outcome.counts,
            }
            _write(out, json.dumps(line).encode() + b"\n")
    except BrokenPipeError:
        pass  # nobody wants to know any more
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
