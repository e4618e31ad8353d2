"""Looks at the keeper through its API, twice a second, and puts what it sees on the board."""

from __future__ import annotations

from typing import Any, Final

import anyio

from keeper.demo.api import KeeperApi
from keeper.demo.board import Board, FillLine

_EVERY_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 2.0
_SHARE: Final = 0.25
"""Looking at many orders costs the keeper something; the watcher spends about this share of its time on it."""
_DETAILS: Final = 8
"""New fills that a look asks for in detail; the others are asked for at the end."""


class Watcher:
    """Fills the board. `look` may be called by others between its own rounds."""

    def __init__(self, api: KeeperApi, board: Board) -> None:
        self._api = api
        self._board = board

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            started = anyio.current_time()
            await self.look()
            spent = anyio.current_time() - started
            await anyio.sleep(min(_LONGEST_PAUSE_S, max(_EVERY_S, spent / _SHARE)))

    async def look(self, details: int = _DETAILS) -> None:
        """Read markets and orders, and the newest fills in detail."""
        markets, orders = await self._api.markets(), await self._api.orders()
        self._board.show(markets, orders)
        filled = sorted((o for o in orders if o["status"] == "filled"), key=lambda order: order["updated_at"])
        new = [order for order in filled if order["order"] not in self._board.latencies_ms]
        for order in new[-details:]:
            self._fill(await self._api.order(order["order"]))

    async def finish(self) -> None:
        """A last look, at every fill."""
        await self.look(details=len(self._board.orders))

    def _fill(self, order: dict[str, Any]) -> None:
        latency_ms = _latency_ms(order)
        if latency_ms is None:
            return
        self._board.latencies_ms[order["order"]] = latency_ms
        self._board.fills.append(
            FillLine(
                market=order["market"],
                kind=order["order_type"],
                side=order["side"],
                price=order["triggered_price"] or "",
                latency_ms=latency_ms,
            )
        )


def _latency_ms(order: dict[str, Any]) -> float | None:
    """From the news that met the condition to the fill seen confirmed, by the keeper's own clock. None for a fill that
    was not this keeper's.
    """
    done = [a for a in order["attempts"] if a["kind"] == "execute" and a["fate"] == "executed" and a["confirmed_at"]]
    if not done or order["triggered_at"] is None:
        return None
    return float(max(0.0, done[-1]["confirmed_at"] - order["triggered_at"]) * 1e3)
