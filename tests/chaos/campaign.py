"""The campaign: workers in processes of their own, their results added up, a verdict."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import Process

from keeper.execution.points import POINTS
from tests.chaos.scenario import Sharing

_END_WITHIN_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to run. `only` is one episode of the seed's campaign, alone; `validator`: on a real one."""

    episodes: int
    seed: int
    workers: int
    evidence: Path
    only: int | None = None
    keep_going: bool = False
    validator: bool = False
    keepers: int = 1
    plant: str | None = None
    sharing: Sharing = Sharing.DRAWN

    @property
    def flags(self) -> str:
        """Those of the command line that say what is played on, with a space before each."""
        flags = " --validator" if self.validator else ""
        flags += f" --keepers {self.keepers}" if self.keepers > 1 else ""
        flags += f" --share {self.sharing}" if self.sharing is not Sharing.DRAWN else ""
        return flags + (f" --plant {self.plant}" if self.plant else "")


@dataclass(slots=True)
class Totals:
    """The results so far."""

    episodes: int = 0
    orders: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)
    converge_s: list[float] = field(default_factory=list)
    broken_workers: list[str] = field(default_factory=list)

    def add(self, line: dict[str, Any]) -> None:
        """Take in one episode's line."""
        self.episodes += 1
        self.orders += line["orders"]
        self.counts.update(line["counts"])
        self.converge_s.append(line["converge_s"])
        if line["violations"]:
            self.violations.append({k: line.get(k) for k in ("episode", "violations", "evidence")})

    @property
    def kills(self) -> Counter[str]:
        """SIGKILLs by point; `random` and `starting` are those at no named point."""
        return self.part("kill ")

    @property
    def unkilled(self) -> list[str]:
        """Named points at which no keeper died."""
        return [point for point in POINTS if not self.kills[point]]

    def part(self, prefix: str) -> Counter[str]:
        """The counts whose names begin so."""
        return Counter({k.removeprefix(prefix): n for k, n in self.counts.items() if k.startswith(prefix)})

    def document(self, options: Options) -> dict[str, Any]:
        """Everything as JSON types."""
        ordered = sorted(self.converge_s)
        named = ("kill ", "fault ", "chain ", "attempts ", "errors ", "failed ")
        rest = {k: n for k, n in self.counts.items() if not k.startswith((*named, "killed "))}
        return {
            "episodes": self.episodes,
            "seed": options.seed,
            "seconds": round(self.seconds, 1),
            "orders": self.orders,
            "kills": self.kills.total(),
            "kills_by_point": dict(self.kills.most_common()),
            "points_without_a_kill": self.unkilled,
            "faults": self.part("fault ").total(),
            "faults_by_kind": dict(self.part("fault ").most_common()),
            "chain_faults": dict(self.part("chain ").most_common()),
            "attempts_by_end": dict(self.part("attempts ").most_common()),
            "errors": dict(self.part("errors ").most_common()),
            "failed": dict(self.part("failed ").most_common()),
            **rest,
            "converge_s": {
                "p50": ordered[len(ordered) // 2] if ordered else None,
                "most": ordered[-1] if ordered else None,
            },
            "violations": self.violations,
            "broken_workers": self.broken_workers,
        }

    @property
    def ok(self) -> bool:
        """Whether nothing was violated, and every worker came to its end."""
        return not self.violations and not self.broken_workers


async def run(options: Options, progress: Callable[[Totals, bool], None]) -> Totals:
    """Run it. Without `keep_going` the first violation ends it.

    `progress` is told of the totals after each episode, and whether that one had violations.
    """
    totals = Totals()
    begun = time.monotonic()
    async with anyio.create_task_group() as tasks:

        async def follow(worker: int) -> None:
            await _follow(options, worker, totals, progress, begun)
            if totals.violations and not options.keep_going:
                tasks.cancel_scope.cancel()

        for worker in range(options.workers):
            tasks.start_soon(follow, worker)
    totals.seconds = time.monotonic() - begun
    return totals


async def _follow(
    options: Options, worker: int, totals: Totals, progress: Callable[[Totals, bool], None], begun: float
) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seed", str(options.seed), "--episodes", str(options.episodes)]
    command += ["--worker", f"{worker}/{options.workers}", "--evidence", str(options.evidence)]
    command += ["--only", str(options.only)] if options.only is not None else []
    command += ["--keep-going"] if options.keep_going else []
    command += options.flags.split()
    async with await anyio.open_process(command, stderr=None) as process, _interrupted(process):
        assert process.stdout is not None
        rest = b""
        async for received in process.stdout:
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                outcome = json.loads(line)
                totals.add(outcome)
                totals.seconds = time.monotonic() - begun
                progress(totals, bool(outcome["violations"]))
        code = await process.wait()
        if code != 0:
            totals.broken_workers.append(f"worker {worker} ended with {code}")


@asynccontextmanager
async def _interrupted(process: Process) -> AsyncIterator[None]:
    """A worker that still runs at the end of the block is told to end, and has time to end what it started."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            with anyio.move_on_after(_END_WITHIN_S, shield=True):
                await process.wait()
