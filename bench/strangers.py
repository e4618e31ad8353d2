"""Strangers who call the API, in a process of their own: `python -m bench.strangers URL PER_SECOND`.

Ten addresses of the loopback network share the requests evenly: cancels and looks at addresses that are no order's,
orders prepared for wallets that are nobody's, their positions, signed transactions that nobody prepared. Says `ready`
after three seconds, when what a client may do at once is used up; at the end of its input it says how many requests a
second there were and the answers by status, as JSON. Their own work is done on other machines in life, so it is done at
the lowest priority here.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from solders.pubkey import Pubkey

_NICEST = 19
_ADDRESSES = 10
_CONNECTIONS = 4
"""Of each address."""
_LATE_S = 1.0
"""What an answer that came late has held up is made up for, so much of it."""
_WARM_UP_S = 3.0


def _requests(host: str) -> Iterator[bytes]:
    """One of each kind in turn, each round with an address that was not named before."""

    def request(method: str, path: str, body: object = None) -> bytes:
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    order = {"market": "SOL/USDC", "order_type": "stop_loss", "side": "long", "size": "1", "trigger_price": "50"}
    while True:
        nobody = str(Pubkey.new_unique())
        yield request("POST", f"/v1/orders/{nobody}/cancel")
        yield request("POST", "/v1/orders", {**order, "user": nobody, "leverage": 5})
        yield request("POST", "/v1/orders/execute", {"id": nobody[:22], "signed_transaction": "AAAA"})
        yield request("GET", f"/v1/orders/{nobody}")
        yield request("GET", f"/v1/wallets/{nobody}/positions")


async def _ask(
    source: str, host: str, port: int, first_s: float, every_s: float, seen: collections.Counter[str]
) -> None:
    """One request after another on a connection that is kept, at a steady pace, or as fast as it is answered."""
    reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0))
    due = time.monotonic() + first_s
    for request in _requests(f"{host}:{port}"):
        due = max(due + every_s, time.monotonic() - _LATE_S)
        await asyncio.sleep(due - time.monotonic())
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        seen[head[9:12].decode()] += 1
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await reader.readexactly(int(line.partition(b":")[2]))


async def main(url: str, per_second: float) -> None:
    """Ask until the input ends, report."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    seen: collections.Counter[str] = collections.Counter()
    connections = _ADDRESSES * _CONNECTIONS
    every_s = connections / per_second
    async with asyncio.TaskGroup() as tasks:
        asking = [
            tasks.create_task(
                _ask(f"127.0.1.{1 + n % _ADDRESSES}", parts.hostname, parts.port, n / per_second, every_s, seen)
            )
            for n in range(connections)
        ]
        await asyncio.sleep(_WARM_UP_S)
        seen.clear()
        began = time.monotonic()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        rate = seen.total() / (time.monotonic() - began)
        for task in asking:
            task.cancel()
    print(json.dumps({"per_s": round(rate), "answers": dict(sorted(seen.items()))}), flush=True)


if __name__ == "__main__":
    os.nice(_NICEST)
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
