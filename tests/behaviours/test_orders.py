"""Whether an order may be acted on: an order that is made again at its address, a user's cancel in the air, and what
is left of orders that are gone.
"""

from __future__ import annotations

import base64
from pathlib import Path

import anyio
import httpx
import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptKind, AttemptState
from keeper.domain.orders import OnchainStatus, OrderState, OrderType
from tests.behaviours.stand import USDC, Stand, stays
from tests.behaviours.test_durable_first import place_by_api
from tests.chaos.proxy import Fault, Kind
from tests.http.http_world import signed
from tests.support import BOUND_S, Trader, until

pytestmark = pytest.mark.anyio

ONE_TRY = {"retry_budget": 1}


async def relay_cancel(stand: Stand, trader: Trader, order: Pubkey, status: int = 202) -> None:
    """The trader cancels by the keeper's API, which accepts it, the signed cancel being on its way, or answers so."""
    assert stand.ready is not None
    async with httpx.AsyncClient(base_url=stand.ready.http_url) as http:
        prepared = (await http.post(f"/v1/orders/{order}/cancel")).raise_for_status().json()
        wire = base64.b64encode(signed(prepared, trader.key)).decode()
        answer = await http.post("/v1/orders/execute", json={"id": prepared["id"], "signed_transaction": wire})
        assert answer.status_code == status


def make_again(stand: Stand, trader: Trader, order: Pubkey, market: Pubkey) -> None:
    """The trader closes an ended order and places one with the same id: it is at the same address."""
    ended = stand.world.order(order)
    assert ended is not None
    stand.world.close(trader, order)
    stand.bank.advance_clock(2)  # an order is known from the one before it by the second of its making
    assert stand.order(trader, market, order_id=ended.order_id) == order


async def filled_once(stand: Stand, order: Pubkey) -> None:
    """The keeper fills it, by one execution, and says so."""
    row = await stand.reach(order, OrderState.FILLED)
    assert row.reason == "Filled by this keeper, with its position."
    filled, position = stand.world.order(order), stand.world.position(order)
    assert filled is not None
    assert filled.status is OnchainStatus.FILLED
    assert position is not None
    assert position.size_1e6 == filled.size_1e6
    assert stand.landed(order) == 1


# -- an order that is made again at its address


async def test_an_order_made_again_in_the_slot_of_its_cancel_is_noted_and_filled(stand: Stand) -> None:
    """In one slot nobody can tell the cancel from the new order: what it is, is read, and the journal knows."""
    market, trader = stand.world.market(), stand.world.trader()
    order = stand.order(trader, market, 90)
    first = stand.world.order(order)
    assert first is not None
    async with stand.keeper():
        await stand.known(order)
        with stand.held():
            stand.world.cancel(trader, order)
            stand.world.close(trader, order)
            assert stand.order(trader, market, 91, order_id=first.order_id) == order

        def noted() -> bool:
            row = stand.journal.order(order)
            return row is not None and (row.state, row.order.stop_price_1e6) == (OrderState.OPEN, 91 * USDC)

        await until(noted)
        stand.world.set_price(market, 90 * USDC + USDC // 2)
        await filled_once(stand, order)


async def test_an_order_that_was_cancelled_by_the_api_and_made_again_is_executed(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, rpc={"snapshot_every_s": 0.5}) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
            await relay_cancel(stand, trader, order)
            await stand.reach(order, OrderState.CANCELLED)
            make_again(stand, trader, order, market)
            await stand.reach(order, OrderState.OPEN)
            stand.world.set_price(market, 94 * USDC)
            await filled_once(stand, order)
            assert (await stand.get("/readyz")).status_code == 200


@pytest.mark.parametrize("budget", [1, 5])
async def test_an_order_that_failed_and_was_made_again_by_a_user_who_can_pay_is_executed(
    tmp_path: Path, budget: int
) -> None:
    """With a budget of one it failed for good, else it waited for its user's account; both ended with that order."""
    async with Stand.open(tmp_path, execution={"retry_budget": budget}, rpc={"snapshot_every_s": 0.5}) as stand:
        market, trader = stand.world.market(), stand.world.trader(collateral_1e6=0)
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            row = await stand.reach(order, OrderState.FAILED)
            assert "InsufficientCollateral" in row.reason
            stand.world.set_price(market, 100 * USDC)
            stand.world.cancel(trader, order)
            await stand.reach(order, OrderState.CANCELLED)
            stand.world.deposit(trader, 1_000_000 * USDC)
            make_again(stand, trader, order, market)
            await stand.reach(order, OrderState.OPEN)
            stand.world.set_price(market, 94 * USDC)
            await filled_once(stand, order)


async def test_an_order_that_failed_for_good_and_was_made_again_has_its_whole_budget(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, execution=ONE_TRY, rpc={"snapshot_every_s": 0.5}) as stand:
        market, trader = stand.world.market(), stand.world.trader(collateral_1e6=0)
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            row = await stand.reach(order, OrderState.FAILED)
            assert "retry budget is used up" in row.reason
            assert row.budget_used == 1
            stand.world.set_price(market, 100 * USDC)
            stand.world.cancel(trader, order)
            await stand.reach(order, OrderState.CANCELLED)
            make_again(stand, trader, order, market)
            row = await stand.reach(order, OrderState.OPEN)
            assert row.budget_used == 0
            assert len(stand.attempts(order)) == 1
            stand.world.set_price(market, 94 * USDC)
            row = await stand.reach(order, OrderState.FAILED)
            assert "retry budget is used up" in row.reason
            assert row.budget_used == 1
            assert [one.number for one in stand.attempts(order)] == [1, 1], "it is another order"


@pytest.mark.parametrize("before", ["failed", "cancelled by the API"])
async def test_an_order_that_is_made_again_while_the_keeper_is_down_is_executed(tmp_path: Path, before: str) -> None:
    async with Stand.open(tmp_path, execution=ONE_TRY) as stand:
        market = stand.world.market()
        trader = stand.world.trader(collateral_1e6=0 if before == "failed" else 1_000_000 * USDC)
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
            if before == "failed":
                stand.world.set_price(market, 94 * USDC)
                await stand.reach(order, OrderState.FAILED)
                stand.world.set_price(market, 100 * USDC)
            else:
                await relay_cancel(stand, trader, order)
                await stand.reach(order, OrderState.CANCELLED)
        if before == "failed":
            stand.world.cancel(trader, order)
            stand.world.deposit(trader, 1_000_000 * USDC)
        make_again(stand, trader, order, market)
        async with stand.keeper():
            row = await stand.reach(order, OrderState.OPEN)
            assert row.budget_used == 0
            stand.world.set_price(market, 94 * USDC)
            await filled_once(stand, order)


# -- a user's cancel in the air


PAUSES = {"first_pause_s": 2.0, "longest_pause_s": 2.0, "resend_every_s": 0.3}
PAUSE_OVER_S = 2.6
"""After so long a pause is over, with its jitter. It is long enough to relay a cancel meanwhile."""


async def one_that_expired(stand: Stand, order: Pubkey, market: Pubkey) -> None:
    """An attempt at it comes to nothing, so it is tried again after a pause. The price meets it, and keeps to."""
    await stand.known(order)
    stand.bank.lose_transactions(1_000_000)
    stand.world.set_price(market, 94 * USDC)
    await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
    stand.outlive_blockhashes()
    await until(lambda: stand.attempt_state(order) is AttemptState.EXPIRED)
    assert "it is tried again" in (await stand.reach(order, OrderState.OPEN)).reason


def executions(stand: Stand, order: Pubkey) -> int:
    """How many executions of it were signed."""
    return sum(attempt.kind is AttemptKind.EXECUTE for attempt in stand.attempts(order))


async def test_no_execution_is_signed_while_a_users_cancel_is_in_the_air_though_a_pause_ends(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, execution=PAUSES) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        async with stand.keeper():
            await one_that_expired(stand, order, market)
            stand.bank.lose_transactions(0)
            stand.bank.hold_transactions()
            await relay_cancel(stand, trader, order)
            await stand.reach(order, OrderState.CANCELLING)
            told = stand.journal.changes_of(order)
            with stand.held():  # so that the cancel can still land when the pause ends
                await anyio.sleep(PAUSE_OVER_S)
            await stays(lambda: executions(stand, order) == 1, stand)
            assert stand.journal.changes_of(order) == told
            stand.bank.release_transactions()
            await stand.reach(order, OrderState.CANCELLED)
            await stays(lambda: executions(stand, order) == 1, stand, blocks=30)
            assert stand.state(order) is OrderState.CANCELLED
        cancelled = stand.world.order(order)
        assert cancelled is not None
        assert cancelled.status is OnchainStatus.CANCELLED
        assert stand.world.position(order) is None


@pytest.mark.parametrize("tried", [False, True], ids=["never tried", "its pause over"])
async def test_an_order_whose_relayed_cancel_can_no_longer_land_is_executed_again(tmp_path: Path, tried: bool) -> None:
    async with Stand.open(tmp_path, execution=PAUSES) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
            if tried:
                await one_that_expired(stand, order, market)
            stand.bank.lose_transactions(1_000_000)
            await relay_cancel(stand, trader, order)
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.CANCELLING)
            with stand.held():
                await anyio.sleep(PAUSE_OVER_S)
            await stays(lambda: executions(stand, order) == tried, stand)
            stand.outlive_blockhashes()
            stand.bank.lose_transactions(0)
            await filled_once(stand, order)
            states = [one.state for one in stand.attempts(order) if one.kind is AttemptKind.RELAY]
            assert states == [AttemptState.EXPIRED]


async def test_an_order_that_expires_under_a_cancel_that_comes_to_nothing_is_told_to_be_expired(stand: Stand) -> None:
    """The cancel's end was noted as of a later slot than the book's, and what the book said then was old news."""
    market, trader = stand.world.market(), stand.world.trader()
    order = stand.order(trader, market, expires_at=stand.bank.chain.tip.time + 60)
    async with stand.keeper():
        await stand.known(order)
        stand.bank.lose_transactions(1_000_000)
        await relay_cancel(stand, trader, order)
        stand.bank.advance_clock(120)
        stand.outlive_blockhashes()
        await stand.reach(order, OrderState.EXPIRED)


async def test_an_order_whose_relayed_cancel_fails_on_chain_is_executed_again(tmp_path: Path) -> None:
    """Where the cancel lands the order is not pending; where the keeper reads it, it is again."""
    async with Stand.open(tmp_path) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
            stand.bank.hold_transactions()
            await relay_cancel(stand, trader, order)
            stand.world.set_price(market, 94 * USDC)
            await stays(lambda: stand.state(order) is OrderState.CANCELLING, stand)
            with stand.held():
                stand.bank.advance()
                pending = stand.bank.account(order)
                stand.world.cancel(trader, order)
                stand.bank.release_transactions()
                stand.bank.advance()
                stand.bank.set_account(order, pending)
            await until(lambda: any(one.state is AttemptState.FAILED for one in stand.attempts(order)))
            await filled_once(stand, order)
            (relayed,) = [one for one in stand.attempts(order) if one.kind is AttemptKind.RELAY]
            assert relayed.error_name == "OrderNotPending"


async def test_an_order_whose_relayed_cancel_fails_because_it_was_closed_unheard_is_dropped(tmp_path: Path) -> None:
    """It was cancelled and closed by wallet, of which the keeper heard nothing. It was noted as rejected."""
    async with Stand.open(tmp_path) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
            stand.bank.hold_transactions()
            await relay_cancel(stand, trader, order)
            stand.scripts[0].break_news(Fault(Kind.NEWS_DROPPED), kind="programNotification", times=1_000)
            stand.world.cancel(trader, order)
            stand.world.close(trader, order)
            stand.bank.release_transactions()
            await until(lambda: stand.attempts(order)[0].state is AttemptState.FAILED)
            row = stand.row(order)
            assert row is not None
            assert (row.state, row.reason) == (OrderState.DROPPED, "Its account is gone: its user closed it.")
            shown = (await stand.get("/v1/markets")).json()["markets"]
            assert [market["resting"] for market in shown] == [[]], "the book does not go on with it"


async def test_an_order_that_was_placed_by_the_api_and_closed_unheard_is_dropped(tmp_path: Path) -> None:
    """Its placing landed, and it was cancelled and closed by wallet before its account could be read."""
    async with Stand.open(tmp_path) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        async with stand.keeper() as ready:
            stand.scripts[0].break_news(Fault(Kind.NEWS_DROPPED), kind="programNotification", times=1_000)
            with stand.held():
                stand.bank.hold_transactions()
                order = await place_by_api(ready.http_url, stand.world, market, trader)
                await until(lambda: stand.bank._held)
                # All in one block and in one turn, so that no reading of any commitment can see the order.
                stand.bank.release_transactions()
                stand.world.cancel(trader, order)
                stand.world.close(trader, order)
            row = await stand.reach(order, OrderState.DROPPED)
            assert row.reason == "Its user's transaction landed. Its account is gone: its user closed it."


async def test_the_landing_of_a_placing_does_not_take_back_a_cancel_that_came_after_it(tmp_path: Path) -> None:
    """Whoever waits for the cancel was answered `open`: by the placing, which was confirmed in between."""
    async with Stand.open(tmp_path) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        async with stand.keeper() as ready:
            with stand.held():
                order = await place_by_api(ready.http_url, stand.world, market, trader)
                await stand.reach(order, OrderState.OPEN)  # as its block was told of, which is not confirmed yet
                stand.bank.hold_transactions()
                await relay_cancel(stand, trader, order)
            await until(lambda: stand.attempts(order)[0].state is AttemptState.FINALIZED)
            assert stand.state(order) is OrderState.CANCELLING
            stand.bank.release_transactions()
            await stand.reach(order, OrderState.CANCELLED)


# -- what is gone


async def records(stand: Stand) -> float:
    """How many orders the keeper remembers something of beside their accounts."""
    lines = (await stand.get("/metrics")).text.splitlines()
    (line,) = [line for line in lines if line.startswith("keeper_order_records ")]
    return float(line.rpartition(" ")[2])


async def test_orders_that_are_cancelled_and_closed_leave_nothing(tmp_path: Path) -> None:
    """Trailing stops that were ratcheted, and orders that failed for good."""
    async with Stand.open(tmp_path, execution=ONE_TRY) as stand:
        market = stand.world.market()
        traders = [stand.world.trader() for _ in range(5)]
        poor = stand.world.trader(collateral_1e6=0)
        trailing = [
            (trader, stand.world.place(trader, market, OrderType.TRAILING_STOP, trailing_distance_ppm=50_000))
            for trader in traders
            for _ in range(4)
        ]
        failing = [(poor, stand.order(poor, market, 150)) for _ in range(10)]
        async with stand.keeper():
            for _, order in failing:
                await stand.reach(order, OrderState.FAILED)
            await stand.known(*[order for _, order in trailing])
            stand.world.set_price(market, 110 * USDC)
            await until(lambda: all(stand.attempt_state(order) is AttemptState.FINALIZED for _, order in trailing))
            assert await records(stand) >= len(failing)
            for trader, order in [*trailing, *failing]:
                stand.world.cancel(trader, order)
            for _, order in [*trailing, *failing]:
                await stand.reach(order, OrderState.CANCELLED)
            for trader, order in [*trailing, *failing]:
                stand.world.close(trader, order)
            with anyio.fail_after(BOUND_S):
                while await records(stand):  # noqa: ASYNC110 - asked over HTTP
                    await anyio.sleep(0.05)
            assert all(stand.state(order) is OrderState.CANCELLED for _, order in [*trailing, *failing])
