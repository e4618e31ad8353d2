"""Where the keeper holds a market's authority: one transaction posts the feed's price and executes."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from solders.account import Account
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.commands.listing import attempt_line
from keeper.domain.attempts import Attempt
from keeper.domain.orders import OrderState
from keeper.execution.purse import fee_of
from tests.behaviours.stand import Stand
from tests.behaviours.test_feeds import tell
from tests.venue.feed_accounts import SOL_USD, SOL_USD_ACCOUNT

pytestmark = pytest.mark.anyio

FEED = {"market": "SOL/USDC", "kind": "pyth", "account": str(SOL_USD_ACCOUNT), "feed_id": SOL_USD.hex()}
OLD_S = 100


@asynccontextmanager
async def opened(folder: Path, key: Keypair | None = None, **changes: Any) -> AsyncIterator[tuple[Stand, Pubkey]]:
    """A stand whose keeper holds its markets' authority, or `key`; and a market at 100."""
    file = folder / "authority.json"
    crank = {"markets": ["SOL/USDC"], "key_file": str(file), "max_deviation_ppm": 100_000, **changes}
    async with Stand.open(folder, prices={"feeds": [FEED]}, crank=crank) as stand:
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
            metrics = (await stand.get("/metrics")).text
            assert "keeper_cranks_total 1.0" in metrics
