"""Orders, prices and markets for these tests, with everything that a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from solders.pubkey import Pubkey

from keeper.domain.events import MarketSeen
from keeper.domain.orders import Market, OnchainStatus, Order, OrderType, Side
from keeper.domain.prices import Price

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=200)


def key(number: int) -> Pubkey:
    """The same public key for the same number, spread over the key space as real ones are."""
    return Pubkey((number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big") + number.to_bytes(24, "big"))


SOL = key(1_000_001)
BTC = key(1_000_002)


def make_order(number: int = 1, **fields: Any) -> Order:
    given: dict[str, Any] = {
        "address": key(number),
        "user": key(2_000_000 + number % 3),
        "market": SOL,
        "order_type": OrderType.STOP_LOSS,
        "side": Side.LONG,
        "size_1e6": 1_000_000,
        "price_1e6": 100_000_000,
        "stop_price_1e6": 90_000_000,
        "trailing_distance_ppm": 0,
        "leverage": 5,
        "status": OnchainStatus.PENDING,
        "created_at": 1_700_000_000,
        "expires_at": 0,
        "filled_size_1e6": 0,
        "order_id": number,
        "slot": 10,
    }
    return Order(**(given | fields))


def make_price(price_1e6: int, slot: int = 10, updated_at_s: int = 1_000, market: Pubkey = SOL) -> Price:
    return Price(market, price_1e6, slot, updated_at_s)


def market_seen(
    price_1e6: int,
    slot: int,
    *,
    updated_at_s: int = 1_000,
    is_active: bool = True,
    address: Pubkey = SOL,
    received_at_ns: int = 77,
) -> MarketSeen:
    market = Market(address, "SOL", "USDC", key(9), 100, is_active, price_1e6, updated_at_s, slot)
    return MarketSeen(market, received_at_ns)
