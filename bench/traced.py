"""The keeper, unchanged, with two clocks around its way: `python -m bench.traced TRACE_FILE run ...`.

One is read when the socket's bytes with a market's news reach the process, before anything is parsed; the other when
the bytes with a sendTransaction are given to the socket (on a loopback the kernel does the receiver's work, too, before
that call returns, so the clock is read before it). Lines of `in NANOSECONDS` and `out NANOSECONDS COUNT`
by CLOCK_MONOTONIC; COUNT is how many transactions the request carries.
"""

from __future__ import annotations

import atexit
import base64
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection

from keeper.cli import main
from keeper.solana import http1
from keeper.venue.venue import MARKET_DISCRIMINATOR

_MARKET = base64.b64encode(MARKET_DISCRIMINATOR)[:10]


def hooked(on_news: Callable[[int], None], on_send: Callable[[int], None]) -> None:
    """Call `on_news` with the clock when a market's news comes in, `on_send` with the number of transactions sent."""
    received = ClientConnection.data_received
    begun = http1._Connection.begin

    def data_received(self: Any, data: bytes) -> None:
        if _MARKET in data:
            on_news(time.monotonic_ns())
        received(self, data)

    def begin(self: Any, request: bytes) -> Any:
        sent = request.count(b'"sendTransaction"')
        if sent:
            on_send(sent)
        return begun(self, request)

    ClientConnection.data_received = data_received  # type: ignore[method-assign]
    http1._Connection.begin = begin  # type: ignore[method-assign]


def trace(path: str) -> None:
    """Put the clocks in."""
    lines: list[str] = []

    def write(*_: object) -> None:
        with Path(path).open("a") as out:
            out.writelines(lines)
        lines.clear()

    hooked(
        lambda now: lines.append(f"in {now}\n"),
        lambda sent: lines.append(f"out {time.monotonic_ns()} {sent}\n"),
    )
    atexit.register(write)
    signal.signal(signal.SIGUSR1, write)


if __name__ == "__main__":
    trace(sys.argv[1])
    sys.argv = ["keeper", *sys.argv[2:]]
    main()
