"""N orders crossed by one tick: how many executions a second, and when the last one is confirmed.

The clock starts when the oracle's update is in a block, which is when the node begins to tell of it. An order counts
when the chain has its successful execution. Afterwards the ledger is audited: every order filled once, with its
position, every landed signature in the journal.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from bench.figures import across
from bench.ledger import Ledger
from bench.progress import step
from bench.stage import CROSSING_1E6, PRICE_1E6, SOL_FOR_FEES, chain, cpu_s, keeper, metrics, place_stops, traders_for
from keeper.venue.venue import POSITION_DISCRIMINATOR
from tests.support.waiting import until

_LONGEST_S = 120.0


async def measure(quick: bool) -> dict[str, Any]:
    """`burst` by size, and `oracle_ask_ratio` in the largest one."""
    sizes = {100: 1} if quick else {100: 3, 2_000: 3, 10_000: 1}
    burst = {str(size): _summary([await run(size) for _ in range(runs)]) for size, runs in sizes.items()}
    largest = burst[str(max(sizes))]
    return {"burst": burst, "oracle_ask_ratio": round(largest["oracle_asks"] / largest["price_reads"], 5)}


async def run(orders: int, *, say: Any = None, url: str | None = None) -> dict[str, float]:
    """One burst on a fresh chain with a fresh keeper, whose journal is at `url` if there is one."""
    async with chain() as world:
        market = world.market("SOL/USDC", price_1e6=PRICE_1E6)
        placed = place_stops(world, market, orders, traders_for(world, orders))
        key = world.wallet(SOL_FOR_FEES)
        with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
            async with keeper(world, Path(folder), key=key, url=url) as process:
                ledger = Ledger.of(world.bank, key, placed)
                await anyio.sleep(1.0)
                world.set_price(market, PRICE_1E6)
                await anyio.sleep(1.0)
                if say is not None:
                    await say(process)
                cpu = cpu_s(process.process.pid)
                world.set_price(market, CROSSING_1E6)
                began = time.perf_counter()
                await until(lambda: ledger.all_confirmed, within_s=_LONGEST_S, every_s=0.02)
                before = await metrics(process)
                await _settled(process, orders)
                after = await metrics(process)
                cpu = cpu_s(process.process.pid) - cpu
                landed = max(ledger.landed_at.values()) - began
                confirmed = max(ledger.confirmed_at.values()) - began
                with process.config.reading() as journal:
                    journaled = sum(journal.attempt(s) is not None for s in ledger.signature_of.values())
        step()
        owned = world.bank.owned_by(world.program.id)
        positions = sum(1 for _, account in owned if bytes(account.data[:8]) == POSITION_DISCRIMINATOR)
        return {
            "executions_per_s": orders / landed,
            "last_landed_s": landed,
            "last_confirmed_s": confirmed,
            "first_landed_ms": 1e3 * (min(ledger.landed_at.values()) - began),
            "keeper_cpu_us_an_order": 1e6 * cpu / orders,
            "duplicates": ledger.duplicates,
            "failed": ledger.failed,
            "positions": positions,
            "journaled": journaled,
            "loop_lag_ms": 1e3 * after.get("keeper_loop_lag_seconds", 0.0),
            "oracle_asks": after["keeper_oracle_asks_total"],
            "price_reads": max(after["keeper_price_reads"], before["keeper_price_reads"]),
        }


async def _settled(process: Any, orders: int) -> None:
    """Until the keeper's own books are closed, too: its CPU time would else disturb what is measured next."""
    name = 'keeper_attempts_settled_total{fate="executed",kind="execute"}'
    with anyio.move_on_after(_LONGEST_S):
        while (await metrics(process)).get(name, 0.0) < orders:  # noqa: ASYNC110 - another process
            await anyio.sleep(0.5)


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """The medians of the runs, their spread, and of what must be exact the worst."""
    rates = [run["executions_per_s"] for run in runs]
    result: dict[str, Any] = {"executions_per_s": across(rates)["median"], "executions_per_s_runs": across(rates)}
    for name in ("last_landed_s", "last_confirmed_s", "first_landed_ms", "keeper_cpu_us_an_order"):
        result[name] = across([run[name] for run in runs], 3)["median"]
    for name in ("duplicates", "failed", "oracle_asks", "loop_lag_ms"):
        result[name] = round(max(run[name] for run in runs), 3)
    for name in ("positions", "journaled", "price_reads"):
        result[name] = min(run[name] for run in runs)
    return result
