"""Past facts. The watch and the executor report them; the decision reads them."""

from __future__ import annotations

from dataclasses import dataclass

from solders.pubkey import Pubkey

from keeper.domain.orders import Market, Order
from keeper.domain.prices import Price


@dataclass(frozen=True, slots=True)
class OrderSeen:
    """An order account was read, by subscription or by snapshot. `order.slot` says as of when."""

    order: Order


@dataclass(frozen=True, slots=True)
class OrderGone:
    """No pending order is at this address as of `slot`: its account is gone, or a list of the pending ones lacks it.

    What became of it has to be read.
    """

    address: Pubkey
    slot: int


@dataclass(frozen=True, slots=True)
class AccountUnreadable:
    """An order's account does not decode as of `slot`; `reason` says where."""

    address: Pubkey
    slot: int
    reason: str


@dataclass(frozen=True, slots=True)
class MarketSeen:
    """A market account was read; its oracle price is in it. `received_at_ns`: monotonic, on arrival."""

    market: Market
    received_at_ns: int


@dataclass(frozen=True, slots=True)
class FeedSeen:
    """The feed that a market names was read. `price` passed every check; None: one failed, and what the feed said
    before is not to be relied on any more. `received_at_ns`: as in MarketSeen.
    """

    market: Pubkey
    price: Price | None
    received_at_ns: int


@dataclass(frozen=True, slots=True)
class ChainTime:
    """The chain's clock: at `slot` it read `unix_time_s`. Staleness and expiry are judged by it alone."""

    slot: int
    unix_time_s: float


Event = OrderSeen | OrderGone | AccountUnreadable | MarketSeen | FeedSeen | ChainTime
