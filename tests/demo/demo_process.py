"""The demo as its users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import BOUND_S

END_WITHIN_S = 150.0
"""A demo of 40 orders takes 20 s; a busy machine may take its time."""


@dataclass(slots=True)
class DemoProcess:
    """A running demo; its files are under `folder`."""

    process: subprocess.Popen[str]
    folder: Path

    def summary(self) -> dict[str, Any]:
        """The line on standard output; waits for it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors()
        document: dict[str, Any] = json.loads(line)
        return document

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=BOUND_S)

    def children(self) -> list[int]:
        """The process ids of its chain and its keeper."""
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    @staticmethod
    def alive(processes: Sequence[int]) -> list[int]:
        """Those of the processes that still run."""
        return [pid for pid in processes if Path(f"/proc/{pid}").exists()]

    def errors(self) -> str:
        """What it wrote to standard error."""
        return (self.folder / "stderr").read_text()

    def files(self) -> list[Path]:
        """What is left of its temporary directory."""
        return sorted(self.folder.glob("keeper-demo-*"))


@contextmanager
def demo_running(folder: Path, arguments: Sequence[str]) -> Iterator[DemoProcess]:
    """`keeper demo ARGUMENTS`, stopped at the end of the block if it still runs."""
    environment = {**os.environ, "TMPDIR": str(folder), "KEEPER_HTTP__PORT": "1"}
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "keeper", "demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
        )
    try:
        yield DemoProcess(process, folder)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=BOUND_S)
        assert process.stdout is not None
        process.stdout.close()
