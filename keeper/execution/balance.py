"""The keeper's own purse: below the floor it stops sending, says so, and goes on by itself when funded."""

from __future__ import annotations

from collections.abc import Callable

from solders.pubkey import Pubkey

from keeper.errors import ChainError
from keeper.execution.fees import DAILY_CAP, FeePolicy
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
        observe: Callable[[int], None],
    ) -> None:
        self._client = client
        self._keeper = keeper
        self._gate = gate
        self._fees = fees
        self.floor_lamports = floor_lamports
        self._observe = observe
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
        self._observe(self.lamports)
        if self.lamports < self.floor_lamports:
            self._gate.close(
                _NAME,
                f"the keeper's balance is {self.lamports} lamports, below fees.min_balance_lamports "
                f"({self.floor_lamports}): send SOL to {self._keeper}",
            )
        else:
            self._gate.lift(_NAME)
