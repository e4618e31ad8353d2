"""The API as the keeper runs it: the server, and the loop behind its streams."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from anyio.abc import TaskStatus

from keeper.http.api import create_api
from keeper.http.edge.server import serve
from keeper.http.orders.managed import ManagedWallet
from keeper.http.ports import ApiPorts


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
        await tg.start(api.state.following.feed.run, name="http-feed")
        task_status.started(await tg.start(serve, api, host, port, name="http-server"))
