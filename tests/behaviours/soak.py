"""The soak: a real keeper at twenty times the speed of life, and what it holds on to.

    make soak MINUTES=10

Blocks come every 20 ms instead of 400. Orders are placed, cancelled, triggered and closed all the time, trailing stops
are moved, some users can't pay, a fork drops blocks now and then, and sockets are cut. Every ten seconds it prints
what the keeper's process holds: memory, open files, threads, tasks of its event loop, and the journal's size, which
keeps ended orders for two minutes only. It ends with 1 when memory after the warm-up (the first fifth) grew by more
than 5 %, or files, threads or tasks grew, or the journal did after what it keeps was full, or an order was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import anyio
import httpx
from solders.pubkey import Pubkey

from keeper.domain.orders import OnchainStatus, OrderType, Side
from tests.chaos.proxy import Fault, FaultProxy, Kind, Script
from tests.support import KeeperConfig, KeeperProcess, Refused, Trader, World, until

USDC = 1_000_000
SLOT_MS = 20
PAGE = os.sysconf("SC_PAGE_SIZE")
RETENTION_S = 120.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds at a moment. Bytes."""

    at_s: float
    rss: int
    files: int
    threads: int
    tasks: int
    journal: int


async def sample(begun: float, pid: int, url: str, journal: Path) -> Sample:
    """Look at a process, its own count of tasks, and its journal."""
    async with httpx.AsyncClient(base_url=url) as http:
        metrics = (await http.get("/metrics")).text
    tasks = next(line for line in metrics.splitlines() if line.startswith("keeper_loop_tasks "))
    proc = Path(f"/proc/{pid}")
    size = sum(f.stat().st_size for f in journal.parent.glob(journal.name + "*"))
    rss = int((proc / "statm").read_text().split()[1]) * PAGE
    threads = len(list((proc / "task").iterdir()))
    return Sample(
        time.monotonic() - begun, rss, len(list((proc / "fd").iterdir())), threads, round(float(tasks.split()[1])), size
    )


class Traffic:
    """Traders at work."""

    def __init__(self, world: World, script: Script, rng: random.Random) -> None:
        self.world, self.script, self.rng = world, script, rng
        self.markets = [world.market() for _ in range(3)]
        self.traders = [self._trader() for _ in range(20)]
        self.poor = world.trader(collateral_1e6=0)
        self.prices = dict.fromkeys(self.markets, 100.0)
        self.open: dict[Pubkey, Trader] = {}
        self.count: Counter[str] = Counter()

    def _trader(self) -> Trader:
        return self.world.trader(collateral_1e6=10**9 * USDC)

    def step(self) -> None:
        """One twentieth of a second of it."""
        for market in self.markets:
            price = self.prices[market] = min(130.0, max(70.0, self.prices[market] * self.rng.uniform(0.995, 1.005)))
            self.world.set_price(market, round(price * USDC))
        if self.rng.random() < 0.5:
            self._place()
        for order in self.rng.sample(list(self.open), min(4, len(self.open))):
            self._look(order)
        if self.rng.random() < 0.002:
            self.script.break_news(Fault(Kind.SOCKET_ABORTED))
            self.count["sockets cut"] += 1
        if self.rng.random() < 0.002:
            self.world.bank.drop_slots_after(self.world.bank.chain.tip.slot - 1)
            self.count["forks"] += 1

    def _place(self) -> None:
        market = self.rng.choice(self.markets)
        price = self.prices[market]
        if self.count["placed"] % 30 == 29:  # an account has room for fifty positions, and twenty share the orders
            self.traders[self.count["placed"] // 30 % len(self.traders)] = self._trader()
        trader = self.poor if self.rng.random() < 0.01 else self.rng.choice(self.traders)
        kind = self.rng.choice((OrderType.STOP_LOSS, OrderType.TAKE_PROFIT, OrderType.TRAILING_STOP))
        side = self.rng.choice(list(Side))
        below = (side is Side.LONG) is (kind is not OrderType.TAKE_PROFIT)
        stop = price * (1 - 0.006 if below else 1 + 0.006)
        try:
            order = self.world.place(
                trader,
                market,
                kind,
                side,
                stop_price_1e6=round(stop * USDC),
                trailing_distance_ppm=6_000 if kind is OrderType.TRAILING_STOP else 0,
            )
        except Refused:
            return
        self.open[order] = trader
        self.count["placed"] += 1

    def _look(self, order: Pubkey) -> None:
        """Take the rent of an ended order back; cancel one now and then."""
        trader, state = self.open[order], self.world.order(order)
        try:
            if state is None:
                del self.open[order]  # a fork dropped its placing
            elif not state.pending:
                self.world.close(trader, order)
                self.count[state.status.word] += 1
                del self.open[order]
            elif self.rng.random() < 0.002 or trader is self.poor:
                self.world.cancel(trader, order)
        except Refused:
            return


async def soak(seconds: float, folder: Path, seed: int, *, every_s: float = 10.0) -> tuple[list[Sample], Counter[str]]:
    """Run it; what was held, and what was done. Raises TimeoutError when an order that is met is not executed."""
    samples: list[Sample] = []
    script = Script()
    async with (
        World.open(slot_ms=SLOT_MS, confirmed_slots=2, finalized_slots=31) as world,
        FaultProxy(world.net.rpc_url, world.net.ws_url, faults=script) as proxy,
    ):
        traffic = Traffic(world, script, random.Random(seed))
        rpc = {
            "url": proxy.rpc_url,
            "ws_url": proxy.ws_url,
            "silence_s": 1.0,
            "snapshot_every_s": 3.0,
            "probe_every_s": 0.5,
            "blockhash_every_s": 0.2,
        }
        execution = {"resend_every_s": 0.2, "finality_every_s": 0.2, "account_every_s": 0.5}
        config = KeeperConfig.at(
            folder / "keeper",
            world.wallet(10**12),
            rpc=rpc,
            execution=execution,
            log={"level": "warning"},
            journal={"retention_days": RETENTION_S / 86_400},
        )
        async with KeeperProcess.running(config, cold=True) as keeper:
            begun = time.monotonic()
            next_sample = every_s
            while (elapsed := time.monotonic() - begun) < seconds:
                traffic.step()
                await anyio.sleep(0.05)
                if elapsed >= next_sample:
                    next_sample += every_s
                    samples.append(await sample(begun, keeper.process.pid, keeper.url, config.journal))
                    print(json.dumps(asdict(samples[-1])), flush=True)
            # Whatever rests now is met by one last fall, or rise, and must be executed.
            for factor, steps in ((0.985, 40), (1.015, 100)):
                for _ in range(steps):  # each small enough for the breaker
                    for market in traffic.markets:
                        traffic.prices[market] *= factor
                        world.set_price(market, round(traffic.prices[market] * USDC))
                    await anyio.sleep(0.04)
            try:
                await until(lambda: not unexecuted(world, traffic), within_s=30)
            except TimeoutError:
                left = unexecuted(world, traffic)
                async with httpx.AsyncClient(base_url=keeper.url) as http:
                    said = [(await http.get(f"/v1/orders/{order}")).text for order in left[:3]]
                raise AssertionError(f"{len(left)} orders were not executed: {said}") from None
    return samples, traffic.count


def unexecuted(world: World, traffic: Traffic) -> list[Pubkey]:
    """Orders of users who can pay that still rest."""
    orders = [(order, world.order(order)) for order, trader in traffic.open.items() if trader is not traffic.poor]
    return [order for order, state in orders if state is not None and state.status is OnchainStatus.PENDING]


def growth(samples: list[Sample]) -> float:
    """By what share memory grew from the end of the warm-up to the end: medians, so that one sample decides nothing."""
    warm, end = ends(samples)
    return median(s.rss for s in end) / median(s.rss for s in warm) - 1


def ends(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The second fifth of the samples, after the warm-up, and the last one."""
    fifth = max(1, len(samples) // 5)
    return samples[fifth : 2 * fifth + 1], samples[-fifth - 1 :]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="A real keeper at twenty times the speed of life.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples, count = anyio.run(soak, options.minutes * 60, Path(folder), options.seed)
    warm, end = ends(samples)
    print(dict(count))

    def told(name: str, unit: int = 1, digits: int = 0) -> tuple[float, float]:
        before, after = (median(getattr(s, name) for s in part) / unit for part in (warm, end))
        print(f"{name} {before:.{digits}f} -> {after:.{digits}f}")
        return before, after

    print(f"after the warm-up -> at the end (medians of {len(warm)} and {len(end)} samples); rss and journal in MiB")
    fine = growth(samples) <= 0.05
    told("rss", 2**20, 1)
    print(f"  {growth(samples):+.1%}, of at most +5 %")
    for name in ("files", "threads", "tasks"):
        before, after = told(name)
        # A connection more or less, and the task that reads it, is no leak: the pools open them as they are used.
        fine = fine and after <= before + 8
    _, journal = told("journal", 2**20, 1)
    # The space of what was removed is used again: once retention is full the file does not grow any more.
    full = [s.journal for s in samples if s.at_s > 2 * RETENTION_S]
    if full:
        print(f"  {full[0] / 2**20:.1f} MiB when retention was full, {max(full) / 2**20:.1f} at most after it")
        fine = fine and journal * 2**20 <= 1.25 * full[0]
    print("Flat." if fine else "It grew.")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
