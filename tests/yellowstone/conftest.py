"""One event loop for all of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest


@pytest.fixture(scope="package")
def anyio_backend() -> str:
    """As elsewhere, and of the whole package."""
    return "asyncio"


@pytest.fixture(scope="package", autouse=True)
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """gRPC has one poller a process. What it says late of a call, whichever loop hears it hands on to the call's own
    loop, and fails where that is closed: in the middle of another test.
    """
    yield  # noqa: PT022 - the loop lives for as long as this does
