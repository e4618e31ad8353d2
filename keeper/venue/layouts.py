"""Account bytes to domain types, by fixed offsets: the hot path.

An order's fields take about 0.5 us this way, the order as an object 1.2 us, against 140 us by anchorpy. Offsets are the
program's (Borsh, little-endian, after the 8-byte discriminator); a market's strings make its later offsets
vary, and an order's optional parent moves what follows it. Anything that does not fit raises MalformedAccount;
nothing here trusts a length that it has not checked.
"""

from __future__ import annotations

import struct
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.errors import MalformedAccount
from keeper.domain.orders import Market, OnchainStatus, Order, OrderFields, OrderType, Position, Side, order_of
from keeper.venue.idl import discriminator

ORDER_DISCRIMINATOR: Final = discriminator("account", "Order")
MARKET_DISCRIMINATOR: Final = discriminator("account", "Market")
POSITION_DISCRIMINATOR: Final = discriminator("account", "Position")
USER_ACCOUNT_DISCRIMINATOR: Final = discriminator("account", "UserAccount")

# user, market, type, side, size, price, stop, trailing distance, leverage, status, created, expires, filled
# ... and, after what a keeper does not need, whether there is a parent (32 bytes), which the TWAP terms (16) follow,
# and the order id. The first is the layout of nearly all orders, without a parent and with an id, in one go.
_ORDER: Final = struct.Struct("<8x32s32sBBQQQQBBqqQ26x1x16xQ")
_ORDER_SIZE: Final = _ORDER.size
STATUS_OFFSET: Final = 107
"""Where an order's status byte lies, in both revisions."""
_ORDER_HEAD: Final = struct.Struct("<8x32s32sBBQQQQBBqqQ26xB")
_PARENT_AT: Final = _ORDER_HEAD.size - 1
_ORDER_ID_OFFSET: Final = _ORDER_HEAD.size + 16
# user_account, user, market, index, side, status, size, entry price ... up to leverage
_POSITION: Final = struct.Struct("<8x32s32s32sHBBQQQQqqqqqQQHQQ160sqqqq")
_MARKET_TAIL: Final = struct.Struct("<QQQqqq32sBHH?QqB")
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_LONGEST_ASSET_NAME: Final = 32

_SIDES: Final = tuple(Side)
# Asking an enum for its length is a Python call, and dearer than the rest of the check.
_TYPES_END: Final = len(OrderType)
_SIDES_END: Final = len(Side)
_STATUSES_END: Final = len(OnchainStatus)


def order_fields(address: Pubkey | str, data: bytes) -> OrderFields:
    """An Order account's fields, of either revision. The order id is None when the bytes end before it (0.1)."""
    if len(data) >= _ORDER_SIZE and not data[_PARENT_AT] and data[:8] == ORDER_DISCRIMINATOR:
        fields: OrderFields = _ORDER.unpack_from(data)
    else:
        fields = _rarer_fields(address, data)
    if fields[2] >= _TYPES_END or fields[3] >= _SIDES_END or fields[9] >= _STATUSES_END:
        raise MalformedAccount(f"order {address} has an unknown type, side or status")
    return fields


def _rarer_fields(address: Pubkey | str, data: bytes) -> OrderFields:
    """Those of an order with a parent, or of revision 0.1."""
    if len(data) < _ORDER_HEAD.size or data[:8] != ORDER_DISCRIMINATOR:
        raise MalformedAccount(f"{address} is not an Order account ({len(data)} bytes)")
    *fields, has_parent = _ORDER_HEAD.unpack_from(data)
    if has_parent > 1:
        raise MalformedAccount(f"order {address} has a parent flag of {has_parent}")
    offset = _ORDER_ID_OFFSET + 32 * has_parent
    # Revision 0.1 allocates 175 bytes, which is where the id would begin.
    fields.append(_U64.unpack_from(data, offset)[0] if len(data) >= offset + 8 else None)
    return tuple(fields)


def decode_order(address: Pubkey, data: bytes, slot: int) -> Order:
    """An Order account of either revision."""
    return order_of(address, order_fields(address, data), slot)


def decode_market(address: Pubkey, data: bytes, slot: int) -> Market:
    """A Market account. The two asset names come first and move everything after them."""
    if data[:8] != MARKET_DISCRIMINATOR:
        raise MalformedAccount(f"{address} is not a Market account")
    try:
        base, offset = _string(data, 8)
        quote, offset = _string(data, offset)
        (
            _base_reserve,
            _quote_reserve,
            _k,
            _funding_rate,
            _last_funding,
            _funding_interval,
            authority,
            max_leverage,
            initial_ratio,
            maintenance_ratio,
            is_active,
            price,
            updated,
            _bump,
        ) = _MARKET_TAIL.unpack_from(data, offset)
    except (struct.error, UnicodeDecodeError, ValueError) as e:
        raise MalformedAccount(f"market {address} does not decode: {e}") from e
    return Market(
        address=address,
        base_asset=base,
        quote_asset=quote,
        authority=Pubkey.from_bytes(authority),
        max_leverage=max_leverage,
        initial_margin_ratio_bps=initial_ratio,
        maintenance_margin_ratio_bps=maintenance_ratio,
        is_active=is_active,
        last_oracle_price_1e6=price,
        last_oracle_update_s=updated,
        slot=slot,
    )


def _string(data: bytes, offset: int) -> tuple[str, int]:
    (length,) = _U32.unpack_from(data, offset)
    if length > _LONGEST_ASSET_NAME:
        raise ValueError(f"an asset name of {length} bytes")
    end = offset + 4 + length
    if end > len(data):
        raise ValueError("it ends inside an asset name")
    return data[offset + 4 : end].decode(), end


def decode_position(address: Pubkey, data: bytes, slot: int) -> Position:
    """A Position account."""
    if len(data) < _POSITION.size or data[:8] != POSITION_DISCRIMINATOR:
        raise MalformedAccount(f"{address} is not a Position account ({len(data)} bytes)")
    fields = _POSITION.unpack_from(data)
    side = fields[4]
    if side >= len(_SIDES):
        raise MalformedAccount(f"position {address} has an unknown side")
    return Position(
        address=address,
        user=Pubkey.from_bytes(fields[1]),
        market=Pubkey.from_bytes(fields[2]),
        side=_SIDES[side],
        size_1e6=fields[6],
        entry_price_1e6=fields[7],
        leverage=fields[17],
        opened_at=fields[21],
        slot=slot,
    )
