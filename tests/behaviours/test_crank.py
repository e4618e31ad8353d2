"""Where the keeper holds a market's authority: one transaction posts the feed's price and executes."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from solders.account import Account
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.commands.listing import attempt_line
from keeper.domain.attempts import Attempt, AttemptState, Fate
from keeper.domain.orders import OrderState
from keeper.execution.purse import fee_of
from tests.behaviours.stand import USDC, Stand, stays
from tests.behaviours.test_armed import armed
from tests.behaviours.test_feeds import tell
from tests.chaos.lives import Lives
from tests.ops.test_operators_commands import keeper_command
from tests.support import BOUND_S, KeeperProcess, until
from tests.venue.feed_accounts import NVDA_USD, SOL_USD, SOL_USD_ACCOUNT, SWITCHBOARD

pytestmark = pytest.mark.anyio

FEED = {"market": "SOL/USDC", "kind": "pyth", "account": str(SOL_USD_ACCOUNT), "feed_id": SOL_USD.hex()}
FRESH_S, FEED_AGE_S, OLD_S = 300, 120, 400
"""Seconds. Long ones: however slow the machine is, what is fresh in a test stays so until its end."""


@asynccontextmanager
async def opened(folder: Path, key: Keypair | None = None, **sections: Any) -> AsyncIterator[tuple[Stand, Pubkey]]:
    """A stand whose keeper holds its markets' authority, or `key`; and a market at 100."""
    file = folder / "authority.json"
    crank: dict[str, Any] = {"markets": ["SOL/USDC"], "key_file": str(file)}
    crank |= {"max_deviation_ppm": 100_000, "max_feed_age_s": FEED_AGE_S}
    trigger = {"max_price_age_s": FRESH_S}
    async with Stand.open(folder, prices={"feeds": [FEED]}, crank=crank, trigger=trigger, **sections) as stand:
        file.touch(mode=0o600)
        file.write_text(str(list(bytes(stand.world.authority if key is None else key))))
        market = stand.world.market("SOL/USDC")
        tell(stand, 100, ahead_s=0)
        for _ in range(3):
            stand.bank.advance()  # the market is confirmed when the keeper looks whose it is
        yield stand, market


def grow_old(stand: Stand, market: Pubkey, age_s: int = OLD_S) -> None:
    """The market's price is of so long ago."""
    known, account = stand.world.market_state(market), stand.bank.account(market)
    assert account is not None
    price = known.last_oracle_price_1e6
    old, new = (struct.pack("<Qq", price, at) for at in (known.last_oracle_update_s, stand.world.now() - age_s))
    data = bytes(account.data)
    assert data.count(old) == 1
    stand.bank.set_account(market, Account(account.lamports, data.replace(old, new), account.owner))


def with_authority(stand: Stand, market: Pubkey, other: Pubkey) -> Account:
    """The market has another authority from now on; its account as it was."""
    account, own = stand.bank.account(market), bytes(stand.world.authority.pubkey())
    assert account is not None
    data = bytes(account.data)
    assert data.count(own) == 1
    stand.bank.set_account(market, Account(account.lamports, data.replace(own, bytes(other)), account.owner))
    return account


def asked(stand: Stand, attempt: Attempt) -> list[str]:
    """What the attempt asks of the program, in order."""
    message = VersionedTransaction.from_bytes(attempt.wire).message
    known = {d.discriminator: d.name for d in stand.world.program.idl.instructions.values()}
    return [known[bytes(ix.data[:8])] for ix in message.instructions if bytes(ix.data[:8]) in known]


@pytest.mark.parametrize("old", [True, False], ids=["its price is old", "its price does not meet the order"])
async def test_one_transaction_posts_the_feeds_price_and_executes(tmp_path: Path, old: bool) -> None:
    async with opened(tmp_path) as (stand, market):
        order = stand.order(stand.world.trader(), market)
        if old:
            grow_old(stand, market)
        async with stand.keeper():
            await stand.known(order)
            before = stand.bank.chain.tip.slot
            tell(stand, 94.2, ahead_s=1)
            published = stand.bank.chain.tip.time + 1
            await stand.reach(order, OrderState.FILLED)
            (attempt,) = stand.attempts(order)
            assert asked(stand, attempt) == ["update_oracle_price", "execute_conditional_order"]
            landed = stand.world.landed(attempt.signature)
            assert landed is not None
            assert landed.err is None
            state = stand.world.market_state(market)
            assert state.last_oracle_price_1e6 == 94_200_000
            assert state.last_oracle_update_s >= stand.world.now() - OLD_S // 2
            position = stand.world.position(order)
            assert position is not None
            assert position.entry_price_1e6 == 94_200_000
            assert (attempt.posted_from, attempt.trigger_price_1e6) == (SOL_USD_ACCOUNT, 94_200_000)
            assert attempt.trigger_slot is not None
            assert attempt.posted_published_at is not None
            assert before <= attempt.trigger_slot <= landed.slot
            assert abs(attempt.posted_published_at - published) <= 1
            # Two signatures are paid for, and were counted.
            assert landed.fee == fee_of(attempt) == attempt.fee_lamports
            assert landed.fee > 10_000
            shown = attempt_line(attempt, stand.row(order), {})["posted"]
            assert (shown["price"], shown["feed"]) == ("94.2", str(SOL_USD_ACCOUNT))
            answer = (await stand.get(f"/v1/orders/{order}")).json()["attempts"][0]["posted"]
            at = (attempt.trigger_slot, attempt.posted_published_at)
            assert (answer["feed"], answer["price"]) == (str(SOL_USD_ACCOUNT), "94.2")
            assert (answer["slot"], answer["published_at"]) == at
            told = (await keeper_command("explain", str(order), "--config", str(stand.config.file))).stdout
            assert f"posted: 94.2 of the feed {SOL_USD_ACCOUNT} in slot {attempt.trigger_slot}, published " in told
            metrics = (await stand.get("/metrics")).text
            assert "keeper_cranks_total 1.0" in metrics


async def test_where_the_markets_own_fresh_price_meets_the_order_nothing_is_posted(tmp_path: Path) -> None:
    async with opened(tmp_path) as (stand, market):
        order = stand.order(stand.world.trader(), market)
        async with stand.keeper():
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.FILLED)
            (attempt,) = stand.attempts(order)
            assert asked(stand, attempt) == ["execute_conditional_order"]
            assert (attempt.posted_from, attempt.posted_published_at) == (None, None)
            assert attempt.fee_lamports is not None
            assert attempt.fee_lamports < 10_000


@pytest.mark.parametrize(
    ("fields", "check", "sentence", "reason"),
    [
        ({"usd": 94, "owner": SWITCHBOARD}, "feeds", "is owned by", "feed"),
        ({"usd": 94, "feed_id": NVDA_USD}, "feeds", "of another feed", "feed"),
        ({"usd": 94, "signatures": 5}, "feeds", "only 5 signatures", "feed"),
        ({"usd": 94, "confidence": 94 * 600_000}, "feeds", "the limit is 0.5 %", "feed"),
        ({"usd": 94, "ahead_s": -150}, "prices", "s old, and the limit is 120 s", "age"),
        ({"usd": 85}, "prices", "15.00 % apart, and the limit is 10 %", "deviation"),
    ],
    ids=["owner", "feed id", "verification", "confidence", "age", "deviation"],
)
async def test_what_may_not_be_posted_is_not_and_is_named(
    tmp_path: Path, fields: dict[str, Any], check: str, sentence: str, reason: str
) -> None:
    async with opened(tmp_path) as (stand, market):
        order = stand.order(stand.world.trader(), market)
        grow_old(stand, market)
        usd = fields["usd"]
        tell(stand, usd, **{"ahead_s": 0, **{name: value for name, value in fields.items() if name != "usd"}})
        async with stand.keeper():
            await stand.known(order)
            await stand.told(check, lambda detail: sentence in detail)
            if reason != "deviation":
                await stand.told(
                    "prices", lambda detail: "s old, and the limit is 300 s, and its feed's is not" in detail
                )
            wanted = f'keeper_crank_refused{{market="SOL/USDC",reason="{reason}"}} 1.0'
            await until_said(stand, wanted)
            await stays(lambda: not stand.attempts(order), stand)
            tell(stand, 94.2, ahead_s=1)
            await stand.reach(order, OrderState.FILLED)
            assert [a.posted_from for a in stand.attempts(order)] == [SOL_USD_ACCOUNT]
            await until_said(stand, wanted, gone=True)


async def test_a_feed_that_is_older_than_the_markets_price_is_not_posted(tmp_path: Path) -> None:
    async with opened(tmp_path) as (stand, market):
        order = stand.order(stand.world.trader(), market)
        tell(stand, 94, ahead_s=-5)
        async with stand.keeper():
            await stand.known(order)
            await stand.told("feeds", lambda detail: not detail)
            await stays(lambda: not stand.attempts(order), stand)
            assert stand.world.market_state(market).last_oracle_price_1e6 == 100 * USDC


async def test_a_key_that_is_not_the_markets_authority_is_refused_at_the_start(tmp_path: Path) -> None:
    async with opened(tmp_path, Keypair()) as (stand, _):
        keeper = await KeeperProcess.start(stand.config)
        try:
            assert await keeper.wait() == 2
        finally:
            await keeper.stop()
        assert "The key in crank.key_file" in keeper.log_end()
        assert "is not the authority of the market SOL/USDC" in keeper.log_end()


async def test_a_post_that_the_program_refuses_costs_its_order_nothing(tmp_path: Path) -> None:
    """The market gets another authority while the transaction is on its way."""
    async with opened(tmp_path) as (stand, market):
        order = stand.order(stand.world.trader(), market)
        grow_old(stand, market)
        async with stand.keeper():
            await stand.known(order)
            stand.bank.hold_transactions()
            tell(stand, 94.2, ahead_s=1)
            await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
            known = with_authority(stand, market, Keypair().pubkey())
            stand.bank.release_transactions()
            await until(lambda: stand.attempt_state(order) is AttemptState.FAILED)
            first = stand.attempts(order)[0]
            assert (first.fate, first.error_name) == (Fate.CRANK_REFUSED, "ConstraintHasOne")
            stand.bank.set_account(market, known)
            tell(stand, 94.4, ahead_s=2)
            row = await stand.reach(order, OrderState.FILLED)
            assert row.budget_used == 0
            # Which of the two prices the next attempt posts is as it comes: it may be decided before the newer one.
            posted_1e6 = stand.attempts(order)[-1].trigger_price_1e6
            assert stand.world.market_state(market).last_oracle_price_1e6 == posted_1e6


async def test_nothing_is_posted_to_a_market_that_has_another_authority_by_now(tmp_path: Path) -> None:
    async with opened(tmp_path) as (stand, market):
        order = stand.order(stand.world.trader(), market)
        grow_old(stand, market)
        async with stand.keeper():
            await stand.known(order)
            known = with_authority(stand, market, Keypair().pubkey())
            tell(stand, 99, ahead_s=1)
            await stand.told("feeds", lambda detail: "and not the key in crank.key_file" in detail)
            tell(stand, 94.2, ahead_s=2)
            await stays(lambda: not stand.attempts(order), stand)
            stand.bank.set_account(market, known)
            tell(stand, 94.3, ahead_s=3)
            await stand.reach(order, OrderState.FILLED)


async def test_what_fails_leaves_the_price_as_it_was_and_is_rehearsed_with_its_post(tmp_path: Path) -> None:
    async with opened(tmp_path) as (stand, market):
        trader = stand.world.trader(collateral_1e6=0)
        order = stand.order(trader, market)
        grow_old(stand, market)
        async with stand.keeper():
            await stand.known(order)
            tell(stand, 94.2, ahead_s=1)
            await until(lambda: stand.attempt_state(order) is AttemptState.FAILED)
            (attempt,) = stand.attempts(order)
            assert (attempt.fate, attempt.error_name) == (Fate.CANNOT_PAY, "InsufficientCollateral")
            assert stand.world.market_state(market).last_oracle_price_1e6 == 100 * USDC, "both or neither"
            stand.world.deposit(trader, 1_000_000 * USDC)
            await stand.reach(order, OrderState.FILLED)
            assert [a.posted_from for a in stand.attempts(order)] == [SOL_USD_ACCOUNT] * 2


async def test_what_was_armed_gives_way_to_a_post(tmp_path: Path) -> None:
    async with opened(tmp_path, execution={"armed_a_side": 2}) as (stand, market):
        order = stand.order(stand.world.trader(), market)
        async with stand.keeper():
            await until(lambda: armed(stand, order))
            grow_old(stand, market)
            tell(stand, 94.2, ahead_s=1)
            await stand.reach(order, OrderState.FILLED)
            (attempt,) = stand.attempts(order)
            assert attempt.posted_from == SOL_USD_ACCOUNT
            assert armed(stand, order) is None


@pytest.mark.parametrize(
    "point", ["journaled", *(pytest.param(each, marks=pytest.mark.long) for each in ("signed", "sent"))]
)
async def test_a_kill_on_the_way_sends_the_same_bytes_again_or_none(tmp_path: Path, point: str) -> None:
    async with opened(tmp_path) as (stand, market), Lives.open() as lives:
        order = stand.order(stand.world.trader(), market)
        grow_old(stand, market)
        await lives.start([stand.config], crash_at=f"{point}:1")
        await lives.ready()
        await stand.known(order)
        with stand.held():  # a restart takes longer than these blocks' blockhashes live
            tell(stand, 94.2, ahead_s=1)
            await until(lambda: lives.kills[point] > 0)
            before = [attempt.wire for attempt in stand.attempts(order)]
            assert len(before) == (point != "signed"), "bytes and source are in the journal before they are sent"
            await lives.ready()
        await stand.reach(order, OrderState.FILLED)
        (attempt,) = stand.attempts(order)
        assert attempt.posted_from == SOL_USD_ACCOUNT
        assert before in ([], [attempt.wire])
        assert {*stand.sent(order)} == {attempt.wire}
        await lives.stop(graceful=True)


async def until_said(stand: Stand, line: str, *, gone: bool = False) -> None:
    """Wait for a line of the metrics."""
    with anyio.fail_after(BOUND_S):
        while (line in (await stand.get("/metrics")).text) is gone:  # noqa: ASYNC110 - asked over HTTP
            await anyio.sleep(0.05)
