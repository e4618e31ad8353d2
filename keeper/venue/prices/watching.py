"""The feeds that markets name, watched: each account's news is checked, and is a fact or a fault that is named.

One stream for all of them, from one source after the other, and a reading of all accounts now and then: a feed is told
of by subscription, and what a socket misses is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio
from solders.pubkey import Pubkey

from keeper.domain.errors import ChainError
from keeper.domain.events import FeedSeen
from keeper.domain.intake import Intake
from keeper.domain.orders import Market
from keeper.domain.prices import Price
from keeper.domain.turns import Turns
from keeper.solana.backoff import LONGEST_S, Backoff
from keeper.solana.client import PROCESSED, AccountBytes, ChainClient
from keeper.solana.sources import Single, Source
from keeper.venue.prices.layouts import KINDS
from keeper.venue.prices.quote import BadFeed, Demands, Fault, Now, price_of

_READ_EVERY_S: Final = 5.0
_BACK_S: Final = 5
"""A time that is told by the slot may go back a little."""
_LATE_SLOTS: Final = 1_000


@dataclass(slots=True)
class Feed:
    """A market's feed: `market` is its symbol or address, `kind` a word of `KINDS`. `price` is the newest that passed
    every check; `fault` and `sentence` say what is wrong with the account's newest news, and are empty when nothing is.
    `authority` is who has to be its market's, where the keeper posts the price there.
    """

    market: str
    kind: str
    account: Pubkey
    demands: Demands
    price: Price | None = None
    fault: Fault | None = None
    sentence: str = "it was not read yet"
    authority: Pubkey | None = None

    def late(self, slot: int) -> bool:
        """Whether news as of a slot comes from a node that is behind, and so says nothing new. A slot that is behind by
        more than nodes are has nothing to do with the one that is known: one of the two is wrong, and either may be it.
        """
        return self.price is not None and 0 < self.price.slot - slot <= _LATE_SLOTS

    def take(self, account: AccountBytes | None, market: Pubkey, now: Now) -> Price | None:
        """The account's price as of `now`, when it is news and everything holds that is demanded of it."""
        try:
            price_1e6, time_s = self._checked(account, now)
        except BadFeed as e:
            self.fault, self.sentence = e.fault, str(e)
            return None
        self.fault, self.sentence = None, ""
        self.price = Price(market, price_1e6, now.slot, time_s)
        return self.price

    def _checked(self, account: AccountBytes | None, now: Now) -> tuple[int, int]:
        if account is None or account.lamports == 0:
            raise BadFeed(Fault.MISSING, "there is no such account")
        if account.owner != self.demands.owner:
            raise BadFeed(Fault.OWNER, f"its account is owned by {account.owner}, and not by {self.demands.owner}")
        read, _ = KINDS[self.kind]
        price_1e6, time_s = price_of(read(account.data), self.demands, now)
        back_s = 0 if self.price is None else self.price.updated_at_s - time_s
        if back_s > _BACK_S:
            raise BadFeed(Fault.TIME, f"its time went back by {back_s} s: its clock is behind what it said before")
        return price_1e6, time_s


class FeedWatch:
    """Watches the feeds' accounts, through the sources of news, one at a time.

    `markets` gives the markets that are known, `now_s` the chain's clock; facts go to `intake`, and `told` hears of
    each fault that begins, with the market's name.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        client: ChainClient,
        sources: Sequence[Source],
        *,
        markets: Callable[[], Iterable[Market]],
        now_s: Callable[[], float],
        intake: Intake[Any],
        told: Callable[[str, Fault, str], None],
        silence_s: float,
    ) -> None:
        self.feeds = feeds
        self._client = client
        self._sources = sources
        self._markets = markets
        self._now_s = now_s
        self._intake = intake
        self._told = told
        self._silence_s = silence_s
        self.turns = Turns("feeds")

    def __repr__(self) -> str:
        return f"FeedWatch({len(self.feeds)} feeds, {sum(feed.fault is not None for feed in self.feeds)} with a fault)"

    async def run(self) -> None:
        """Watch until cancelled: by a socket, and by reading now and then, whether there is a socket or not."""
        async with anyio.create_task_group() as tg:
            tg.start_soon(self._read_now_and_then)
            await self._follow()

    async def _follow(self) -> None:
        """Subscribe, and begin again at the next source when a stream is lost."""
        backoff, place = Backoff(), 0
        while True:
            await self.turns.turn()
            began = time.monotonic()
            with suppress(ChainError):  # what lasts shows by the prices' age
                await self._one_connection(self._sources[place])
            if time.monotonic() - began > LONGEST_S:
                backoff.reset()
            place = (place + 1) % len(self._sources)
            await backoff.pause()

    async def _one_connection(self, source: Source) -> None:
        accounts = dict.fromkeys(feed.account for feed in self.feeds)
        async with source.open([Single(account) for account in accounts], self._silence_s) as stream:
            await source.identify(self._client.pool)
            async for news in stream.notifications():
                await self.turns.turn()
                if news.account is not None:
                    self._account_news(news.account, news.slot)

    async def _read_now_and_then(self) -> None:
        while True:
            with suppress(ChainError):
                await self.read()
            await anyio.sleep(_READ_EVERY_S)

    async def read(self) -> None:
        """Read every feed's account once. ChainError when no endpoint answers."""
        slot, accounts = await self._client.accounts([feed.account for feed in self.feeds], commitment=PROCESSED)
        for feed, account in zip(self.feeds, accounts, strict=True):
            self._take(feed, account, slot)

    def _account_news(self, account: AccountBytes, slot: int) -> None:
        for feed in self.feeds:
            if feed.account == account.address:
                self._take(feed, account, slot)

    def _take(self, feed: Feed, account: AccountBytes | None, slot: int) -> None:
        received = time.monotonic_ns()
        if feed.late(slot):
            return
        market = next((m for m in self._markets() if feed.market in (m.symbol, str(m.address))), None)
        before = feed.fault
        if market is None:
            feed.fault, feed.sentence = Fault.MISSING, f"the program has no market {feed.market}"
        else:
            now = Now(slot, self._now_s(), self._client.pool.pace.slot_s)
            price = feed.take(account, market.address, now)
            if feed.authority is not None and feed.authority != market.authority:
                price, feed.fault = None, Fault.AUTHORITY
                feed.sentence = f"its market's authority is {market.authority}, and not the key in crank.key_file"
            self._intake.on_event(FeedSeen(market.address, price, received))
        if feed.fault is not None and feed.fault is not before:
            self._told(feed.market, feed.fault, feed.sentence)
