"""The chain and the keeper as real processes, started as a user would start them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from keeper.demo.errors import DemoFailed

_START_S: Final = 30.0
_STOP_S: Final = 10.0
_LONGEST_READY_LINE: Final = 64 * 1024
_LOG_LINES_SHOWN: Final = 5


@dataclass(slots=True)
class Child:
    """A process that said that it is ready: `ready` is the JSON object that it printed.

    `ended_with` is its exit code if it ended although nobody had told it to.
    """

    name: str
    ready: dict[str, Any]
    log: Path
    ended_with: int | None = None

    def obituary(self) -> str | None:
        """How it ended by itself, with the log's last lines; None if it did not."""
        if self.ended_with is None:
            return None
        return f"The {self.name} ended by itself with code {self.ended_with}.{tail(self.log)}"


@asynccontextmanager
async def started(name: str, arguments: Sequence[str], log: Path) -> AsyncIterator[Child]:
    """Run `python -m keeper ARGUMENTS` until the end of the block; then it gets SIGTERM and ten seconds.

    Its log goes to the file. DemoFailed, with the log's last lines, when it does not become ready.
    """
    async with launched(arguments, log) as process:
        child = Child(name, await ready_line(process, name, log), log)
        try:
            yield child
        finally:
            child.ended_with = process.returncode


@asynccontextmanager
async def launched(arguments: Sequence[str], log: Path) -> AsyncIterator[Process]:
    """As `started`, for a process that may be ready much later, or never."""
    with log.open("wb") as stderr:
        process = await anyio.open_process(
            [sys.executable, "-m", "keeper", *arguments],
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            env=_environment(),
            # A Ctrl-C in the terminal is the demo's to handle: the keeper has to end before its chain does.
            start_new_session=True,
        )
    async with stopped(process):
        yield process


async def ready_line(process: Process, name: str, log: Path) -> dict[str, Any]:
    """What it says when it is ready. DemoFailed, with the log's last lines, when it does not say it in time."""
    assert process.stdout is not None
    lines = BufferedByteReceiveStream(process.stdout)
    try:
        with anyio.fail_after(_START_S):
            line = await lines.receive_until(b"\n", _LONGEST_READY_LINE)
        return msgspec.json.decode(line, type=dict[str, Any])
    except TimeoutError:
        raise DemoFailed(f"The {name} was not ready within {_START_S:.0f} s.{tail(log)}") from None
    except (anyio.EndOfStream, anyio.IncompleteRead):
        raise DemoFailed(f"The {name} did not start.{tail(log)}") from None
    except (anyio.DelimiterNotFound, msgspec.MsgspecError):
        raise DemoFailed(f"The {name} printed something else than its ready line.{tail(log)}") from None


@asynccontextmanager
async def stopped(process: Process) -> AsyncIterator[None]:
    """At the end of the block the process gets SIGTERM, and SIGKILL when it has not ended after ten seconds."""
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
                with anyio.move_on_after(_STOP_S):
                    await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            await process.aclose()


def _environment() -> dict[str, str]:
    """Without the user's own KEEPER_* settings, which belong to another keeper than the demo's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KEEPER_")}


def tail(log: Path) -> str:
    """The last lines of a log, each on a line of its own."""
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
    return "".join(f"\n  {line}" for line in lines)
