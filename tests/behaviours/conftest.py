"""What most of these tests stand on: a chain with a journal beside it, a trader, and a market."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from tests.behaviours.stand import Stand
from tests.support import Trader


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with Stand.open(tmp_path) as stand:
        yield stand


@pytest.fixture
async def trader(stand: Stand) -> Trader:
    return stand.world.trader()


@pytest.fixture
async def market(stand: Stand) -> Pubkey:
    return stand.world.market()
