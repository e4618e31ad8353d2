"""SQL that every store understands: the words for an attempt's states, and what runs a statement.

The questions and the writing (`queries`, `saving`, `pruning`) are written once, as SQLite reads them.
`keeper.journal.postgres.dialect` says the few words that PostgreSQL has other ones for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec

from keeper.domain.attempts import IN_FLIGHT_STATES, LIVE_STATES, AttemptKind, AttemptState


class Found(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """The other rows."""
        ...


class Connection(Protocol):
    """A connection to a store's database, for one thread at a time. In autocommit, but for what BEGIN begins."""

    def execute(self, sql: str, args: Any = (), /) -> Found:
        """Run one statement, in SQLite's dialect."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def _words(states: frozenset[AttemptState]) -> str:
    return ", ".join(f"'{state.value}'" for state in sorted(states))


LIVE_SQL: Final = _words(LIVE_STATES)
"""The attempt states that could still land, as a list for SQL."""
ENDED_SQL: Final = _words(frozenset(AttemptState) - LIVE_STATES)
"""The attempt states that nothing follows."""
TRIED_SQL: Final = f"state <> '{AttemptState.ARMED.value}'"
"""What an order's history is made of: an armed attempt was not sent."""
BLOCKING_SQL: Final = (
    f"((kind = '{AttemptKind.EXECUTE.value}' AND state IN ({LIVE_SQL})) "
    f"OR (kind = '{AttemptKind.RATCHET.value}' AND state IN ({_words(IN_FLIGHT_STATES)})))"
)
"""`keeper.domain.attempts.BLOCKING` in SQL: an order has one such attempt at most."""
FOLLOWED_SQL: Final = (
    f"((kind = '{AttemptKind.RELAY.value}' AND state IN ({LIVE_SQL})) "
    f"OR (kind = '{AttemptKind.RATCHET.value}' AND state = '{AttemptState.CONFIRMED.value}'))"
)
"""The other open attempts."""


def columns_sql(columns: Sequence[str]) -> str:
    """Columns as a list for SQL. `user` is a word of SQL's own, and needs its quotes."""
    return ", ".join('"user"' if column == "user" else column for column in columns)


def json_list(words: Iterable[str]) -> str:
    """Words as one parameter, for json_each."""
    return msgspec.json.encode(sorted(words)).decode()
