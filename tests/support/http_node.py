"""A node's HTTP endpoint, as bare as can be: whoever uses it writes the bytes of the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream

Handler = Callable[[SocketStream, bytes], Awaitable[None]]
"""Is given the connection and a request's body, and answers."""


@asynccontextmanager
async def http_node(handler: Handler) -> AsyncIterator[str]:
    """A socket that reads one HTTP request after another and lets `handler` answer; its URL."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            buffer = b""
            while True:
                try:
                    while b"\r\n\r\n" not in buffer:
                        buffer += await stream.receive()
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    headers = [line.lower().split(b":") for line in head.split(b"\r\n")[1:]]
                    length = next(int(value) for name, value, *_ in headers if name == b"content-length")
                    while len(buffer) < length:
                        buffer += await stream.receive()
                    body, buffer = buffer[:length], buffer[length:]
                    await handler(stream, body)
                except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()
