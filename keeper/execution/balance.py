"""The keeper's own money: below the floor it stops sending, says so, and goes on by itself when funded; and what others
pay, for a fee policy that wants to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from solders.pubkey import Pubkey

from keeper.domain.errors import ChainError
from keeper.execution.drafting import DAILY_CAP, FeePolicy
from keeper.execution.gate import Gate
from keeper.solana.client import ChainClient

_NAME = "balance"


class BalanceWatch:
    """Closes and lifts the gate by the keeper's balance and the day's spending. Lamports."""

    def __init__(
        self,
        client: ChainClient,
        keeper: Pubkey,
        gate: Gate,
        fees: FeePolicy,
        *,
        floor_lamports: int,
    ) -> None:
        self._client = client
        self._keeper = keeper
        self._gate = gate
        self._fees = fees
        self.floor_lamports = floor_lamports
        self.lamports: int | None = None

    async def look(self) -> None:
        """Read the balance once. A node that does not answer changes nothing."""
        if self._fees.may_spend():
            self._gate.lift(DAILY_CAP)
        else:
            self._gate.close(DAILY_CAP, self._fees.cap_reached)
        try:
            self.lamports = await self._client.balance(self._keeper)
        except ChainError:
            return
        if self.lamports < self.floor_lamports:
            self._gate.close(
                _NAME,
                f"the keeper's balance is {self.lamports} lamports, below fees.min_balance_lamports "
                f"({self.floor_lamports}): send SOL to {self._keeper}",
            )
        else:
            self._gate.lift(_NAME)


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
