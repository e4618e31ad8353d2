"""SQLite's words as PostgreSQL's, for the texts that every store shares (`queries`, `saving`, `pruning`, `looking`)."""

from __future__ import annotations

import functools
import re
from typing import Final

_WORDS: Final = (
    ("%", "%%"),
    # An array that is computed once: an index is used for its members, whichever way the planner estimates them.
    ("IN (SELECT value FROM json_each(?))", "= ANY (ARRAY(SELECT json_array_elements_text(?::json)))"),
    (
        "IN (SELECT CAST(value AS INTEGER) FROM json_each(?))",
        "= ANY (ARRAY(SELECT json_array_elements_text(?::json)::bigint))",
    ),
    ("?", "%s"),
    ("CROSS JOIN", "JOIN"),
    ("group_concat(", "string_agg("),
)
_HINTS: Final = re.compile(r" (INDEXED BY \w+|NOT INDEXED)")
"""PostgreSQL's planner knows its tables' statistics, and takes no advice."""


@functools.lru_cache(maxsize=1_024)
def postgres_sql(sql: str) -> str:
    """The statement in PostgreSQL's words, with psycopg's placeholders."""
    if sql == "BEGIN":
        return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    sql = _HINTS.sub("", sql)
    for sqlite, postgres in _WORDS:
        sql = sql.replace(sqlite, postgres)
    return sql
