"""The way from one keeper's API to another's, without a socket."""

from __future__ import annotations

from typing import Any, Final

import anyio
import httpx

from keeper.http.edge import forwarding
from tests.simulate.sharer import Sharer

_init: Final = forwarding.Forwarding.__init__
_WAY_S: Final = 0.001


def take_over() -> None:
    """From now on what a keeper hands on goes into the other's application."""

    def make(self: Any, *args: Any, **options: Any) -> None:
        _init(self, *args, **options)
        self._transport = Handed()

    forwarding.Forwarding.__init__ = make  # type: ignore[method-assign]


class Handed(httpx.AsyncBaseTransport):
    """In httpx's transport's place."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer of the keeper at that port. Raises httpx's errors when nobody is there, or hangs up."""
        await anyio.sleep(_WAY_S)
        life = Sharer.at_port.get(request.url.port or 0)
        api = None if life is None or life.dead else life.asked
        if api is None:
            raise httpx.ConnectError("connection refused", request=request)
        target = bytes(request.extensions["target"]).decode()
        timeout_s = request.extensions["timeout"]["read"]
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        answer = await api.handle(request.method, target, headers, request.content, within_s=timeout_s)
        if answer is None:
            raise httpx.ReadError("the connection was closed", request=request)
        await anyio.sleep(_WAY_S)
        status, told, content = answer
        if life is not None:
            life.link.network.trace.note("handed", f"{life.client.name}: {request.method} {target} {status}")
        return httpx.Response(status, headers=told, stream=httpx.ByteStream(content), request=request)
