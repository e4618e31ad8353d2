"""Updates a second by a Yellowstone stream: from the socket's bytes to the order in the book, on one core.

The server is a process of its own, so the rate is what this process's time allows: updates by the seconds of processor
that it took for them, in all its threads.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
from solders.pubkey import Pubkey

from bench.figures import across
from bench.geyser import packed
from bench.resting import order_accounts
from bench.stage import PRICE_1E6, STOP_1E6
from keeper.domain.events import Event
from keeper.yellowstone import geyser_pb2 as pb
from tests.support.world import PROGRAM, World
from tests.yellowstone.listening import Reader, watching

_ORDERS = 2_000


async def measure(quick: bool) -> dict[str, Any]:
    """Updates a second of processor time, and a second of the clock."""
    count = 10_000 if quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        runs = [await _run(count, Path(folder)) for _ in range(1 if quick else 5)]
    return {
        "stream": {
            "updates": count,
            "per_core_s": across([count / cpu_s for cpu_s, _ in runs]),
            "per_s": across([count / wall_s for _, wall_s in runs]),
        }
    }


class _Counting(Reader):
    """Sets `all_told` when it was told so often."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count
        self.all_told = anyio.Event()

    def on_event(self, event: Event) -> None:
        super().on_event(event)
        self.left -= 1
        if not self.left:
            self.all_told.set()


async def _run(count: int, folder: Path) -> tuple[float, float]:
    """Seconds of the processor, and of the clock."""
    async with World.open(slot_ms=0) as world:
        market = world.market(price_1e6=PRICE_1E6)
        account = world.bank.account(world.place(world.trader(), market, stop_price_1e6=STOP_1E6))
        assert account is not None
        accounts = order_accounts(bytes(account.data), [market], _ORDERS)
        slot, blockhash = world.bank.chain.tip.slot, str(world.bank.chain.root.blockhash)
        file = anyio.Path(folder, "messages")
        await file.write_bytes(packed([_message(address, data, slot) for address, data in accounts]))
        command = [sys.executable, "-m", "bench.geyser", str(file), str(count), blockhash]
        async with await anyio.open_process(command) as server:
            assert server.stdout is not None
            port = int(await server.stdout.receive())
            reader = _Counting(count)
            began, cpu_began = time.perf_counter(), time.process_time()
            async with watching(world, f"127.0.0.1:{port}", reader):
                await reader.all_told.wait()
                took = time.process_time() - cpu_began, time.perf_counter() - began
            server.kill()
            return took


def _message(address: Pubkey, data: bytes, slot: int) -> bytes:
    info = pb.SubscribeUpdateAccountInfo(
        pubkey=bytes(address), owner=bytes(PROGRAM.id), lamports=2_164_560, data=data, write_version=1
    )
    update = pb.SubscribeUpdateAccount(account=info, slot=slot)
    return bytes(pb.SubscribeUpdate(filters=["order"], account=update).SerializeToString())
