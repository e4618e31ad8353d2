"""A client of the configured endpoints, for a command that asks a few things of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

from keeper.app.endpoints import EndpointUrls
from keeper.solana.client import ChainClient
from keeper.solana.http1 import HttpTransport
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint

DEADLINE_S: Final = 5.0
"""So long one call may take."""


@asynccontextmanager
async def client_for(endpoints: Sequence[EndpointUrls], deadline_s: float = DEADLINE_S) -> AsyncIterator[ChainClient]:
    """A client over these endpoints, with a short deadline."""
    transports = [Endpoint(each.label, HttpTransport(each.url, label=each.label)) for each in endpoints]
    async with aclosing(RpcPool(transports, PoolLimits(deadline_s=deadline_s))) as pool:
        yield ChainClient(pool)
