"""The real binary under a supervisor that speaks notify: what it says, when, and what lets the watchdog bite."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.support import KeeperConfig, KeeperProcess, World, until

pytestmark = pytest.mark.anyio

BRISK = {"blockhash_every_s": 0.2, "deadline_s": 0.35, "silence_s": 1.5}
"""Under a watchdog that bites soon: `health.stalled_after_s` has to be above 5 calls that take their whole deadline."""


class Supervisor:
    """The other end of NOTIFY_SOCKET. `messages` are the datagrams, as mappings."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.messages: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def said(self, key: str) -> list[str]:
        """Every value of `key`, in the order of arrival."""
        try:
            while True:
                lines = self._socket.recv(4096).decode().splitlines()
                self.messages.append(dict(line.split("=", 1) for line in lines))
        except BlockingIOError:
            return [message[key] for message in self.messages if key in message]

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def supervised(
    config: KeeperConfig, address: str, *, watchdog_s: float | None = None, stall_at: str | None = None
) -> AsyncIterator[tuple[Supervisor, KeeperProcess]]:
    """A keeper as systemd starts one, ready."""
    supervisor = Supervisor(address)
    environment = {"NOTIFY_SOCKET": address}
    if watchdog_s is not None:
        environment["WATCHDOG_USEC"] = str(round(watchdog_s * 1e6))
    if stall_at is not None:
        environment["QUANTDESK_STALL_AT"] = stall_at
    keeper = await KeeperProcess.start(config, cold=True, environment=environment)
    try:
        await keeper.ready()
        yield supervisor, keeper
    finally:
        with anyio.CancelScope(shield=True):
            await keeper.stop()
        supervisor.close()


def logged(config: KeeperConfig, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in config.log.read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


async def test_a_life_as_a_supervisor_hears_it(world: World, tmp_path: Path) -> None:
    """Start, reload, a wrong reload, stop: over an abstract socket, as systemd in a container gives one."""
    config = KeeperConfig.beside(world, tmp_path, log={"level": "warning"})
    async with supervised(config, f"@keeper-test-{os.getpid()}", watchdog_s=30) as (supervisor, keeper):
        assert supervisor.said("STATUS")[0].startswith("starting")
        assert supervisor.said("READY") == ["1"]
        assert supervisor.said("STATUS")[-1] == "ready; 0 orders resting, 0 attempts in flight"
        await until(lambda: supervisor.said("WATCHDOG") == ["1"])

        # The level and the fees are taken up; where it listens is not, and it says so.
        text = config.file.read_text()
        config.file.write_text(
            text.replace('level = "warning"', 'level = "info"').replace("port = 0", "port = 4711")
            + "\n[fees]\nunit_price_micro_lamports = 5000\n"
        )
        keeper.process.send_signal(signal.SIGHUP)
        await until(lambda: supervisor.said("READY") == ["1", "1"])
        assert next(m for m in supervisor.messages if "RELOADING" in m)["MONOTONIC_USEC"].isdigit()
        await until(lambda: logged(config, "settings.need_restart"))
        assert logged(config, "settings.reloaded")[0]["taken"] == ["fees.unit_price_micro_lamports", "log.level"]
        assert logged(config, "settings.need_restart")[0]["names"] == ["http.port"]

        # A mistake in the file changes nothing, and the keeper goes on.
        config.file.write_text(text + "\n[feees]\n")
        keeper.process.send_signal(signal.SIGHUP)
        await until(lambda: supervisor.said("READY") == ["1", "1", "1"])
        assert "the old ones are in force" in supervisor.said("STATUS")[-1]
        assert "Did you mean fees" in logged(config, "settings.not_reloaded")[0]["detail"]

        keeper.terminate()
        assert await keeper.wait() == 0
        assert supervisor.said("STOPPING") == ["1"]
        assert list(supervisor.messages[-1]) == ["STOPPING", "STATUS"]


async def test_a_quiet_market_feeds_the_watchdog(world: World, tmp_path: Path) -> None:
    """Nothing to do for longer than a loop may stand still: pings go on, and it is live."""
    config = KeeperConfig.beside(world, tmp_path, health={"stalled_after_s": 1.8}, rpc=BRISK)
    async with supervised(config, str(tmp_path / "notify"), watchdog_s=1.5) as (supervisor, keeper):
        await until(lambda: len(supervisor.said("WATCHDOG")) >= 5)
        assert set(supervisor.said("WATCHDOG")) == {"1"}
        async with httpx.AsyncClient(base_url=keeper.url) as api:
            assert (await api.get("/livez")).status_code == 200


async def test_a_stuck_loop_ends_a_keeper_that_nobody_pings(world: World, tmp_path: Path) -> None:
    """As in compose.yaml: what ends is started again."""
    health = {"stalled_after_s": 3.5, "exit_when_stuck": True}
    config = KeeperConfig.beside(world, tmp_path, health=health, rpc=BRISK | {"deadline_s": 0.6})
    async with supervised(config, str(tmp_path / "notify"), stall_at="watch:40") as (supervisor, keeper):
        with anyio.fail_after(30):
            assert await keeper.wait() == 1
        assert not supervisor.said("WATCHDOG"), "it asked for no pings"
    assert logged(config, "keeper.stuck")[0]["loops"][0].startswith("watch ")


HELD_UP = """
import sys, time, anyio
from pathlib import Path
from keeper.commands.service import serve
from keeper.config.loading import load_settings

settings = load_settings(Path(sys.argv[1]))
anyio.run(serve, settings, lambda: settings, lambda ready: time.sleep(60))
"""


async def test_an_event_loop_that_is_held_up_ends_the_keeper(world: World, tmp_path: Path) -> None:
    health = {"stalled_after_s": 3.5, "exit_when_stuck": True}
    config = KeeperConfig.beside(world, tmp_path, health=health, rpc=BRISK | {"deadline_s": 0.6})
    with anyio.fail_after(30):
        done = await anyio.run_process([sys.executable, "-c", HELD_UP, str(config.file)], check=False)
    assert done.returncode == 1
    assert b"Timeout" in done.stderr
    assert b"<lambda>" in done.stderr, "it shows what held it up"


@pytest.mark.parametrize(
    "loop", ["executor", *(pytest.param(loop, marks=pytest.mark.long) for loop in ("lander", "watch"))]
)
async def test_a_loop_that_is_stuck_lets_the_watchdog_bite(loop: str, world: World, tmp_path: Path) -> None:
    """The loop stands still; the others go on, and so does the API. The next process finishes the work."""
    turns = {"executor": 1, "lander": 4, "watch": 40}[loop]
    # An armed attempt goes out past the executor's loop.
    health, execution = {"stalled_after_s": 3.5}, {"armed_a_side": 0}
    rpc = BRISK | {"deadline_s": 0.6}
    config = KeeperConfig.beside(world, tmp_path, health=health, execution=execution, rpc=rpc)
    market, trader = world.market(), world.trader()
    order = world.place(trader, market, stop_price_1e6=98_000_000)
    async with supervised(config, str(tmp_path / "notify"), watchdog_s=1.5, stall_at=f"{loop}:{turns}") as (
        supervisor,
        keeper,
    ):
        world.set_price(market, 97_000_000)
        await until(lambda: "trigger" in supervisor.said("WATCHDOG"))
        pings = len(supervisor.said("WATCHDOG"))
        assert f"stuck: {loop}" in supervisor.said("STATUS")[-1]
        async with httpx.AsyncClient(base_url=keeper.url) as api:
            answer = await api.get("/livez")
            assert answer.status_code == 503
            assert f"[-] loops: stuck, and only a restart helps: {loop}" in answer.text
            still = [m for m in (await api.get("/metrics")).text.splitlines() if m.startswith("keeper_loop_still")]
            assert any(f'loop="{loop}' in line and float(line.split()[-1]) > 3.5 for line in still)
        await anyio.sleep(0.8)
        assert len(supervisor.said("WATCHDOG")) == pings  # and systemd has sent SIGABRT by now
        assert logged(config, "watchdog.stalled")
        keeper.kill()
        assert await keeper.wait() == -signal.SIGKILL
    if loop == "executor":
        assert world.position(order) is None
        async with supervised(config, str(tmp_path / "second")):
            await until(lambda: world.position(order))
