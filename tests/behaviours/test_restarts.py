"""What a keeper still knows after a restart: what it tried, what its attempts may still cost, and what stopped it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptState
from tests.behaviours.stand import USDC, Stand, stays
from tests.support import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with Stand.open(tmp_path) as stand:
        yield stand


# -- how often an order was tried


async def refused_once(stand: Stand, market: Pubkey, order: Pubkey) -> None:
    """The price meets the order and has moved back when the attempt lands: it costs a fee and no budget."""
    before = len(stand.attempts(order))
    stand.bank.hold_transactions()
    stand.world.set_price(market, 94 * USDC)
    await until(lambda: len(stand.attempts(order)) > before)
    await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
    stand.world.set_price(market, 96 * USDC)
    stand.bank.release_transactions()
    await until(lambda: not stand.attempts(order)[-1].state.live)


async def test_the_ceiling_on_attempts_an_hour_holds_over_restarts(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, execution={"attempts_per_hour": 3}) as stand:
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        async with stand.keeper():
            await stand.known(order)
            await refused_once(stand, market, order)
            await refused_once(stand, market, order)
        async with stand.keeper():
            await refused_once(stand, market, order)
        async with stand.keeper():
            stand.world.set_price(market, 94 * USDC)
            await stand.reason(order, "tried too often within an hour")
            await stays(lambda: len(stand.attempts(order)) == 3, stand)
