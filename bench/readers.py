"""Readers of the stream, in a process of their own: `python -m bench.readers URL COUNT [USER ...]`.

Half of them read everything, half one user's orders. What they get is thrown away: a reader's own work is done on
another machine in life, so here it is as little as can be, at the lowest priority. Says `ready` once all have their
snapshot; at the end of its input it says how many bytes and events came and how many streams had ended, and ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from urllib.parse import urlsplit

_NICEST = 19
_AT_ONCE = 50


class _Reader(asyncio.Protocol):
    """One stream."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.bytes = 0
        self.events = 0
        self.ended = False
        self.begun = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        self.events += data.count(b"event: order\n")
        if not self.begun.is_set() and b"event: snapshot" in data:
            self.begun.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.begun.set()


async def main(url: str, count: int, users: list[str]) -> None:
    """Connect, read until the input ends, report."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    loop = asyncio.get_running_loop()
    readers: list[_Reader] = []
    for i in range(count):
        query = f"?user={users[i // 2 % len(users)]}" if users and i % 2 else ""
        reader = _Reader(f"GET /v1/orders/stream{query} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        readers.append(reader)
        await loop.create_connection(lambda reader=reader: reader, parts.hostname, parts.port)  # type: ignore[misc]
        if len(readers) % _AT_ONCE == 0:
            await reader.begun.wait()
    for reader in readers:
        await reader.begun.wait()
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(
        sum(reader.bytes for reader in readers),
        sum(reader.events for reader in readers),
        sum(reader.ended for reader in readers),
        flush=True,
    )


if __name__ == "__main__":
    os.nice(_NICEST)
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
