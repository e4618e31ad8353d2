"""Orders, markets and positions as the program keeps them.

Units, everywhere: prices are quote units x 1e6 (`*_1e6`), sizes are base units x 1e6 (`size_1e6`), a trailing
distance is parts per million, times are unix seconds by the chain's clock, slots are the chain's.
Source: the program's account layouts; the enumerations' numbers are their Borsh index.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

from solders.pubkey import Pubkey

PRICE_SCALE: Final = 1_000_000
SIZE_SCALE: Final = 1_000_000
PPM: Final = 1_000_000


class _Worded(enum.IntEnum):
    @property
    def word(self) -> str:
        """The name that people and the API use: `stop_loss`."""
        return self.name.lower()


class OrderType(_Worded):
    """The program's OrderType; the value is its Borsh index."""

    MARKET = 0
    LIMIT = 1
    STOP_LOSS = 2
    TAKE_PROFIT = 3
    TRAILING_STOP = 4
    POST_ONLY = 5
    IOC = 6
    FOK = 7
    ICEBERG = 8
    TWAP = 9
    STOP_LIMIT = 10
    BRACKET = 11


REVISION_0_1: Final = frozenset({OrderType.STOP_LOSS, OrderType.TAKE_PROFIT, OrderType.STOP_LIMIT})
"""The types that the deployed program's `execute_conditional_order` executes."""

REVISION_0_2: Final = REVISION_0_1 | {OrderType.LIMIT, OrderType.TRAILING_STOP}
"""The types that the atomic revision executes."""


class Side(_Worded):
    """The program's PositionSide."""

    LONG = 0
    SHORT = 1


class OnchainStatus(_Worded):
    """The program's OrderStatus: what the account says, as opposed to what the keeper makes of it."""

    PENDING = 0
    FILLED = 1
    CANCELLED = 2
    EXPIRED = 3
    PARTIALLY_FILLED = 4
    REJECTED = 5


class TimeInForce(enum.IntEnum):
    """The program's TimeInForce."""

    GTC = 0
    IOC = 1
    FOK = 2
    GTD = 3
    POST_ONLY = 4


class OrderState(enum.StrEnum):
    """What became of an order, in one word. Promise 5: each order the keeper has seen is in one of these.

    The terminal ones are `filled`, `cancelled`, `expired`, `rejected` and `dropped`; `failed` ends when an
    operator retries it or the account changes.
    """

    PREPARED = "prepared"
    """An unsigned transaction was handed to the user; nothing is on chain."""
    SUBMITTED = "submitted"
    """The user's signed transaction is journaled and being landed."""
    OPEN = "open"
    """The order rests on chain, pending, its condition not met."""
    TRIGGERED = "triggered"
    """Its condition was met by a fresh price; an attempt is being made, or waits for a brake to open."""
    EXECUTING = "executing"
    """An attempt was sent and could land."""
    FILLED = "filled"
    """The order reads Filled on chain and its position was read back."""
    CANCELLING = "cancelling"
    """The user's signed cancel is being landed; the keeper executes nothing meanwhile."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"
    """The retry budget is used up, or the fill can't be trusted; the reason says which."""
    REJECTED = "rejected"
    """The chain refused the user's transaction, or the account says Rejected."""
    DROPPED = "dropped"
    """The user's transaction can no longer land, or the account was closed."""

    @property
    def terminal(self) -> bool:
        """Whether nothing more is going to happen to the order by itself."""
        return self in _TERMINAL


_TERMINAL: Final = frozenset(
    {
        OrderState.FILLED,
        OrderState.CANCELLED,
        OrderState.EXPIRED,
        OrderState.REJECTED,
        OrderState.DROPPED,
    }
)


NOBODY: Final = Pubkey.default()
"""What an order's account names in place of its user and its market where they were never set: revision 0.1 makes
accounts of OCO, TWAP and iceberg orders so.
"""


class Order(NamedTuple):
    """One order account at one slot.

    `order_id` is None in revision 0.1, where a wallet has one order ever. `expires_at` 0 means never.
    `slot` is the slot of the node's context in which these bytes were read. A named tuple, because it is made for every
    piece of news: a frozen dataclass of so many fields takes six times as long.
    """

    address: Pubkey
    user: Pubkey
    market: Pubkey
    order_type: OrderType
    side: Side
    size_1e6: int
    price_1e6: int
    stop_price_1e6: int
    trailing_distance_ppm: int
    leverage: int
    status: OnchainStatus
    created_at: int
    expires_at: int
    filled_size_1e6: int
    order_id: int | None
    slot: int

    @property
    def pending(self) -> bool:
        """Whether the program would still execute it."""
        return self.status is _PENDING

    @property
    def identity(self) -> tuple[object, ...]:
        """What an order's account keeps for life. An order that is made anew at an address differs in it from the one
        before, by the second of its making (`created_at`) if by nothing else.
        """
        stop_1e6 = None if self.order_type is OrderType.TRAILING_STOP else self.stop_price_1e6  # that one is moved
        return (self.created_at, *self[1:7], stop_1e6, *self[8:10], self.expires_at, self.order_id)

    def expired_at(self, chain_time_s: int) -> bool:
        """Whether the program's clock has passed `expires_at`; at equality it has not."""
        return self.expires_at != 0 and chain_time_s > self.expires_at


OrderFields = tuple[bytes, bytes, int, int, int, int, int, int, int, int, int, int, int, int | None]
"""An order account's fields as they lie in it, checked but not yet made into anything: user, market, type, side, size,
price, stop price, trailing distance, leverage, status, created_at, expires_at, filled size, order id. A million of
these in a snapshot, most of them known already, need not become a million objects.
"""

_TYPES: Final = tuple(OrderType)
_SIDES: Final = tuple(Side)
_STATUSES: Final = tuple(OnchainStatus)
_PENDING: Final = OnchainStatus.PENDING
_key: Final = Pubkey.from_bytes  # a seventh of the time of Pubkey(), which looks at what it was given first
_new: Final = tuple.__new__


def order_of(address: Pubkey, fields: OrderFields, slot: int) -> Order:
    """The order that these fields are, read in `slot`."""
    (user, market, kind, side, size, price, stop, distance, leverage, status, created, expires, filled, number) = fields
    return _new(
        Order,
        (
            address,
            _key(user),
            _key(market),
            _TYPES[kind],
            _SIDES[side],
            size,
            price,
            stop,
            distance,
            leverage,
            _STATUSES[status],
            created,
            expires,
            filled,
            number,
            slot,
        ),
    )


def fields_of(order: Order) -> OrderFields:
    """The fields of the account that holds this order."""
    return (bytes(order.user), bytes(order.market), *order[3:15])


@dataclass(frozen=True, slots=True)
class Market:
    """One market account at one slot, with the oracle price in it (`last_oracle_price_1e6`, 0: never set)."""

    address: Pubkey
    base_asset: str
    quote_asset: str
    authority: Pubkey
    max_leverage: int
    is_active: bool
    last_oracle_price_1e6: int
    last_oracle_update_s: int
    slot: int

    @property
    def symbol(self) -> str:
        """The name that people use: `SOL/USDC`."""
        return f"{self.base_asset}/{self.quote_asset}"


@dataclass(frozen=True, slots=True)
class Position:
    """A position: what a keeper checks of it after a fill (promise 3), and what its wallet asks for."""

    address: Pubkey
    user: Pubkey
    market: Pubkey
    side: Side
    size_1e6: int
    entry_price_1e6: int
    leverage: int
    opened_at: int
    slot: int
    liquidation_price_1e6: int
    initial_margin_1e6: int
    maintenance_margin_1e6: int

    def profit_1e6(self, price_1e6: int) -> int:
        """What it has won at this price, or lost (below 0), in quote units, rounded down."""
        gain_1e6 = price_1e6 - self.entry_price_1e6
        return (gain_1e6 if self.side is Side.LONG else -gain_1e6) * self.size_1e6 // 10**6


@dataclass(frozen=True, slots=True)
class MarginAccount:
    """A wallet's margin account, in quote units: what it deposited, what of it is free, and what its positions need."""

    address: Pubkey
    authority: Pubkey
    collateral_1e6: int
    available_margin_1e6: int
    initial_margin_1e6: int
    maintenance_margin_1e6: int
    positions: int
    max_positions: int
    active: bool
    slot: int
