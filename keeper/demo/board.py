"""What is shown while the demo runs, as plain data: the watcher fills it, the screen draws it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Final

from keeper.demo.rules import fires_falling
from keeper.domain.orders import OrderType, Side

_FILLS_KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class MarketLine:
    """A market: its price and that price's age in seconds, whether orders are executed there, how many rest, and the
    distance to the nearest trigger as a share of the price.
    """

    symbol: str
    price: str
    age_s: float | None
    executing: bool
    reason: str
    resting: int
    nearest: float | None


@dataclass(frozen=True, slots=True)
class FillLine:
    """A fill: what, where, at which price its condition was met, and from there to confirmed in milliseconds."""

    market: str
    kind: str
    side: str
    price: str
    latency_ms: float


@dataclass(slots=True)
class Board:
    """The state of the play. `wanted` and `placed` count orders; `states` counts them by the keeper's words."""

    wanted: int
    scene: str = "Starting the chain"
    progress: float = 0.0
    """Share of the story that is told, 0 to 1."""
    placed: int = 0
    markets: list[MarketLine] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)
    """As the API last showed them, newest first."""
    states: Counter[str] = field(default_factory=Counter)
    positions: int = 0
    fills: deque[FillLine] = field(default_factory=lambda: deque(maxlen=_FILLS_KEPT))
    latencies_ms: dict[str, float] = field(default_factory=dict)
    """From the condition met to the fill confirmed, by order."""
    notes: list[str] = field(default_factory=list)
    """What the demo has shown, a sentence each."""

    def show(self, markets: list[dict[str, Any]], orders: list[dict[str, Any]]) -> None:
        """Take in the API's newest answers."""
        self.orders = orders
        self.states = Counter(order["status"] for order in orders)
        self.positions = sum(order["position"] is not None for order in orders)
        self.markets = [_market_line(market, orders) for market in markets]


def trigger_of(order: dict[str, Any]) -> float | None:
    """An order's trigger price as the API shows it; None before it is known."""
    text = order["limit_price"] if order["order_type"] == OrderType.LIMIT.word else order["trigger_price"]
    return None if text is None else float(text)


def kind_of(order: dict[str, Any]) -> tuple[OrderType, Side]:
    """An order's type and side from the API's words."""
    return OrderType[order["order_type"].upper()], Side[order["side"].upper()]


def _market_line(market: dict[str, Any], orders: list[dict[str, Any]]) -> MarketLine:
    resting = [o for o in orders if o["market"] == market["market"] and o["status"] == "open"]
    price = float(market["price"] or 0)
    distances = [_distance(order, price) for order in resting] if price else []
    known = [distance for distance in distances if distance is not None]
    return MarketLine(
        symbol=market["market"],
        price=market["price"] or "",
        age_s=market["price_age_s"],
        executing=market["executing"],
        reason=market["executing_reason"],
        resting=len(resting),
        nearest=min(known, default=None),
    )


def _distance(order: dict[str, Any], price: float) -> float | None:
    """How far the price has to move, as a share of it; negative when the condition is met."""
    trigger = trigger_of(order)
    if trigger is None:
        return None
    return (price - trigger) / price if fires_falling(*kind_of(order)) else (trigger - price) / price
