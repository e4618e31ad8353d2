"""The venue: one perpetuals program as the rest of the keeper sees it.

Three functions at heart: account bytes to facts, an action to a message, a failure to its fate. Whoever would serve
another program writes a second one of these.

Accounts are read by fixed offsets: an order's fields take about 0.5 us this way, the order as an object 1.2 us, against
140 us by anchorpy. Offsets are the program's (Borsh, little-endian, after the 8-byte discriminator); a market's strings
make its later offsets vary, and an order's optional parent moves what follows it. Anything that does not fit raises
MalformedAccount; nothing here trusts a length that it has not checked.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeGuard

from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import AttemptKind
from keeper.domain.errors import MalformedAccount
from keeper.domain.orders import (
    MarginAccount,
    Market,
    OnchainStatus,
    Order,
    OrderFields,
    OrderType,
    Position,
    Side,
    order_of,
)
from keeper.domain.prices import Crank
from keeper.solana.client import AccountBytes, Blockhash, memcmp
from keeper.solana.transactions import Budget, Tip, general_message
from keeper.venue.fates import crank_fate_of
from keeper.venue.idl import discriminator
from keeper.venue.program import CRANK, EXECUTE, RATCHET, Program
from keeper.venue.program_errors import ProgramFailure, name_failure, programs_of
from keeper.venue.templates import Built, Template

_EXECUTE: Final = AttemptKind.EXECUTE

ORDER_DISCRIMINATOR: Final = discriminator("account", "Order")
MARKET_DISCRIMINATOR: Final = discriminator("account", "Market")
POSITION_DISCRIMINATOR: Final = discriminator("account", "Position")
_MARGIN_DISCRIMINATOR: Final = discriminator("account", "UserAccount")

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
_POSITION_USER_AT, _POSITION_STATUS_AT, _OPEN = 40, 107, b"\0"
# user_account, user, market, index, side, status, size, entry price ... up to leverage
_POSITION: Final = struct.Struct("<8x32s32s32sHBBQQQQqqqqqQQHQQ160sqqqq")
_POSITION_SIZE: Final = _POSITION.size + 1
"""A position's bytes: what is read of it, and its bump."""
_MARKET_TAIL: Final = struct.Struct("<QQQqqq32sBHH?QqB")
# authority, index, collateral, positions, orders, most positions, initial, maintenance and available margin ... active
_MARGIN: Final = struct.Struct("<8x32sHQHHHQQQ2x8x2x2x8x8x8x8x8x8x?")
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_LONGEST_ASSET_NAME: Final = 32

_SIDES: Final = tuple(Side)
# Asking an enum for its length is a Python call, and dearer than the rest of the check.
_TYPES_END: Final = len(OrderType)
_SIDES_END: Final = len(Side)
_STATUSES_END: Final = len(OnchainStatus)


class Venue:
    """QuantDesk's program, in the revision that `program`'s IDL describes. `keeper` is the executor in its messages,
    and `authority` the markets' in those that post a price; None: there are none such.
    """

    def __init__(self, program: Program, keeper: Pubkey, authority: Pubkey | None = None) -> None:
        self.program = program
        self.keeper = keeper
        self._authority = authority
        self.id = program.id
        self.position_size = _POSITION_SIZE if program.creates_position else None
        """Bytes of the account that a fill creates; None when the revision creates none."""
        self.arms = True
        """Whether an execution can be signed before the price that triggers it: its bytes say nothing of that price."""
        self.market_discriminator = MARKET_DISCRIMINATOR
        self.order_discriminator = ORDER_DISCRIMINATOR
        self.pending_filter: Mapping[str, Any] = memcmp(STATUS_OFFSET, bytes((OnchainStatus.PENDING,)))
        self._said: dict[int, str] = {}
        """The program's own names of its errors, as far as they were logged."""
        self._templates = {
            AttemptKind.EXECUTE: Template.of(program, EXECUTE, keeper),
            AttemptKind.RATCHET: Template.of(program, RATCHET, keeper) if program.can_ratchet else None,
        }

    def __repr__(self) -> str:
        return f"Venue({self.program!r}, keeper {self.keeper})"

    # -- account bytes to facts

    def order(self, account: AccountBytes | None, slot: int) -> Order | None:
        """The order that the account was as of `slot`; None when there is none, or it is not the program's.
        MalformedAccount when it does not decode.
        """
        return None if not self._owns(account) else decode_order(account.address, account.data, slot)

    def market(self, account: AccountBytes | None, slot: int) -> Market | None:
        """The same for a market."""
        if account is None or account.owner != self.id:
            return None
        return decode_market(account.address, account.data, slot)

    def position(self, account: AccountBytes | None, slot: int) -> Position | None:
        """The same for a position."""
        return None if not self._owns(account) else decode_position(account.address, account.data, slot)

    def order_fields(self, address: Pubkey, data: bytes) -> OrderFields:
        """An order's fields, of an account that is known to be the program's. MalformedAccount."""
        return order_fields(address, data)

    def _owns(self, account: AccountBytes | None) -> TypeGuard[AccountBytes]:
        return account is not None and account.owner == self.id

    # -- an action to a message

    def message(
        self,
        kind: AttemptKind,
        order: Order,
        budget: Budget,
        blockhash: Blockhash,
        crank: Crank | None = None,
        tip: Tip | None = None,
    ) -> Built:
        """What fills the order (EXECUTE) or moves its stop (RATCHET), to be signed, and where the position will be.
        With `crank`, its price is posted to the order's market first; with `tip`, that is paid last. Misconfigured when
        the IDL does not say how.
        """
        template, more = self._templates[kind], crank is not None or tip is not None
        built = None if template is None or more else template.build(order, budget, blockhash)
        if built is not None:
            return built
        position = self.position_of(order) if kind is _EXECUTE else None
        wanted = self.instructions(kind, order, crank, tip)
        return Built(general_message(self.keeper, budget, blockhash, *wanted), position)

    def instructions(
        self, kind: AttemptKind, order: Order, crank: Crank | None = None, tip: Tip | None = None
    ) -> list[Instruction]:
        """What the program is asked for, and the tip, in order."""
        asked = [(self.program.execute if kind is _EXECUTE else self.program.ratchet)(order, self.keeper)]
        if crank is not None:
            assert self._authority is not None
            asked.insert(0, self.program.crank(order.market, crank, self._authority))
        return asked if tip is None else [*asked, tip.instruction(self.keeper)]

    def position_of(self, order: Order) -> Pubkey | None:
        """Where the fill's position will be; None when the revision creates none."""
        return self.program.position_of(order, self.keeper)

    def user_account_of(self, order: Order) -> Pubkey | None:
        """The margin account that a fill draws on; None when the revision's fill takes none."""
        return self.program.user_account_of(order, self.keeper)

    # -- a failure to its fate

    def failure(self, err: object, wire: bytes, logs: Sequence[str] = ()) -> ProgramFailure:
        """A transaction's error, in the RPC's JSON shape, by its name and what it means. `wire` is the transaction."""
        failure = name_failure(err, programs_of(wire), self.id, self.program.idl, logs, self._said)
        if failure.program == self.id and failure.code is not None and logs:
            self._said[failure.code] = failure.name
        if self._authority is not None and failure.program == self.id and self._cranks(wire, failure.instruction):
            return replace(failure, fate=crank_fate_of(failure.name))
        return failure

    def _cranks(self, wire: bytes, place: int | None) -> bool:
        """Whether the transaction's instruction at this place posts a price."""
        asked = VersionedTransaction.from_bytes(wire).message.instructions
        discriminator_ = self.program.idl.instruction(CRANK).discriminator
        return place is not None and place < len(asked) and bytes(asked[place].data).startswith(discriminator_)


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
            _initial_ratio,
            _maintenance_ratio,
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
        liquidation_price_1e6=fields[9],
        initial_margin_1e6=fields[15],
        maintenance_margin_1e6=fields[16],
    )


def open_positions_of(user: Pubkey) -> list[Mapping[str, Any]]:
    """The filters for a wallet's open positions, in both revisions."""
    return [
        memcmp(0, POSITION_DISCRIMINATOR),
        memcmp(_POSITION_USER_AT, bytes(user)),
        memcmp(_POSITION_STATUS_AT, _OPEN),
    ]


def decode_margin_account(address: Pubkey, data: bytes, slot: int) -> MarginAccount:
    """A UserAccount, which is the same in both revisions."""
    if len(data) < _MARGIN.size or data[:8] != _MARGIN_DISCRIMINATOR:
        raise MalformedAccount(f"{address} is not a UserAccount ({len(data)} bytes)")
    authority, _, collateral, positions, _, most, initial, maintenance, available, active = _MARGIN.unpack_from(data)
    return MarginAccount(
        address=address,
        authority=Pubkey.from_bytes(authority),
        collateral_1e6=collateral,
        available_margin_1e6=available,
        initial_margin_1e6=initial,
        maintenance_margin_1e6=maintenance,
        positions=positions,
        max_positions=most,
        active=active,
        slot=slot,
    )
