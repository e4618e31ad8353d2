"""How a route reaches what it works with: the ports, and those that keep locks between requests.

All of these are coroutines though none waits: FastAPI runs a plain function in a thread, and the way there and back
costs more than most of the requests themselves.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from keeper.http.edge.problems import Problem
from keeper.http.orders.managed import Managed
from keeper.http.orders.preparing import Preparing
from keeper.http.orders.relaying import Relaying
from keeper.http.ports import ApiPorts
from keeper.http.stream.following import Following


async def _ports(request: Request) -> ApiPorts:
    ports: ApiPorts = request.app.state.ports
    return ports


async def _preparing(request: Request) -> Preparing:
    preparing: Preparing = request.app.state.preparing
    return preparing


async def _relaying(request: Request) -> Relaying:
    relaying: Relaying = request.app.state.relaying
    return relaying


async def _following(request: Request) -> Following:
    following: Following = request.app.state.following
    return following


async def _managed(request: Request) -> Managed:
    managed: Managed = request.app.state.managed
    return managed


async def _strict_query(request: Request) -> None:
    """A misspelt filter that is ignored answers another question than the one asked; so it is refused."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        shown = name[:64] if name.isprintable() else "?"
        if name not in known:
            raise Problem("unknown_field", f"There is no query parameter {shown}.", field=shown)
        if names.count(name) > 1:
            raise Problem("invalid_field", f"The query parameter {shown} occurs more than once.", field=shown)


Ports = Annotated[ApiPorts, Depends(_ports)]
PreparingDep = Annotated[Preparing, Depends(_preparing)]
RelayingDep = Annotated[Relaying, Depends(_relaying)]
FollowingDep = Annotated[Following, Depends(_following)]
ManagedDep = Annotated[Managed, Depends(_managed)]
strict_query = Depends(_strict_query)
