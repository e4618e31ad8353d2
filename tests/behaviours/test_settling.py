"""Many attempts that end at once: what they cost to ask about, and that one of them is not the others' trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keeper.domain.attempts import Attempt, Fate
from keeper.domain.orders import OrderState
from tests.behaviours.stand import USDC, Stand
from tests.support import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with Stand.open(tmp_path) as stand:
        yield stand


def cost_of(stand: Stand, attempt: Attempt) -> int:
    """What the chain took for it."""
    landed = stand.bank.history.get(attempt.signature)
    assert landed is not None
    return landed.fee


async def test_failures_that_come_together_are_read_in_a_few_requests(stand: Stand) -> None:
    """A tick that crosses forty orders whose users can't pay: forty requests one after the other would take seconds
    on a real node, and hold up every other verdict.
    """
    async with stand.keeper():
        market, poor = stand.world.market(), stand.world.trader(collateral_1e6=0)
        orders = [stand.order(poor, market) for _ in range(40)]
        await stand.known(*orders)
        with stand.held():
            stand.world.set_price(market, 94 * USDC)
            await until(lambda: all(stand.sent(order) for order in orders))
        await until(lambda: all(stand.state(order) is OrderState.FAILED for order in orders))
        cost = 0
        for order in orders:
            (attempt,) = stand.attempts(order)
            assert (attempt.fate, attempt.error_name) == (Fate.CANNOT_PAY, "InsufficientCollateral")
            assert attempt.fee_lamports == cost_of(stand, attempt)
            cost += attempt.fee_lamports
        asked = [methods.count("getTransaction") for methods in stand.calls if "getTransaction" in methods]
        assert sum(asked) == 40
        assert max(asked) <= 32
        assert len(asked) <= 6, "they land in a block or two"
        assert f"keeper_fees_lamports_total {float(cost)}" in (await stand.get("/metrics")).text
