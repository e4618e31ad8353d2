"""The keeper against the one from the examples (`bench.naive_keeper`): the same chain, the same orders, one tick.

Both get `_ORDERS` orders that one tick crosses. `latency_ratio` is the quotient of their median times from the tick
to an execution in a confirmed block. `burst_ratio` is the quotient of executions a second: the naive keeper's here,
which does not depend on how many there are, and this keeper's in its burst of 2,000 (or of `_ORDERS` with `quick`).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from solders.keypair import Keypair

from bench.ledger import Ledger
from bench.parts import burst
from bench.stage import CROSSING_1E6, PRICE_1E6, SOL_FOR_FEES, chain, keeper, place_stops, traders_for
from tests.support.waiting import until
from tests.support.world import World

_ORDERS = 40
_LONGEST_S = 180.0


async def measure(quick: bool) -> dict[str, Any]:
    """`naive`."""
    orders = 8 if quick else _ORDERS
    theirs = await _run(orders, naive=True)
    ours = await _run(orders, naive=False)
    rate = ours["executions_per_s"] if quick else (await burst.run(2_000))["executions_per_s"]
    return {
        "naive": {
            "orders": orders,
            "burst_ratio": round(rate / theirs["executions_per_s"], 1),
            "latency_ratio": round(ours["latency_p50_ms"] / theirs["latency_p50_ms"], 4),
            "naive_executions_per_s": round(theirs["executions_per_s"], 2),
            "naive_latency_p50_ms": round(theirs["latency_p50_ms"]),
            "latency_p50_ms": round(ours["latency_p50_ms"]),
        }
    }


async def _run(orders: int, *, naive: bool) -> dict[str, float]:
    async with chain() as world:
        market = world.market("SOL/USDC", price_1e6=PRICE_1E6)
        placed = place_stops(world, market, orders, traders_for(world, orders))
        key = world.wallet(SOL_FOR_FEES)
        with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
            run = _naive(world, Path(folder), key) if naive else keeper(world, Path(folder), key=key)
            async with run:
                ledger = Ledger.of(world.bank, key, placed)
                await anyio.sleep(2.0)
                world.set_price(market, PRICE_1E6)
                await anyio.sleep(1.3)
                world.set_price(market, CROSSING_1E6)
                began = time.perf_counter()
                await until(lambda: ledger.all_confirmed, within_s=_LONGEST_S, every_s=0.02)
        times = [at - began for at in ledger.confirmed_at.values()]
        return {"executions_per_s": orders / max(times), "latency_p50_ms": 1e3 * statistics.median(times)}


@asynccontextmanager
async def _naive(world: World, folder: Path, key: Keypair) -> AsyncIterator[None]:
    (folder / "idl.json").write_text(world.program.idl.legacy)
    (folder / "key.json").write_text(json.dumps(list(bytes(key))))
    (folder / "key.json").chmod(0o600)
    arguments = [world.net.rpc_url, str(folder / "idl.json"), str(world.program.id), str(folder / "key.json")]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with (folder / "log").open("wb") as log:
        process = await anyio.open_process(
            [sys.executable, "-m", "bench.naive_keeper", *arguments], stdout=log, stderr=log, env=environment
        )
    try:
        with anyio.fail_after(30):
            while b"ready" not in (folder / "log").read_bytes():  # noqa: ASYNC110 - it is another process
                await anyio.sleep(0.1)
        yield
    finally:
        with anyio.CancelScope(shield=True):
            process.kill()
            await process.wait()
