"""What every test shares."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The keeper runs anyio on asyncio, because its HTTP server and WebSocket client do."""
    return "asyncio"
