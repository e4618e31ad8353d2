"""Feeds' accounts for tests: some as they were on mainnet and devnet, and any other that a test wants.

Layouts are written down here a second time, by offsets from the start and by Borsh's order, and read with plain
integers: so `judge` knows by itself what a decoder has to accept, and a mistake in one is not in the other.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from solders.pubkey import Pubkey

PYTH_RECEIVER: Final = Pubkey.from_string("rec5EKMGg6MxZYaMdyBfgwp4d5rB9T1VQH5pJv5LtFJ")
PYTH_ORACLE: Final = Pubkey.from_string("FsJ3A3u2vn5cTVofAjvy6y5kwABJAqYWpe4975bi2epH")
SWITCHBOARD: Final = Pubkey.from_string("SBondMDrcV3K4kxZR1HNVT7osZxAHVHgYXL5Ze1oMUv")
OWNERS: Final = {"pyth": PYTH_RECEIVER, "pyth-legacy": PYTH_ORACLE, "switchboard": SWITCHBOARD}

SOL_USD: Final = bytes.fromhex("ef0d8b6fda2ceba41da15d4095d1da392a0d2f8ed0c6c7bc0f4cfac8c280b56d")
SOL_USD_ACCOUNT: Final = Pubkey.from_string("7UVimffxr9ow1uXYxsr4LHAcV58mLzhmwaeKvJ1pjLiE")
MAINNET_SOL_USD: Final = base64.b64decode(
    "IvEjY51+9M1gMUcENA3t3zcf1CRyFI8kjp0abRpesqw6zYt/1dayQwHvDYtv2izrpB2hXUCV0do5Kg0vjtDGx7wPTPrIwoC1beNDCsMCAAAAd+YyAAAA"
    "AAD4////Av3FagAAAAAB/cVqAAAAAHipn8MCAAAAYp0mAAAAAACN/REbAAAAAAA="
)
"""Pyth's sponsored SOL/USD on mainnet, 2026-10-07: 118.62164451 with 0.03335799, of 08:04:18 UTC, verified in full."""

NVDA_USD: Final = bytes.fromhex("b1073854ed24cbc755dc527418f52b7d271f6cc967bbf8d8129112b18860a593")
DEVNET_NVDA: Final = bytes.fromhex(
    "22f123639d7ef4cdcdb3d4c2acc447184398ad317cede5f7846a07336c7d228ebe664729eb8ae2f20005b1073854ed24cbc755dc527418f52b7d"
    "271f6cc967bbf8d8129112b18860a593b8fb4f0100000000384a000000000000fbfffffff4c5216a00000000f4c5216a0000000018384e010000"
    "0000b13f0000000000001e2dd81b00000000"
)
"""NVDA/USD on devnet: 220.19, of which five guardians' signatures were checked."""

_BONK_HEAD: Final = base64.b64decode(
    "1MOyoQIAAAADAAAA8AwAAAEAAAD2////DAAAAAsAAACyQQAOAAAAALBBAA4AAAAAXDACAAAAAAB/FWJGAAAAAINNo+oBAAAAFAEAAAAAAAA8fNiHAAAA"
    "AINNo+oBAAAA0Ux0ZQAAAAADAAAAAAAAANm1ydJm+php8a4eGSWu3qjHn8UiuazJ2/RkovPfE4V+AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AACwQQAOAAAAACo6AgAAAAAAzgAAAAAAAADQTHRlAAAAADc6AgAAAAAA2wAAAAAAAAABAAAAAAAAALJBAA4AAAAA"
)
BONK_USD: Final = _BONK_HEAD + bytes(3_312 - len(_BONK_HEAD))
"""BONK/USD of Pyth's old oracle on mainnet, slot 234,897,842: 0.0000145975. What its publishers said is left out."""
BONK_PRODUCT: Final = _BONK_HEAD[112:144]

DSOL_SLOT: Final = 339_847_490
DSOL_VALUE: Final = 226_556_945_000_000_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What a test demands, and when: `judge`'s counterpart of Demands and Now."""

    owner: Pubkey
    feed_id: bytes
    max_confidence_ppm: int = 10_000
    min_signatures: int | None = None
    slot: int = 400_000_000
    chain_time_s: float = 1_800_000_000.0
    slot_s: float = 0.25


def update(
    feed_id: bytes = SOL_USD,
    price: int = 100_00000000,
    confidence: int = 1_000_000,
    exponent: int = -8,
    time_s: int = 1_799_999_999,
    *,
    signatures: int | None = None,
) -> bytes:
    """A PriceUpdateV2. `signatures` None: verified in full."""
    level = b"\1" if signatures is None else bytes([0, signatures])
    message = feed_id + _i(price) + _i(confidence) + exponent.to_bytes(4, "little", signed=True) + _i(time_s)
    message += _i(time_s - 1) + _i(price) + _i(confidence) + _i(400_000_000)
    data = bytes([34, 241, 35, 99, 157, 126, 244, 205]) + bytes(SOL_USD_ACCOUNT) + level + message
    return data + bytes(134 - len(data))


def pull(
    feed_id: bytes = SOL_USD,
    value: int = DSOL_VALUE,
    deviation: int = 10**17,
    time_s: int = 0,
    *,
    slot: int = DSOL_SLOT,
    samples: int = 3,
    least: int = 1,
    low: int | None = None,
    high: int | None = None,
    which: int = 12,
) -> bytes:
    """A PullFeed of Switchboard. Without `time_s` its time is told by its slot, as in those of old."""
    data = bytearray(3_208)
    data[:8] = bytes([196, 27, 108, 196, 10, 215, 219, 40])
    data[2_120:2_152] = feed_id
    data[2_176:2_180] = least.to_bytes(4, "little")
    data[2_180:2_184] = b"dSOL"
    data[2_215] = least
    # A time of the account's own, which is not its price's.
    data[2_216:2_224] = _i(1_731_530_827)
    for at, number in (
        (2_264, value),
        (2_280, deviation),
        (2_328, value if low is None else low),
        (2_344, value if high is None else high),
    ):
        data[at : at + 16] = number.to_bytes(16, "little", signed=True)
    data[2_360:2_362] = bytes([samples, which])
    data[2_368:2_376] = slot.to_bytes(8, "little")
    data[2_952 + 8 * which : 2_960 + 8 * which] = _i(time_s)
    return bytes(data)


def _i(number: int) -> bytes:
    return number.to_bytes(8, "little", signed=number < 0)


def _legacy(data: bytes, asked: Asked) -> tuple[Fraction, Fraction, int, int] | None:
    at = _Fields(data)
    ours = at.u(0, 4) == 0xA1B2C3D4 and at.u(4, 4) == 2 and at.u(8, 4) == 3 and at.u(16, 4) == 1
    if len(data) != 3_312 or not ours or data[112:144] != asked.feed_id or at.u(224, 4) != 1:
        return None
    exponent = at.i(20, 4)
    return _scaled(at.i(208, 8), exponent), _scaled(at.u(216, 8), exponent), at.i(96, 8), exponent


def _update(data: bytes, asked: Asked) -> tuple[Fraction, Fraction, int, int] | None:
    if len(data) != 134 or list(data[:8]) != [34, 241, 35, 99, 157, 126, 244, 205]:
        return None
    cursor = 40
    full = data[cursor] == 1
    if data[cursor] > 1:
        return None
    cursor += 1
    if not full:
        if asked.min_signatures is None or data[cursor] < asked.min_signatures:
            return None
        cursor += 1
    if data[cursor : cursor + 32] != asked.feed_id:
        return None
    at = _Fields(data[cursor + 32 :])
    exponent = at.i(16, 4)
    return _scaled(at.i(0, 8), exponent), _scaled(at.u(8, 8), exponent), at.i(20, 8), exponent


def _pull(data: bytes, asked: Asked) -> tuple[Fraction, Fraction, int, int] | None:
    if len(data) != 3_208 or list(data[:8]) != [196, 27, 108, 196, 10, 215, 219, 40]:
        return None
    at = _Fields(data)
    value, deviation, low, high = (at.i(offset, 16) for offset in (2_264, 2_280, 2_328, 2_344))
    answers = at.u(2_360, 1)
    if data[2_120:2_152] != asked.feed_id or not low <= value <= high or at.u(2_368, 8) == 0:
        return None
    if answers < at.u(2_176, 4) or answers < at.u(2_215, 1) or answers < 1:
        return None
    which = at.u(2_361, 1)
    time_s = at.i(2_952 + 8 * which, 8) if which < 32 else 0
    if time_s == 0:
        time_s = int(asked.chain_time_s - (asked.slot - at.u(2_368, 8)) * asked.slot_s)
    return _scaled(value, -18), _scaled(deviation, -18), time_s, -18


READERS: Final[dict[str, Callable[[bytes, Asked], tuple[Fraction, Fraction, int, int] | None]]] = {
    "pyth": _update,
    "pyth-legacy": _legacy,
    "switchboard": _pull,
}


def judge(kind: str, owner: Pubkey, data: bytes, asked: Asked) -> tuple[int, int] | None:
    """The price x 1e6 and its time that the account is, or None when it must not be accepted."""
    if owner != asked.owner:
        return None
    said = READERS[kind](data, asked)
    if said is None:
        return None
    price, confidence, time_s, exponent = said
    if not -18 <= exponent <= 6 or price <= 0 or confidence < 0:
        return None
    price_1e6 = price * 1_000_000
    if not 1 <= price_1e6 < 2**63 or confidence / price > Fraction(asked.max_confidence_ppm, 1_000_000):
        return None
    return None if time_s > asked.chain_time_s + 15 else (int(price_1e6), time_s)


_POWERS: Final = {exponent: Fraction(10) ** exponent for exponent in range(-20, 10)}


def _scaled(number: int, exponent: int) -> Fraction:
    # An exponent that is out of range is refused before this number is looked at.
    return number * _POWERS.get(exponent, Fraction(1))


@dataclass(frozen=True, slots=True)
class _Fields:
    data: bytes

    def u(self, offset: int, size: int) -> int:
        return int.from_bytes(self.data[offset : offset + size], "little")

    def i(self, offset: int, size: int) -> int:
        return int.from_bytes(self.data[offset : offset + size], "little", signed=True)
