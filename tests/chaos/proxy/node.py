"""The proxy as a whole: a node's two ports."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, serve

from tests.chaos.proxy.faults import Calm, Fault, Faults, Kind
from tests.chaos.proxy.http_messages import Upstream
from tests.chaos.proxy.http_side import HttpSide
from tests.chaos.proxy.socket_side import SocketSide

# A client that is killed in the middle of a handshake is no news here.
_SILENT: Final = logging.getLogger("tests.chaos.proxy.websocket")
_SILENT.setLevel(logging.CRITICAL)


class FaultProxy:
    """Listens on two free ports while entered, and forwards to the node at `rpc_url` and `ws_url`.

    `faults` may be replaced at any time. `injected` counts what was broken, by kind. `on_calls` is told of the
    calls of every request before anything is done with it: what a client sent is known even if it is then lost.
    """

    def __init__(
        self,
        rpc_url: str,
        ws_url: str,
        *,
        faults: Faults | None = None,
        on_calls: Callable[[Sequence[dict[str, Any]]], None] = lambda calls: None,
        seed: str = "",
    ) -> None:
        self.faults: Faults = faults or Calm()
        self.injected: Counter[Kind] = Counter()
        self.requests = 0
        self._on_calls = on_calls
        parts = urlsplit(rpc_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._upstream = Upstream(parts.hostname, parts.port)
        self._http_side = HttpSide(self._upstream, self._request, self._calls, random.Random(seed))
        self._socket_side = SocketSide(ws_url, self._connection, self._news)
        self._http: asyncio.Server | None = None
        self._websocket: Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<FaultProxy {self.rpc_url} {self.faults!r} {self.injected.total()} faults>"

    @property
    def rpc_url(self) -> str:
        """Where it is a JSON-RPC node."""
        assert self._http is not None, "it is not entered"
        return f"http://127.0.0.1:{self._http.sockets[0].getsockname()[1]}"

    @property
    def ws_url(self) -> str:
        """Where it is a WebSocket node."""
        assert self._websocket is not None, "it is not entered"
        (listening,) = self._websocket.sockets
        return f"ws://127.0.0.1:{listening.getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._http = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._websocket = await serve(
            self._socket_side.serve,
            "127.0.0.1",
            0,
            process_request=self._socket_side.admit,
            max_size=None,
            compression=None,
            ping_interval=None,
            close_timeout=0.2,
            logger=_SILENT,
        )
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._http is not None
        assert self._websocket is not None
        self._http.close()
        self._websocket.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._websocket.wait_closed()
        self._upstream.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio's server does not cancel its handlers; a silent one would outlive the test.
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            await self._http_side.serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._handlers.discard(task)

    def _calls(self, calls: Sequence[dict[str, Any]]) -> None:
        self.requests += 1
        self._on_calls(calls)

    def _request(self, methods: Sequence[str]) -> Fault | None:
        return self._counted(self.faults.request(methods))

    def _news(self, kind: str) -> Fault | None:
        return self._counted(self.faults.news(kind))

    def _connection(self) -> Fault | None:
        return self._counted(self.faults.connection())

    def _counted(self, fault: Fault | None) -> Fault | None:
        if fault is not None:
            self.injected[fault.kind] += 1
        return fault
