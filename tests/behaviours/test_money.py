"""What leaves the keeper's key: counted to the lamport, bounded by the day's cap and by the balance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptState
from keeper.domain.orders import OrderState, OrderType
from keeper.execution.purse import utc_day
from tests.behaviours.stand import A_FILL_LAMPORTS, SOL, USDC, Stand, stays
from tests.support import until

pytestmark = pytest.mark.anyio


def spent(stand: Stand) -> int:
    """What left the key today, by the journal."""
    return stand.journal.spent(utc_day())


def filled(stand: Stand, orders: Sequence[Pubkey]) -> int:
    return sum(stand.state(order) is OrderState.FILLED for order in orders)


async def test_23_the_daily_cap_is_on_what_leaves_the_key(tmp_path: Path) -> None:
    """A fill's fee is a seven hundredth of it; the rest is the rent of its position."""
    async with Stand.open(tmp_path, fees={"daily_outflow_cap_lamports": 2 * A_FILL_LAMPORTS}) as stand:
        market = stand.world.market()
        orders = [stand.order(stand.world.trader(), market) for _ in range(4)]
        before = stand.lamports
        async with stand.keeper():
            await stand.known(*orders)
            stand.world.set_price(market, 94 * USDC)
            await until(lambda: filled(stand, orders) == 2)
            await stays(lambda: sum(bool(stand.attempts(order)) for order in orders) == 2, stand)
            assert before - stand.lamports <= 2 * A_FILL_LAMPORTS
            metrics = (await stand.get("/metrics")).text
            assert 'keeper_outflow_lamports_total{what="rent"} 7.4472e+06' in metrics
            await stand.told("sending", lambda sentence: "daily_outflow_cap_lamports" in sentence)


async def test_23_the_journal_knows_to_the_lamport_what_left_the_key(tmp_path: Path) -> None:
    """Fills and their rent, refused fills, a ratchet: each day's sum is what the key lost, also after a restart."""
    async with Stand.open(tmp_path) as stand:
        market, poor = stand.world.market(), stand.world.trader(collateral_1e6=0)
        orders = [stand.order(stand.world.trader(), market) for _ in range(3)]
        refused = [stand.order(poor, market) for _ in range(3)]
        trailing = stand.world.place(
            stand.world.trader(),
            market,
            OrderType.TRAILING_STOP,
            stop_price_1e6=60 * USDC,
            trailing_distance_ppm=100_000,
        )
        before = stand.lamports
        async with stand.keeper():
            await until(lambda: stand.attempt_state(trailing) is AttemptState.FINALIZED)
            stand.world.set_price(market, 94 * USDC)
            await until(lambda: filled(stand, orders) == 3)
            await until(lambda: all(stand.state(order) is OrderState.FAILED for order in refused))
            fees = sum(stand.attempts(order)[0].fee_lamports or 0 for order in refused)
            assert fees >= 3 * 5_000, "what was refused was paid for"
            assert spent(stand) == before - stand.lamports
        async with stand.keeper():
            another = stand.order(stand.world.trader(), market, 101)
            await stand.reach(another, OrderState.FILLED)
            assert spent(stand) == before - stand.lamports


async def test_23_nothing_is_sent_into_an_empty_key(tmp_path: Path) -> None:
    """A burst of twenty with money for seven above the floor: seven are sent, and the rest when there is money."""
    floor = 50_000_000
    async with Stand.open(
        tmp_path, lamports=floor + 7 * A_FILL_LAMPORTS, fees={"min_balance_lamports": floor}
    ) as stand:
        market = stand.world.market()
        orders = [stand.order(stand.world.trader(), market) for _ in range(20)]
        async with stand.keeper() as keeper:
            await stand.known(*orders)
            stand.world.set_price(market, 94 * USDC)
            await until(lambda: filled(stand, orders) == 7)
            await stays(lambda: sum(bool(stand.attempts(order)) for order in orders) == 7, stand)
            assert stand.lamports >= floor
            ok, sentence = await stand.readiness("sending")
            assert not ok
            assert "fees.min_balance_lamports" in sentence
            assert str(keeper.keeper) in sentence
            stand.bank.airdrop(keeper.keeper, SOL)
            await until(lambda: filled(stand, orders) == 20, within_s=15)
            assert all(len(stand.attempts(order)) == 1 for order in orders), "none was refused for want of lamports"
