"""The sorted index against a plain sorted list, with chunks so small that they split and join all the time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.triggers import sorted_rows
from keeper.triggers.sorted_rows import MAX_KEY, SortedRows
from tests.triggers.order_making import REPEATABLE


@pytest.fixture(autouse=True, scope="module")
def _small_chunks() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_rows, "_FULL", 8)
        yield


KEYS = st.one_of(st.integers(0, 6), st.sampled_from([MAX_KEY - 1, MAX_KEY]))
PAIRS = st.tuples(KEYS, st.integers(0, 40))


def agrees(index: SortedRows, plain: list[tuple[int, int]]) -> None:
    assert len(index) == len(plain)
    assert list(index.ascending()) == plain
    assert list(index.descending()) == plain[::-1]
    assert index.lowest == (plain[0][0] if plain else None)
    assert index.highest == (plain[-1][0] if plain else None)
    for key in (0, 1, 3, 6, 7, MAX_KEY - 1, MAX_KEY):
        assert list(index.equal(key)) == [row for k, row in plain if k == key]
        assert list(index.ascending(key)) == [pair for pair in plain if pair[0] >= key]
        assert list(index.descending(key)) == [pair for pair in reversed(plain) if pair[0] <= key]


@REPEATABLE
@given(st.lists(st.tuples(st.booleans(), PAIRS), max_size=120))
def test_it_is_a_sorted_list_of_pairs(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    index = SortedRows()
    plain: list[tuple[int, int]] = []
    for put, pair in steps:
        if put and pair in plain:
            with pytest.raises(ValueError):
                index.add(*pair)
        elif put:
            index.add(*pair)
            plain = sorted([*plain, pair])
        elif pair in plain:
            index.remove(*pair)
            plain.remove(pair)
        else:
            with pytest.raises(KeyError):
                index.remove(*pair)
    agrees(index, plain)


@REPEATABLE
@given(st.lists(PAIRS, unique=True, max_size=60), st.lists(PAIRS, unique=True, max_size=60))
def test_a_load_is_many_additions(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    index = SortedRows()
    index.load([key << 32 | row for key, row in first])
    agrees(index, sorted(first))
    more = [pair for pair in second if pair not in first]
    index.load([key << 32 | row for key, row in more])
    agrees(index, sorted(first + more))


def test_removals_leave_no_trail_of_tiny_chunks() -> None:
    index, pairs = SortedRows(), [(key, 0) for key in range(4_000)]
    index.load([key << 32 for key, _ in pairs])
    random.Random(7).shuffle(pairs)
    for pair in pairs[:3_900]:
        index.remove(*pair)
    agrees(index, sorted(pairs[3_900:]))
    assert len(index._keys) <= 100
