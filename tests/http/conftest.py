"""One chain, one journal and one API for all tests of the API: each uses wallets of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from solders.keypair import Keypair

from tests.http.http_world import World
from tests.http.http_world import world as make_world


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Session-wide here, because the world is."""
    return "asyncio"


@pytest.fixture(scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[World]:
    async with make_world(tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest.fixture
def wallet(world: World) -> Keypair:
    """A user with a SOL."""
    return world.trader()
