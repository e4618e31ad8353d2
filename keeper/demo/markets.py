"""Markets that stand on a local chain by themselves, and collateral for whoever wants to trade there."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
from solders.keypair import Keypair

from keeper.demo.feed import Feed
from keeper.demo.prices import LISTINGS, walk
from keeper.demo.sending import Sender, connected
from keeper.demo.world import KEEPER_LAMPORTS, RICH, build_markets, deposit, open_account
from keeper.domain.errors import KeeperError
from keeper.venue.program import Program

_TICK_S: Final = 0.5
_log = logging.getLogger(__name__)


@asynccontextmanager
async def walking_markets(program: Program, rpc_url: str) -> AsyncIterator[dict[str, str]]:
    """The demo's markets, opened on this chain and with prices that walk until the end of the block.

    Their addresses by symbol. DemoFailed when the chain takes none.
    """
    async with Sender.to(rpc_url) as sender:
        oracle = Keypair()
        markets = await build_markets(program, sender, oracle)
        feed = Feed(program, sender, oracle, markets)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_walk, feed, name="walk the prices")
            yield {symbol: str(address) for symbol, address in markets.items()}
            tasks.cancel_scope.cancel()


async def _walk(feed: Feed) -> None:
    rng = random.Random()  # noqa: S311 - prices for looking at, no secret
    walks = {listing.symbol: walk(listing, rng) for listing in LISTINGS}
    while True:
        try:
            await feed.post({symbol: (next(prices),) for symbol, prices in walks.items()})
        except KeeperError as e:
            # The chain may be held up for a while, a stopped process for one; its prices go on afterwards.
            _log.warning("prices were not posted: %s", e)
        await anyio.sleep(_TICK_S)


async def fund(program: Program, rpc_url: str, keys: Sequence[Keypair]) -> None:
    """Give each key SOL, from the faucet, and collateral, in a margin account that is opened if there is none.

    DemoFailed when the chain has no faucet, or refuses.
    """
    async with connected(rpc_url) as client:
        sender = Sender(client)
        await sender.airdrop([key.pubkey() for key in keys], KEEPER_LAMPORTS)
        _, accounts = await client.accounts([program.user_account_address(key.pubkey()) for key in keys])
        wires = []
        for key, account in zip(keys, accounts, strict=True):
            opening = [open_account(program, key.pubkey())] if account is None else []
            wires.append(await sender.sign([*opening, deposit(program, key.pubkey(), RICH)], key))
        await sender.send_and_wait(wires)
