"""Fills by others that were off their order's condition: revision 0.1 lets whoever executes an order name any market,
and judges the order by that market's price.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import anyio
from solders.pubkey import Pubkey

from keeper.domain.errors import ChainError
from keeper.domain.orders import Order
from keeper.domain.reports import FillOffCondition, Report
from keeper.solana.client import ChainClient
from keeper.solana.history import history
from keeper.triggers.conditions import is_met
from keeper.triggers.decision import Decision
from keeper.venue.landed import steps_of
from keeper.venue.program import EXECUTE
from keeper.venue.venue import Venue

_MOST: Final = 16
"""So many fills are looked up at a time; of a flood of them the rest is told as any other's fill."""
_WITHIN_S: Final = 3.0
_TOUCHES: Final = 5


class StrangersFills:
    """Looks up the transactions that filled orders which the price, as it is known, does not meet."""

    def __init__(self, client: ChainClient, venue: Venue, decision: Decision, report: Callable[[Report], None]) -> None:
        self._client = client
        self._venue = venue
        self._decision = decision
        self._report = report

    async def off_condition(self, filled: Sequence[Order]) -> dict[Pubkey, str]:
        """A sentence for each of these orders that another market's account filled. None where the revision refuses
        that, and none of what no node tells in time.
        """
        if self._venue.program.creates_position:
            return {}
        found: dict[Pubkey, str] = {}

        async def look(order: Order) -> None:
            try:
                touches = await history(self._client, order.address, _TOUCHES)
            except ChainError:
                return
            for touch in touches:
                for step in steps_of(self._venue.program, touch):
                    market = step.accounts.get("market", order.market)
                    if step.instruction == EXECUTE and step.error is None and market != order.market:
                        self._report(FillOffCondition(order.address, step.signature, market, step.payer))
                        found[order.address] = (
                            f"{step.payer} filled it by the price of another market, {market}: its own did not meet it."
                        )

        with anyio.move_on_after(_WITHIN_S):
            async with anyio.create_task_group() as tg:
                for order in [order for order in filled if not self._met(order)][:_MOST]:
                    tg.start_soon(look, order)
        return found

    def _met(self, order: Order) -> bool:
        price = self._decision.prices.read(order.market)
        return price is not None and is_met(order, price.price_1e6, self._decision.rules.executable)
