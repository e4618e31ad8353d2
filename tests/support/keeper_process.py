"""The keeper as its users run it: a process of its own, with a settings file, a key and a journal on disk."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import anyio
from solders.keypair import Keypair

from keeper.journal import Queries, home_of
from tests.support.forking import ForkedProcess
from tests.support.postgres import place_of
from tests.support.waiting import BOUND_S
from tests.support.world import World

START_WITHIN_S = 120.0
"""A cold start reads a few thousand modules; on a busy machine that takes seconds."""


@dataclass(frozen=True, slots=True)
class KeeperConfig:
    """Where a keeper's files are. The same config again is the same keeper, restarted."""

    folder: Path
    key: Keypair = field(repr=False)
    settings: Mapping[str, Mapping[str, Any]]

    @classmethod
    def beside(
        cls, world: World, folder: Path, *, key: Keypair | None = None, **sections: Mapping[str, Any]
    ) -> KeeperConfig:
        """A funded keeper for this world, straight at its chain; `sections` are settings, by section."""
        rpc = {"url": world.net.rpc_url, "ws_url": world.net.ws_url}
        return cls.at(folder, key or world.wallet(), **{**sections, "rpc": {**rpc, **sections.get("rpc", {})}})

    @classmethod
    def at(cls, folder: Path, key: Keypair, **sections: Mapping[str, Any]) -> KeeperConfig:
        """Write the settings and the key into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        # Blocks come many times as fast as on a cluster, and so do the ends of blockhashes.
        rpc = {"blockhash_every_s": 0.2, **sections.get("rpc", {})}
        given: dict[str, Mapping[str, Any]] = {
            **sections,
            "rpc": rpc,
            "key": {"file": str(folder / "key.json")},
            "journal": {**_journal(folder / "journal.sqlite"), **sections.get("journal", {})},
            "http": {"port": 0, **sections.get("http", {})},
            "log": {"level": "debug", "format": "json", **sections.get("log", {})},
        }
        config = cls(folder, key, given)
        key_file = folder / "key.json"
        key_file.touch(mode=0o600)
        key_file.write_text(json.dumps(list(bytes(key))))
        config.file.write_text("".join(_table(name, values) for name, values in given.items()))
        return config

    @property
    def file(self) -> Path:
        """The settings file."""
        return self.folder / "keeper.toml"

    @property
    def journal(self) -> Path:
        """The journal's file. A test that needs one is marked `file_journal`."""
        return Path(self.settings["journal"]["path"])

    @property
    def place(self) -> Path | str:
        """Where the journal is: its file, or its database's URL."""
        journal = self.settings["journal"]
        return journal["url"] if "url" in journal else Path(journal["path"])

    @property
    def log(self) -> Path:
        """Standard error of every process that ran with this config, one after the other."""
        return self.folder / "keeper.log"

    @property
    def arguments(self) -> list[str]:
        """What `keeper` is called with."""
        return ["run", "--config", str(self.file), "--json"]

    @contextmanager
    def reading(self) -> Iterator[Queries]:
        """The journal's queries on a connection of their own, beside a running keeper or after it."""
        queries = home_of(self.place).open_queries()
        try:
            yield queries
        finally:
            queries.close()


class KeeperProcess:
    """One life of a keeper. `url` is its API's address, known once it is ready."""

    def __init__(self, config: KeeperConfig, process: ForkedProcess) -> None:
        self.config = config
        self.process = process
        self.url = ""

    def __repr__(self) -> str:
        state = "running" if self.process.returncode is None else f"ended with {self.process.returncode}"
        return f"<KeeperProcess {self.process.pid} {state}>"

    @classmethod
    async def start(
        cls,
        config: KeeperConfig,
        *,
        crash_at: str | None = None,
        cold: bool = False,
        module: Sequence[str] = ("keeper",),
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Start one; `ready` waits for it. `crash_at` is a point's name and count (`keeper.execution.points`).

        A `cold` one is executed as `python -m MODULE`, rather than forked from a process that has read its libraries.
        """
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("KEEPER_", "QUANTDESK_"))}
        wanted = {} if crash_at is None else {"QUANTDESK_CRASH_AT": crash_at}
        complete = {**inherited, **wanted, **(environment or {})}
        executed = ["-m", *module] if cold or "LD_PRELOAD" in complete else None
        process = await ForkedProcess.start(
            config.arguments, environment=complete, stderr=config.log, executed=executed
        )
        return cls(config, process)

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        config: KeeperConfig,
        *,
        crash_at: str | None = None,
        cold: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Self]:
        """A keeper that is ready, and is no more when the block is left."""
        keeper = await cls.start(config, crash_at=crash_at, cold=cold, environment=environment)
        try:
            await keeper.ready()
            yield keeper
        finally:
            with anyio.CancelScope(shield=True):
                await keeper.stop()

    async def ready(self, *, within_s: float = START_WITHIN_S) -> None:
        """Wait until it says so. RuntimeError with the end of its log when it ends instead."""
        said = b""
        with anyio.fail_after(within_s):
            while not said.endswith(b"\n"):
                printed = await self.process.receive()
                if not printed:
                    code = await self.process.wait()
                    raise RuntimeError(f"the keeper ended with {code} before it was ready:\n{self.log_end()}")
                said += printed
        self.url = json.loads(said)["http_url"]

    def kill(self) -> None:
        """SIGKILL: nothing of it can do anything any more."""
        self.process.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: it drains and persists."""
        self.process.send_signal(signal.SIGTERM)

    async def wait(self, *, within_s: float = BOUND_S) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        with anyio.fail_after(within_s):
            return await self.process.wait()

    async def stop(self) -> int:
        """End it with SIGTERM, and with SIGKILL if it does not."""
        self.terminate()
        try:
            return await self.wait()
        except TimeoutError:
            self.kill()
            return await self.wait()

    def log_end(self, characters: int = 3_000) -> str:
        """The end of its log."""
        return self.config.log.read_text(errors="replace")[-characters:]


def _journal(path: Path) -> dict[str, str]:
    place = place_of(path)
    return {"url": place} if isinstance(place, str) else {"path": str(place)}


def _table(name: str, values: Mapping[str, Any]) -> str:
    scalars = {k: v for k, v in values.items() if not _is_tables(v)}
    lines = [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in scalars.items() if v is not None), ""]
    for key, rows in values.items():
        if _is_tables(rows):
            for row in rows:
                lines += [f"[[{name}.{key}]]", *(f"{k} = {json.dumps(v)}" for k, v in row.items()), ""]
    return "\n".join([*lines, ""])


def _is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)
