"""The log: an order can be followed, a repeated fault does not fill the disk, and no credential is ever in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
import structlog
from typer.testing import CliRunner

from keeper.cli import cli
from keeper.telemetry.repeats import LimitRepeats
from tests.support import BOUND_S, KeeperConfig, KeeperProcess, World, until

KEY, WS_KEY, USER, DIGEST = "k3y-IN-URL-71af", "ws-k3y-IN-URL-90bd", "us3r-IN-URL", "d1e9" * 16
SECRETS = (KEY, WS_KEY, USER, DIGEST)


@pytest.mark.anyio
async def test_no_credential_leaves_the_keeper_even_at_debug(tmp_path: Path) -> None:
    """Keys in every URL, a node that works, fails and goes away; then everything that the keeper said is searched."""
    async with World.open() as world:
        host = world.net.rpc_url.removeprefix("http://")
        socket = f"{world.net.ws_url}/?api-key={WS_KEY}"
        fallback = {"url": f"http://127.0.0.1:1/v2/{KEY}", "ws_url": f"ws://127.0.0.1:1/v2/{WS_KEY}"}
        config = KeeperConfig.beside(
            world,
            tmp_path,
            rpc={
                "url": f"http://{USER}:{KEY}@{host}/?api-key={KEY}",
                "ws_url": socket,
                "fallbacks": [fallback],
                "streams": [{"kind": "yellowstone", "url": "http://127.0.0.1:1", "token": KEY}],
                "deadline_s": 1.0,
                "silence_s": 1.0,
                "probe_every_s": 0.5,
            },
            http={"admin_token_sha256": DIGEST},
        )
        market, trader = world.market(), world.trader()
        order = world.place(trader, market, stop_price_1e6=98_000_000)
        key = bytes(config.key)
        keeper = await KeeperProcess.start(config)
        await keeper.ready()
        world.set_price(market, 97_000_000)
        await until(lambda: world.position(order))
        said = await _everything(keeper, config)
    try:
        # The chain is gone: refused connections, reconnects, benches.
        await until(lambda: config.log.read_text().count("watch.reconnect") >= 3)
        said += await _everything(keeper, config)
    finally:
        await keeper.stop()
    said += config.log.read_text()
    assert "attempt.signed" in said  # it really was at debug
    assert "watch.reconnect" in said
    numbers = ", ".join(str(byte) for byte in key[:8])
    assert [secret for secret in (*SECRETS, numbers, key.hex()) if secret in said] == []


async def _everything(keeper: KeeperProcess, config: KeeperConfig) -> str:
    said = ""
    async with httpx.AsyncClient(base_url=keeper.url, timeout=BOUND_S) as api:
        for path in ("metrics", "healthz", "readyz?verbose", "v1/markets", "v1/orders", "v1/admin/status", "nothing"):
            said += (await api.get(f"/{path}")).text
    commands = (["check"], ["check", "--json"], ["check", "--show"], ["journal", "export"], ["executions", "--json"])
    for command in commands:
        arguments = [*command, "--config", str(config.file)]
        result = await anyio.to_thread.run_sync(CliRunner().invoke, cli, arguments)
        said += result.output + repr(result.exception)
    return said


@pytest.mark.anyio
async def test_an_orders_life_can_be_followed_by_its_ids(world: World, tmp_path: Path) -> None:
    config = KeeperConfig.beside(world, tmp_path)
    market, trader = world.market(), world.trader()
    order = world.place(trader, market, stop_price_1e6=98_000_000)
    async with KeeperProcess.running(config):
        world.set_price(market, 97_000_000)
        await until(lambda: "attempt.finalized" in config.log.read_text())
    lines = [json.loads(line) for line in config.log.read_text().splitlines()]
    mine = [line for line in lines if line.get("order") == str(order)]
    events = [line["event"] for line in mine]
    assert events[0] == "order.triggered"
    assert events[-1] == "attempt.finalized"
    assert {"attempt.signed", "attempt.sent", "attempt.confirmed", "order.settled"} <= set(events)
    assert len({line["attempt"] for line in mine[1:]}) == 1


class TestLimitRepeats:
    """Ten lines a minute of a kind, and then a count."""

    def lines(self, limit: LimitRepeats, count: int, **fields: str) -> list[dict[str, object]]:
        passed = []
        for _ in range(count):
            try:
                passed.append(dict(limit(None, "warning", {"event": "executor.no_blockhash", **fields})))
            except structlog.DropEvent:
                continue
        return passed

    def test_a_repeated_line_is_counted_and_the_count_is_told(self) -> None:
        now = [0.0]
        limit = LimitRepeats(burst=3, window_s=60, clock=lambda: now[0])
        assert len(self.lines(limit, 1_000)) == 3
        now[0] = 60.0
        again = self.lines(limit, 2)
        assert again[0]["suppressed"] == 997
        assert "suppressed" not in again[1]

    def test_another_order_is_another_line(self) -> None:
        limit = LimitRepeats(burst=1)
        assert [len(self.lines(limit, 5, order=f"order {i}")) for i in range(20)] == [1] * 20

    def test_its_memory_is_bounded(self) -> None:
        limit = LimitRepeats(burst=1, most=100)
        for i in range(10_000):
            self.lines(limit, 1, order=f"order {i}")
        assert repr(limit) == "LimitRepeats(100 kinds)"


def test_what_a_library_repeats_is_counted_too() -> None:
    """In a process of its own: logging is set up once in each."""
    program = (
        "import logging; from keeper.telemetry.logs import configure_logs; configure_logs('info', 'json');\n"
        "for n in range(5_000): logging.getLogger('asyncio').error('socket.accept() out of system resource')\n"
        "logging.getLogger('uvicorn.error').warning('Another %s.', 'line')"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr
    lines = [json.loads(line)["event"] for line in said.splitlines()]
    assert 1 <= lines.count("socket.accept() out of system resource") <= 10
    assert lines[-1] == "Another line."
