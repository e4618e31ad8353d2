"""PostgreSQL's words as SQLite's, for the statements that the keeper asks: the way back from
`keeper.journal.postgres.dialect`, and what its leases ask beside that.
"""

from __future__ import annotations

import functools
import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

_WORDS: Final = (
    (
        re.compile(r"= ANY \(ARRAY\(SELECT json_array_elements_text\(%s::json\)::bigint\)\)"),
        "IN (SELECT CAST(value AS INTEGER) FROM json_each(?))",
    ),
    (
        re.compile(r"= ANY \(ARRAY\(SELECT json_array_elements_text\(%s::json\)\)\)"),
        "IN (SELECT value FROM json_each(?))",
    ),
    (re.compile(r"= ANY \((%s|%\(\w+\)s)\)"), r"IN (SELECT value FROM json_each(\1))"),
    (re.compile(r"FROM unnest\((%\(\w+\)s)::text\[\]\) (\w+)"), r"FROM (SELECT value AS \2 FROM json_each(\1))"),
    (re.compile(r"extract\(epoch FROM (.+?)\)::float8"), r"(\1)"),
    (re.compile(r"(string_agg\([^()]*?) ORDER BY \w+\)"), r"\1)"),
    (re.compile(r" FOR UPDATE$"), ""),
    (re.compile(r"%\((\w+)\)s"), r":\1"),
    (re.compile(r"%s"), "?"),
    (re.compile(r"%%"), "%"),
)


@functools.lru_cache(maxsize=2_048)
def sqlite_sql(sql: str) -> str:
    """The statement in SQLite's words, with sqlite3's placeholders."""
    for postgres, sqlite in _WORDS:
        sql = postgres.sub(sqlite, sql)
    return sql


@functools.lru_cache(maxsize=1_024)
def each_sql(sql: str) -> str:
    """A statement over arrays, a column each, as SQLite's over one row; it is run for each of them."""
    if sql.startswith("INSERT"):
        head, _, arrays = sql.partition(" SELECT * FROM unnest(")
        arrays, _, then = arrays.partition(")")
        return f"{head} VALUES ({', '.join('?' * arrays.count('%s'))}){then}"
    table = sql.split()[1]
    given = re.sub(r"new\.c(\d+)", lambda found: f"?{int(found[1]) + 2}", sql[sql.index(" SET ") : sql.index(" FROM ")])
    return f"UPDATE {table}{given} WHERE id = ?1"


def arguments(args: Any) -> Any:
    """The values of a statement: lists are JSON, as `json_each` reads them."""
    if isinstance(args, Mapping):
        return {name: _value(value) for name, value in args.items()}
    return [_value(value) for value in args]


def _value(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


class _Sorted:
    """`string_agg` in the order of the values."""

    def __init__(self) -> None:
        self._values: list[str] = []
        self._between = ""

    def step(self, value: str, between: str) -> None:
        self._values.append(value)
        self._between = between

    def finalize(self) -> str | None:
        return self._between.join(sorted(self._values)) if self._values else None


def add_functions(conn: sqlite3.Connection, clock: Callable[[], float]) -> None:
    """PostgreSQL's functions that SQLite lacks; times are seconds of the database's clock."""
    conn.create_function("clock_timestamp", 0, clock)
    conn.create_function("to_timestamp", 1, float)
    conn.create_function("starts_with", 2, lambda text, start: text.startswith(start))
    conn.create_function("split_part", 3, _split_part)
    aggregate: Any = _Sorted
    conn.create_aggregate("string_agg", 2, aggregate)


def _split_part(text: str | None, between: str, number: int) -> str | None:
    if text is None:
        return None
    parts: Sequence[str] = text.split(between)
    return parts[number - 1] if number <= len(parts) else ""
