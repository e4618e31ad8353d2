"""Decimal strings and the program's integers are the same numbers, or the string is refused."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.decimals import MAX_U64, PATTERN, InexactDecimal, decimal, parse_1e6


@given(st.integers(0, MAX_U64))
def test_every_u64_comes_back(value: int) -> None:
    text = decimal(value)
    assert parse_1e6(text) == value
    assert Decimal(text) * 10**6 == value
    assert re.fullmatch(PATTERN, text)


@given(st.decimals(0, 10**9, places=6))
def test_six_places_are_exact(value: Decimal) -> None:
    assert parse_1e6(f"{value:f}") == int(value * 10**6)


@given(st.text(max_size=50))
def test_anything_else_is_refused_by_its_own_error(text: str) -> None:
    try:
        value = parse_1e6(text)
    except InexactDecimal:
        return
    assert Decimal(text) * 10**6 == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("95.5", 95_500_000),
        ("0", 0),
        ("0.000001", 1),
        ("1.0000000", 1_000_000),
        ("18446744073709.551615", MAX_U64),
    ],
)
def test_exact(text: str, value: int) -> None:
    assert parse_1e6(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "1.",
        ".5",
        "+1",
        "-1",
        "-0",
        "1e3",
        "0x1",
        "1_000",
        "01",
        "1.0000001",
        "18446744073709.551616",
        "½",
        "1\n",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InexactDecimal):
        parse_1e6(text)
