"""A million resting orders over 50 markets, a quarter of them trailing stops: `capacity_1m`.

The keeper runs as users run it, against a node whose getProgramAccounts answer was prepared before (`bench.node`).
`load_s` is from the keeper's request for the orders to its being ready; `rss_mb` its resident memory then, and
`rss_peak_mb` the most until a second snapshot has been merged. `update_us` and `idle_tick_us` are the decision's own,
with the same orders in this process: an order account decoded and taken in, and a price that triggers nothing.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from solders.pubkey import Pubkey

from bench.figures import quantile
from bench.node import prepare, prepared_node
from bench.resting import order_accounts
from bench.stage import PRICE_1E6, STOP_1E6, chain, keeper, metrics, rss_mb
from keeper.domain.events import ChainTime, MarketSeen
from keeper.domain.orders import Market
from keeper.triggers.book import Change
from keeper.triggers.decision import Decision, Rules
from keeper.venue.venue import decode_order, order_fields
from tests.support.waiting import until
from tests.support.world import World

_MARKETS = 50


async def measure(quick: bool) -> dict[str, Any]:
    """`capacity_1m`; with `quick` a fiftieth of it."""
    orders = 20_000 if quick else 1_000_000
    async with chain() as world:
        markets = [world.market(f"M{i}/USDC", price_1e6=PRICE_1E6) for i in range(_MARKETS)]
        account = world.bank.account(world.place(world.trader(), markets[0], stop_price_1e6=STOP_1E6))
        assert account is not None
        accounts = list(order_accounts(bytes(account.data), markets, orders))
        body = prepare(world.program.id, accounts, account.lamports)
        figures: dict[str, float] = {"orders": orders, "answer_mb": round(sum(map(len, body)) / 1e6)}
        figures |= await _loaded(world, body, orders)
        figures |= _inside(world, markets, accounts)
    return {"capacity_1m": figures}


async def _loaded(world: World, body: list[bytes], orders: int) -> dict[str, Any]:
    async with prepared_node(world.bank, body) as node:
        with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
            # A snapshot of this size is repeated five times less often than that.
            rpc = {"url": node.url, "snapshot_every_s": 4, "deadline_s": 120}
            async with keeper(world, Path(folder), rpc=rpc, ready_within_s=180) as process:
                ready = time.perf_counter()
                now, peak = rss_mb(process.process.pid)
                counts = await metrics(process)
                lag_loading = counts.get("keeper_loop_lag_seconds", 0.0)
                resting = sum(v for name, v in counts.items() if name.startswith("keeper_orders_resting{"))
                figures = {
                    "load_s": round(ready - node.asked_at[0], 2),
                    "resting": resting,
                    "rss_mb": round(now),
                    "rss_load_peak_mb": round(peak),
                    "bytes_an_order": round((now - 80) * 1e6 / orders),
                    "loop_lag_loading_ms": round(1e3 * lag_loading, 2),
                }
                await until(lambda: len(node.told_at) >= 2, within_s=120, every_s=0.1)
                await anyio.sleep(5.0)
                now, peak = rss_mb(process.process.pid)
                counts = await metrics(process)
                figures["rss_after_second_snapshot_mb"] = round(now)
                figures["rss_peak_mb"] = round(peak)
                figures["loop_lag_max_ms"] = round(1e3 * counts.get("keeper_loop_lag_seconds", 0.0), 2)
        return figures


def _inside(world: World, markets: list[Pubkey], accounts: list[tuple[Pubkey, bytes]]) -> dict[str, float]:
    decision = Decision(Rules(max_actions=256))
    now = time.time()
    decision.on_time(ChainTime(1, int(now)))
    loading = decision.book.loading()
    loading.add(((bytes(address), order_fields(address, data)) for address, data in accounts), 1)
    for _ in loading.steps():
        pass
    states = [world.market_state(market) for market in markets]
    ticks: list[float] = []
    slots = itertools.count(10)
    for i in range(20_000):
        state = states[i % len(states)]
        news = _priced(state, slot=next(slots), price_1e6=PRICE_1E6 + i % 7, updated_at_s=int(now))
        began = time.perf_counter_ns()
        actions = decision.review(news.address, now, began) if decision.on_market(MarketSeen(news, began)) else []
        ticks.append((time.perf_counter_ns() - began) / 1e3)
        assert not actions
    updates: list[float] = []
    for i in range(20_000):
        address, data = accounts[i * 37 % len(accounts)]
        stop = int.from_bytes(data[90:98], "little") + 1 + i % 1_000  # another stop price, as far from firing
        moved = data[:90] + stop.to_bytes(8, "little") + data[98:]
        began = time.perf_counter_ns()
        order = decode_order(address, moved, 2 + i)
        change = decision.book.upsert(order)
        action = decision.look_at(order, now, began)
        updates.append((time.perf_counter_ns() - began) / 1e3)
        assert change is Change.CHANGED
        assert action is None
    return {
        "idle_tick_us": round(statistics.median(ticks), 2),
        "idle_tick_us_p99": round(quantile(ticks, 0.99), 2),
        "update_us": round(statistics.median(updates), 2),
        "update_us_p99": round(quantile(updates, 0.99), 2),
    }


def _priced(market: Market, *, slot: int, price_1e6: int, updated_at_s: int) -> Market:
    """The market with another price, made before the clock starts."""
    return replace(market, slot=slot, last_oracle_price_1e6=price_1e6, last_oracle_update_s=updated_at_s)
