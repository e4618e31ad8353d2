"""What arming costs: `arming`, its share of a core, and whether the journal grows by it.

`core_share`: two keepers on one chain at the same time, one of default settings and one that arms nothing, each with
100,000 orders over 50 markets whose prices walk by the demo's rules, each market twice a second, and meet none of
them. The difference of their CPU time, of all threads, by the time that passed.

`journal`: a keeper on a chain of blocks that are forty times as quick, so that blockhashes get old forty times as soon,
and as many signatures are allowed as that takes. `hours` says how many of a 400 ms chain its signatures are
worth. The sizes are of the journal's file and of its WAL, the rows those of its attempts, which are all armed ones.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from solders.pubkey import Pubkey

from bench.figures import across
from bench.node import prepare, prepared_node
from bench.progress import step
from bench.resting import order_accounts
from bench.stage import PRICE_1E6, STOP_1E6, armed_rows, chain, cpu_s, keeper, metrics
from keeper.demo.prices import Listing, walk
from tests.support.keeper_process import KeeperProcess
from tests.support.world import World

_MARKETS = 50
_EACH_MARKET_S = 0.5
_SETTLED_S = 10.0
"""A keeper that has just loaded goes on noting what it loaded."""
_QUICK_SLOT_MS = 10
_DEFAULT_BLOCKHASH_EVERY_S = 2.0
_MOST_SIGNATURES_PER_S = 1_000


async def measure(quick: bool) -> dict[str, Any]:
    """`arming`: both of it."""
    orders, windows, growing_s = (5_000, 2, 20.0) if quick else (100_000, 5, 130.0)
    return {"arming": {"orders": orders, **await _cost(orders, windows), "journal": await _growth(growing_s)}}


async def _cost(orders: int, windows: int) -> dict[str, Any]:
    """So many windows of 10 s: the share of a core in each, and of what each keeper took in all."""
    async with chain() as world, AsyncExitStack() as stack:
        markets, body = _resting(world, orders)
        node = await stack.enter_async_context(prepared_node(world.bank, body))
        rpc = {
            "url": node.url,
            "snapshot_every_s": 3_600,
            "deadline_s": 120,
            "blockhash_every_s": _DEFAULT_BLOCKHASH_EVERY_S,
        }
        sides: list[KeeperProcess] = []
        for execution in ({}, {"armed_a_side": 0}):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keeper-bench-")))
            started = keeper(world, folder, rpc=rpc, execution=execution, ready_within_s=180)
            sides.append(await stack.enter_async_context(started))
        await stack.enter_async_context(_walking(world, markets))
        await anyio.sleep(_SETTLED_S)
        pids = [side.process.pid for side in sides]
        before, shares, spent = await metrics(sides[0]), list[float](), [0.0, 0.0]
        began = time.perf_counter()
        for _ in range(windows):
            window, used = time.perf_counter(), [cpu_s(pid) for pid in pids]
            await anyio.sleep(10.0)
            took = [cpu_s(pid) - then for pid, then in zip(pids, used, strict=True)]
            shares.append((took[0] - took[1]) / (time.perf_counter() - window))
            spent = [total + more for total, more in zip(spent, took, strict=True)]
            step()
        passed, after = time.perf_counter() - began, await metrics(sides[0])
        signed = sum(after[name] - before[name] for name in after if name.startswith("keeper_armed_signatures_total"))
        return {
            "armed": after["keeper_armed"],
            "core_share": round((spent[0] - spent[1]) / passed, 4),
            "core_share_windows": across(shares, 4),
            "core_share_armed": round(spent[0] / passed, 4),
            "core_share_unarmed": round(spent[1] / passed, 4),
            "signatures_per_s": round(signed / passed, 1),
            "loop_share": round(
                (after["keeper_arming_seconds_total"] - before["keeper_arming_seconds_total"]) / passed, 4
            ),
        }


async def _growth(seconds: float) -> dict[str, Any]:
    """What is in the journal, every few seconds, once everything is armed that will be."""
    sizes_mb: list[float] = []
    wals_mb: list[float] = []
    rows: list[float] = []
    async with (
        World.open(slot_ms=_QUICK_SLOT_MS, confirmed_slots=1, finalized_slots=31) as world,
        AsyncExitStack() as stack,
    ):
        markets, body = _resting(world, 64 * _MARKETS)
        node = await stack.enter_async_context(prepared_node(world.bank, body))
        rpc = {"url": node.url, "snapshot_every_s": 3_600}
        execution = {"armed_signatures_per_s": _MOST_SIGNATURES_PER_S}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keeper-bench-")))
        process = await stack.enter_async_context(keeper(world, folder, rpc=rpc, execution=execution))
        await stack.enter_async_context(_walking(world, markets))
        await anyio.sleep(_SETTLED_S)
        before, began = await _signed(process), time.perf_counter()
        while time.perf_counter() - began < seconds:
            await anyio.sleep(5.0)
            size_mb, wal_mb, armed_rows = _held(process)
            sizes_mb.append(size_mb)
            wals_mb.append(wal_mb)
            rows.append(armed_rows)
            step()
        passed, signed = time.perf_counter() - began, await _signed(process) - before
        armed = (await metrics(process))["keeper_armed"]
    third = len(sizes_mb) // 3
    return {
        "slot_ms": _QUICK_SLOT_MS,
        "seconds": round(passed),
        "armed": armed,
        "signatures": signed,
        "hours": round(signed / armed * 20.0 / 3_600, 2),
        "file_mb_first_third": round(max(sizes_mb[:third]), 2),
        "file_mb_last_third": round(max(sizes_mb[-third:]), 2),
        "wal_mb_most": round(max(wals_mb), 2),
        "armed_rows": across(rows, 0),
    }


def _held(process: KeeperProcess) -> tuple[float, float, int]:
    """The sizes of the journal's file and of its WAL, in MB, and its rows of armed attempts."""
    path = process.config.journal
    wal = path.with_name(f"{path.name}-wal")
    return path.stat().st_size / 1e6, wal.stat().st_size / 1e6, armed_rows(process)


async def _signed(process: KeeperProcess) -> float:
    said = await metrics(process)
    return sum(value for name, value in said.items() if name.startswith("keeper_armed_signatures_total"))


def _resting(world: World, orders: int) -> tuple[Sequence[Pubkey], list[bytes]]:
    """The markets, and a node's answer that has so many orders in them."""
    markets = [world.market(f"M{i}/USDC", price_1e6=PRICE_1E6) for i in range(_MARKETS)]
    account = world.bank.account(world.place(world.trader(), markets[0], stop_price_1e6=STOP_1E6))
    assert account is not None
    accounts = list(order_accounts(bytes(account.data), markets, orders))
    return markets, prepare(world.program.id, accounts, account.lamports)


@asynccontextmanager
async def _walking(world: World, markets: Sequence[Pubkey]) -> AsyncIterator[None]:
    """Their prices walk until the end of the block, one after the other, evenly."""
    walks = [walk(Listing(f"M{i}", "USDC", PRICE_1E6, 1 - i % 2 * 2), random.Random(i)) for i in range(len(markets))]

    async def go_on() -> None:
        due = anyio.current_time()
        while True:
            for market, prices in zip(markets, walks, strict=True):
                world.set_price(market, next(prices))
                due = max(due + _EACH_MARKET_S / len(markets), anyio.current_time() - _EACH_MARKET_S)
                await anyio.sleep_until(due)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(go_on)
        yield
        tasks.cancel_scope.cancel()
