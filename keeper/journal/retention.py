"""A bounded journal: how long what is over is kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retention:
    """How long the journal keeps what is over.

    `history_days`: ended orders with their attempts and changes, and ended attempts of orders that go on.
    `prepared_hours`: handed-out transactions, and with them their idempotency keys; `unsigned_hours`: those that did
    not come back signed. `spend_days`: what days cost.
    What is not over is kept however old it is.
    """

    history_days: float = 90.0
    prepared_hours: float = 72.0
    unsigned_hours: float = 1.0
    spend_days: float = 400.0

    @property
    def prune_every_s(self) -> float:
        """How often to prune: hourly, and with a short history ten times within it."""
        return min(3600.0, max(5.0, self.history_days * 8_640.0))


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows were removed. `done` is False while there is more to remove."""

    orders: int = 0
    attempts: int = 0
    prepared: int = 0
    done: bool = True

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(
            self.orders + other.orders,
            self.attempts + other.attempts,
            self.prepared + other.prepared,
            other.done,
        )
