"""What a keeper still knows after a restart: what it tried, what its attempts may still cost, and what stopped it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptState
from keeper.domain.orders import OrderState
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


# -- what attempts may still cost


async def test_23_the_daily_cap_holds_for_attempts_in_flight_and_over_a_restart(tmp_path: Path) -> None:
    """A burst is decided before the first of it has cost anything: ten at about 5,100 lamports, and room for three."""
    cap = 16_000
    async with Stand.open(tmp_path, fees={"daily_cap_lamports": cap}) as stand:
        market = stand.world.market()
        orders = [stand.order(stand.world.trader(), market) for _ in range(10)]
        with ExitStack() as blocks:
            async with stand.keeper():
                await stand.known(*orders)
                blocks.enter_context(stand.held())  # or what is signed would grow too old to land
                stand.bank.hold_transactions()
                stand.world.set_price(market, 94 * USDC)
                await until(lambda: len(signed(stand, orders)) == 3)
                for order in orders:
                    if not stand.attempts(order):
                        row = await stand.reason(order, "daily_cap_lamports")
                        assert row.state is OrderState.TRIGGERED
                await until(lambda: all(stand.sent(order) for order in signed(stand, orders)))
                assert "daily_cap_lamports" in (await stand.readiness("sending"))[1]
            # Nothing is spent yet, by the journal: what could still be is rebuilt from the open attempts.
            async with stand.keeper():
                await stand.told("sending", lambda sentence: "daily_cap_lamports" in sentence)
                assert len(signed(stand, orders)) == 3
                stand.bank.release_transactions()
                blocks.close()
                await until(lambda: sum(stand.state(order) is OrderState.FILLED for order in orders) == 3)
                await stays(lambda: len(signed(stand, orders)) == 3, stand)
        landed = [stand.bank.history.get(stand.attempts(order)[0].signature) for order in signed(stand, orders)]
        assert 0 < sum(one.fee for one in landed if one is not None) <= cap


async def test_23_what_can_no_longer_land_gives_its_part_of_the_cap_back(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, fees={"daily_cap_lamports": 6_000}) as stand:
        market = stand.world.market()
        orders = [stand.order(stand.world.trader(), market) for _ in range(2)]
        async with stand.keeper():
            await stand.known(*orders)
            stand.bank.lose_transactions(1_000_000)
            stand.world.set_price(market, 94 * USDC)
            await until(lambda: len(signed(stand, orders)) == 1)
            (first,) = signed(stand, orders)
            await until(lambda: stand.sent(first))
            stand.outlive_blockhashes()
            stand.bank.lose_transactions(0)
            await until(lambda: stand.attempts(first)[0].state is AttemptState.EXPIRED)
            # Room for one again, whichever it is; it is looked for every ten seconds.
            await until(lambda: any(stand.state(order) is OrderState.FILLED for order in orders), within_s=20)


def signed(stand: Stand, orders: Sequence[Pubkey]) -> list[Pubkey]:
    """Those that were attempted."""
    return [order for order in orders if stand.attempts(order)]
