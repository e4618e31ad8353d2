"""Accounts as the RPC interface shows them, and the filters that pick them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import zstandard
from solders.account import Account
from solders.pubkey import Pubkey

from keeper.localnet import base58
from keeper.localnet.errors import INVALID_REQUEST, RpcError, invalid_params

ENCODINGS = ("binary", "base58", "base64", "base64+zstd", "jsonParsed")
MAX_BASE58_BYTES = 128
MAX_FILTERS = 4
MAX_MEMCMP_BYTES = 128

address_text = lru_cache(maxsize=65_536)(str)
"""The base58 text of an address; remembered, because making it takes longer than the rest of a reply."""

_EXEMPT = (1 << 64) - 1
_OWN = frozenset(
    (
        Pubkey.from_string("Sysvar1111111111111111111111111111111111111"),
        Pubkey.from_string("NativeLoader1111111111111111111111111111111"),
    )
)

_compressor = zstandard.ZstdCompressor(level=3)

DataSlice = tuple[int, int]


def encode_account(account: Account, encoding: str, data_slice: DataSlice | None = None) -> dict[str, Any]:
    """One account in `encoding`, its data cut to `data_slice` (offset, length); jsonParsed as base64."""
    data = account.data
    shown = data if data_slice is None else data[data_slice[0] : data_slice[0] + data_slice[1]]
    return {
        "data": _encode_data(shown, encoding),
        "executable": account.executable,
        "lamports": account.lamports,
        "owner": address_text(account.owner),
        # A validator marks every account that pays no rent so, which by now are all but its own.
        "rentEpoch": account.rent_epoch if account.owner in _OWN else _EXEMPT,
        "space": len(data),
    }


def check_base58_size(account: Account, encoding: str, data_slice: DataSlice | None) -> None:
    """Raises RpcError where base58 was asked for more data than a validator encodes so."""
    if encoding not in ("binary", "base58"):
        return
    size = len(account.data) if data_slice is None else min(data_slice[1], len(account.data))
    if size > MAX_BASE58_BYTES:
        raise RpcError(
            INVALID_REQUEST,
            f"Encoded binary (base 58) data should be less than {MAX_BASE58_BYTES} bytes, please use Base64 encoding.",
        )


def _encode_data(data: bytes, encoding: str) -> Any:
    if encoding == "base64+zstd":
        return [b64encode(_compressor.compress(data)).decode(), "base64+zstd"]
    if encoding in ("binary", "base58"):
        # Where a reply cannot be refused any more, a validator puts this sentence in the data's place.
        small = len(data) <= MAX_BASE58_BYTES
        text = base58.encode(data) if small else "error: data too large for bs58 encoding"
        return text if encoding == "binary" else [text, "base58"]
    return [b64encode(data).decode(), "base64"]


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions that all must hold: an exact data size, and bytes at offsets."""

    sizes: tuple[int, ...] = ()
    memcmps: tuple[tuple[int, bytes], ...] = ()

    def allow(self, account: Account) -> bool:
        """Whether the account meets every condition."""
        data = account.data
        # Plain loops: this runs for every account of a program, and a generator costs more than the test.
        for size in self.sizes:
            if len(data) != size:
                return False
        for offset, wanted in self.memcmps:  # noqa: SIM110
            if data[offset : offset + len(wanted)] != wanted:
                return False
        return True


def parse_filters(raw: Any) -> Filters:
    """The `filters` of a request. Raises RpcError where they are malformed or too many."""
    if raw is None:
        return Filters()
    if not isinstance(raw, list):
        raise invalid_params("Invalid params: filters must be an array.")
    if len(raw) > MAX_FILTERS:
        raise invalid_params(f"Too many filters provided; max {MAX_FILTERS}")
    sizes: list[int] = []
    memcmps: list[tuple[int, bytes]] = []
    for item in raw:
        match item:
            case {"dataSize": int(size)} if size >= 0:
                sizes.append(size)
            case {"memcmp": {"offset": int(offset), "bytes": wanted, **rest}} if offset >= 0:
                memcmps.append((offset, _memcmp_bytes(wanted, rest.get("encoding"))))
            case _:
                raise invalid_params(f"Invalid params: {item!r} is not a dataSize or memcmp filter.")
    return Filters(tuple(sizes), tuple(memcmps))


def _memcmp_bytes(wanted: Any, encoding: Any) -> bytes:
    try:
        match wanted, encoding:
            case str(), None | "base58" | "binary":
                # Decoding base58 takes time that grows with the square of its length: look at that first.
                decoded = base58.decode(wanted[: 2 * MAX_MEMCMP_BYTES])
            case str(), "base64":
                decoded = b64decode(wanted, validate=True)
            case list(), None | "bytes":
                decoded = bytes(wanted)
            case _:
                raise invalid_params(f"Invalid params: memcmp encoding {encoding!r} is not supported.")
    except (ValueError, TypeError, Base64Error) as exc:
        raise invalid_params(f"Invalid param: memcmp bytes: {exc}") from exc
    if len(decoded) > MAX_MEMCMP_BYTES:
        raise invalid_params(f"Invalid param: memcmp bytes: more than {MAX_MEMCMP_BYTES} bytes")
    return decoded
