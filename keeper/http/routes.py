"""Every route: its method, its path, and the endpoint that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Depends
from starlette.routing import compile_path

from keeper.http.actions import routes as actions
from keeper.http.admin import routes as admin
from keeper.http.edge import openapi
from keeper.http.edge.answering import strict_query
from keeper.http.orders import managed as wallets
from keeper.http.orders import routes as orders
from keeper.http.page import routes as page
from keeper.http.reading import health, history, markets
from keeper.http.stream import following


@dataclass(frozen=True, slots=True)
class Route:
    """A row of the table. `tag` groups routes in the description; `any_query`: parameters that it does not know are
    ignored and not refused; `direct`: called past the framework (`keeper.http.edge.direct`).
    """

    method: str
    path: str
    endpoint: openapi.Endpoint
    tag: str = ""
    any_query: bool = False
    direct: bool = False


ROUTES: Final = (
    # The stream before the orders: its path would be taken for an order's.
    Route("GET", "/v1/orders/stream", following.stream, "orders"),
    Route("POST", "/v1/orders", orders.prepare, "orders", direct=True),
    Route("POST", "/v1/orders/execute", orders.execute, "orders", direct=True),
    Route("GET", "/v1/orders/execute", orders.execute_is_posted, "orders"),
    Route("POST", "/v1/orders/{order}/cancel", orders.cancel, "orders"),
    Route("GET", "/v1/orders", orders.orders, "orders"),
    Route("GET", "/v1/orders/{order}", orders.order, "orders"),
    Route("POST", "/v1/wallets/{wallet}/orders", wallets.place, "wallets"),
    Route("POST", "/v1/wallets/{wallet}/orders/{order}/cancel", wallets.cancel, "wallets"),
    Route("GET", "/v1/markets", markets.markets, "markets"),
    Route("GET", "/v1/markets/{base}/{quote}", markets.market, "markets"),
    Route("GET", "/v1/keeper", history.keeper, "history"),
    Route("GET", "/v1/executions", history.executions, "history"),
    Route("GET", "/v1/failures", history.failures, "history"),
    Route("GET", "/actions.json", actions.rules, "actions", any_query=True),
    Route("GET", actions.PATH, actions.describe, "actions"),
    Route("POST", actions.PATH, actions.transaction, "actions"),
    Route("GET", "/livez", health.livez, "health", any_query=True),
    Route("GET", "/readyz", health.readyz, "health", any_query=True),
    Route("GET", "/healthz", health.healthz, "health", any_query=True),
    Route("GET", "/metrics", health.metrics, "health", any_query=True),
    Route("GET", "/", page.index, any_query=True),
    Route("GET", "/docs", page.docs, any_query=True),
    Route("GET", "/page/{name}", page.asset, any_query=True),
    Route("GET", "/v1/admin/status", admin.status, "admin"),
    Route("POST", "/v1/admin/pause", admin.pause, "admin"),
    Route("POST", "/v1/admin/resume", admin.resume, "admin"),
    Route("POST", "/v1/admin/orders/{order}/retry", admin.retry, "admin"),
    Route("POST", "/v1/admin/orders/{order}/resync", admin.resync, "admin"),
    Route("GET", "/v1/admin/settings", admin.settings, "admin"),
    Route("GET", "/v1/openapi.json", openapi.description, any_query=True),
)


def _router() -> APIRouter:
    router = APIRouter()
    for route in ROUTES:
        router.add_api_route(
            route.path,
            route.endpoint.handler,
            methods=[route.method],
            tags=[route.tag] if route.tag else None,
            dependencies=None if route.any_query else [Depends(strict_query)],
            **route.endpoint.description,
        )
    return router


ROUTER: Final = _router()
"""The table as the framework takes it. Made at import, before any loop runs: it takes tens of milliseconds."""


def methods_of(path: str) -> list[str]:
    """Every described method of this path, sorted; GET for a path without any."""
    described = [route for route in ROUTES if route.endpoint.description.get("include_in_schema", True)]
    found = [route.method for route in described if route.path == path]
    found = found or [route.method for route in described if compile_path(route.path)[0].match(path)]
    return sorted(set(found)) or ["GET"]
