"""What a keeper reaches of the world outside itself: nodes, the machine, what ticks, and who calls its API.

For a daemon these are sockets, threads and files. A simulation gives its own in place of each, and nothing else of the
keeper knows the difference (docs/simulation.md).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from keeper.journal.machine import REAL, Machine
from keeper.runtime.lag import LoopLag
from keeper.runtime.schedule import Schedule
from keeper.solana.http1 import HttpTransport
from keeper.solana.rpc import Transport
from keeper.solana.sockets import Connect, connect


@dataclass(frozen=True, slots=True)
class Outside:
    """`transport` is the way to an endpoint's HTTP, given its URL and label, and `headers` if there are any; `connect`
    to its socket; `machine` is the journal's; `schedule` keeps the time of what happens now and then; `lag` watches the
    event loop; `run_api` serves the API in place of the real server, and `listen` gives what it listens on.
    """

    transport: Callable[..., Transport] = HttpTransport
    connect: Connect = connect
    machine: Machine = REAL
    schedule: Callable[[], Schedule] = Schedule
    lag: Callable[[], LoopLag] = LoopLag
    run_api: Callable[..., Coroutine[Any, Any, None]] | None = None
    listen: Callable[[str, int], socket.socket] | None = None


REAL_WORLD = Outside()
"""The world that the process runs in."""
