"""Decimal strings to the program's integers and back, exactly.

A price of 95.5 is the string "95.5" and the integer 95_500_000. Floats are refused: 0.1 + 0.2 is not 0.3, and an
order's numbers must be the ones that its user typed. What the integer can't hold is refused, never rounded.
"""

from __future__ import annotations

import re
from typing import Final

SCALE_DIGITS: Final = 6
MAX_U64: Final = 2**64 - 1
PATTERN: Final = r"^(0|[1-9][0-9]{0,13})(\.[0-9]{1,18})?$"
"""For the OpenAPI document. A u64 of millionths has at most 14 digits before the point."""

_LONGEST: Final = 40
_SHAPE: Final = re.compile(r"(?P<sign>[-+]?)(?P<whole>[0-9]+)(?:\.(?P<fraction>[0-9]+))?")


class InexactDecimal(ValueError):
    """The text is not a decimal that the program's integers hold exactly; the message says why."""


def parse_1e6(text: str) -> int:
    """A decimal string as millionths: "95.5" is 95_500_000. InexactDecimal when that isn't exact or not a u64."""
    if len(text) > _LONGEST:
        raise InexactDecimal(f"is longer than {_LONGEST} characters")
    match = _SHAPE.fullmatch(text) if text.isascii() else None
    if match is None:
        raise InexactDecimal('has to be a plain decimal such as "95.5": digits, and a point with digits after it')
    if match["sign"]:
        raise InexactDecimal("has to be without a sign" if match["sign"] == "+" else "must not be negative")
    whole, fraction = match["whole"], (match["fraction"] or "").rstrip("0")
    if len(whole) > 1 and whole[0] == "0":
        raise InexactDecimal("has a leading zero")
    if len(fraction) > SCALE_DIGITS:
        raise InexactDecimal(f"has more than {SCALE_DIGITS} decimal places, which the program can't hold")
    value = int(whole) * 10**SCALE_DIGITS + int(fraction.ljust(SCALE_DIGITS, "0") or "0")
    if value > MAX_U64:
        raise InexactDecimal("is too large for the program")
    return value


def decimal(value_1e6: int) -> str:
    """Millionths as the shortest decimal string: 95_500_000 is "95.5"."""
    if value_1e6 < 0:
        return f"-{decimal(-value_1e6)}"
    whole, fraction = divmod(value_1e6, 10**SCALE_DIGITS)
    tail = f"{fraction:0{SCALE_DIGITS}d}".rstrip("0")
    return f"{whole}.{tail}" if tail else str(whole)
