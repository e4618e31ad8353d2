# ruff: noqa: S608  (the texts are put together from our own words; every value is a parameter)
"""What the journal is asked of ways to send."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from solders.signature import Signature

from keeper.domain.ways import WayRow
from keeper.journal.rows import WAYS
from keeper.journal.sql import Connection, columns_sql, json_list

_WAYS: Final = f"SELECT {columns_sql(WAYS.columns)} FROM attempt_ways"


class WayQueries:
    """Queries on one connection (`Queries`)."""

    _db: Connection

    def ways_of(self, signatures: Iterable[Signature]) -> dict[Signature, list[WayRow]]:
        """By which ways these attempts were sent, the first one first: a page's worth, in one query."""
        sql = f"{_WAYS} WHERE signature IN (SELECT value FROM json_each(?)) ORDER BY sent_at, way"
        found: dict[Signature, list[WayRow]] = {}
        for values in self._db.execute(sql, (json_list({str(signature) for signature in signatures}),)).fetchall():
            row = WAYS.record(values)
            found.setdefault(row.signature, []).append(row)
        return found
