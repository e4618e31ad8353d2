"""What a thousand requests a second from ten strangers cost the execution of orders: `strangers`.

One keeper with the API's default limits, at a node that answers 50 calls a second and refuses the rest with HTTP 429;
rounds without strangers and with them take turns. Each tick crosses one order: from the price's bytes in the keeper's
process to the transaction's bytes to the socket (`bench.traced`).
"""

from __future__ import annotations

import collections
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
from anyio.streams.buffered import BufferedByteReceiveStream

from bench.figures import spread
from bench.ledger import Ledger
from bench.parts.tick import pairs
from bench.stage import PRICE_1E6, SOL_FOR_FEES, chain, keeper, traders_for
from tests.support.http_node import http_node
from tests.support.limited_node import LimitedNode
from tests.support.waiting import until

_STEP_1E6 = 10_000
_PAUSE_S = 0.15
_REQUESTS_PER_S = 1_000
_DEFAULTS = {"requests_per_s": 1_000, "burst": 2_000, "node_calls_per_s": 10}


async def measure(quick: bool) -> dict[str, Any]:
    """`strangers`: the two sides and their ratio, how the strangers were answered, and what the node was asked."""
    rounds, ticks = (2, 10) if quick else (6, 40)
    sides: dict[str, list[float]] = {"without": [], "with": []}
    told: list[dict[str, Any]] = []
    async with chain() as world:
        market = world.market("SOL/USDC", price_1e6=PRICE_1E6)
        steps = 2 * rounds * ticks
        traders = traders_for(world, steps)
        placed = [
            world.place(traders[at // 40], market, stop_price_1e6=PRICE_1E6 - (at + 1) * _STEP_1E6)
            for at in range(steps)
        ]
        key, node = world.wallet(SOL_FOR_FEES), LimitedNode(world.bank)
        with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
            trace, read, at = Path(folder) / "trace", 0, 0
            async with http_node(node.answer) as node.url:
                rpc = {"url": node.url, "blockhash_every_s": 2.0}
                async with keeper(world, Path(folder), key=key, trace=trace, rpc=rpc, http=_DEFAULTS) as process:
                    ledger = Ledger.of(world.bank, key, placed)
                    await anyio.sleep(2.0)
                    for n in range(2 * rounds):
                        side = ("without", "with")[n % 2]
                        async with _asking(process.url, told if side == "with" else None):
                            for _ in range(ticks):
                                at += 1
                                world.set_price(market, PRICE_1E6 - at * _STEP_1E6)
                                await anyio.sleep(_PAUSE_S)
                            if side == "with":
                                async with httpx.AsyncClient() as http:
                                    told.append({"ready": (await http.get(f"{process.url}/readyz")).status_code})
                        process.process.send_signal(signal.SIGUSR1)
                        await anyio.sleep(0.5)
                        text = trace.read_text()
                        sides[side] += pairs(text[read:])
                        read = len(text)
                    await until(lambda: ledger.all_confirmed, within_s=60)
    answers: collections.Counter[str] = collections.Counter()
    for each in told:
        answers.update(each.get("answers", {}))
    summary = {side: spread(samples) for side, samples in sides.items()}
    return {
        "strangers": {
            "requests_per_s": [each["per_s"] for each in told if "per_s" in each],
            "answers": dict(answers),
            "ready": sorted({each["ready"] for each in told if "ready" in each}),
            "node_answered": sum(node.answered.values()),
            "node_refused": node.refused,
            **{f"tick_to_sent_ms_{side}": figures for side, figures in summary.items()},
            "sent_p50_ratio": round(summary["with"]["p50"] / summary["without"]["p50"], 3),
        }
    }


@asynccontextmanager
async def _asking(url: str, told: list[dict[str, Any]] | None) -> AsyncIterator[None]:
    """Strangers, if `told` is there to take what they say at the end."""
    if told is None:
        yield
        return
    command = [sys.executable, "-m", "bench.strangers", url, str(_REQUESTS_PER_S)]
    child = await anyio.open_process(command, stderr=None)
    assert child.stdin is not None
    assert child.stdout is not None
    said = BufferedByteReceiveStream(child.stdout)
    try:
        with anyio.fail_after(60):
            assert await said.receive_until(b"\n", 200) == b"ready"
        yield
        await child.stdin.aclose()
        with anyio.fail_after(60):
            told.append(json.loads(await said.receive_until(b"\n", 1_000)))
    finally:
        with anyio.CancelScope(shield=True):
            if child.returncode is None:
                child.kill()
            await child.wait()
    await anyio.sleep(1.0)
