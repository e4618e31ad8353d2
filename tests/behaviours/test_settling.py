"""Many attempts that end at once: what they cost to ask about, and that one of them is not the others' trouble."""

from __future__ import annotations

import contextlib
import sqlite3

import anyio
import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import Attempt, Fate
from keeper.domain.orders import OrderState
from tests.behaviours.stand import USDC, Stand, stays
from tests.support import BOUND_S, until

pytestmark = pytest.mark.anyio


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
        metrics = (await stand.get("/metrics")).text
        assert f'keeper_outflow_lamports_total{{what="fee"}} {float(cost)}' in metrics
        assert 'keeper_outflow_lamports_total{what="rent"} 0.0' in metrics


@pytest.mark.file_journal
@pytest.mark.parametrize("end", ["confirmed", "failed", "finalized", "expired"])
async def test_one_end_that_the_journal_refuses_is_not_the_others_trouble(stand: Stand, end: str) -> None:
    """Not the disk: one row. The others of its batch are recorded, it waits by itself, and health says so."""
    async with stand.keeper():
        market, trader = stand.world.market(), stand.world.trader(collateral_1e6=0 if end == "failed" else 10**12)
        orders = [stand.order(trader, market) for _ in range(12)]
        odd, others = orders[5], [*orders[:5], *orders[6:]]
        await stand.known(*orders)
        with contextlib.closing(sqlite3.connect(stand.config.journal, isolation_level=None)) as other:
            other.execute(
                f"CREATE TRIGGER refuse BEFORE UPDATE ON attempts WHEN NEW.state = '{end}' "
                f"AND NEW.order_address = '{odd}' BEGIN SELECT RAISE(ABORT, 'this one not'); END"
            )
            with stand.held():
                if end == "expired":
                    stand.bank.lose_transactions(1_000_000)
                stand.world.set_price(market, 94 * USDC)
                await until(lambda: all(stand.sent(order) for order in orders))
                if end == "expired":
                    stand.outlive_blockhashes()
            await until(lambda: all(ended(stand, order, end) for order in others))
            await stand.told("attempts", lambda sentence: "this one not" in sentence)
            assert not ended(stand, odd, end)
            assert str(stand.attempts(odd)[0].signature) in (await stand.readiness("attempts"))[1]
            assert (await stand.get("/readyz")).status_code == 200, "the keeper serves all others"
            await stays(lambda: len(stand.attempts(odd)) == 1, stand)
            other.execute("DROP TRIGGER refuse")
        await until(lambda: ended(stand, odd, end))
        await stand.told("attempts", lambda sentence: sentence.endswith(" in flight"))
        stand.bank.lose_transactions(0)


def ended(stand: Stand, order: Pubkey, end: str) -> bool:
    """Whether the journal says that of the first attempt at it, or what comes after."""
    state = stand.attempts(order)[0].state.value
    return state == end or (end, state) == ("confirmed", "finalized")


@pytest.mark.file_journal
async def test_a_refused_end_is_counted_and_after_a_restart_it_is_looked_up_again(stand: Stand) -> None:
    with contextlib.ExitStack() as cleanup:
        async with stand.keeper():
            market = stand.world.market()
            order = stand.order(stand.world.trader(), market)
            await stand.known(order)
            other = cleanup.enter_context(
                contextlib.closing(sqlite3.connect(stand.config.journal, isolation_level=None))
            )
            other.execute(
                "CREATE TRIGGER refuse BEFORE UPDATE ON attempts WHEN NEW.state = 'confirmed' "
                "BEGIN SELECT RAISE(ABORT, 'not now'); END"
            )
            stand.world.set_price(market, 94 * USDC)
            await stand.told("attempts", lambda sentence: "not now" in sentence)
            with anyio.fail_after(BOUND_S):
                while "keeper_attempts_unrecorded 1.0" not in (await stand.get("/metrics")).text:  # noqa: ASYNC110 - asked over HTTP
                    await anyio.sleep(0.1)
            assert stand.attempts(order)[0].state.live
        other.execute("DROP TRIGGER refuse")
    sends = len(stand.sends)
    async with stand.keeper():
        await stand.reach(order, OrderState.FILLED)
        assert len(stand.attempts(order)) == 1
        assert len(stand.sends) == sends, "what landed is only written down"
