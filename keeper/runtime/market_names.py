"""The markets' names, kept in the journal for whoever reads it without the chain at hand."""

from __future__ import annotations

from collections.abc import Mapping

from solders.pubkey import Pubkey

from keeper.domain.orders import Market
from keeper.journal import MARKET_NAME, Journal, SetMeta


class MarketNames:
    """Notes each market once a run, at the `look` after it was first seen. A market's name never changes on chain."""

    def __init__(self, journal: Journal, markets: Mapping[Pubkey, Market]) -> None:
        self._journal = journal
        self._markets = markets
        self._noted: set[Pubkey] = set()

    async def look(self) -> None:
        """Note the new ones."""
        new = [market for market in self._markets.values() if market.address not in self._noted]
        if new:
            await self._journal.commit(*(SetMeta(f"{MARKET_NAME}{m.address}", m.symbol) for m in new))
            self._noted.update(market.address for market in new)
