"""The API: an application that answers by the table of routes, and the server that runs it."""

from __future__ import annotations

import functools
import socket
from collections.abc import Sequence
from typing import Final

import anyio
from anyio.abc import TaskStatus
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.errors import ChainError, JournalError
from keeper.http.actions.cors import ActionsCors, is_actions
from keeper.http.edge.chain_problems import problem_of_error
from keeper.http.edge.clients import ApiLimits, Hosts, Rates
from keeper.http.edge.cors import PublicCors
from keeper.http.edge.forwarding import Forwarding
from keeper.http.edge.middleware import EveryRequest, Instruments
from keeper.http.edge.problems import Problem
from keeper.http.edge.server import serve
from keeper.http.orders.changing import Changing
from keeper.http.orders.managed import Managed, ManagedWallet
from keeper.http.orders.preparing import Preparing
from keeper.http.orders.relaying import Relaying
from keeper.http.orders.waiting import Waiting
from keeper.http.ports import ApiPorts
from keeper.http.reading.margin import MarginReader
from keeper.http.routes import RESOURCES, standby_resources
from keeper.http.stream.following import Following

_ERRORS: Final = (Problem, ChainError, JournalError, HTTPException)
"""What a request may raise on purpose; anything else is a mistake of the keeper's."""


async def run_api(
    ports: ApiPorts,
    host: str,
    port: int,
    wallets: Sequence[ManagedWallet] = (),
    *,
    listener: socket.socket | None = None,
    task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API until cancelled; `wallets` are the managed ones, `listener` is as `serve` has it.

    `task_status` is told the port once it listens. Misconfigured as `serve`.
    """
    api = create_api(ports, wallets)
    try:
        async with anyio.create_task_group() as tg:
            # Cancelled together, so that the streams end before the server waits for its requests.
            await tg.start(api.state.parts[Following].feed.run, name="http-feed")
            serving = functools.partial(serve, listener=listener, limits=ports.limits.connections)
            task_status.started(await tg.start(serving, api, host, port, name="http-server"))
    finally:
        with anyio.CancelScope(shield=True):
            await api.state.parts[Forwarding].aclose()


def create_api(ports: ApiPorts, wallets: Sequence[ManagedWallet] = ()) -> Starlette:
    """The API, connected to the keeper; `wallets` are the managed ones.

    It registers its metrics with `ports.metrics`, unless `ports.instruments` are those of an earlier one.
    """
    rates = Rates(ports.limits.requests_per_s, ports.limits.burst)
    instruments = ports.instruments or Instruments(ports.metrics)
    routes = RESOURCES
    if ports.standing_by is not None:
        routes = standby_resources(ports.standing_by, forwards=ports.elsewhere is not None)
    app = Starlette(
        routes=routes,
        middleware=[  # the outermost first
            Middleware(PublicCors, origins=ports.limits.cors_origins),
            Middleware(
                EveryRequest,
                instruments,
                rates,
                Hosts(ports.limits.hosts),
                ports.tokens,
                ports.seal,
            ),
            Middleware(ActionsCors, genesis=ports.genesis),
        ],
        exception_handlers=dict.fromkeys(_ERRORS, _refuse),
    )
    app.router.redirect_slashes = False
    waiting = Waiting()
    preparing, relaying = Preparing(ports, waiting), Relaying(ports, waiting)
    changing = Changing(ports, preparing)
    app.state.parts = {
        ApiPorts: ports,
        ApiLimits: ports.limits,
        Rates: rates,
        Preparing: preparing,
        Relaying: relaying,
        MarginReader: MarginReader(ports),
        Following: Following(ports),
        Forwarding: Forwarding(ports.elsewhere, ports.seal, ports.limits, instruments.forwarded),
        Changing: changing,
        Managed: Managed(ports, wallets, preparing, changing, relaying),
    }
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """The answer to a request that raised one of `_ERRORS`."""
    match error:
        case Problem():
            problem = error
        case ChainError() | JournalError():
            problem = problem_of_error(error)
        case _:  # Starlette has one refusal of its own.
            problem = Problem("not_found", "There is nothing at this path.")
    if is_actions(request.url.path):
        # The member that the Actions specification gives an error.
        problem.more["message"] = problem.detail
    return problem.response()
