"""The HTTP endpoint: JSON-RPC by POST, and GET /health."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import uvicorn
from anyio.abc import TaskStatus
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from keeper.localnet.rpc import Dispatcher

_PLAIN = b"text/plain; charset=utf-8"
_JSON = b"application/json"
_GOODBYE_S = 1.0
_KEEP_ALIVE_S = 60


class RpcApp:
    """The ASGI application. A body above `max_body_bytes` is refused with 413 as soon as that is known."""

    def __init__(self, dispatcher: Dispatcher, *, max_body_bytes: int) -> None:
        self._dispatcher = dispatcher
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve one request."""
        if scope["type"] != "http":  # neither lifespan nor WebSocket is configured
            raise ValueError(f"not an HTTP scope: {scope['type']}")
        status, kind, reply = await self._reply(scope, receive)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", kind),
                    (b"content-length", b"%d" % len(reply)),
                    # Wallets in browsers talk to a validator directly.
                    (b"access-control-allow-origin", b"*"),
                    (b"access-control-allow-methods", b"POST, GET, OPTIONS"),
                    (b"access-control-allow-headers", b"*"),
                ],
                "trailers": False,
            }
        )
        await send({"type": "http.response.body", "body": reply, "more_body": False})

    async def _reply(self, scope: HTTPScope, receive: ASGIReceiveCallable) -> tuple[int, bytes, bytes]:
        method = scope["method"]
        if method == "OPTIONS":
            return 200, _PLAIN, b""
        if method == "GET" and scope["path"] == "/health":
            healthy = b'"result":"ok"' in self._dispatcher.handle(b'{"jsonrpc":"2.0","id":1,"method":"getHealth"}')
            return 200, _PLAIN, b"ok" if healthy else b"behind"
        if method != "POST":
            return 405, _PLAIN, b"Used HTTP Method is not allowed. POST or OPTIONS is required\n"
        headers = dict(scope["headers"])
        if not headers.get(b"content-type", b"").lower().startswith(_JSON):
            text = b"Supplied content type is not allowed. Content-Type: application/json is required\n"
            return 415, _PLAIN, text
        body = await self._body(headers.get(b"content-length"), receive)
        if body is None:
            return 413, _PLAIN, b"Request body is larger than %d bytes\n" % self._max_body_bytes
        return 200, _JSON, self._dispatcher.handle(body)

    async def _body(self, declared: bytes | None, receive: ASGIReceiveCallable) -> bytes | None:
        if declared is not None and int(declared) > self._max_body_bytes:
            return None
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return body  # the client hung up; the reply goes nowhere
            body += message["body"]
            if len(body) > self._max_body_bytes:
                return None
            if not message["more_body"]:
                return body


async def serve_http(
    app: RpcApp, listening: socket.socket, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; started when requests are taken."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # web3.js takes it that a connection is good for 20 s after its last reply; a validator keeps it for longer.
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    server = _Server(config, task_status)
    try:
        await server.serve(sockets=[listening])
    finally:
        with anyio.CancelScope(shield=True):
            await server.stop()


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which answers a WebSocket's greeting like any GET: with 405, as a validator does."""

    def _unsupported_upgrade_warning(self) -> None:
        """uvicorn's advice is for who runs uvicorn; here the client has the wrong port."""


class _Server(uvicorn.Server):
    """uvicorn inside somebody else's process: the signals are the host's, and it says when it is ready."""

    def __init__(self, config: uvicorn.Config, task_status: TaskStatus[None]) -> None:
        super().__init__(config)
        self._task_status = task_status

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def stop(self) -> None:
        """Let running requests end, idle connections not. uvicorn's own way takes a tenth of a second more."""
        if not self.started:
            return
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with anyio.move_on_after(_GOODBYE_S):
            while self.server_state.connections:  # noqa: ASYNC110 - uvicorn has no event for it
                await anyio.sleep(0.005)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._task_status.started()
