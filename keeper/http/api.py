"""The ASGI application: the routes, what happens when they refuse, and the guard around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path

from keeper.http.actions import routes as actions
from keeper.http.actions.cors import ActionsCors, is_actions
from keeper.http.admin.routes import router as admin_router
from keeper.http.edge.express import Express, Handler
from keeper.http.edge.guard import Guard
from keeper.http.edge.instruments import Instruments
from keeper.http.edge.problems import Problem
from keeper.http.edge.rates import Admission, Rates, client_of
from keeper.http.openapi import DESCRIPTION, document
from keeper.http.orders import routes as orders
from keeper.http.orders import wallet_routes as wallets
from keeper.http.orders.fresh import Fresh
from keeper.http.orders.managed import Managed, ManagedWallet
from keeper.http.orders.preparing import Preparing
from keeper.http.orders.relaying import Relaying
from keeper.http.page import routes as page
from keeper.http.ports import ApiPorts
from keeper.http.reading import health, history, markets
from keeper.http.stream import routes as stream
from keeper.http.stream.following import Following

_BY_STATUS: Final = {
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "See the Allow header for the methods that there are."),
}


def create_api(ports: ApiPorts, wallets: Sequence[ManagedWallet] = ()) -> FastAPI:
    """The API, connected to the keeper; `wallets` are the managed ones.

    It registers its metrics with `ports.metrics`, so make one a registry.
    """
    app = application()
    fresh = Fresh()
    preparing, relaying = Preparing(ports, fresh), Relaying(ports, fresh)
    app.state.ports = ports
    app.state.preparing = preparing
    app.state.relaying = relaying
    app.state.following = Following(ports)
    app.state.managed = Managed(ports, wallets, preparing, relaying)
    rates = Rates(ports.limits.requests_per_s, ports.limits.burst)

    def admit(address: str, authorization: str | None) -> Admission:
        return rates.admit(client_of(address, ports.tokens.name_of(authorization)))

    express: Mapping[tuple[str, str], Handler] = {
        ("POST", "/v1/orders"): lambda request: orders.prepare(request, ports, preparing),
        ("POST", "/v1/orders/execute"): lambda request: orders.execute(request, ports, relaying),
    }
    # The last one added is the outermost.
    app.add_middleware(Express, handlers=express)
    app.add_middleware(ActionsCors, genesis=ports.genesis)
    app.add_middleware(Guard, instruments=Instruments(ports.metrics), admit=admit)
    return app


def application() -> FastAPI:
    """The routes alone, connected to nothing: enough for the API's description."""
    app = FastAPI(
        title="QuantDesk keeper",
        version=version("quantdesk-keeper"),
        description=DESCRIPTION,
        # The interactive pages would load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    # The stream before the orders: its path would be taken for an order's.
    for module in (stream, orders, wallets, markets, history, actions, health, page):
        app.include_router(module.router)
    app.include_router(admin_router)

    @app.get("/v1/openapi.json", include_in_schema=False)
    async def openapi() -> dict[str, Any]:
        return app.openapi()

    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    return app


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _refusal(request, error)


def _refusal(request: Request, problem: Problem) -> Response:
    if is_actions(request.url.path):
        # The member that the Actions specification gives an error.
        problem.more["message"] = problem.detail
    return problem.response()


async def _http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, no such method."""
    assert isinstance(error, HTTPException)
    code, detail = _BY_STATUS.get(error.status_code, ("malformed_request", "The request can't be read."))
    headers = {"Allow": _allow(request)} if error.status_code == 405 else error.headers
    return _refusal(request, Problem(code, detail, headers=headers))


def _allow(request: Request) -> str:
    """Every method of this path. Starlette names those of one route alone, and here each method is a route."""
    described, asked = request.app.openapi()["paths"], request.url.path
    paths = [asked] if asked in described else [path for path in described if compile_path(path)[0].match(asked)]
    found = {method.upper() for path in paths for method in described[path]}
    return ", ".join(sorted(found or {"GET"}))


async def _invalid_parameter(request: Request, error: Exception) -> Response:
    """A query or path parameter that isn't as described."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])
    detail = f"The parameter {name} is not as described: {first['msg']}."
    return _refusal(request, Problem("invalid_field", detail, field=name))
