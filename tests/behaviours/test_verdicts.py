"""Behaviours 6, 7 and 9, and what each refusal of the program means for its order."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptState, Fate
from keeper.domain.orders import OnchainStatus, OrderState, OrderType
from keeper.localnet import Commitment
from keeper.venue.idl import PACKAGED
from tests.behaviours.stand import SOL, USDC, Stand, stays
from tests.chaos.proxy import Fault, Kind
from tests.support import Refused, Trader, until

pytestmark = pytest.mark.anyio


async def meanwhile(stand: Stand, order: Pubkey, market: Pubkey, act: Callable[[], object]) -> None:
    """The keeper's transaction is on its way while `act` happens on chain, and arrives after."""
    await stand.known(order)
    stand.bank.hold_transactions()
    stand.world.set_price(market, 94 * USDC)
    await until(lambda: stand.sent(order))
    act()
    stand.bank.release_transactions()


# -- 6: what a success is


async def test_6_a_fill_is_a_success_when_its_position_was_read_back(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    async with stand.keeper() as keeper:
        order = stand.order(trader, market, size_1e6=2_500_000)
        await stand.known(order)
        stand.world.set_price(market, 94 * USDC)
        row = await stand.reach(order, OrderState.FILLED)
        position = stand.world.position(order)
        assert position is not None
        assert (position.size_1e6, position.user, position.market) == (2_500_000, trader.address, market)
        filled = stand.world.order(order)
        assert filled is not None
        assert row.position == keeper.program.position_of(filled, keeper.keeper)
        await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)


async def test_6_an_order_that_the_call_expired_is_told_apart(stand: Stand, trader: Trader, market: Pubkey) -> None:
    """The instruction succeeds and fills nothing: the order was past its expiry when it arrived."""
    async with stand.keeper():
        order = stand.order(trader, market, expires_at=stand.bank.chain.tip.time + 60)
        await meanwhile(stand, order, market, lambda: stand.bank.advance_clock(61))
        await stand.reach(order, OrderState.EXPIRED)
        (attempt,) = stand.attempts(order)
        assert (attempt.state.live or attempt.state is AttemptState.FINALIZED, attempt.fate) == (
            True,
            Fate.EXPIRED_ORDER,
        )
        landed = stand.bank.history.get(attempt.signature)
        assert landed is not None
        assert landed.err is None, "no error: only the order's status tells"
        assert stand.world.position(order) is None


async def test_6_no_error_is_not_enough_while_the_order_reads_pending(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    async with stand.keeper():
        order = stand.order(trader, market)
        await stand.known(order)
        with stand.held():
            stand.bank.advance()
            before = stand.bank.account(order)
            stand.world.set_price(market, 94 * USDC)
            await until(lambda: stand.world.position(order))
            filled = stand.bank.account(order)
            stand.bank.set_account(order, before)
        await stays(lambda: stand.state(order) is not OrderState.FILLED, stand)
        assert stand.attempts(order)[-1].state.in_flight
        stand.bank.set_account(order, filled)
        await stand.reach(order, OrderState.FILLED)
        assert len(stand.attempts(order)) == 1


# -- 7: the order's own market


async def test_7_another_markets_price_executes_nothing_and_the_program_refuses_it(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    world = stand.world
    other = world.market(price_1e6=90 * USDC)
    async with stand.keeper() as keeper:
        order = stand.order(trader, market)
        await stand.known(order)
        world.set_price(other, 80 * USDC)
        await stays(lambda: not stand.attempts(order), stand)

        # Somebody who passes the other market is refused by the program of this revision.
        known = world.order(order)
        assert known is not None
        right = keeper.program.execute(known, keeper.keeper)
        assert right.accounts[0].pubkey == market, "the keeper names the order's own market"
        rival = world.wallet()
        accounts = {"market": other, "order": order, "executor": rival.pubkey()}
        fields = {"order.user": known.user, "order.market": known.market, "order.order_id": known.order_id}
        wrong = keeper.program.instruction("execute_conditional_order", {}, accounts, fields)
        with pytest.raises(Refused):
            world.land(wrong, signer=rival)
        assert world.position(order) is None


# -- 9: somebody else was first


async def test_9_a_lost_race_is_read_again_and_stops(stand: Stand, trader: Trader, market: Pubkey) -> None:
    rival = stand.world.wallet(100 * SOL)
    async with stand.keeper():
        order = stand.order(trader, market)
        await meanwhile(stand, order, market, lambda: stand.world.execute(order, rival))
        await until(lambda: stand.attempt_state(order) is AttemptState.FAILED)
        row = await stand.reach(order, OrderState.FILLED)
        (attempt,) = stand.attempts(order)
        assert (attempt.fate, attempt.error_name) == (Fate.LOST_RACE, "OrderNotPending")
        assert "nother" in row.reason
        assert row.budget_used == 0
        sent = len(stand.sent(order))
        stand.world.set_price(market, 90 * USDC)
        await stays(lambda: len(stand.sent(order)) == sent, stand)


async def test_9_a_cancel_that_came_first_stops_it_too(stand: Stand, trader: Trader, market: Pubkey) -> None:
    async with stand.keeper():
        order = stand.order(trader, market)
        await meanwhile(stand, order, market, lambda: stand.world.cancel(trader, order))
        await until(lambda: stand.attempt_state(order) is AttemptState.FAILED)
        await stand.reach(order, OrderState.CANCELLED)
        assert stand.attempts(order)[-1].fate is Fate.LOST_RACE
        stand.world.set_price(market, 90 * USDC)
        await stays(lambda: len(stand.attempts(order)) == 1, stand)


# -- the other refusals


async def test_a_price_that_moved_back_costs_no_budget_and_the_order_rests(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    async with stand.keeper():
        order = stand.order(trader, market)
        await meanwhile(stand, order, market, lambda: stand.world.set_price(market, 96 * USDC))
        await until(lambda: stand.attempt_state(order) is AttemptState.FAILED)
        row = await stand.reach(order, OrderState.OPEN)
        assert row.budget_used == 0
        assert "ConditionNotMet" in row.reason
        assert stand.attempts(order)[-1].fate is Fate.PRICE_MOVED_BACK
        await stays(lambda: len(stand.attempts(order)) == 1, stand)
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(order, OrderState.FILLED)
        assert [a.number for a in stand.attempts(order)] == [1, 2]


async def test_a_price_that_moved_back_is_known_by_the_programs_own_word_for_it(tmp_path: Path) -> None:
    """With an IDL whose table of errors is another build's; and again when the node has no logs of the transaction."""
    idl = json.loads(PACKAGED["0.2"].read_text())
    for error in idl["errors"]:
        error["code"] += 1
    (tmp_path / "idl.json").write_text(json.dumps(idl))
    async with Stand.open(tmp_path, program={"idl": str(tmp_path / "idl.json")}) as stand, stand.keeper():
        trader, market = stand.world.trader(), stand.world.market()
        order = stand.order(trader, market)
        await stand.known(order)
        for n in (1, 2):
            stand.bank.hold_transactions()
            stand.world.set_price(market, 94 * USDC)
            await until(lambda n=n: len(set(stand.sent(order))) == n)  # type: ignore[misc]
            stand.world.set_price(market, 96 * USDC)
            stand.bank.release_transactions()
            await until(lambda n=n: [a.state for a in stand.attempts(order)] == [AttemptState.FAILED] * n)  # type: ignore[misc]
            attempt = stand.attempts(order)[-1]
            assert (attempt.error_name, attempt.fate) == ("ConditionNotMet", Fate.PRICE_MOVED_BACK)
            await stand.reach(order, OrderState.OPEN)
            stand.nodes[0].edit = without_transactions


def without_transactions(call: dict[str, Any], reply: dict[str, Any]) -> None:
    """A node that has not come so far, or keeps none."""
    if call["method"] == "getTransaction":
        reply["result"] = None


async def keeper_failures(stand: Stand) -> list[dict[str, object]]:
    """What `keeper failures --json` prints, beside the running keeper."""
    arguments = ["-m", "keeper", "failures", "--json", "--config", str(stand.config.file)]
    done = await anyio.run_process([sys.executable, *arguments])
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_a_user_who_can_not_pay_is_a_named_failure_and_a_deposit_executes_the_order(
    stand: Stand, market: Pubkey
) -> None:
    poor = stand.world.trader(collateral_1e6=0)
    async with stand.keeper():
        order = stand.order(poor, market)
        await stand.known(order)
        stand.world.set_price(market, 94 * USDC)
        row = await stand.reach(order, OrderState.FAILED)
        assert "InsufficientCollateral" in row.reason
        (attempt,) = stand.attempts(order)
        assert (attempt.fate, attempt.error_name) == (Fate.CANNOT_PAY, "InsufficientCollateral")
        (failure,) = await keeper_failures(stand)
        assert "InsufficientCollateral" in json.dumps(failure)
        assert str(order) in json.dumps(failure)
        await stays(lambda: len(stand.attempts(order)) == 1, stand)

        stand.world.deposit(poor, 1_000 * USDC)
        await stand.reach(order, OrderState.FILLED)
        assert stand.world.position(order, Commitment.CONFIRMED) is not None
        assert len(stand.attempts(order)) == 2


async def test_a_deposit_that_comes_right_after_the_refusal_is_not_missed(tmp_path: Path) -> None:
    """It is there before the keeper first reads the account that it waits for: there is no change left to see."""
    async with Stand.open(tmp_path, execution={"account_every_s": 0.3}) as stand:
        poor, market = stand.world.trader(collateral_1e6=0), stand.world.market()
        async with stand.keeper():
            order = stand.order(poor, market)
            await stand.known(order)
            stand.bank.hold_transactions()
            stand.world.set_price(market, 94 * USDC)
            await until(lambda: stand.sent(order))
            stand.bank.release_transactions()
            stand.world.deposit(poor, 1_000 * USDC)
            await stand.reach(order, OrderState.FILLED)


@pytest.mark.parametrize("paid", [True, False], ids=["paid in meanwhile", "not paid in"])
async def test_an_account_that_is_first_read_while_the_price_is_away(stand: Stand, market: Pubkey, paid: bool) -> None:
    """The program looks at the price first, so a rehearsal says nothing of the account: the order is tried again once,
    and after a second refusal it waits for a change, whatever the price does.
    """
    poor, unread = stand.world.trader(collateral_1e6=0), [0]
    account = str(stand.world.program.user_account_address(poor.address))

    def unreadable(call: dict[str, Any], reply: dict[str, Any]) -> None:
        if call["method"] == "getMultipleAccounts" and account in call["params"][0]:
            unread[0] += 1
            reply.pop("result", None)
            reply["error"] = {"code": -32603, "message": "Internal error"}

    stand.nodes[0].edit = unreadable
    async with stand.keeper():
        order = stand.order(poor, market)
        await stand.known(order)
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(order, OrderState.FAILED)
        if paid:
            stand.world.deposit(poor, 1_000 * USDC)
        stand.world.set_price(market, 100 * USDC)
        before = unread[0]
        await until(lambda: unread[0] >= before + 2)
        stand.nodes[0].edit = None
        await stand.reach(order, OrderState.OPEN)
        stand.world.set_price(market, 94 * USDC)
        if not paid:
            row = await stand.reach(order, OrderState.FAILED)
            assert row.budget_used == 2
            for price in (100, 94, 100, 94):
                stand.world.set_price(market, price * USDC)
                await stays(lambda: stand.state(order) is OrderState.FAILED, stand)
            stand.world.deposit(poor, 1_000 * USDC)
        await stand.reach(order, OrderState.FILLED)


async def test_a_deposit_during_a_restart_is_not_missed(stand: Stand, market: Pubkey) -> None:
    poor = stand.world.trader(collateral_1e6=0)
    async with stand.keeper():
        order = stand.order(poor, market)
        await stand.known(order)
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(order, OrderState.FAILED)
    stand.world.deposit(poor, 1_000 * USDC)
    async with stand.keeper():
        await stand.reach(order, OrderState.FILLED)


async def test_an_impossible_order_costs_a_bounded_number_of_fees(tmp_path: Path) -> None:
    """The user's account changes all the time and never carries the position: simulations, not fees."""
    async with Stand.open(tmp_path, execution={"retry_budget": 3}) as stand:
        poor, market = stand.world.trader(collateral_1e6=0), stand.world.market()
        async with stand.keeper():
            order = stand.order(poor, market, size_1e6=900 * USDC)
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)

            async def drip() -> None:
                while True:
                    stand.world.deposit(poor, 1)
                    await anyio.sleep(0.02)

            async with anyio.create_task_group() as tg:
                tg.start_soon(drip)
                await until(lambda: (row := stand.row(order)) is not None and "used up" in row.reason)
                tg.cancel_scope.cancel()
            assert stand.state(order) is OrderState.FAILED
            assert len(set(stand.sent(order))) <= 3
            attempts = len(stand.attempts(order))
            stand.world.deposit(poor, 100_000 * USDC)
            await stays(lambda: len(stand.attempts(order)) == attempts, stand)


async def test_a_trailing_stop_is_moved_on_chain_and_then_executed(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    async with stand.keeper():
        order = stand.world.place(
            trader, market, OrderType.TRAILING_STOP, stop_price_1e6=95 * USDC, trailing_distance_ppm=50_000
        )
        await stand.known(order)

        def stop() -> int:
            onchain = stand.world.order(order)
            assert onchain is not None
            return onchain.stop_price_1e6

        stand.world.set_price(market, 120 * USDC)
        await until(lambda: stop() == 114 * USDC)
        stand.world.set_price(market, 115 * USDC)
        await stays(lambda: stop() == 114 * USDC, stand)
        stand.world.set_price(market, 113 * USDC)
        await stand.reach(order, OrderState.FILLED)
        kinds = [attempt.kind.value for attempt in stand.attempts(order)]
        assert kinds == ["ratchet", "execute"]
        onchain = stand.world.order(order)
        assert onchain is not None
        assert onchain.status is OnchainStatus.FILLED


async def test_a_retry_that_waits_for_a_simulation_holds_up_nobody(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    async with stand.keeper():
        first = stand.order(trader, market)
        await stand.known(first)
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(first, OrderState.FILLED)
        stand.world.set_price(market, 99 * USDC)
        tried = stand.order(trader, market)
        await meanwhile(stand, tried, market, lambda: stand.world.set_price(market, 96 * USDC))
        await until(lambda: stand.attempt_state(tried) is AttemptState.FAILED)
        await stand.reach(tried, OrderState.OPEN)
        fresh = stand.order(trader, market)
        await stand.known(fresh)
        # All of them: one may be asked beside an attempt, to learn what a fill takes.
        stand.scripts[0].break_request(Fault(Kind.REQUEST_LOST, 3_600), method="simulateTransaction", times=1_000)
        stand.world.set_price(market, 94 * USDC)
        await until(lambda: stand.proxies[0].injected[Kind.REQUEST_LOST])
        await stand.reach(fresh, OrderState.FILLED)
        assert len(stand.attempts(tried)) == 1, "its simulation has not answered"
        stand.scripts[0].stop()
        # A node that says nothing is no reason not to try (and here, where a blockhash lives 1.5 s, to try again).
        await stand.reach(tried, OrderState.FILLED)


async def test_what_was_decided_before_an_outage_is_decided_again_after_it(tmp_path: Path) -> None:
    """No blockhash for a while: the price that met the condition then is not the one that counts now."""
    async with Stand.open(tmp_path, rpc={"blockhash_every_s": 0.05}) as stand:
        trader, market = stand.world.trader(), stand.world.market()
        stand.scripts[0].break_request(Fault(Kind.HTTP_503), method="getLatestBlockhash", times=1_000_000)
        async with stand.keeper():
            order = stand.order(trader, market)
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            await stays(lambda: not stand.attempts(order), stand)
            stand.world.set_price(market, 99 * USDC)
            stand.scripts[0].stop()
            await stand.told("blockhash", lambda sentence: not sentence)
            await stays(lambda: not stand.attempts(order), stand, blocks=60)
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.FILLED)
