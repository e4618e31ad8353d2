"""A chain in this process and a keeper in its own, as a user runs it: settings file, key, journal on disk, API.

The two share a machine of few cores, and nothing else runs while a part measures; the chain's own cost is in every
figure that has a transaction in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptState
from tests.support.keeper_process import KeeperConfig, KeeperProcess
from tests.support.waiting import until
from tests.support.world import SOL, USDC, Trader, World

PRICE_1E6 = 100 * USDC
STOP_1E6 = 97 * USDC
CROSSING_1E6 = 96 * USDC
SOL_FOR_FEES = 10_000 * SOL
STANDS_BY = "keeper.standing_by"
"""What the log of a keeper says once it stands by."""
_ORDERS_A_TRADER = 40
"""The program allows 50 open positions a margin account."""


@asynccontextmanager
async def chain() -> AsyncIterator[World]:
    """The embedded chain with a cluster's pace: 400 ms a slot, confirmed one block later."""
    async with World.open(slot_ms=400, confirmed_slots=1, finalized_slots=31) as world:
        yield world


@asynccontextmanager
async def keeper(
    world: World,
    folder: Path,
    *,
    key: Keypair | None = None,
    trace: Path | None = None,
    tracer: str = "bench.traced",
    rpc: Mapping[str, object] | None = None,
    http: Mapping[str, object] | None = None,
    execution: Mapping[str, object] | None = None,
    url: str | None = None,
    name: str = "a",
    shares: bool = False,
    stands_by: bool = False,
    ready_within_s: float = 60.0,
) -> AsyncIterator[KeeperProcess]:
    """A keeper with its default settings, ready, or standing by. Its log goes to a file, as it would to a service
    manager. With a `url` its journal is there, `name` is its own, and it `shares` the markets; else it is a file.

    With `trace` it runs under the `tracer`, which writes there.
    """
    config = KeeperConfig.beside(
        world,
        folder,
        key=key or world.wallet(SOL_FOR_FEES),
        rpc=rpc or {},
        execution=execution or {},
        cluster={"name": name, "share_markets": shares},
        **({} if url is None else {"journal": {"url": url}}),
        log={"level": "info", "format": "json"},
        # A burst of 10,000 costs more than a careful operator's default allows a key in a day, and one client of the
        # API stands for many.
        fees={"daily_outflow_cap_lamports": 10**12},
        http={
            "requests_per_s": 100_000,
            "burst": 1_000_000,
            "node_calls_per_s": 100_000,
            "streams_per_client": 4_000,
            "connections_per_address": 5_000,
        }
        | dict(http or {}),
        # Some parts give a call two minutes, and nobody here listens to the watchdog.
        health={"stalled_after_s": 900},
    )
    module = ["keeper"] if trace is None else [tracer, str(trace)]
    process = await KeeperProcess.start(config, cold=True, module=module)
    try:
        if stands_by:
            await until(lambda: STANDS_BY in config.log.read_text(), within_s=ready_within_s)
        else:
            await process.ready(within_s=ready_within_s)
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            await process.stop()


def traders_for(world: World, orders: int) -> list[Trader]:
    """Enough traders with margin accounts for that many positions."""
    return [world.trader(collateral_1e6=10**12) for _ in range(-(-orders // _ORDERS_A_TRADER))]


def place_stops(world: World, market: Pubkey, orders: int, traders: Sequence[Trader]) -> list[Pubkey]:
    """Stop losses just below the price, at a hundred different triggers, all met by `CROSSING_1E6`."""
    return [
        world.place(traders[i // _ORDERS_A_TRADER], market, stop_price_1e6=STOP_1E6 + i % 100 * 1_000)
        for i in range(orders)
    ]


async def metrics(process: KeeperProcess) -> dict[str, float]:
    """The keeper's metrics, by name with labels."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{process.url}/metrics")).text
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    }


def armed_rows(process: KeeperProcess) -> int:
    """How many armed attempts its journal has."""
    with process.config.reading() as journal:
        return sum(attempt.state is AttemptState.ARMED for attempt in journal.open_attempts())


def rss_mb(pid: int) -> tuple[float, float]:
    """Resident memory of a process now, and the most that it ever was, in MB (10^6 bytes)."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, most = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
    assert now is not None
    assert most is not None
    return int(now[1]) * 1_024 / 1e6, int(most[1]) * 1_024 / 1e6


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
