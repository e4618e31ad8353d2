"""One embedded chain for a whole file of tests: what they break is their own settings, not the chain."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support import World


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """As elsewhere, but for fixtures that outlive a test."""
    return "asyncio"


@pytest.fixture(scope="module")
async def world(anyio_backend: str) -> AsyncIterator[World]:
    """A chain with the reference program."""
    async with World.open(slot_ms=50) as world:
        yield world
