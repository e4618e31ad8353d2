"""What a thousand readers of the stream cost the execution of orders: `stream_readers`.

One keeper, one run; rounds without readers and with them take turns. A round is some ticks that cross one order each
(from the price's bytes in the keeper's process to the transaction's bytes to the socket, `bench.traced`), then a tick
that crosses many (executions a second, until the last is in a block). Half of the readers read everything, half one
user's orders each.
"""

from __future__ import annotations

import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from solders.pubkey import Pubkey

from bench.figures import spread
from bench.ledger import Ledger
from bench.parts.tick import pairs
from bench.stage import PRICE_1E6, SOL_FOR_FEES, chain, cpu_s, keeper, metrics, traders_for
from tests.support.keeper_process import KeeperProcess
from tests.support.waiting import until
from tests.support.world import World

_STEP_1E6 = 10_000
_PAUSE_S = 0.15
_READERS = 1_000


@dataclass
class _Side:
    """What was measured in the rounds of one kind."""

    sent_ms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        return {
            "tick_to_sent_ms": spread(self.sent_ms),
            "executions_per_s": round(statistics.median(self.rates)),
            "executions_per_s_runs": [round(rate) for rate in self.rates],
            "keeper_cpu_ms_an_order": round(statistics.median(self.cpu_ms), 3),
        }


async def measure(quick: bool) -> dict[str, Any]:
    """`stream_readers`: the two sides, and their ratios."""
    rounds, ticks, burst = (2, 10, 50) if quick else (4, 50, 300)
    without, reading, told = await run(rounds, ticks, burst, 100 if quick else _READERS)
    sides = {"without": without.summary(), "with": reading.summary()}
    return {
        "stream_readers": {
            "readers": 100 if quick else _READERS,
            **sides,
            "sent_p50_ratio": _ratio([side["tick_to_sent_ms"]["p50"] for side in sides.values()]),
            "executions_ratio": _ratio([side["executions_per_s"] for side in reversed(sides.values())]),
            "read_bytes": told[0],
            "read_events": told[1],
            "streams_ended": told[2],
        }
    }


def _ratio(pair: Sequence[float]) -> float:
    """Above 1 when readers cost something."""
    return round(pair[1] / pair[0], 3)


async def run(rounds: int, ticks: int, burst: int, count: int) -> tuple[_Side, _Side, list[int]]:
    """`rounds` of either kind, in turns. The price only falls: each round has the next triggers."""
    without, reading, told = _Side(), _Side(), [0, 0, 0]
    async with chain() as world:
        market = world.market("SOL/USDC", price_1e6=PRICE_1E6)
        steps = [1] * ticks + [burst]
        traders = traders_for(world, 2 * rounds * sum(steps))
        placed: list[Pubkey] = []
        ladder: list[list[Pubkey]] = []
        for at, orders in enumerate(steps * 2 * rounds, start=1):
            ladder.append([])
            for _ in range(orders):
                trader = traders[len(placed) // 40]
                placed.append(world.place(trader, market, stop_price_1e6=PRICE_1E6 - at * _STEP_1E6))
                ladder[-1].append(placed[-1])
        key = world.wallet(SOL_FOR_FEES)
        users = [str(trader.address) for trader in traders]
        with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
            trace = Path(folder) / "trace"
            async with keeper(world, Path(folder), key=key, trace=trace) as process:
                stage = _Stage(world, market, process, trace, Ledger.of(world.bank, key, placed), ladder, len(steps))
                await anyio.sleep(2.0)
                for n in range(rounds):
                    await stage.round(2 * n, without)
                    async with _reading(process.url, count, users, told):
                        await stage.round(2 * n + 1, reading)
    return without, reading, told


@dataclass
class _Stage:
    world: World
    market: Pubkey
    process: KeeperProcess
    trace: Path
    ledger: Ledger
    ladder: list[list[Pubkey]]
    steps: int
    read: int = 0

    async def round(self, number: int, side: _Side) -> None:
        first = number * self.steps
        cpu = cpu_s(self.process.process.pid)
        for at in range(first, first + self.steps - 1):
            self.world.set_price(self.market, PRICE_1E6 - (at + 1) * _STEP_1E6)
            await anyio.sleep(_PAUSE_S)
        side.sent_ms += pairs(await self._traced())
        last = self.ladder[first + self.steps - 1]
        began = time.perf_counter()
        self.world.set_price(self.market, PRICE_1E6 - (first + self.steps) * _STEP_1E6)
        await until(lambda: all(order in self.ledger.landed_at for order in last), within_s=60, every_s=0.01)
        side.rates.append(len(last) / (max(self.ledger.landed_at[order] for order in last) - began))
        await self._settled(sum(len(orders) for orders in self.ladder[: first + self.steps]))
        orders = sum(len(orders) for orders in self.ladder[first : first + self.steps])
        side.cpu_ms.append(1e3 * (cpu_s(self.process.process.pid) - cpu) / orders)

    async def _traced(self) -> str:
        """What came into the trace since it was read last."""
        self.process.process.send_signal(signal.SIGUSR1)
        await anyio.sleep(0.5)
        text = self.trace.read_text()
        new, self.read = text[self.read :], len(text)
        return new

    async def _settled(self, orders: int) -> None:
        """Until the keeper has closed its books on the round, and its readers had time to hear of it."""
        name = 'keeper_attempts_settled_total{fate="executed",kind="execute"}'
        with anyio.fail_after(60):
            while (await metrics(self.process)).get(name, 0.0) < orders:  # noqa: ASYNC110 - another process
                await anyio.sleep(0.25)
        await anyio.sleep(2.0)


@asynccontextmanager
async def _reading(url: str, count: int, users: list[str], told: list[int]) -> AsyncIterator[None]:
    """Readers, all of them connected. What they got is added to `told`."""
    child = await anyio.open_process([sys.executable, "-m", "bench.readers", url, str(count), *users], stderr=None)
    assert child.stdin is not None
    assert child.stdout is not None
    said = BufferedByteReceiveStream(child.stdout)
    try:
        with anyio.fail_after(60):
            assert await said.receive_until(b"\n", 200) == b"ready"
        yield
        await child.stdin.aclose()
        with anyio.fail_after(60):
            for at, figure in enumerate((await said.receive_until(b"\n", 200)).split()):
                told[at] += int(figure)
    finally:
        with anyio.CancelScope(shield=True):
            if child.returncode is None:
                child.kill()
            await child.wait()
    await anyio.sleep(1.0)
