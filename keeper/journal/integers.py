"""u64 in SQLite: kept exactly, in its signed 64-bit integers.

SQLite's INTEGER ends at 2**63 - 1, the program's u64 at 2**64 - 1. A u64 is stored as the signed number with
the same 64 bits (two's complement), so that no value is rounded and a row stays eight bytes. Below 2**63, which
is every sane price and size, the stored number reads as it is; above, it reads negative in a SQL shell.
Comparisons of such columns are made in Python, on the decoded numbers.
"""

from __future__ import annotations

from typing import Final

_SIGN: Final = 1 << 63
_SPAN: Final = 1 << 64


def to_stored(value: int) -> int:
    """The signed number that holds this u64. ValueError when it isn't one."""
    if not 0 <= value < _SPAN:
        raise ValueError(f"{value} is not an unsigned 64-bit number")
    return value - _SPAN if value >= _SIGN else value


def from_stored(value: int) -> int:
    """The u64 that `to_stored` stored."""
    return value + _SPAN if value < 0 else value


def to_stored_opt(value: int | None) -> int | None:
    """As `to_stored`; None is NULL."""
    return None if value is None else to_stored(value)


def from_stored_opt(value: int | None) -> int | None:
    """As `from_stored`; NULL is None."""
    return None if value is None else from_stored(value)
