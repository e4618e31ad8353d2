"""A market that names its feed: the keeper decides on the fresher of the two, and on neither while they disagree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from solders.account import Account
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptState
from keeper.domain.orders import OrderState
from tests.behaviours.stand import USDC, Stand, stays
from tests.behaviours.test_landing import looked_up
from tests.support import until
from tests.venue.feed_accounts import NVDA_USD, PYTH_RECEIVER, SOL_USD, SOL_USD_ACCOUNT, SWITCHBOARD, pull, update

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    feed = {"market": "SOL/USDC", "kind": "pyth", "account": str(SOL_USD_ACCOUNT), "feed_id": SOL_USD.hex()}
    prices = {"feeds": [feed], "max_deviation": 0.1}
    async with Stand.open(tmp_path, prices=prices) as stand:
        yield stand


def tell(stand: Stand, usd: float, *, ahead_s: int = 5, owner: Pubkey = PYTH_RECEIVER, **fields: Any) -> None:
    """The feed says so, `ahead_s` later than the market's own price of now could say."""
    time_s = stand.bank.chain.tip.time + ahead_s
    data = update(**{"price": round(usd * 10**8), "confidence": 1_000, "time_s": time_s, **fields})
    stand.bank.set_account(SOL_USD_ACCOUNT, Account(10**9, data, owner))


async def resting(stand: Stand) -> tuple[Pubkey, Pubkey]:
    """A market at 100 with a stop at 95, and a feed that says the same."""
    market = stand.world.market("SOL/USDC")
    order = stand.order(stand.world.trader(), market)
    tell(stand, 100)
    await stand.known(order)
    await stand.told("feeds", lambda detail: not detail)
    return market, order


async def test_a_fresher_feed_has_its_order_sent_before_the_market_follows(stand: Stand) -> None:
    async with stand.keeper():
        market, order = await resting(stand)
        stand.bank.hold_transactions()
        tell(stand, 94, ahead_s=8)
        await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
        stand.world.set_price(market, 94 * USDC)
        stand.bank.release_transactions()
        await stand.reach(order, OrderState.FILLED)
        assert len(stand.attempts(order)) == 1


async def test_what_the_market_does_not_follow_is_tried_once_and_no_more(stand: Stand) -> None:
    """The program judges by the market's own price: until that moves, another attempt would fail just the same."""
    async with stand.keeper():
        market, order = await resting(stand)
        tell(stand, 94, ahead_s=8)
        await until(lambda: stand.attempt_state(order) is AttemptState.FAILED)
        for ahead_s in range(9, 14):
            tell(stand, 93.9, ahead_s=ahead_s)
            await looked_up(stand, 0)
            await stays(lambda: len(stand.attempts(order)) == 1, stand, blocks=4)
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(order, OrderState.FILLED)
        assert stand.landed(order) == 1


async def test_nothing_is_decided_while_feed_and_market_disagree(stand: Stand) -> None:
    async with stand.keeper():
        market, order = await resting(stand)
        tell(stand, 120, ahead_s=8)
        await stand.told("prices", lambda detail: "20.00 % apart, and the limit is 10 %" in detail)
        stand.world.set_price(market, 94 * USDC)
        await stays(lambda: not stand.attempts(order), stand)
        why = (await stand.get(f"/v1/orders/{order}")).json()["status_reason"]
        assert "its feed and its own price are" in why
        tell(stand, 94.2, ahead_s=10)
        await stand.reach(order, OrderState.FILLED)


@pytest.mark.parametrize(
    ("fields", "fault", "sentence"),
    [
        ({"owner": SWITCHBOARD}, "owner", "is owned by"),
        ({"feed_id": NVDA_USD}, "feed_id", "of another feed"),
        ({"signatures": 5}, "verification", "only 5 signatures"),
        ({"price": -1}, "price", "its price is -1"),
        ({"price": 2**62, "exponent": 6}, "price", "absurd"),
        ({"exponent": -19}, "exponent", "its exponent is -19"),
        ({"confidence": 10**10}, "confidence", "the limit is 1 %"),
        ({"ahead_s": 600}, "time", "ahead of the chain's clock"),
        ({"ahead_s": -300}, "time", "its time went back"),
    ],
)
async def test_a_fault_is_named_and_the_market_decides_alone(
    stand: Stand, fields: dict[str, Any], fault: str, sentence: str
) -> None:
    async with stand.keeper():
        market, order = await resting(stand)
        tell(stand, 50, **{"ahead_s": 8, **fields})
        await stand.told("feeds", lambda detail: sentence in detail)
        assert (await stand.get("/readyz")).status_code == 200
        metrics = (await stand.get("/metrics")).text
        assert f'keeper_feed_faults_total{{fault="{fault}",market="SOL/USDC"}} 1.0' in metrics
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(order, OrderState.FILLED)


async def test_a_feed_of_another_oracle_and_a_market_that_is_not_there(tmp_path: Path) -> None:
    feeds = [
        {"market": "SOL/USDC", "kind": "switchboard", "account": str(SOL_USD_ACCOUNT), "feed_id": SOL_USD.hex()},
        {"market": "NO/USDC", "kind": "pyth", "account": str(SOL_USD_ACCOUNT), "feed_id": SOL_USD.hex()},
    ]
    async with Stand.open(tmp_path, prices={"feeds": feeds}) as stand, stand.keeper():
        market = stand.world.market("SOL/USDC")
        order = stand.order(stand.world.trader(), market)
        value = 95 * 10**18
        data = pull(SOL_USD, value, 10**15, stand.bank.chain.tip.time + 5)
        stand.bank.set_account(SOL_USD_ACCOUNT, Account(10**9, data, SWITCHBOARD))
        await stand.told("feeds", lambda detail: detail == "NO/USDC (pyth): the program has no market NO/USDC")
        await stays(lambda: not stand.attempts(order), stand)
        assert "apart" in (await stand.readiness("prices"))[1]
        stand.world.set_price(market, 95 * USDC)
        await stand.reach(order, OrderState.FILLED)
