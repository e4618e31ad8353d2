"""Armed attempts on a real chain, disk and socket: what is armed is what is sent, and a good end leaves none behind.

What may leave and what must not is in `tests/execution/test_armed_orders.py`, and kills are in `test_kills`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import Attempt, AttemptState
from keeper.domain.orders import OrderState
from keeper.execution.limits import ArmingLimits
from keeper.localnet import Commitment
from tests.behaviours.stand import BLOCKHASH_LIFE, USDC, Stand
from tests.support import Trader, until

pytestmark = pytest.mark.anyio

RENEWED_AT_BLOCKS: Final = ArmingLimits(a_side=2, signatures_per_s=1).renew_blocks_old


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with Stand.open(tmp_path, execution={"armed_a_side": 2}) as stand:
        yield stand


def armed(stand: Stand, order: Pubkey) -> Attempt | None:
    """What the journal holds as armed for the order."""
    found = [a for a in stand.journal.open_attempts() if a.order == order and a.state is AttemptState.ARMED]
    assert len(found) <= 1
    return found[0] if found else None


def young(stand: Stand, order: Pubkey) -> bool:
    """Whether it is armed, by a blockhash that it can be sent with, and is not signed again unless blocks come."""
    found, newest = armed(stand, order), stand.bank.chain.at(Commitment.CONFIRMED).height + BLOCKHASH_LIFE
    return found is not None and found.last_valid_block_height >= newest - RENEWED_AT_BLOCKS


async def told(stand: Stand, order: Pubkey) -> None:
    """Return when the keeper has been told of every commit that the journal shows: it answers for a later one."""
    assert stand.ready is not None
    async with httpx.AsyncClient(base_url=stand.ready.http_url) as http:
        (await http.post(f"/v1/orders/{order}/cancel")).raise_for_status()


async def test_what_is_armed_is_sent_and_the_journal_is_told_after_it(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    order = stand.order(trader, market)
    async with stand.keeper():
        await until(lambda: armed(stand, order))
        assert stand.attempts(order) == [], "it is no part of the order's history yet"
        with stand.held():
            await until(lambda: young(stand, order))
            known = armed(stand, order)
            await told(stand, order)  # before that it would not be sent
            stand.world.set_price(market, 94 * USDC)
            await until(lambda: stand.sends)
            await stand.reach(order, OrderState.EXECUTING)
        row = await stand.reach(order, OrderState.FILLED)
    (attempt,) = stand.attempts(order)
    assert known is not None
    assert attempt.wire == known.wire == stand.sends[0].wire
    assert (row.trigger_price_1e6, attempt.trigger_price_1e6, row.attempts_made) == (94 * USDC, 94 * USDC, 1)
    assert row.triggered_at is not None
    assert stand.landed(order) == 1


@pytest.mark.file_journal
async def test_what_is_signed_at_the_tick_is_told_in_full_after_its_send(tmp_path: Path) -> None:
    """A lone one is committed as an armed one is, without what it is sent for."""
    async with Stand.open(tmp_path, journal={"inline_below_ms": 100.0}) as stand:
        trader, market = stand.world.trader(), stand.world.market()
        order = stand.order(trader, market)
        async with stand.keeper():
            with stand.held():
                await until(lambda: stand.state(order) is OrderState.OPEN)
                stand.world.set_price(market, 94 * USDC)
                row = await stand.reach(order, OrderState.EXECUTING)
                (attempt,) = stand.attempts(order)
                assert attempt.state is not AttemptState.ARMED
                assert attempt.wire == stand.sends[0].wire
            assert (row.trigger_price_1e6, attempt.trigger_price_1e6, row.attempts_made) == (94 * USDC, 94 * USDC, 1)
            assert row.triggered_at is not None
            await stand.reach(order, OrderState.FILLED)
        assert stand.landed(order) == 1


async def test_only_the_nearest_are_armed_and_a_good_end_disarms_them(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    near, nearer, far = (stand.order(trader, market, stop) for stop in (90, 95, 85))
    async with stand.keeper():
        await until(lambda: armed(stand, near) and armed(stand, nearer))
        assert armed(stand, far) is None
        await until(lambda: (found := armed(stand, near)) and found.last_valid_block_height > BLOCKHASH_LIFE + 60)
    assert stand.journal.open_attempts() == []
    assert not stand.sends
