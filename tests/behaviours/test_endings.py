"""What became of an order: a fill of this keeper's stays its own, and what ended is read once, however much it is."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from solders.account import Account
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import AttemptState, Fate
from keeper.domain.orders import OnchainStatus, OrderState
from keeper.solana.watch import ONE_ENDPOINT_SLOTS
from keeper.venue.venue import ORDER_DISCRIMINATOR
from tests.behaviours.edited_node import Call
from tests.behaviours.stand import USDC, Stand, stays
from tests.behaviours.test_orders import records
from tests.behaviours.test_restarts import refused_once
from tests.chaos.proxy import Fault, Kind
from tests.support import PROGRAM, Trader, until

pytestmark = pytest.mark.anyio

OURS: Final = "Filled by this keeper, with its position."
ORDER_NOT_PENDING: Final = 6010


async def one_more_ends(stand: Stand, trader: Trader, market: Pubkey) -> None:
    """A new order is cancelled and its ending read, so that what a restart has to read of earlier ones is read too."""
    order = stand.order(trader, market, 50)
    await stand.known(order)
    stand.world.cancel(trader, order)
    await stand.reach(order, OrderState.CANCELLED)


async def filled(stand: Stand, market: Pubkey, *orders: Pubkey) -> None:
    """The running keeper fills them, for good."""
    await stand.known(*orders)
    stand.world.set_price(market, 94 * USDC)
    for order in orders:
        await stand.reach(order, OrderState.FILLED)
        await until(lambda order=order: stand.attempt_state(order) is AttemptState.FINALIZED)  # type: ignore[misc]


# -- this keeper's own fills


async def test_a_fill_of_this_keepers_stays_its_own_over_restarts(stand: Stand, trader: Trader, market: Pubkey) -> None:
    order = stand.order(trader, market)
    async with stand.keeper():
        await filled(stand, market, order)
        before, told = stand.row(order), stand.journal.changes_of(order)
    assert before is not None
    assert (before.state, before.reason) == (OrderState.FILLED, OURS)
    assert before.position is not None
    for _ in range(2):
        async with stand.keeper():
            await one_more_ends(stand, trader, market)
            await stays(lambda: stand.row(order) == before, stand)
            assert stand.journal.changes_of(order) == told
    assert stand.landed(order) == 1


async def test_a_fill_without_its_position_stays_failed_over_a_restart(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    order = stand.order(trader, market)
    async with stand.keeper() as keeper:
        await stand.known(order)
        resting = stand.world.order(order)
        assert resting is not None
        position = keeper.program.position_of(resting, keeper.keeper)

        def hide(call: Call, reply: dict[str, Any]) -> None:
            if call["method"] == "getMultipleAccounts" and str(position) in call["params"][0]:
                reply["result"]["value"][call["params"][0].index(str(position))] = None

        stand.nodes[0].edit = hide
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(order, OrderState.FAILED)
        await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
        await one_more_ends(stand, trader, market)
        before, told = stand.row(order), stand.journal.changes_of(order)
    assert before is not None
    assert before.state is OrderState.FAILED
    assert "position is not there" in before.reason
    assert stand.attempts(order)[-1].fate is Fate.NO_POSITION
    async with stand.keeper():
        await one_more_ends(stand, trader, market)
        await stays(lambda: stand.row(order) == before, stand)
        assert stand.journal.changes_of(order) == told
        assert str(order) in (await stand.get("/v1/failures")).text
    assert len(stand.attempts(order)) == 1


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
async def test_a_fill_of_this_keepers_that_its_user_closed_since_stays_filled(
    stand: Stand, trader: Trader, market: Pubkey, down: bool
) -> None:
    order = stand.order(trader, market)
    async with stand.keeper():
        await filled(stand, market, order)
        before, told = stand.row(order), stand.journal.changes_of(order)
        if not down:
            stand.world.close(trader, order)
            await one_more_ends(stand, trader, market)
            await stays(lambda: stand.row(order) == before, stand)
    if down:
        stand.world.close(trader, order)
    async with stand.keeper():
        await one_more_ends(stand, trader, market)
        await stays(lambda: stand.row(order) == before, stand)
        assert stand.journal.changes_of(order) == told
    assert before is not None
    assert (before.state, before.reason) == (OrderState.FILLED, OURS)


# -- what is known to be expired


async def test_after_a_restart_nothing_is_tried_that_is_known_to_be_expired(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    now = stand.bank.chain.tip.time
    expiring = [stand.order(trader, market, expires_at=now + 60) for _ in range(40)]
    async with stand.keeper():
        await stand.known(*expiring)
        stand.bank.advance_clock(120)
        stand.world.set_price(market, 100 * USDC)
        for order in expiring:
            await stand.reach(order, OrderState.EXPIRED)
        stand.world.set_price(market, 94 * USDC)
    rows = [stand.row(order) for order in expiring]
    lasting = stand.order(trader, market)
    async with stand.keeper():
        await filled(stand, market, lasting)  # the same price meets them all
        await stays(lambda: not any(stand.attempts(order) for order in expiring), stand)
        assert {send.signature for send in stand.sends} == {attempt.signature for attempt in stand.attempts(lasting)}
        for order, before in zip(expiring, rows, strict=True):
            after = stand.row(order)
            assert before is not None
            assert after is not None, "what ended a moment ago is not old"
            assert (after.state, after.reason, after.updated_at) == (before.state, before.reason, before.updated_at)


async def test_what_expired_and_was_cancelled_while_the_keeper_was_down_is_called_cancelled(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    """Only a keeper that went on found that out: a start looked at what rested alone."""
    order = stand.order(trader, market, expires_at=stand.bank.chain.tip.time + 60)
    async with stand.keeper():
        await stand.known(order)
        stand.bank.advance_clock(120)
        stand.world.set_price(market, 100 * USDC)
        await stand.reach(order, OrderState.EXPIRED)
    stand.world.cancel(trader, order)
    async with stand.keeper():
        await stand.reach(order, OrderState.CANCELLED)


# -- how often an ending is read


async def test_what_ended_is_not_read_again_at_a_start(stand: Stand, trader: Trader, market: Pubkey) -> None:
    orders = [stand.order(trader, market) for _ in range(150)]
    async with stand.keeper():
        await stand.known(*orders)
        for order in orders:
            stand.world.cancel(trader, order)
        for order in orders:
            await stand.reach(order, OrderState.CANCELLED)
    rows = [stand.row(order) for order in orders]
    stand.asked.clear()
    async with stand.keeper():
        await one_more_ends(stand, trader, market)
        await stays(lambda: [stand.row(order) for order in orders] == rows, stand)
        read = [
            address for call in stand.asked if call["method"] == "getMultipleAccounts" for address in call["params"][0]
        ]
        assert not {str(order) for order in orders} & {*read}
        assert len(read) < 20


async def test_an_order_that_ended_while_the_keeper_was_down_is_read_and_gets_its_state(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    cancelled, taken, closed, tried = [stand.order(trader, market) for _ in range(4)]
    async with stand.keeper():
        await stand.known(cancelled, taken, closed, tried)
        await refused_once(stand, market, tried)
        for order in (cancelled, taken, closed, tried):
            await stand.reach(order, OrderState.OPEN)
    stand.world.set_price(market, 94 * USDC)
    stand.world.cancel(trader, cancelled)
    stand.world.execute(taken, stand.world.wallet())
    stand.world.cancel(trader, closed)
    stand.world.close(trader, closed)
    stand.world.execute(tried, stand.world.wallet())
    async with stand.keeper():
        for order, state, reason in (
            (cancelled, OrderState.CANCELLED, "Its user cancelled it."),
            (taken, OrderState.FILLED, "Another keeper filled it."),
            (closed, OrderState.DROPPED, "Its account is gone: its user closed it."),
            (tried, OrderState.FILLED, "Another keeper filled it."),
        ):
            row = await stand.reach(order, state)
            assert row.reason == reason


async def test_a_slot_that_the_chain_has_not_reached_holds_up_no_other_orders_ending(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    """A node tells of cancels as of a slot ahead, as far as it is believed: readings as new as that do not come."""
    misdated = [stand.order(trader, market) for _ in range(30)]
    others = [stand.order(trader, market) for _ in range(30)]
    async with stand.keeper():
        await stand.known(*misdated, *others)
        with stand.held():
            stand.bank.advance()
            stand.scripts[0].break_news(Fault(Kind.NEWS_DROPPED), kind="programNotification", times=len(misdated))
            for order in misdated:
                stand.world.cancel(trader, order)
            await until(lambda: stand.proxies[0].injected[Kind.NEWS_DROPPED] == len(misdated))
            told_at = anyio.current_time()
            for order in misdated:
                stand.tell(order, stand.bank.chain.tip.slot + ONE_ENDPOINT_SLOTS - 1)
            for order in others:
                stand.world.cancel(trader, order)
            for _ in range(10):
                stand.bank.advance()
            for order in others:
                row = await stand.reach(order, OrderState.CANCELLED)
                assert row.reason == "Its user cancelled it."
            waiting = {stand.state(order) for order in misdated} == {OrderState.OPEN}
            assert waiting or anyio.current_time() - told_at > 10, "they wait for such a reading, for 10 s"
            for order in misdated:  # and not for ever
                row = await stand.reach(order, OrderState.CANCELLED)
                assert row.reason == "Its user cancelled it."


# -- what can't be read, and what is not true


def spoil(stand: Stand, order: Pubkey) -> Account:
    """Make the order's account one that is no order; what it was."""
    account = stand.bank.account(order)
    assert account is not None
    stand.bank.set_account(order, Account(account.lamports, ORDER_DISCRIMINATOR + b"\xff" * 3, PROGRAM.id))
    return account


async def test_an_order_whose_account_becomes_malformed_is_failed_until_it_reads_well_again(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    order, other = stand.order(trader, market), stand.order(trader, market)
    async with stand.keeper():
        await stand.known(order, other)
        account = spoil(stand, order)
        row = await stand.reach(order, OrderState.FAILED)
        assert "can't be read" in row.reason
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(other, OrderState.FILLED)
        await stays(lambda: not stand.attempts(order), stand)
        stand.world.set_price(market, 100 * USDC)
        stand.bank.set_account(order, account)
        await stand.reach(order, OrderState.OPEN)
        stand.world.set_price(market, 94 * USDC)
        row = await stand.reach(order, OrderState.FILLED)
        assert row.reason == OURS
        assert stand.landed(order) == 1


async def test_a_snapshot_takes_no_malformed_account_for_a_closed_one(tmp_path: Path) -> None:
    """A list of pending orders lacks it, and it is there all the same."""
    async with Stand.open(tmp_path, rpc={"snapshot_every_s": 0.2}) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
            account = spoil(stand, order)
            await stand.reason(order, "can't be read")
            await one_more_ends(stand, trader, market)
            await stays(lambda: stand.state(order) is OrderState.FAILED, stand, blocks=100)
            stand.bank.set_account(order, account)
            await stand.reach(order, OrderState.OPEN)
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.FILLED)


async def test_a_restart_takes_no_malformed_account_for_a_closed_one(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    order = stand.order(trader, market)
    async with stand.keeper():
        await stand.known(order)
    account = spoil(stand, order)
    async with stand.keeper():
        row = await stand.reason(order, "can't be read")
        assert row.state is OrderState.FAILED
        await one_more_ends(stand, trader, market)
        assert stand.state(order) is OrderState.FAILED
        stand.bank.set_account(order, account)
        await stand.reach(order, OrderState.OPEN)
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(order, OrderState.FILLED)


async def test_what_could_not_be_read_and_is_closed_unheard_is_found_by_a_list(tmp_path: Path) -> None:
    """It is not in the book, so that a list that lacks it said nothing of it, and it stayed failed for good."""
    async with Stand.open(tmp_path, rpc={"snapshot_every_s": 0.2}) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
        spoil(stand, order)
        async with stand.keeper():
            await stand.reason(order, "can't be read")
            stand.scripts[0].break_news(Fault(Kind.NEWS_DROPPED), kind="programNotification", times=1_000)
            stand.bank.set_account(order, None)
            row = await stand.reach(order, OrderState.DROPPED)
            assert row.reason == "Its account is gone: its user closed it."
            with anyio.fail_after(10):
                while await records(stand):  # noqa: ASYNC110 - asked over HTTP
                    await anyio.sleep(0.1)


async def test_a_rehearsal_that_finds_the_order_not_pending_has_it_read_again(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    order = stand.order(trader, market)
    async with stand.keeper():
        await stand.known(order)
        await refused_once(stand, market, order)  # so that the next attempt is rehearsed
        lies: list[Call] = []

        def lie_once(call: Call, reply: dict[str, Any]) -> None:
            if call["method"] == "simulateTransaction" and not lies:
                lies.append(call)
                simulated = VersionedTransaction.from_bytes(base64.b64decode(call["params"][0]))
                last = len(simulated.message.instructions) - 1
                error = {"InstructionError": [last, {"Custom": ORDER_NOT_PENDING}]}
                reply["result"]["value"] = {"err": error, "logs": [], "unitsConsumed": 5_000}

        stand.nodes[0].edit = lie_once
        stand.world.set_price(market, 94 * USDC)
        row = await stand.reach(order, OrderState.FILLED)
        assert lies
        assert row.reason == OURS
        assert stand.landed(order) == 1
        filled = stand.world.order(order)
        assert filled is not None
        assert filled.status is OnchainStatus.FILLED
        assert stand.world.position(order) is not None
