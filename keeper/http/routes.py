"""Every route: its method, its path, and the endpoint that answers it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as PathRoute

from keeper.http.actions import routes as actions
from keeper.http.admin import routes as admin
from keeper.http.edge.openapi import document, hidden
from keeper.http.edge.problems import Problem
from keeper.http.edge.routing import Route, resources
from keeper.http.orders import changing
from keeper.http.orders import managed as wallets
from keeper.http.orders import routes as orders
from keeper.http.page import routes as page
from keeper.http.reading import health, history, margin, markets
from keeper.http.stream import following


@functools.cache
def openapi_document() -> dict[str, Any]:
    """The API's description; no keeper has to run."""
    return document(ROUTES)


@hidden
async def description(request: Request) -> Response:
    """The document of the application that answers."""
    return Response(msgspec.json.encode(openapi_document()), media_type="application/json")


ROUTES: Final = (
    # A path with words in it comes before one that would take the words for a name.
    Route("GET", "/v1/orders/stream", following.stream_orders, "orders", anywhere=True),
    Route("POST", "/v1/orders", orders.prepare_order, "orders"),
    Route("POST", "/v1/orders/execute", orders.execute_order, "orders", handed_on=True),
    Route("POST", "/v1/orders/cancel-all", changing.prepare_cancel_all, "orders"),
    Route("POST", "/v1/orders/{order}/cancel", changing.prepare_cancel, "orders"),
    Route("POST", "/v1/orders/{order}/amend", changing.prepare_amend, "orders"),
    Route("GET", "/v1/orders", orders.list_orders, "orders", anywhere=True),
    Route("GET", "/v1/orders/{order}", orders.get_order, "orders", anywhere=True),
    Route("POST", "/v1/wallets/{wallet}/orders", wallets.place_wallet_order, "wallets", handed_on=True),
    Route("POST", "/v1/wallets/{wallet}/orders/{order}/cancel", wallets.cancel_wallet_order, "wallets", handed_on=True),
    Route("GET", "/v1/wallets/{wallet}/positions", margin.list_positions, "wallets", anywhere=True),
    Route("GET", "/v1/wallets/{wallet}/account", margin.get_account, "wallets", anywhere=True),
    Route("GET", "/v1/markets", markets.list_markets, "markets", anywhere=True),
    Route("GET", "/v1/markets/{base}/{quote}", markets.get_market, "markets", anywhere=True),
    Route("GET", "/v1/keeper", history.get_keeper, "history", anywhere=True),
    Route("GET", "/v1/executions", history.list_executions, "history", anywhere=True),
    Route("GET", "/v1/failures", history.list_failures, "history", anywhere=True),
    Route("GET", "/actions.json", actions.get_action_rules, "actions", any_query=True, anywhere=True),
    Route("GET", actions.PATH, actions.describe_action, "actions", any_query=True),
    Route("POST", actions.PATH, actions.make_action_transaction, "actions", any_query=True),
    Route("GET", "/livez", health.livez, "health", any_query=True, anywhere=True),
    Route("GET", "/readyz", health.readyz, "health", any_query=True, anywhere=True),
    Route("GET", "/healthz", health.healthz, "health", any_query=True, anywhere=True),
    Route("GET", "/metrics", health.metrics, "health", any_query=True, anywhere=True),
    Route("GET", "/", page.index, any_query=True, anywhere=True),
    Route("GET", "/wallet", page.wallet, any_query=True, anywhere=True),
    Route("GET", "/docs", page.docs, any_query=True, anywhere=True),
    Route("GET", "/page/{name}", page.asset, any_query=True, anywhere=True),
    Route("GET", "/v1/admin/status", admin.get_status, "admin"),
    Route("POST", "/v1/admin/pause", admin.pause, "admin"),
    Route("POST", "/v1/admin/resume", admin.resume, "admin"),
    Route("POST", "/v1/admin/orders/{order}/retry", admin.retry_order, "admin", handed_on=True),
    Route("POST", "/v1/admin/orders/{order}/resync", admin.resync_order, "admin", handed_on=True),
    Route("POST", "/v1/admin/drain", admin.drain, "admin"),
    Route("GET", "/v1/admin/settings", admin.get_settings, "admin"),
    Route("GET", "/v1/openapi.json", description, any_query=True, anywhere=True),
)


RESOURCES: Final = resources(ROUTES)
"""The table as the framework takes it."""


def standby_resources(holder: Callable[[], str], *, forwards: bool) -> list[PathRoute]:
    """The table of a keeper that stands by: it answers what is read of the journal, hands on what it can when it
    `forwards`, and names `holder` for the rest.
    """

    def refuse(_: Request) -> None:
        name = holder()
        who = f"Ask {name}" if name else "No keeper works right now. Ask again"
        raise Problem(
            "standing_by", f"{who}, or ask where /readyz answers 200.", retry_after_s=1, more={"holder": name or None}
        )

    return resources(
        [
            r if r.anywhere or (forwards and r.handed_on) else replace(r, endpoint=replace(r.endpoint, guard=refuse))
            for r in ROUTES
        ]
    )
