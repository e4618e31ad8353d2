"""Three oracles' accounts, by fixed offsets. Each function raises BadFeed when the bytes are not of its kind.

Sources: the crates pyth-sdk-solana (`state.rs`, SolanaPriceAccount), pyth-solana-receiver-sdk (`price_update.rs`) and
switchboard-on-demand (`pull_feed.rs`); tests hold them to accounts of mainnet.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from solders.pubkey import Pubkey

from keeper.venue.idl import discriminator
from keeper.venue.prices.quote import BadFeed, Fault, Quote

# magic, version, type, bytes in use, price type, exponent ... time ... product ... price, confidence, status
_LEGACY: Final = struct.Struct("<IIIIIi72xq8x32s64xqQI")
_LEGACY_HEAD: Final = [0xA1B2C3D4, 2, 3]
_LEGACY_SIZE: Final = 3_312
_A_PRICE: Final = 1
_TRADING: Final = 1

_UPDATE_DISCRIMINATOR: Final = discriminator("account", "PriceUpdateV2")
# feed id, price, confidence, exponent, time, the time before, their moving averages, slot
_UPDATE: Final = struct.Struct("<32sqQiqqqQQ")
_UPDATE_LEVEL_AT: Final = 40
_UPDATE_SIZE: Final = 134
_PARTIAL, _FULL = 0, 1

_PULL_DISCRIMINATOR: Final = discriminator("account", "PullFeedAccountData")
# feed hash, ... least responses, name, ... least samples
_PULL: Final = struct.Struct("<32s24xI32x3xB")
_PULL_AT: Final = 2_120
# value and standard deviation ... least and greatest value, samples, which of them it is, slot
_RESULT: Final = struct.Struct("<16s16s32x16s16sBB6xQ")
_RESULT_AT: Final = 2_264
_TIMES: Final = struct.Struct("<32q")
_TIMES_AT: Final = 2_952
_PULL_SIZE: Final = 3_208
_PULL_EXPONENT: Final = -18


def pyth_legacy(data: bytes) -> Quote:
    """Pyth's price account of version 2, whose feed is named by its product account."""
    if len(data) != _LEGACY_SIZE:
        raise BadFeed(Fault.LAYOUT, f"it has {len(data)} bytes, and a price account of Pyth has {_LEGACY_SIZE}")
    *head, _, price_type, exponent, time_s, product, price, confidence, status = _LEGACY.unpack_from(data)
    if head != _LEGACY_HEAD or price_type != _A_PRICE:
        raise BadFeed(Fault.LAYOUT, "it is no price account of Pyth, version 2")
    return Quote(product, price, confidence, exponent, time_s, trading=status == _TRADING)


def pyth(data: bytes) -> Quote:
    """Pyth's PriceUpdateV2, as its receiver program keeps it."""
    if len(data) != _UPDATE_SIZE or data[:8] != _UPDATE_DISCRIMINATOR or data[_UPDATE_LEVEL_AT] > _FULL:
        raise BadFeed(Fault.LAYOUT, "it is no PriceUpdateV2")
    partial = data[_UPDATE_LEVEL_AT] == _PARTIAL
    # Borsh: the number of signatures is there only when not all were checked.
    feed_id, price, confidence, exponent, time_s, *_ = _UPDATE.unpack_from(data, _UPDATE_LEVEL_AT + 1 + partial)
    signatures = data[_UPDATE_LEVEL_AT + 1] if partial else None
    return Quote(feed_id, price, confidence, exponent, time_s, signatures=signatures)


def switchboard(data: bytes) -> Quote:
    """Switchboard's on-demand PullFeed: the median of its oracles, and their standard deviation as the confidence.

    Feeds that were written before there were times of submissions have none but the slot. (`last_update_timestamp` is
    older by months in accounts whose price is new.)
    """
    if len(data) != _PULL_SIZE or data[:8] != _PULL_DISCRIMINATOR:
        raise BadFeed(Fault.LAYOUT, "it is no PullFeed of Switchboard")
    feed_id, responses, samples = _PULL.unpack_from(data, _PULL_AT)
    *numbers, count, which, slot = _RESULT.unpack_from(data, _RESULT_AT)
    value, deviation, least, greatest = (int.from_bytes(number, "little", signed=True) for number in numbers)
    if not least <= value <= greatest:
        raise BadFeed(Fault.PRICE, "its price is not between the least and the greatest of its oracles' answers")
    # Fewer answers than it demands itself are none that it stands by.
    enough = slot > 0 and count >= max(1, responses, samples)
    times = _TIMES.unpack_from(data, _TIMES_AT)
    time_s = times[which] if which < len(times) else 0
    return Quote(feed_id, value, deviation, _PULL_EXPONENT, time_s or None, trading=enough, slot=slot)


KINDS: Final[Mapping[str, tuple[Callable[[bytes], Quote], Pubkey]]] = {
    "pyth": (pyth, Pubkey.from_string("rec5EKMGg6MxZYaMdyBfgwp4d5rB9T1VQH5pJv5LtFJ")),
    "pyth-legacy": (pyth_legacy, Pubkey.from_string("FsJ3A3u2vn5cTVofAjvy6y5kwABJAqYWpe4975bi2epH")),
    "switchboard": (switchboard, Pubkey.from_string("SBondMDrcV3K4kxZR1HNVT7osZxAHVHgYXL5Ze1oMUv")),
}
"""By the word of the settings: what reads an account, and the program that owns it on mainnet."""
