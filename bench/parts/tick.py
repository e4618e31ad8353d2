"""From the tick to the transaction, with many orders resting: `tick_to_sent_ms`, the same where the order is armed, and
`trigger_to_confirmed_ms`.

Each tick crosses one order. `tick_to_sent` is inside the keeper's process: from the bytes of the price's notification
reaching it to the bytes of the signed transaction handed to the kernel, so parsing, deciding, signing and the
journal's fsync are in it (`bench.traced`). In `tick_to_sent_armed` the keeper has its default settings: the last two
were done before, for the share that left armed (`armed_hit_rate`). The two are measured one after the other, each on a
keeper of its own. `trigger_to_confirmed` is outside: from the oracle's update in a block to the execution in a
confirmed one, by the chain's own clock.
"""

from __future__ import annotations

import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from bench.figures import spread
from bench.ledger import Ledger
from bench.node import prepare, prepared_node
from bench.progress import step
from bench.resting import order_accounts
from bench.stage import PRICE_1E6, SOL_FOR_FEES, chain, keeper, metrics, traders_for
from tests.support.waiting import until

_STEP_1E6 = 10_000
_PAUSE_S = 0.15
_MARKETS = 50
_FIGURES = (
    "tick_to_sent_ms",
    "tick_to_sent_armed_ms",
    "armed_hit_rate",
    "trigger_to_confirmed_ms",
    "loop_lag_max_ms",
)


async def measure(quick: bool) -> dict[str, Any]:
    """By number of resting orders."""
    sizes = (0, 1_000) if quick else (0, 1_000, 100_000, 1_000_000)
    ticks = 30 if quick else 200
    found: dict[str, dict[str, Any]] = {name: {} for name in _FIGURES}
    for size in sizes:
        sent, *_ = await run(size, ticks, armed=False)
        for name, figure in zip(_FIGURES, (sent, *await run(size, ticks, armed=True)), strict=True):
            found[name][str(size)] = figure
        step()
    return found


async def run(
    resting: int, ticks: int, *, armed: bool, url: str | None = None
) -> tuple[dict[str, float], float, dict[str, float], float]:
    """One keeper, `resting` orders that nothing triggers, and `ticks` that trigger one order each. To the send, the
    share that left armed, to the confirmed block, and the loop's longest lag.
    """
    async with chain() as world:
        markets = [world.market(f"M{i}/USDC", price_1e6=PRICE_1E6) for i in range(_MARKETS)]
        traders = traders_for(world, ticks)
        placed = [
            world.place(traders[i // 40], markets[0], stop_price_1e6=PRICE_1E6 - (i + 1) * _STEP_1E6)
            for i in range(ticks)
        ]
        real = [(order, world.bank.account(order)) for order in placed]
        known = [(order, account) for order, account in real if account is not None]
        template = known[0][1]
        accounts = [(order, bytes(account.data)) for order, account in known]
        accounts += order_accounts(bytes(template.data), markets, resting)
        body = prepare(world.program.id, accounts, template.lamports)
        del accounts
        key = world.wallet(SOL_FOR_FEES)
        with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
            async with prepared_node(world.bank, body) as node:
                trace = Path(folder) / "trace"
                # Snapshots are measured by themselves (`capacity`): the node of this one shares the keeper's machine.
                rpc = {"url": node.url, "snapshot_every_s": 3_600, "deadline_s": 120}
                execution = {} if armed else {"armed_a_side": 0}
                places: dict[str, Any] = {"key": key, "trace": trace, "url": url, "ready_within_s": 180}
                async with keeper(world, Path(folder), rpc=rpc, execution=execution, **places) as process:
                    ledger = Ledger.of(world.bank, key, placed)
                    await anyio.sleep(3.0)
                    began: list[float] = []
                    for i in range(ticks):
                        began.append(time.perf_counter())
                        world.set_price(markets[0], PRICE_1E6 - (i + 1) * _STEP_1E6)
                        await anyio.sleep(_PAUSE_S)
                    await until(lambda: ledger.all_confirmed, within_s=60)
                    said = await metrics(process)
                    lag = 1e3 * said.get("keeper_loop_lag_seconds", 0.0)
                    hits = said.get("keeper_armed_age_seconds_count", 0.0) / ticks
                    process.process.send_signal(signal.SIGUSR1)
                    await anyio.sleep(0.5)
                    samples = pairs(trace.read_text())
        confirmed = [1e3 * (ledger.confirmed_at[order] - at) for order, at in zip(placed, began, strict=True)]
        return spread(samples), round(hits, 3), spread(confirmed, 1), round(lag, 2)


def pairs(trace: str) -> list[float]:
    """Milliseconds from each market's news to the first transaction after it. A transaction that goes out again, with
    no news since the last, is not counted; nor is news that nothing follows before the next.
    """
    samples: list[float] = []
    news: int | None = None
    for line in trace.splitlines():
        word, at, *_ = line.split()
        if word == "in":
            news = int(at)
        elif word == "out" and news is not None:
            samples.append((int(at) - news) / 1e6)
            news = None
    return samples
