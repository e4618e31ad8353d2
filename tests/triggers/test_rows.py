"""The sorted index against a plain sorted list, with chunks so small that they split and join all the time."""

from __future__ import annotations

import itertools
import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.triggers import loading, rows
from keeper.triggers.loading import filled
from keeper.triggers.rows import MAX_KEY, SortedRows
from tests.triggers.order_making import REPEATABLE


@pytest.fixture(autouse=True, scope="module")
def _small_chunks() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_FULL", 8)
        patch.setattr(loading, "_PART", 8)
        patch.setattr(loading, "_SAMPLES_A_PART", 2)
        yield


KEYS = st.one_of(st.integers(0, 6), st.sampled_from([MAX_KEY - 1, MAX_KEY]))
PAIRS = st.tuples(KEYS, st.integers(0, 40))


def columns(pairs: list[tuple[int, int]]) -> tuple[array[int], array[int]]:
    return array("Q", [key for key, _ in pairs]), array("I", [row for _, row in pairs])


def filled_with(pairs: list[tuple[int, int]]) -> tuple[SortedRows, int]:
    """An index of these pairs, and in how many steps it was made."""
    steps = filled(*columns(pairs))
    for count in itertools.count():
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
    raise AssertionError


def agrees(index: SortedRows, plain: list[tuple[int, int]]) -> None:
    assert len(index) == len(plain)
    assert list(index.ascending()) == plain
    assert list(index.descending()) == plain[::-1]
    for least in (0, 1, 5):
        assert index.from_top(least, None) == [row for key, row in reversed(plain) if key >= least]
        assert index.from_bottom(least, 3) == [row for key, row in plain if key <= least][:3]
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
@given(st.lists(PAIRS, unique=True, max_size=120), st.lists(PAIRS, unique=True, max_size=30))
def test_a_fill_is_many_additions(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    index, _ = filled_with(first)
    agrees(index, sorted(first))
    more = [pair for pair in second if pair not in first]
    for pair in more:
        index.add(*pair)
    for pair in first:
        index.remove(*pair)
    agrees(index, sorted(more))


def test_no_step_of_a_fill_is_the_whole_of_it() -> None:
    pairs = [(key % 50, key) for key in range(1_000)]
    random.Random(7).shuffle(pairs)
    index, steps = filled_with(pairs)
    assert steps > 100
    agrees(index, sorted(pairs))


def test_removals_leave_no_trail_of_tiny_chunks() -> None:
    pairs = [(key, 0) for key in range(4_000)]
    index, _ = filled_with(pairs)
    random.Random(7).shuffle(pairs)
    for pair in pairs[:3_900]:
        index.remove(*pair)
    agrees(index, sorted(pairs[3_900:]))
    assert len(index._keys) <= 100
