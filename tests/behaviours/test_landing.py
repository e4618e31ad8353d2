"""Behaviours 2, 3, 4, 5, 8 and 10: what was signed lands once, or is given up by the rule and never by a timer."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptState, Fate
from keeper.domain.orders import OnchainStatus, OrderState
from tests.behaviours.stand import USDC, Stand, stays
from tests.chaos.invariants import executions_on_chain
from tests.chaos.proxy import Fault, Kind
from tests.support import until

pytestmark = pytest.mark.anyio


async def forked(stand: Stand) -> tuple[Pubkey, Pubkey]:
    """As `triggered`; and the price and the fill were in a block that never was. No blocks come by themselves."""
    market, order = await triggered(stand, before=stand.bank.advance)
    await seen(stand, order)
    landed = stand.bank.history.get(stand.attempts(order)[0].signature)
    assert landed is not None
    assert landed.signature in stand.bank.drop_slots_after(landed.slot - 1)
    return market, order


async def seen(stand: Stand, order: Pubkey) -> None:
    """The attempt is in a block that is complete, and the keeper knows. No blocks come by themselves."""
    await until(lambda: bool(stand.attempts(order)) and stand.attempts(order)[0].signature in stand.bank.history)
    stand.bank.advance()
    await until(lambda: stand.attempt_state(order) is AttemptState.SEEN)


async def triggered(stand: Stand, *, before: Callable[[], object] = lambda: None) -> tuple[Pubkey, Pubkey]:
    """A market whose price has just met the condition of one resting order: the market and the order.

    `before` is called when the order rests and the price has not moved yet.
    """
    market = stand.world.market()
    order = stand.order(stand.world.trader(), market)
    await stand.known(order)
    before()
    stand.world.set_price(market, 94 * USDC)
    return market, order


def asked(stand: Stand, method: str) -> int:
    """How often the keeper has called it."""
    return sum(method in methods for methods in stand.calls)


async def looked_up(stand: Stand, times: int = 4) -> None:
    """The keeper asks for the height and for statuses so many times from now on."""

    methods = ("getEpochInfo", "getSignatureStatuses")
    wanted = {method: asked(stand, method) + times for method in methods}
    await until(lambda: all(asked(stand, method) >= count for method, count in wanted.items()))


async def test_2_a_send_that_times_out_is_unknown_and_the_same_bytes_go_out_again(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, rpc={"deadline_s": 0.2}) as stand, stand.keeper():
        stand.scripts[0].break_request(Fault(Kind.REQUEST_LOST, 5), method="sendTransaction", times=3)
        _, order = await triggered(stand)
        await until(lambda: stand.attempt_state(order) is AttemptState.UNKNOWN)
        await stand.reach(order, OrderState.FILLED)
        assert len(stand.sent(order)) >= 4
        assert len(set(stand.sent(order))) == 1
        assert len(stand.attempts(order)) == 1


@pytest.mark.parametrize("kind", [Kind.REPLY_LOST, Kind.REPLY_502, Kind.REPLY_TRUNCATED, Kind.WRONG_ID, Kind.HTML])
async def test_2_an_answer_that_says_nothing_is_unknown_although_it_landed(tmp_path: Path, kind: Kind) -> None:
    async with Stand.open(tmp_path, rpc={"deadline_s": 0.2}) as stand, stand.keeper():
        stand.scripts[0].break_request(Fault(kind, 5), method="sendTransaction")
        _, order = await triggered(stand)
        await stand.reach(order, OrderState.FILLED)
        (attempt,) = stand.attempts(order)
        assert attempt.fate is Fate.EXECUTED
        assert stand.proxies[0].injected[kind] == 1


async def test_3_landing_one_block_after_the_last_valid_one_is_a_success(stand: Stand) -> None:
    async with stand.keeper():
        _, order = await triggered(stand, before=stand.bank.hold_transactions)
        await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
        (attempt,) = stand.attempts(order)
        with stand.held():
            while stand.bank.chain.tip.height < attempt.last_valid_block_height + 1:
                stand.bank.advance()
            await looked_up(stand)
            first, *_ = stand.bank.release_transactions()
            assert not isinstance(first, str), "the chain takes it at last valid height plus one"
            assert first.height == attempt.last_valid_block_height + 1
        await stand.reach(order, OrderState.FILLED)
        assert {a.signature for a in stand.attempts(order)} == {attempt.signature}


async def test_4_nothing_new_is_signed_before_the_finalized_height_has_passed_the_last_one(stand: Stand) -> None:
    async with stand.keeper():
        _, order = await triggered(stand, before=lambda: stand.bank.lose_transactions(1_000_000))
        await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
        (first,) = stand.attempts(order)
        with stand.held():
            while stand.bank.chain.root.height < first.last_valid_block_height + 1:
                stand.bank.advance()
            await looked_up(stand)
            assert stand.attempts(order)[0].state.in_flight, "landing is possible at the last valid height plus one"
            assert len(stand.attempts(order)) == 1
            stand.bank.lose_transactions(0)
            stand.bank.advance()
            await until(lambda: len(stand.attempts(order)) == 2)
        await stand.reach(order, OrderState.FILLED)
        expired, filled = stand.attempts(order)
        assert (expired.state, expired.error_name) == (AttemptState.EXPIRED, "BlockhashExpired")
        assert filled.fate is Fate.EXECUTED


async def test_4_a_status_node_that_lags_proves_nothing(stand: Stand) -> None:
    lag = 100
    lagging = True

    def behind(call: dict[str, Any], reply: dict[str, Any]) -> None:
        """Statuses come from a node that has not seen the last slots."""
        if lagging and call["method"] == "getSignatureStatuses":
            reply["result"]["context"]["slot"] = max(0, reply["result"]["context"]["slot"] - lag)
            reply["result"]["value"] = [None] * len(reply["result"]["value"])

    async with stand.keeper():
        stand.nodes[0].edit = behind
        _, order = await triggered(stand)
        await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
        stand.outlive_blockhashes()
        await looked_up(stand, 8)
        (attempt,) = stand.attempts(order)
        assert attempt.state.in_flight, "it had landed, and only the node did not know"
        lagging = False
        await stand.reach(order, OrderState.FILLED)
        assert len(stand.attempts(order)) == 1


async def test_4_an_order_that_is_younger_than_the_finalized_slot_is_not_gone(stand: Stand) -> None:
    """Signed with a blockhash that was dead already: the attempt is over at once, and its order is hardly placed."""
    stuck: dict[str, Any] = {}

    def old_blockhash(call: dict[str, Any], reply: dict[str, Any]) -> None:
        if call["method"] == "getLatestBlockhash":
            stuck.update({} if stuck else reply["result"])
            reply["result"] = dict(stuck)

    stand.nodes[0].edit = old_blockhash
    async with stand.keeper():
        market = stand.world.market()
        stand.world.set_price(market, 94 * USDC)
        with stand.held():
            stand.outlive_blockhashes()
            order = stand.order(stand.world.trader(), market)
            await until(lambda: stand.attempt_state(order) is not None)
            await looked_up(stand, 8)
            assert stand.state(order) is not OrderState.DROPPED, "it is placed, but not confirmed yet"
            stand.nodes[0].edit = None
        await stand.reach(order, OrderState.FILLED)


async def test_4_news_of_an_order_stand_against_an_older_reading_that_lacks_it(tmp_path: Path) -> None:
    lying = stands_still = True
    height: dict[str, Any] = {}

    def without_the_order(call: dict[str, Any], reply: dict[str, Any]) -> None:
        """The height stands still, and accounts are read as of the oldest slot that is allowed, without the order."""
        if call["method"] == "getEpochInfo" and stands_still:
            height.update({} if height else reply["result"])
            reply["result"] = dict(height)
        config = call["params"][-1] if call.get("params") else {}
        if lying and call["method"] == "getMultipleAccounts" and "minContextSlot" in config:
            slot = config["minContextSlot"]
            reply["result"] = {"context": {"slot": slot}, "value": [None] * len(call["params"][0])}

    async with Stand.open(tmp_path, rpc={"snapshot_every_s": 0.05}) as stand, stand.keeper():
        stand.nodes[0].edit = without_the_order
        market, order = await triggered(stand, before=lambda: stand.bank.lose_transactions(1_000_000))
        await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
        await until(lambda: bool(height))
        stand.world.set_price(market, 100 * USDC)
        with stand.held():  # so that no block makes the lie newer than the list
            stand.outlive_blockhashes()
            snapshots = asked(stand, "getProgramAccounts")
            await until(lambda: asked(stand, "getProgramAccounts") >= snapshots + 6)  # markets and orders, three times
            stands_still = False
            await until(lambda: stand.attempts(order)[0].state is AttemptState.EXPIRED)
            lying = False
        row = await stand.reach(order, OrderState.OPEN)
        assert "it is tried again" in row.reason
        stand.bank.lose_transactions(0)
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(order, OrderState.FILLED)
        assert len(executions_on_chain(stand.world, order)) == 1


async def test_5_what_only_the_history_knows_is_not_expired(stand: Stand) -> None:
    """It landed while the keeper was away, so long ago that a node knows it only when it searches its ledger."""
    async with stand.keeper():
        _, order = await triggered(stand, before=stand.bank.hold_transactions)
        await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
    stand.bank.release_transactions()
    for _ in range(stand.bank.settings.status_cache_blocks + 10):
        stand.bank.advance()
    async with stand.keeper():
        await stand.reach(order, OrderState.FILLED)
        await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
        (attempt,) = stand.attempts(order)
        assert attempt.fate is Fate.EXECUTED


async def test_5_a_confirmed_fill_closes_although_only_the_history_knows_it(stand: Stand) -> None:
    async with stand.keeper():
        with stand.held():
            _, order = await triggered(stand)
            await seen(stand, order)
            stand.bank.advance()
            await until(lambda: stand.attempt_state(order) is AttemptState.CONFIRMED)
    for _ in range(stand.bank.settings.status_cache_blocks + 10):
        stand.bank.advance()
    sent = len(stand.sent(order))
    async with stand.keeper():
        await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
        assert len(stand.sent(order)) == sent, "what is confirmed is not sent again"
        assert stand.state(order) is OrderState.FILLED


async def test_8_already_processed_is_looked_up(stand: Stand) -> None:
    """A node that has the transaction says so by an error; the status says how it ended."""

    def already(call: dict[str, Any], reply: dict[str, Any]) -> None:
        if call["method"] == "sendTransaction":
            reply.pop("result", None)
            message = "Transaction simulation failed: This transaction has already been processed"
            reply["error"] = {"code": -32002, "message": message, "data": {"err": "AlreadyProcessed", "logs": []}}

    async with stand.keeper():
        stand.nodes[0].edit = already
        _, order = await triggered(stand)
        await stand.reach(order, OrderState.FILLED)
        (attempt,) = stand.attempts(order)
        assert attempt.fate is Fate.EXECUTED
        assert attempt.sent_at is not None, "the node has it: it is sent, not unknown"


async def test_10_what_a_fork_dropped_is_sent_again_as_it_was(stand: Stand) -> None:
    async with stand.keeper():
        with stand.held():
            market, order = await forked(stand)
            stand.world.set_price(market, 94 * USDC)
            await until(lambda: len(stand.sent(order)) == 2)
        await stand.reach(order, OrderState.FILLED)
        assert len(stand.attempts(order)) == 1
        assert len(set(stand.sent(order))) == 1
        assert stand.world.position(order) is not None


async def test_10_what_a_fork_dropped_rests_again_when_its_price_was_dropped_too(stand: Stand) -> None:
    async with stand.keeper():
        with stand.held():
            market, order = await forked(stand)
        # On this fork the price never fell: the same bytes land and are refused.
        row = await stand.reach(order, OrderState.OPEN)
        (attempt,) = stand.attempts(order)
        assert (attempt.fate, attempt.error_name) == (Fate.PRICE_MOVED_BACK, "ConditionNotMet")
        assert row.budget_used == 0
        onchain = stand.world.order(order)
        assert onchain is not None
        assert onchain.status is OnchainStatus.PENDING
        await stays(lambda: len(stand.attempts(order)) == 1, stand)
        stand.world.set_price(market, 93 * USDC)
        await stand.reach(order, OrderState.FILLED)


@pytest.mark.file_journal
async def test_4_an_end_that_the_journal_could_not_take_is_concluded_again(stand: Stand) -> None:
    """The disk refuses the very commit that says expired: the order must not hang on what only memory knows."""
    async with stand.keeper():
        _, order = await triggered(stand, before=lambda: stand.bank.lose_transactions(1_000_000))
        await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
        with contextlib.closing(sqlite3.connect(stand.config.journal, isolation_level=None)) as other:
            other.execute(
                "CREATE TRIGGER refuse BEFORE UPDATE ON attempts WHEN NEW.state = 'expired' "
                "BEGIN SELECT RAISE(ABORT, 'no room'); END"
            )
            stand.outlive_blockhashes()
            await looked_up(stand, 3)
            assert stand.attempt_state(order) is AttemptState.SENT
            other.execute("DROP TRIGGER refuse")
        stand.bank.lose_transactions(0)
        await stand.reach(order, OrderState.FILLED)
        assert next(attempt.state.value for attempt in stand.attempts(order)) == "expired"
