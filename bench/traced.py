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
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection

from keeper.cli import main
from keeper.solana import http1
from keeper.venue.layouts import MARKET_DISCRIMINATOR

_MARKET = base64.b64encode(MARKET_DISCRIMINATOR)[:10]


def trace(path: str) -> None:
    """Put the clocks in."""
    lines: list[str] = []
    received = ClientConnection.data_received
    begun = http1._Connection.begin

    def data_received(self: Any, data: bytes) -> None:
        now = time.monotonic_ns()
        if _MARKET in data:
            lines.append(f"in {now}\n")
        received(self, data)

    def begin(self: Any, request: bytes) -> Any:
        sent = request.count(b'"sendTransaction"')
        if sent:
            lines.append(f"out {time.monotonic_ns()} {sent}\n")
        return begun(self, request)

    def write(*_: object) -> None:
        with Path(path).open("a") as out:
            out.writelines(lines)
        lines.clear()

    ClientConnection.data_received = data_received  # type: ignore[method-assign]
    http1._Connection.begin = begin  # type: ignore[method-assign]
    atexit.register(write)
    signal.signal(signal.SIGUSR1, write)


if __name__ == "__main__":
    trace(sys.argv[1])
    sys.argv = ["keeper", *sys.argv[2:]]
    main()
