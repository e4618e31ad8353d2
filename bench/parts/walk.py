"""The mix of a realistic walk: how many executions left armed, and how long a tick's executions take to the socket.

The demo's markets, their prices walking by its rules, all of them posted together at its pace; its orders, three
quarters of a round placed while the prices stand and the rest while they walk, in rounds that go on from each other.
The keeper has its default settings. A sample is one execution: from the socket's bytes with its market's news to the
first of its bytes to the socket (`bench.traced`). What left armed is what was signed before its price came, by the
journal.
"""

from __future__ import annotations

import random
import signal
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import anyio
from solders.pubkey import Pubkey

from bench.figures import spread
from bench.ledger import Ledger
from bench.progress import step
from bench.stage import SOL_FOR_FEES, chain, keeper, metrics
from keeper.demo.options import TICK_S, WALK_TICKS
from keeper.demo.plan import ORDERS_PER_USER, Plan, Wish, plan
from keeper.demo.prices import LISTINGS, walk
from keeper.domain.attempts import Attempt, AttemptKind
from keeper.domain.orders import OrderType
from keeper.venue.venue import POSITION_DISCRIMINATOR
from tests.support.keeper_process import KeeperProcess
from tests.support.waiting import until
from tests.support.world import Trader, World

_ORDERS = 240
_STANDS_S = 2.0
_DEFAULT_BLOCKHASH_EVERY_S = 2.0
_SETTLED_WITHIN_S = 60.0


async def measure(quick: bool) -> dict[str, Any]:
    """`walk`: the share that left armed, and the milliseconds of all, of what left armed, and of the rest."""
    return {"walk": await run(1 if quick else 8)}


async def run(rounds: int, *, armed: bool = True, seed: int = 7) -> dict[str, Any]:
    """So many rounds of the demo's orders and ticks."""
    rng = random.Random(seed)
    async with chain() as world:
        stage = _Stage(world, rng)
        key = world.wallet(SOL_FOR_FEES)
        with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
            trace = Path(folder) / "trace"
            rpc = {"blockhash_every_s": _DEFAULT_BLOCKHASH_EVERY_S}
            execution = {} if armed else {"armed_a_side": 0}
            async with keeper(world, Path(folder), key=key, trace=trace, rpc=rpc, execution=execution) as process:
                ledger = Ledger(key.pubkey(), stage.market_of.keys())
                world.bank.observe(ledger)
                for _ in range(rounds):
                    await stage.play(plan(_ORDERS, 0, rng))
                    step()
                await _quiet(ledger)
                said = await metrics(process)
                process.process.send_signal(signal.SIGUSR1)
                await anyio.sleep(0.5)
                attempts, early = _attempts(process, ledger)
                samples = _samples(trace.read_text(), attempts, stage.market_of)
        owned = world.bank.owned_by(world.program.id)
        positions = sum(bytes(account.data[:8]) == POSITION_DISCRIMINATOR for _, account in owned)
        armed_ms = [ms for signature, ms in samples.items() if signature in early]
        rest_ms = [ms for signature, ms in samples.items() if signature not in early]
        return {
            "orders": len(stage.market_of),
            "ticks": rounds * WALK_TICKS * len(LISTINGS),
            "executions": len(attempts),
            "armed_hit_rate": round(len(early) / len(attempts), 4),
            "tick_to_sent_ms": spread(list(samples.values())),
            "tick_to_sent_armed_ms": spread(armed_ms) if armed_ms else None,
            "tick_to_sent_unarmed_ms": spread(rest_ms) if rest_ms else None,
            "failed": ledger.failed,
            "positions": positions,
            "arming_signatures": sum(n for name, n in said.items() if name.startswith("keeper_armed_signatures_total")),
            "arming_loop_s": round(said.get("keeper_arming_seconds_total", 0.0), 2),
        }


class _Stage:
    """The markets with their walks, and the orders that were placed. `market_of` is each order's."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._markets = {each.symbol: world.market(each.symbol, price_1e6=each.price_1e6) for each in LISTINGS}
        self._walks = {each.symbol: walk(each, rng) for each in LISTINGS}
        self._prices_1e6 = {each.symbol: each.price_1e6 for each in LISTINGS}
        self._traders: list[Trader] = []
        self.market_of: dict[Pubkey, Pubkey] = {}

    async def play(self, orders: Plan) -> None:
        """One round: orders are placed while the prices stand, and more of them while they walk."""
        for wish in orders.early:
            self._place(wish)
        await anyio.sleep(_STANDS_S)
        started, late = anyio.current_time(), list(orders.late)
        for tick in range(1, WALK_TICKS + 1):
            for symbol, prices in self._walks.items():
                self._prices_1e6[symbol] = next(prices)
                self._world.set_price(self._markets[symbol], self._prices_1e6[symbol])
            while len(late) * WALK_TICKS > len(orders.late) * (WALK_TICKS - tick):
                self._place(late.pop())
            await anyio.sleep_until(started + tick * TICK_S)

    def _place(self, wish: Wish) -> None:
        if len(self.market_of) % ORDERS_PER_USER == 0:
            self._traders.append(self._world.trader(collateral_1e6=10**12))
        market, price_1e6 = self._markets[wish.market.symbol], self._prices_1e6[wish.market.symbol]
        trigger_1e6 = wish.trigger_1e6(price_1e6)
        limit, trailing = wish.order_type is OrderType.LIMIT, wish.order_type is OrderType.TRAILING_STOP
        order = self._world.place(
            self._traders[-1],
            market,
            wish.order_type,
            wish.side,
            size_1e6=wish.size_1e6(price_1e6),
            price_1e6=trigger_1e6 if limit or wish.order_type is OrderType.STOP_LIMIT else 0,
            stop_price_1e6=0 if limit or trailing else trigger_1e6,
            trailing_distance_ppm=round(wish.offset * 1e6) if trailing else 0,
            leverage=wish.leverage,
        )
        self.market_of[order] = market


async def _quiet(ledger: Ledger) -> None:
    """Until nothing lands any more, and what landed is confirmed."""
    known = -1
    with anyio.move_on_after(_SETTLED_WITHIN_S):
        while known != (known := len(ledger.landed_at)):  # noqa: ASYNC110 - another process
            await anyio.sleep(2.0)
    await until(lambda: len(ledger.confirmed_at) == len(ledger.landed_at), within_s=_SETTLED_WITHIN_S)


def _attempts(process: KeeperProcess, ledger: Ledger) -> tuple[dict[str, Attempt], set[str]]:
    """The attempts that filled an order, by signature; and which of them were signed before the price came."""
    attempts: dict[str, Attempt] = {}
    early: set[str] = set()
    with process.config.reading() as journal:
        for order in ledger.executed:
            attempt, row = journal.attempt(ledger.signature_of[order]), journal.order(order)
            if attempt is None or row is None or attempt.kind is not AttemptKind.EXECUTE:
                continue
            attempts[str(attempt.signature)] = attempt
            if row.triggered_at is not None and attempt.signed_at < row.triggered_at:
                early.add(str(attempt.signature))
    return attempts, early


def _samples(trace: str, attempts: Mapping[str, Attempt], market_of: Mapping[Pubkey, Pubkey]) -> dict[str, float]:
    """Milliseconds from the market's last news to the first send, by signature."""
    news: defaultdict[str, list[int]] = defaultdict(list)
    samples: dict[str, float] = {}
    for word, at, told in _lines(trace):
        if word == "in":
            for account in told:
                news[account].append(at)
        for signature in told if word == "out" else ():
            if signature in attempts and signature not in samples:
                times = news[str(market_of[attempts[signature].order])]
                samples[signature] = (at - times[bisect_right(times, at) - 1]) / 1e6
    return samples


def _lines(trace: str) -> Iterable[tuple[str, int, list[str]]]:
    for line in trace.splitlines():
        word, at, *told = line.split()
        yield word, int(at), told[0].split(",") if told else []
