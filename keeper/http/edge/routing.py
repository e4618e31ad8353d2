"""What a route is, and how a request finds its endpoint. Starlette looks for the path, a `Resource` for the method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as PathRoute
from starlette.types import Receive, Scope, Send

from keeper.http.edge.problems import Problem
from keeper.http.edge.strict_json import has_body, read_json, read_parameters

Handler = Callable[..., Awaitable[Response]]
Guard = Callable[[Request], None]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A function that answers requests. Its first parameter is the request, the others are parameters of the path and
    the query, of which `parameters` is the shape, and `body`. `guard` refuses who may not call it, before anything is
    read. `operation` is how the description shows it; None: not at all.
    """

    handler: Handler
    parameters: type[msgspec.Struct]
    body: type[msgspec.Struct] | None
    body_required: bool
    guard: Guard | None
    operation: Mapping[str, Any] | None

    async def answer(self, request: Request, *, any_query: bool) -> Response:
        """Read the request, and let the function answer it."""
        if self.guard is not None:
            self.guard(request)
        given = read_parameters(request, self.parameters, any_query=any_query)
        if self.body is not None and (self.body_required or has_body(request)):
            given["body"] = await read_json(request, self.body)
        return await self.handler(request, **given)


@dataclass(frozen=True, slots=True)
class Route:
    """A row of the table. `tag` groups routes in the description; `any_query`: parameters that it does not know are
    ignored and not refused; `anywhere`: a keeper that stands by answers it too, from the journal; `handed_on`: a keeper
    that does not work on the order's market has the one answer it that does.
    """

    method: str
    path: str
    endpoint: Endpoint
    tag: str = ""
    any_query: bool = False
    anywhere: bool = False
    handed_on: bool = False


class Resource:
    """What answers at one path: an ASGI application."""

    def __init__(self, path: str, routes: Sequence[Route]) -> None:
        self.path = path
        self._routes = {route.method: route for route in routes}

    def __repr__(self) -> str:
        return f"Resource({self.path!r}, {', '.join(self._routes)})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by its method, with its parameters read by the endpoint's shape of them."""
        scope["route"] = self  # the metrics read its path
        # The server sends no body in answer to a HEAD.
        route = self._routes.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if route is None:
            methods = {*self._routes, *(["HEAD"] if "GET" in self._routes else [])}
            allowed = {"Allow": ", ".join(sorted(methods))}
            raise Problem("method_not_allowed", "See the Allow header for the methods that there are.", headers=allowed)
        request = Request(scope, receive)
        response = await route.endpoint.answer(request, any_query=route.any_query)
        await response(scope, receive, send)


def resources(routes: Sequence[Route]) -> list[PathRoute]:
    """The table as the framework takes it: one entry a path, in the table's order."""
    by_path: dict[str, list[Route]] = {}
    for route in routes:
        by_path.setdefault(route.path, []).append(route)
    return [PathRoute(path, Resource(path, rows)) for path, rows in by_path.items()]
