"""What was prepared just now and is not submitted yet, so that its relay need not read the journal again.

The journal stays the truth: a row gets in here once it is durable, and the commit that submits it says, in the same
transaction, that it was waiting still. What is not found here is looked up there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from keeper.journal.records import PreparedRow

_MOST: Final = 4_096
"""About 2 KB each. Who takes longer to sign than so many others is looked up."""


class Fresh:
    """Prepared rows by id, the newest ones."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._rows: OrderedDict[str, PreparedRow] = OrderedDict()

    def __repr__(self) -> str:
        return f"Fresh({len(self._rows)} of {self._most})"

    def add(self, row: PreparedRow) -> None:
        """Remember a row that is durable and waits for its signature; the oldest is forgotten for it."""
        self._rows[row.id] = row
        if len(self._rows) > self._most:
            self._rows.popitem(last=False)

    def get(self, prepared_id: str) -> PreparedRow | None:
        """The row; None when it is not known here."""
        return self._rows.get(prepared_id)

    def drop(self, prepared_id: str) -> None:
        """It is not waiting any more, or perhaps not."""
        self._rows.pop(prepared_id, None)
