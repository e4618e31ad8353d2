"""The keepers of the demo: one on a file, or several on a PostgreSQL server of their own, of which one works."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process
from solders.keypair import Keypair

from keeper.demo.errors import DemoFailed
from keeper.demo.files import write_key, write_settings
from keeper.demo.postgres import PostgresServer
from keeper.demo.processes import Child, launched, ready_line, started


@dataclass(slots=True)
class Keepers:
    """The working one's API is at `http_url`."""

    http_url: str
    working: Child | None
    _processes: dict[str, Process] = field(default_factory=dict)
    _directory: Path = Path()

    async def kill_the_working_one(self) -> str:
        """SIGKILL, and wait for the next: a sentence on what was done."""
        name, process = next(iter(self._processes.items()))
        del self._processes[name]
        process.kill()
        await process.wait()
        began_s = anyio.current_time()
        successor = ""
        async with anyio.create_task_group() as tg:

            async def wait_for(other: str) -> None:
                nonlocal successor
                said = await ready_line(self._processes[other], other, self._directory / f"{other}.log")
                successor, self.http_url = other, said["http_url"]
                tg.cancel_scope.cancel()

            for other in self._processes:
                tg.start_soon(wait_for, other)
        return f"{name} was killed, and {successor} had taken over after {anyio.current_time() - began_s:.1f} s."


@contextlib.asynccontextmanager
async def running(count: int, directory: Path, key: Keypair, chain: Mapping[str, Any]) -> AsyncIterator[Keepers]:
    """Start them; the first is ready when the block begins, and the others stand by. DemoFailed when one can't."""
    key_file = write_key(directory / "keeper.json", key)
    async with contextlib.AsyncExitStack() as stack:
        if count == 1:
            settings = write_settings(directory, key_file, chain)
            keeper = await stack.enter_async_context(started("keeper", _run(settings), directory / "keeper.log"))
            yield Keepers(keeper.ready["http_url"], keeper)
            return
        try:
            server = await anyio.to_thread.run_sync(stack.enter_context, PostgresServer.running())
        except RuntimeError as e:
            raise DemoFailed(f"The database did not start: {e}.") from None
        keepers = Keepers("", None, {}, directory)
        for n in range(count):
            name = f"keeper-{n + 1}"
            settings = write_settings(directory, key_file, chain, name=name, url=server.url())
            log = directory / f"{name}.log"
            keepers._processes[name] = await stack.enter_async_context(launched(_run(settings), log))
            if n == 0:
                keepers.http_url = (await ready_line(keepers._processes[name], name, log))["http_url"]
        yield keepers


def _run(settings: Path) -> list[str]:
    return ["run", "--config", str(settings), "--json"]
