"""A burst against a node that confirms executions as they arrive (`bench.node.InstantNode`): what the keeper can do.

N orders crossed by one tick, with default settings, so that the first few of the market are armed, and with as many
armed as the settings allow. `executions_per_s`: from the oracle's update on the chain to the last execution's arrival
at the node. `settled_per_s`: to the last order's being read back as filled, with its position. The loop's lag is that
of each 5 ms between the two (`bench.traced`): a keeper that stands still for 50 ms is seen late once, by 45 to 50.
Afterwards every order has one signature at the node, which is in the journal.
"""

from __future__ import annotations

import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from bench.figures import across, quantile
from bench.node import InstantNode
from bench.progress import step
from bench.stage import CROSSING_1E6, PRICE_1E6, SOL_FOR_FEES, chain, cpu_s, keeper, metrics, place_stops, traders_for
from tests.support.http_node import http_node
from tests.support.waiting import until
from tests.support.world import World

_LONGEST_S = 60.0
_MOST_ARMED = 256
_TO_ARM_S = 8.0
"""50 signatures a second, for as many as may be armed; and the renewal is 20 s away."""


async def measure(quick: bool) -> dict[str, Any]:
    """`instant`: a burst with default settings, and one with as many armed as there may be."""
    orders, runs = (200, 1) if quick else (2_000, 5)
    found = {}
    for name, execution in (("default", {}), ("most_armed", {"armed_a_side": _MOST_ARMED})):
        found[name] = _summary([await run(orders, execution) for _ in range(runs)])
    return {"instant": {"orders": orders, **found}}


async def run(orders: int, execution: dict[str, Any]) -> dict[str, float]:
    """One burst on a fresh chain with a fresh keeper."""
    async with chain() as world:
        market = world.market("SOL/USDC", price_1e6=PRICE_1E6)
        traders = traders_for(world, orders + 1)
        (first, *placed) = place_stops(world, market, orders + 1, traders)
        world.set_price(market, CROSSING_1E6)
        world.execute(first, world.wallet())
        world.set_price(market, PRICE_1E6)
        node = _node(world, first, placed)
        key = world.wallet(SOL_FOR_FEES)
        with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
            trace = Path(folder) / "trace"
            async with http_node(node.answer) as node.url:
                places: dict[str, Any] = {"key": key, "trace": trace, "rpc": {"url": node.url}}
                async with keeper(world, Path(folder), execution=execution, **places) as process:
                    await anyio.sleep(_TO_ARM_S)
                    cpu, began, began_ns = cpu_s(process.process.pid), time.perf_counter(), time.monotonic_ns()
                    world.set_price(market, CROSSING_1E6)
                    await until(lambda: len(node.read_at) == orders, within_s=_LONGEST_S, every_s=0.02)
                    ended_ns = time.monotonic_ns()
                    said = await _settled(process, orders)
                    cpu = cpu_s(process.process.pid) - cpu
                    process.process.send_signal(signal.SIGUSR1)
                    await anyio.sleep(0.5)
                    lags, sent = _traced(trace.read_text(), began_ns, ended_ns)
                    with process.config.reading() as journal:
                        journaled = sum(journal.attempts_of(order)[0].signature is not None for order in placed)
        arrived = max(at for at, _ in node.received.values()) - began
        step()
        assert all(len(signatures) == 1 for signatures in node.signatures.values())
        return {
            "executions_per_s": orders / arrived,
            "settled_per_s": orders / (max(node.read_at.values()) - began),
            "left_armed": said.get("keeper_armed_age_seconds_count", 0.0),
            "first_sent_ms": sent,
            "keeper_cpu_us_an_order": 1e6 * cpu / orders,
            "loop_lag_p50_ms": quantile(lags, 0.5),
            "loop_lag_p99_ms": quantile(lags, 0.99),
            "loop_lag_max_ms": max(lags),
            "journaled": journaled,
        }


def _node(world: World, first: Any, placed: Any) -> InstantNode:
    """It knows the orders as they were placed, and how the first of them reads after the chain has executed it."""
    position = world.position(first)
    assert position is not None
    filled, made = world.bank.account(first), world.bank.account(position.address)
    assert filled is not None
    assert made is not None
    pending = {order: account for order in placed if (account := world.bank.account(order)) is not None}
    return InstantNode(world.bank, world.program.id, pending, filled, made)


async def _settled(process: Any, orders: int) -> dict[str, float]:
    """The metrics once the keeper's own books are closed."""
    name = 'keeper_attempts_settled_total{fate="executed",kind="execute"}'
    with anyio.fail_after(_LONGEST_S):
        while (said := await metrics(process)).get(name, 0.0) < orders:  # noqa: ASYNC110 - another process
            await anyio.sleep(0.5)
    return said


def _traced(trace: str, began_ns: int, ended_ns: int) -> tuple[list[float], float]:
    """Milliseconds: the loop's lags in between, and from the last news before the first send to that."""
    lags: list[float] = []
    news, sent = began_ns, 0.0
    for line in trace.splitlines():
        word, at_ns, *told = line.split()
        at = int(at_ns)
        if not began_ns <= at <= ended_ns:
            continue
        if word == "lag":
            lags.append(float(told[0]) / 1e3)
        elif word == "in" and not sent:
            news = at
        elif word == "out" and not sent:
            sent = (at - news) / 1e6
    return lags, sent


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """The medians of the runs with their spread, and of what must be exact the least."""
    rates, lags = [run["executions_per_s"] for run in runs], [run["loop_lag_p99_ms"] for run in runs]
    result: dict[str, Any] = {
        "executions_per_s": across(rates)["median"],
        "executions_per_s_runs": across(rates),
        "loop_lag_p99_ms_runs": across(lags, 2),
    }
    for name in runs[0].keys() - {"executions_per_s", "journaled"}:
        result[name] = across([run[name] for run in runs], 3)["median"]
    return result | {"journaled": min(run["journaled"] for run in runs)}
