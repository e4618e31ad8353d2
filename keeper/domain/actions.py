"""Commands: orders to act. The decision gives them, the executor carries them out."""

from __future__ import annotations

from dataclasses import dataclass

from keeper.domain.orders import Order
from keeper.domain.prices import Crank, Price


@dataclass(frozen=True, slots=True)
class ExecuteOrder:
    """Fill this order now: its condition is met by `price`, which `crank` posts to the market first, if there is one.

    `triggered_at_ns` is time.monotonic_ns when the deciding news arrived; latency is measured from it.
    """

    order: Order
    price: Price
    triggered_at_ns: int
    crank: Crank | None = None


@dataclass(frozen=True, slots=True)
class RatchetStop:
    """Move a trailing stop on chain (`update_trailing_stop`): the price moved a step in its favour.

    `new_stop_1e6` is what the program will set at this price.
    """

    order: Order
    price: Price
    new_stop_1e6: int
    triggered_at_ns: int


@dataclass(frozen=True, slots=True)
class RecordExpired:
    """Note that this order is past its `expires_at` by the chain's clock. Nothing is sent: the program
    will not execute it any more, and marking it so on chain would cost a fee for nobody's benefit.
    """

    order: Order


Action = ExecuteOrder | RatchetStop | RecordExpired
