"""The API: an application that answers by the table of routes, and the server that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

import anyio
from anyio.abc import TaskStatus
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.errors import ChainError, JournalError
from keeper.http.actions.cors import ActionsCors, is_actions
from keeper.http.edge.chain_problems import problem_of_error
from keeper.http.edge.clients import Admission, ApiLimits, Rates, client_of
from keeper.http.edge.direct import DirectRoutes
from keeper.http.edge.middleware import EveryRequest, Instruments
from keeper.http.edge.openapi import DESCRIPTION, document
from keeper.http.edge.problems import Problem
from keeper.http.edge.server import serve
from keeper.http.orders.managed import Managed, ManagedWallet
from keeper.http.orders.preparing import Preparing
from keeper.http.orders.relaying import RecentlyPrepared, Relaying
from keeper.http.ports import ApiPorts
from keeper.http.routes import ROUTER, ROUTES, methods_of
from keeper.http.stream.following import Following

_ERRORS: Final = (Problem, ChainError, JournalError, HTTPException, RequestValidationError)
"""What a request may raise on purpose; anything else is a mistake of the keeper's."""
_BY_STATUS: Final = {
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "See the Allow header for the methods that there are."),
}


async def run_api(
    ports: ApiPorts,
    host: str,
    port: int,
    wallets: Sequence[ManagedWallet] = (),
    *,
    task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API until cancelled; `wallets` are the managed ones.

    `task_status` is told the port once it listens. Misconfigured as `serve`.
    """
    api = create_api(ports, wallets)
    async with anyio.create_task_group() as tg:
        # Cancelled together, so that the streams end before the server waits for its requests.
        await tg.start(api.state.parts[Following].feed.run, name="http-feed")
        task_status.started(await tg.start(serve, api, host, port, name="http-server"))


def create_api(ports: ApiPorts, wallets: Sequence[ManagedWallet] = ()) -> FastAPI:
    """The API, connected to the keeper; `wallets` are the managed ones.

    It registers its metrics with `ports.metrics`, so make one a registry.
    """
    app = application()
    recent = RecentlyPrepared()
    preparing, relaying = Preparing(ports, recent), Relaying(ports, recent)
    app.state.parts = {
        ApiPorts: ports,
        ApiLimits: ports.limits,
        Preparing: preparing,
        Relaying: relaying,
        Following: Following(ports),
        Managed: Managed(ports, wallets, preparing, relaying),
    }
    rates = Rates(ports.limits.requests_per_s, ports.limits.burst)

    def admit(address: str, authorization: str | None) -> Admission:
        return rates.admit(client_of(address, ports.tokens.name_of(authorization)))

    # The last one added is the outermost.
    direct = {(route.method, route.path): route.endpoint.handler for route in ROUTES if route.direct}
    app.add_middleware(DirectRoutes, handlers=direct, errors=_ERRORS, refuse=_refuse)
    app.add_middleware(ActionsCors, genesis=ports.genesis)
    app.add_middleware(EveryRequest, instruments=Instruments(ports.metrics), admit=admit)
    return app


def openapi_document() -> dict[str, Any]:
    """The API's description; no keeper has to run."""
    return document(application())


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
    app.include_router(ROUTER)
    for error in _ERRORS:
        app.add_exception_handler(error, _refuse)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """The answer to a request that raised one of `_ERRORS`."""
    problem = _problem(request, error)
    if is_actions(request.url.path):
        # The member that the Actions specification gives an error.
        problem.more["message"] = problem.detail
    return problem.response()


def _problem(request: Request, error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case ChainError() | JournalError():
            return problem_of_error(error)
        case RequestValidationError():
            first = error.errors()[0]
            name = str(first["loc"][-1])
            return Problem("invalid_field", f"The parameter {name} is not as described: {first['msg']}.", field=name)
    # Starlette's own refusals: no such path, no such method.
    assert isinstance(error, HTTPException)
    code, detail = _BY_STATUS.get(error.status_code, ("malformed_request", "The request can't be read."))
    headers = {"Allow": ", ".join(methods_of(request.url.path))} if error.status_code == 405 else error.headers
    return Problem(code, detail, headers=headers)
