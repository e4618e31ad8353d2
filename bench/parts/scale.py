"""Several keepers on one PostgreSQL: how long nothing is executed when the one that works goes, by kill -9, by SIGTERM
and by a drain; and what one keeper's journal costs there, against a file on the same machine, one run after the other.
`shared` is what `bench.parts.sharing` measures.

The server, the chain and the keepers share a machine. `killed_s` is from the kill to the arrival at the node of the
first execution after it. `stopped_s` and `drained_s` are the longest that an order waited, from the price that met it
to the arrival of its execution, while a tick every 50 ms met one each and the keeper was told to go in between;
`stopped_with_many_s` is that with 20,000 more orders resting.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
from solders.pubkey import Pubkey

from bench.figures import across, spread
from bench.ledger import Ledger
from bench.parts import burst, sharing, tick
from bench.stage import PRICE_1E6, SOL_FOR_FEES, chain, keeper, traders_for
from tests.support.keeper_process import KeeperProcess
from tests.support.postgres import fresh_database
from tests.support.waiting import until
from tests.support.world import World

_TOKEN: Final = "bench"
_STEP_1E6: Final = 10_000
_TICK_S: Final = 0.05
_TICKS: Final = 24
_TOLD_AT: Final = 8
_MANY: Final = 20_000
_FAR_1E6: Final = 1_000_000
"""Triggers that no price of a run comes near."""


async def measure(quick: bool) -> dict[str, Any]:
    """`scale`: the hand-overs, PostgreSQL against SQLite, and keepers that share the markets."""
    rounds = 2 if quick else 20
    figures = {
        "killed_s": spread([await killed() for _ in range(rounds)]),
        "stopped_s": spread([await told(_stop) for _ in range(rounds)]),
        "drained_s": spread([await told(_drain) for _ in range(rounds)]),
        "stopped_with_many_s": spread([await told(_stop, resting=_MANY) for _ in range(1 if quick else 5)]),
    }
    orders, pairs = (100, 1) if quick else (2_000, 3)
    rates: dict[str, list[float]] = {"sqlite": [], "postgres": []}
    ticks: dict[str, list[float]] = {"sqlite": [], "postgres": []}
    for _ in range(pairs):
        for store in rates:
            url = fresh_database() if store == "postgres" else None
            rates[store].append((await burst.run(orders, url=url))["executions_per_s"])
            url = fresh_database() if store == "postgres" else None
            sent, *_ = await tick.run(1_000, 30 if quick else 200, armed=False, url=url)
            ticks[store].append(sent["p50"])
    ratios = [theirs / ours for ours, theirs in zip(rates["sqlite"], rates["postgres"], strict=True)]
    later = [theirs - ours for ours, theirs in zip(ticks["sqlite"], ticks["postgres"], strict=True)]
    return {
        "scale": {
            **figures,
            "burst_ratio": across(ratios, 3),
            "burst_postgres_per_s": across(rates["postgres"]),
            "burst_sqlite_per_s": across(rates["sqlite"]),
            "tick_later_ms": across(later, 3),
            "tick_postgres_ms": across(ticks["postgres"], 3),
            "tick_sqlite_ms": across(ticks["sqlite"], 3),
            "shared": await sharing.measure(quick),
        }
    }


class _Two:
    """Two keepers of one service on a chain: `first` works, `second` stands by."""

    def __init__(self, world: World, market: Pubkey, orders: list[Pubkey], ledger: Ledger) -> None:
        self.world, self.market, self.orders, self.ledger = world, market, orders, ledger
        self.first: KeeperProcess
        self.second: KeeperProcess

    def tick(self, n: int) -> float:
        """Meet the condition of the order `n`; when that was."""
        began_s = time.perf_counter()
        self.world.set_price(self.market, PRICE_1E6 - (n + 1) * _STEP_1E6)
        return began_s

    def sent_at(self, n: int) -> float:
        """When the execution of the order `n` that landed was first at the node."""
        return self.ledger.received_at[self.ledger.signature_of[self.orders[n]]]


async def _with_two(orders: int, act: Callable[[_Two], Awaitable[float]], resting: int = 0) -> float:
    async with chain() as world, AsyncExitStack() as stack:
        market = world.market("SOL/USDC", price_1e6=PRICE_1E6)
        traders = traders_for(world, orders)
        placed = [
            world.place(traders[0], market, stop_price_1e6=PRICE_1E6 - (n + 1) * _STEP_1E6) for n in range(orders)
        ]
        for n in range(resting):
            world.place(traders[0], market, stop_price_1e6=_FAR_1E6 + n)
        key, url = world.wallet(SOL_FOR_FEES), fresh_database()
        http = {"admin_token_sha256": hashlib.sha256(_TOKEN.encode()).hexdigest()}
        two = _Two(world, market, placed, Ledger.of(world.bank, key, placed))
        for name in "ab":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keeper-bench-")))
            process = await stack.enter_async_context(
                keeper(world, folder, key=key, url=url, name=name, http=http, stands_by=name == "b")
            )
            if name == "a":
                two.first = process
            else:
                two.second = process
        await anyio.sleep(1.0)  # what is near the price is armed by then
        took_s = await act(two)
        if two.ledger.duplicates or two.ledger.failed:
            raise RuntimeError(f"{two.ledger.duplicates} executed twice, {two.ledger.failed} failed")
        return took_s


async def killed() -> float:
    """Seconds from the kill to the next execution."""

    async def act(two: _Two) -> float:
        began_s = time.perf_counter()
        two.first.kill()
        two.tick(0)
        await until(lambda: two.ledger.all_landed)
        return two.sent_at(0) - began_s

    return await _with_two(1, act)


async def told(to_go: Callable[[_Two], Coroutine[Any, Any, None]], resting: int = 0) -> float:
    """The longest that an order waited while one keeper took over from the other."""

    async def act(two: _Two) -> float:
        began: list[float] = []
        async with anyio.create_task_group() as tg:
            for n in range(_TICKS):
                if n == _TOLD_AT:
                    tg.start_soon(to_go, two)
                began.append(two.tick(n))
                await anyio.sleep(_TICK_S)
        await until(lambda: two.ledger.all_landed)
        return max(two.sent_at(n) - at for n, at in enumerate(began))

    return await _with_two(_TICKS, act, resting)


async def _stop(two: _Two) -> None:
    two.first.terminate()


async def _drain(two: _Two) -> None:
    async with httpx.AsyncClient(base_url=two.first.url, headers={"Authorization": f"Bearer {_TOKEN}"}) as http:
        (await http.post("/v1/admin/drain")).raise_for_status()
