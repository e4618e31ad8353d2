"""Row numbers in order of a key: the one index that the book is made of.

It holds pairs (key, row) of a 64-bit key and a 32-bit row number, sorted, in chunks of plain arrays: 12 bytes a
pair and some slack, against 56 for a sorted list of Python integers. Finding is two bisections, inserting and
removing move at most one chunk (1.5 KB), and reading the lowest or highest key is O(1). Pairs are unique, keys
need not be: a hundred thousand stops at one round number cost no more than at as many prices.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from itertools import takewhile
from typing import Final

MAX_KEY: Final = 2**64 - 1
_MAX_ROW: Final = 2**32 - 1
_FULL: Final = 128
"""A chunk is split when it grows beyond this, and joined to a neighbour below a quarter of it. Small ones cost a few
bytes a pair; large ones cost cache lines, which is what an update in a large book waits for."""
_PART: Final = 4096
"""So many pairs are sorted in one step of a load."""
_SAMPLES_A_PART: Final = 16


class SortedRows:
    """Pairs (key, row), ascending by key, then by row. Not to be changed while one of its iterators is in use."""

    __slots__ = ("_count", "_keys", "_lasts", "_rows")

    def __init__(self) -> None:
        self._keys: list[array[int]] = []
        self._rows: list[array[int]] = []
        self._lasts: list[int] = []  # each chunk's last pair, as key << 32 | row: a chunk is found by bisection
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"SortedRows(pairs={self._count}, chunks={len(self._keys)})"

    def add(self, key: int, row: int) -> None:
        """Put a pair in. ValueError if it is there already: two owners of one row would be a bug."""
        pair = key << 32 | row
        chunk = bisect_left(self._lasts, pair)
        if chunk == len(self._lasts):
            if not chunk:
                self._append(array("Q", (key,)), array("I", (row,)))
                self._count = 1
                return
            chunk -= 1
            self._lasts[chunk] = pair  # it is beyond all others, and goes to the end of the last chunk
        keys, rows = self._keys[chunk], self._rows[chunk]
        at = bisect_left(keys, key)
        if at < len(keys) and keys[at] == key:
            at = _position(keys, rows, key, row)
            if at < len(keys) and rows[at] == row and keys[at] == key:
                raise ValueError(f"the pair {key}, {row} is already there")
        keys.insert(at, key)
        rows.insert(at, row)
        self._count += 1
        if len(keys) > _FULL:
            self._split(chunk)

    def remove(self, key: int, row: int) -> None:
        """Take a pair out. KeyError if it isn't there: the book has lost count of its rows."""
        chunk = bisect_left(self._lasts, key << 32 | row)
        if chunk == len(self._lasts):
            raise KeyError((key, row))
        keys, rows = self._keys[chunk], self._rows[chunk]
        at = bisect_left(keys, key)
        if rows[at] != row or keys[at] != key:
            at = _position(keys, rows, key, row)
            if rows[at] != row or keys[at] != key:
                raise KeyError((key, row))
        del keys[at], rows[at]
        self._count -= 1
        size = len(keys)
        if not size:
            del self._keys[chunk], self._rows[chunk], self._lasts[chunk]
            return
        if at == size:
            self._lasts[chunk] = keys[-1] << 32 | rows[-1]
        if size < _FULL // 4 and len(self._lasts) > 1:
            self._join(chunk - 1 if chunk else chunk)

    def ascending(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """The pairs with key >= start, lowest first."""
        for chunk in range(bisect_left(self._lasts, start << 32), len(self._lasts)):
            keys, rows = self._keys[chunk], self._rows[chunk]
            for at in range(bisect_left(keys, start), len(keys)):
                yield keys[at], rows[at]

    def descending(self, start: int = MAX_KEY) -> Iterator[tuple[int, int]]:
        """The pairs with key <= start, highest first."""
        newest = min(bisect_left(self._lasts, start << 32 | _MAX_ROW), len(self._lasts) - 1)
        for chunk in range(newest, -1, -1):
            keys, rows = self._keys[chunk], self._rows[chunk]
            for at in range(bisect_right(keys, start) - 1, -1, -1):
                yield keys[at], rows[at]

    def from_top(self, least: int, limit: int | None) -> list[int]:
        """The rows with key >= `least`, highest first, at most `limit`. Asks one number when there is none."""
        rows: list[int] = []
        if not self._lasts or self._lasts[-1] >> 32 < least:
            return rows
        for chunk in range(len(self._lasts) - 1, -1, -1):
            start = bisect_left(self._keys[chunk], least)
            rows += self._rows[chunk][start:][::-1]
            if start or (limit is not None and len(rows) >= limit):
                break
        return rows[:limit]

    def from_bottom(self, most: int, limit: int | None) -> list[int]:
        """The rows with key <= `most`, lowest first, at most `limit`. Asks one number when there is none."""
        rows: list[int] = []
        if not self._keys or self._keys[0][0] > most:
            return rows
        for chunk, keys in enumerate(self._keys):
            end = bisect_right(keys, most)
            rows += self._rows[chunk][:end]
            if end < len(keys) or (limit is not None and len(rows) >= limit):
                break
        return rows[:limit]

    def equal(self, key: int) -> Sequence[int]:
        """The rows with exactly this key."""
        chunk = bisect_left(self._lasts, key << 32)
        if chunk == len(self._lasts):
            return ()
        keys = self._keys[chunk]
        start = bisect_left(keys, key)
        if keys[start] != key:
            return ()
        following = keys if start + 1 < len(keys) else self._keys[chunk + 1] if chunk + 1 < len(self._keys) else ()
        after = (start + 1) % len(keys)
        if not following or following[after] != key:
            return (self._rows[chunk][start],)
        return [row for _, row in takewhile(lambda pair: pair[0] == key, self.ascending(key))]

    def chunks(self) -> Iterator[tuple[array[int], array[int]]]:
        """All pairs, some hundred at a time, as keys and rows; lowest first."""
        return zip(self._keys, self._rows, strict=True)

    def fill(self, keys: array[int], rows: array[int]) -> Iterator[None]:
        """Fill this empty index with pairs in any order, `rows[n]` with `keys[n]`, in steps of about 2 ms; to be run
        to its end. About 0.8 us a pair.

        Many pairs are first put into parts, each beyond the one before, so that no step sorts more than one part.
        """
        parts = yield from _parts(keys, rows)
        rest: list[int] = []
        size = _loaded_size()
        while parts:
            part = parts.pop()
            part.sort()
            part = rest + part if rest else part
            end = len(part) - len(part) % size if parts else len(part)
            rest = part[end:]
            for start in range(0, end, size):
                some = part[start : min(start + size, end)]
                self._append(array("Q", [pair >> 32 for pair in some]), array("I", [pair & _MAX_ROW for pair in some]))
            yield
        self._count = len(keys)

    def take(self, other: SortedRows) -> None:
        """Have the pairs of `other`, which must not be used any more, instead of its own."""
        self._keys, self._rows, self._lasts, self._count = other._keys, other._rows, other._lasts, other._count

    def _append(self, keys: array[int], rows: array[int]) -> None:
        self._keys.append(keys)
        self._rows.append(rows)
        self._lasts.append(keys[-1] << 32 | rows[-1])

    def _split(self, chunk: int) -> None:
        keys, rows = self._keys[chunk], self._rows[chunk]
        half = len(keys) // 2
        self._keys[chunk : chunk + 1] = [keys[:half], keys[half:]]
        self._rows[chunk : chunk + 1] = [rows[:half], rows[half:]]
        self._lasts.insert(chunk, keys[half - 1] << 32 | rows[half - 1])

    def _join(self, chunk: int) -> None:
        """Append the next chunk to this one, so that removals don't leave a trail of tiny chunks."""
        self._keys[chunk].extend(self._keys.pop(chunk + 1))
        self._rows[chunk].extend(self._rows.pop(chunk + 1))
        del self._lasts[chunk]
        if len(self._keys[chunk]) > _FULL:
            self._split(chunk)


def _loaded_size() -> int:
    """Chunks start three quarters full, so that the first additions after a load do not split them all."""
    return _FULL * 3 // 4


def _parts(keys: array[int], rows: array[int]) -> Generator[None, None, list[list[int]]]:
    """The pairs, each as `key << 32 | row`, in unsorted parts of about `_PART`, the highest part first.

    Where one part ends and the next begins is read off a sorted sample, so that it holds whatever the keys are.
    """
    count = len(keys)
    if count <= 2 * _PART:
        return [[key << 32 | row for key, row in zip(keys, rows, strict=True)]]
    picked = range(0, count, max(1, _PART // _SAMPLES_A_PART))
    sample = sorted(keys[n] << 32 | rows[n] for n in picked)
    borders = sample[_SAMPLES_A_PART::_SAMPLES_A_PART]
    parts: list[list[int]] = [[] for _ in range(len(borders) + 1)]
    for start in range(0, count, _PART):
        yield
        for key, row in zip(keys[start : start + _PART], rows[start : start + _PART], strict=True):
            pair = key << 32 | row
            parts[bisect_left(borders, pair)].append(pair)
    parts.reverse()
    return parts


def _position(keys: array[int], rows: array[int], key: int, row: int) -> int:
    """Where the pair is, or belongs, in a chunk."""
    at = bisect_left(keys, key)
    if at < len(keys) and rows[at] != row and keys[at] == key:
        # Several rows may have this key.
        at = bisect_left(rows, row, at, bisect_right(keys, key, at))
    return at
