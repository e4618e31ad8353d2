"""The keeper, unchanged, with two clocks around its way: `python -m bench.traced TRACE_FILE run ...`.

One is read when the socket's bytes with a market's news reach the process, before anything is parsed; the other when
the bytes with a sendTransaction are given to the socket (on a loopback the kernel does the receiver's work, too, before
that call returns, so the clock is read before it). Lines of `in NANOSECONDS ACCOUNT,...` and `out NANOSECONDS
SIGNATURE,...` by CLOCK_MONOTONIC: the accounts that the socket's bytes tell of, and the transactions that the request
carries. And `lag NANOSECONDS MICROSECONDS` every 5 ms: by how much the event loop was late for that
(`keeper.runtime.lag`).
"""

from __future__ import annotations

import atexit
import base64
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from solders.signature import Signature
from websockets.asyncio.client import ClientConnection

from keeper.cli import main
from keeper.runtime.lag import LoopLag
from keeper.solana import http1
from keeper.venue.venue import MARKET_DISCRIMINATOR

_MARKET = base64.b64encode(MARKET_DISCRIMINATOR)[:10]
_SEND = b'"sendTransaction"'
_ACCOUNT = re.compile(rb'"pubkey":"(\w+)"')
_WIRE = re.compile(rb'"params":\["([\w+/]{88})')
"""A transaction's first 66 bytes: how many signatures, and the first of them."""


def hooked(on_news: Callable[[int, bytes], None], on_send: Callable[[int, bytes], None]) -> None:
    """Call `on_news` with the clock and the bytes when a market's news comes in, `on_send` when transactions leave."""
    received = ClientConnection.data_received
    begun = http1._Connection.begin

    def data_received(self: Any, data: bytes) -> None:
        if _MARKET in data:
            on_news(time.monotonic_ns(), data)
        received(self, data)

    def begin(self: Any, request: bytes) -> Any:
        if _SEND in request:
            on_send(time.monotonic_ns(), request)
        return begun(self, request)

    ClientConnection.data_received = data_received  # type: ignore[method-assign]
    http1._Connection.begin = begin  # type: ignore[method-assign]


def _watch_lag(on_look: Callable[[float], None]) -> None:
    look = LoopLag._look

    def _look(self: LoopLag) -> None:
        on_look(time.monotonic() - self._due)
        look(self)

    LoopLag._look = _look  # type: ignore[method-assign]


def _line(seen: tuple[str, int, bytes | float]) -> str:
    word, at, data = seen
    if isinstance(data, float):
        return f"lag {at} {1e6 * data:.0f}\n"
    if word == "in":
        told = [found.decode() for found in _ACCOUNT.findall(data)]
    else:
        told = [str(Signature(base64.b64decode(found)[1:65])) for found in _WIRE.findall(data)]
    return f"{word} {at} {','.join(told)}\n"


def trace(path: str) -> None:
    """Put the clocks in."""
    seen: list[tuple[str, int, bytes | float]] = []

    def write(*_: object) -> None:
        with Path(path).open("a") as out:
            out.writelines(map(_line, seen))
        seen.clear()

    hooked(lambda now, data: seen.append(("in", now, data)), lambda now, request: seen.append(("out", now, request)))
    _watch_lag(lambda late_s: seen.append(("lag", time.monotonic_ns(), late_s)))
    atexit.register(write)
    signal.signal(signal.SIGUSR1, write)


if __name__ == "__main__":
    trace(sys.argv[1])
    sys.argv = ["keeper", *sys.argv[2:]]
    main()
