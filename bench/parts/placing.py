"""Placing over HTTP at 100 orders a second: `place_order_ms`.

A placement is what a client does: `POST /v1/orders`, sign at home, `POST /v1/orders/execute`. When the second answers
the user's transaction is durable in the journal and on its way. The time between the two calls is the client's own
and not counted; arrivals keep their pace however slow the answers are.
"""

from __future__ import annotations

import base64
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import msgspec
from solders.message import to_bytes_versioned
from solders.transaction import VersionedTransaction

from bench.figures import spread
from bench.stage import PRICE_1E6, chain, keeper
from keeper.solana.http1 import Http1
from tests.support.world import Trader

_RATE = 100


async def measure(quick: bool) -> dict[str, Any]:
    """`place_order_ms`, and each of its two calls."""
    count = 100 if quick else 1_000
    async with chain() as world:
        world.market("SOL/USDC", price_1e6=PRICE_1E6)
        traders = [world.trader() for _ in range(50)]
        with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
            async with keeper(world, Path(folder)) as process:
                # The keeper's own HTTP client: httpx would cost the machine more than the API does.
                prepare, hand_in = Http1(f"{process.url}/v1/orders"), Http1(f"{process.url}/v1/orders/execute")
                samples: list[tuple[float, float]] = []
                problems: list[str] = []
                began = anyio.current_time()
                async with anyio.create_task_group() as tasks:
                    for i in range(count):
                        await anyio.sleep_until(began + i / _RATE)
                        tasks.start_soon(_place, prepare, hand_in, traders[i % len(traders)], samples, problems)
    if problems:
        raise RuntimeError(f"{len(problems)} of {count} placements were refused: {problems[0]}")
    return {
        "place_order_ms": spread([first + second for first, second in samples]),
        "place_order_prepare_ms": spread([first for first, _ in samples]),
        "place_order_hand_in_ms": spread([second for _, second in samples]),
    }


async def _place(
    prepare: Http1, hand_in: Http1, trader: Trader, samples: list[tuple[float, float]], problems: list[str]
) -> None:
    terms = {
        "user": str(trader.address),
        "market": "SOL/USDC",
        "order_type": "stop_loss",
        "side": "long",
        "size": "1",
        "trigger_price": "95",
        "leverage": 5,
    }
    began = time.perf_counter()
    prepared = await prepare.post(msgspec.json.encode(terms))
    first = time.perf_counter() - began
    if prepared.status >= 400:
        problems.append(prepared.body.decode())
        return
    unsigned = msgspec.json.decode(prepared.body)
    message = VersionedTransaction.from_bytes(base64.b64decode(unsigned["transaction"])).message
    signature = trader.key.sign_message(to_bytes_versioned(message))
    signed = bytes(VersionedTransaction.populate(message, [signature]))
    body = {"id": unsigned["id"], "signed_transaction": base64.b64encode(signed).decode()}
    began = time.perf_counter()
    answer = await hand_in.post(msgspec.json.encode(body))
    second = time.perf_counter() - began
    if answer.status >= 400:
        problems.append(answer.body.decode())
        return
    samples.append((1e3 * first, 1e3 * second))
