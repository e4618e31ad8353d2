"""The proxy's WebSocket side: one pair of sockets per client, with what passes between them broken now and then."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from http import HTTPStatus

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.chaos.both_ways import until_one_ends
from tests.chaos.proxy.faults import Fault, Kind

_METHOD = re.compile(r'^\{"jsonrpc":"2\.0","method":"(\w+)"')


class SocketSide:
    """Serves clients. `draw_connection` and `draw_news` say what to break, and count it."""

    def __init__(
        self, url: str, draw_connection: Callable[[], Fault | None], draw_news: Callable[[str], Fault | None]
    ) -> None:
        self._url = url
        self._draw_connection = draw_connection
        self._draw_news = draw_news

    def admit(self, client: ServerConnection, request: Request) -> Response | None:
        """Refuse the handshake when a fault says so."""
        if self._draw_connection() is None:
            return None
        return client.respond(HTTPStatus.SERVICE_UNAVAILABLE, "no healthy upstream\n")

    async def serve(self, client: ServerConnection) -> None:
        """One client, until either side ends it."""
        async with connect(self._url, max_size=None, compression=None, ping_interval=None, close_timeout=0.2) as node:
            try:
                await until_one_ends(_forward(client, node), self._news(node, client))
            finally:
                await client.close(node.close_code or 1000)

    async def _news(self, node: ClientConnection, client: ServerConnection) -> None:
        held: str | None = None
        silent_until = 0.0
        try:
            async for message in node:
                text = message if isinstance(message, str) else message.decode()
                if time.monotonic() < silent_until:
                    continue
                method = _METHOD.match(text)
                fault = self._draw_news(method[1]) if method else None
                match fault.kind if fault else None:
                    case None:
                        await client.send(text)
                    case Kind.NEWS_DROPPED:
                        pass
                    case Kind.NEWS_DUPLICATED:
                        await client.send(text)
                        await client.send(text)
                    case Kind.NEWS_SWAPPED:
                        if held is not None:
                            await client.send(held)
                        held = text
                        continue
                    case Kind.NEWS_DELAYED:
                        assert fault is not None
                        await asyncio.sleep(fault.seconds)
                        await client.send(text)
                    case Kind.NEWS_GARBAGE:
                        await client.send(text[: len(text) // 2])
                        await client.send(text)
                    case Kind.SOCKET_SILENT:
                        assert fault is not None
                        silent_until = time.monotonic() + fault.seconds
                        continue
                    case Kind.SOCKET_CLOSED:
                        await client.close(1000)
                        return
                    case Kind.SOCKET_ABORTED:
                        client.transport.abort()
                        return
                    case other:
                        raise AssertionError(f"{other} is not a fault of a socket")
                if held is not None:
                    late, held = held, None
                    await client.send(late)
        except ConnectionClosed:
            return


async def _forward(source: ServerConnection, target: ClientConnection) -> None:
    try:
        async for message in source:
            await target.send(message)
    except ConnectionClosed:
        return
