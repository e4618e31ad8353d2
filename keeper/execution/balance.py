"""What is asked of the chain about money: the balance of the keeper's key, and what others pay."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from solders.pubkey import Pubkey

from keeper.domain.errors import ChainError
from keeper.execution.drafting import FeePolicy
from keeper.execution.gate import Gate
from keeper.execution.purse import Purse
from keeper.solana.client import ChainClient


class BalanceWatch:
    """Reads the balance, and has the purse close and lift the gate by it: sending goes on by itself when funded."""

    def __init__(self, client: ChainClient, keeper: Pubkey, gate: Gate, purse: Purse) -> None:
        self._client = client
        self._keeper = keeper
        self._gate = gate
        self._purse = purse
        self.lamports: int | None = None
        """As it was read last."""

    async def look(self) -> None:
        """Read the balance once. A node that does not answer changes nothing of it."""
        with contextlib.suppress(ChainError):
            slot, (account,) = await self._client.accounts([self._keeper])
            self.lamports = 0 if account is None else account.lamports
            self._purse.balance_read(self.lamports, slot)
        self._purse.brake(self._gate)


class RecentFees:
    """Tells the fee policy what others pay to write the markets' accounts, if the policy wants to know."""

    def __init__(self, client: ChainClient, markets: Callable[[], Iterable[Pubkey]], fees: FeePolicy) -> None:
        self._client = client
        self._markets = markets
        self._fees = fees

    async def look(self) -> None:
        """Ask once."""
        markets = list(self._markets())
        if markets and self._fees.rules.percentile is not None:
            self._fees.learn_prices(await self._client.recent_priority_fees(markets))
