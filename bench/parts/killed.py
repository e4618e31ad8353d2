"""A keeper with 1,000 armed attempts is killed and started again: `killed`, how long after it said that it is ready the
first of its orders, whose condition is met at that moment, has its execution at the node.

Every armed attempt may have been sent, as far as the next start knows: all are looked up, and for each order only the
bytes that are in the journal may be sent. `executed_twice` is over all rounds, once every order was met.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.figures import spread
from bench.ledger import Ledger
from bench.progress import step
from bench.stage import PRICE_1E6, SOL_FOR_FEES, STOP_1E6, armed_rows, chain, keeper, metrics, traders_for
from tests.support.waiting import until

_MARKETS: Final = 4
_STEP_1E6: Final = 1_000
_ARMING_WITHIN_S: Final = 120.0


async def measure(quick: bool) -> dict[str, Any]:
    """`killed`: some rounds of it."""
    armed, rounds = (100, 1) if quick else (1_000, 5)
    ready, first, twice = list[float](), list[float](), 0
    for _ in range(rounds):
        ready_s, first_s, duplicates = await _once(armed)
        ready.append(ready_s)
        first.append(first_s)
        twice += duplicates
        step()
    figures = {"start_to_ready_s": spread(ready), "ready_to_sent_s": spread(first), "executed_twice": twice}
    return {"killed": {"armed": armed, "rounds": rounds, **figures}}


async def _once(armed: int) -> tuple[float, float, int]:
    """Seconds from the second start to ready, and from there to the first execution; orders that were filled twice."""
    with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
        async with chain() as world:
            markets = [world.market(f"M{n}/USDC", price_1e6=PRICE_1E6) for n in range(_MARKETS)]
            traders = traders_for(world, armed)
            orders = [
                world.place(traders[n * len(traders) // armed], markets[n % _MARKETS], stop_price_1e6=_stop_1e6(n))
                for n in range(armed)
            ]
            key = world.wallet(SOL_FOR_FEES)
            ledger = Ledger.of(world.bank, key, orders)
            execution = {"armed_a_side": -(-armed // _MARKETS), "armed_signatures_per_s": 1_000}
            async with keeper(world, Path(folder), key=key, execution=execution) as first:
                await until(lambda: armed_rows(first) == armed, within_s=_ARMING_WITHIN_S)
                first.kill()
            began_s = time.perf_counter()
            async with keeper(world, Path(folder), key=key, execution=execution) as second:
                ready_s = time.perf_counter()
                assert (await metrics(second))["keeper_armed"] == armed, "or something else is measured"
                world.set_price(markets[0], _stop_1e6(0) - _STEP_1E6 // 2)
                await until(lambda: len(ledger.received_at) > 0)
                first_s = min(ledger.received_at.values())
                for market in markets:
                    world.set_price(market, _stop_1e6(armed))
                await until(lambda: ledger.all_landed, within_s=_ARMING_WITHIN_S)
            return ready_s - began_s, first_s - ready_s, ledger.duplicates


def _stop_1e6(n: int) -> int:
    return STOP_1E6 - n * _STEP_1E6
