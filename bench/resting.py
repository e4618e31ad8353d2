"""Order accounts by the million, as the chain stores them, made from one real account: far from any price.

Half are stop losses far below, a quarter take profits far above, a quarter trailing stops whose stops are far below
and whose distances are so wide that no price of a benchmark moves them.
"""

from __future__ import annotations

import base64
import random
import struct
from collections.abc import Iterator, Sequence

import msgspec
from solders.pubkey import Pubkey

from keeper.domain.orders import OrderType, Side

_HEAD = struct.Struct("<32s32sBBQQQQ")  # user, market, type, side, size, price, stop, trailing distance: from byte 8
_ID_AT = 158 + 1 + 16


def order_accounts(
    template: bytes, markets: Sequence[Pubkey], count: int, *, seed: int = 1
) -> Iterator[tuple[Pubkey, bytes]]:
    """`count` pending orders spread over the markets, each with an address and a user of its own: of every kind."""
    rng = random.Random(seed)
    kinds = (OrderType.STOP_LOSS, OrderType.STOP_LOSS, OrderType.TAKE_PROFIT, OrderType.TRAILING_STOP)
    raw_markets = [bytes(market) for market in markets]
    tail = template[_ID_AT + 8 :]
    middle = template[8 + _HEAD.size : _ID_AT]
    for i in range(count):
        kind = kinds[i // len(raw_markets) % 4]
        stop = (
            rng.randrange(500_000_000, 900_000_000)
            if kind is OrderType.TAKE_PROFIT
            else rng.randrange(2_000_000, 50_000_000)
        )
        distance = 990_000 if kind is OrderType.TRAILING_STOP else 0
        head = _HEAD.pack(
            rng.randbytes(32), raw_markets[i % len(raw_markets)], kind, Side.LONG, 1_000_000, 0, stop, distance
        )
        yield Pubkey(rng.randbytes(32)), b"".join((template[:8], head, middle, i.to_bytes(8, "little"), tail))


def reply_head(slot: int) -> bytes:
    """How a getProgramAccounts reply begins, laid out as Agave does."""
    return b'{"jsonrpc":"2.0","result":{"context":{"apiVersion":"2.2.0","slot":%d},"value":[' % slot


def reply_accounts(program: Pubkey, accounts: Sequence[tuple[Pubkey, bytes]], lamports: int) -> Iterator[bytes]:
    """Its accounts, in pieces of a thousand."""
    owner = str(program)
    piece: list[bytes] = []
    first = True
    for address, data in accounts:
        piece.append(
            msgspec.json.encode(
                {
                    "pubkey": str(address),
                    "account": {
                        "data": [base64.b64encode(data).decode(), "base64"],
                        "executable": False,
                        "lamports": lamports,
                        "owner": owner,
                        "rentEpoch": 18_446_744_073_709_551_615,
                        "space": len(data),
                    },
                }
            )
        )
        if len(piece) == 1_000:
            yield (b"" if first else b",") + b",".join(piece)
            first = False
            piece.clear()
    if piece:
        yield (b"" if first else b",") + b",".join(piece)


def reply_end(request_id: int) -> bytes:
    """What follows the last account."""
    return b']},"id":%d}' % request_id
