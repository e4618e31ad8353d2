"""What the journal asks of a store, and of the home that it has. The contract tests hold each store to this.

A store belongs to one thread at a time: the writer's, or for a moment the event loop's (`Writer.commit_now`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from keeper.domain.errors import DuplicateAttempt, JournalError
from keeper.journal.applying import refused
from keeper.journal.looking import Finding, Holder, Inspection
from keeper.journal.ops import JournalConflict, Op
from keeper.journal.queries import Queries
from keeper.journal.retention import Pruned, Retention
from keeper.journal.touched import Rows, Wanted


class StoreBusy(Exception):
    """Another program has the store, and was not to be waited for."""


class Rights(Protocol):
    """What a store says of the right to write, from any thread."""

    @property
    def lost(self) -> str | None:
        """Why this process may never write again: another keeper has taken over. None while it may."""
        ...

    @property
    def moved(self) -> str | None:
        """Why this process is to work on other markets than it does: let go of the store and open it anew. None while
        it has its share.
        """
        ...

    @property
    def working_on(self) -> frozenset[str] | None:
        """The addresses of the markets that this process works on, as long as the store is open; None for all."""
        ...

    @property
    def holders(self) -> tuple[Holder, ...]:
        """Who held which lease a moment ago; none where there are no leases."""
        ...

    @property
    def lapsed(self) -> bool:
        """Whether the right to write may be over at this moment: what was committed before is not sent on now."""
        ...


class Store(Rights, Protocol):
    """Rows that survive a power cut. The only way into the database is `apply` (and `prune`, the way out of it)."""

    @property
    def last_change_id(self) -> int:
        """The newest committed change's id; ids rise by one, without gaps."""
        ...

    @property
    def commit_s(self) -> float | None:
        """How long the last `apply` took to make a few rows durable; None when it was large, or wrote nothing."""
        ...

    @property
    def trouble(self) -> str | None:
        """What is not well with the store beside the last `apply`, in words for an operator; None when all is."""
        ...

    def apply(self, callers: Sequence[Sequence[Op]], *, durable: bool, waits: bool = True) -> list[JournalError | None]:
        """Each caller's operations, all of theirs or none, and all callers' in one transaction: for each what it was
        refused with, or None. With `durable` it is on disk when this returns; without, after the next that is.

        While another program has the store this waits for some seconds; without `waits`, which is for durable writes
        alone, it raises StoreBusy at once, and nothing was done. What is refused for one caller is not the others'
        loss. Any other exception means that the store failed, and that nothing of it may be relied on: `explain` says
        why.
        """
        ...

    def prune(self, retention: Retention, now: float | None) -> Pruned:
        """Remove some of what retention no longer keeps, in a transaction of its own. `now`: unix seconds."""
        ...

    def probe(self) -> None:
        """Write nothing that matters: whether the store works, after it failed."""
        ...

    def explain(self, error: BaseException) -> str:
        """One sentence on what is wrong with the store, one on what to do."""
        ...

    @property
    def wants_turn(self) -> bool:
        """Whether `tidy` has something to do while nobody waits."""
        ...

    def tidy(self, *, idle: bool) -> None:
        """Housekeeping between two groups, after their callers were woken; `idle`: nobody waits for anything."""
        ...

    def close(self) -> None:
        """Leave the store clean behind, and let go of it."""
        ...


class Home(Protocol):
    """Where a journal lives, and what is done to it there. Its methods block."""

    @property
    def name(self) -> str:
        """Which one it is, for people: without a credential."""
        ...

    @property
    def leased(self) -> bool:
        """Whether the right to write is a lease, which another may have next."""
        ...

    def open_store(self, on_news: Callable[[], None]) -> Store:
        """Take the right to write, make the journal when it is missing, and bring it to the newest version. `on_news`
        is told, from any thread, that the store's `trouble` or `wants_turn` may have changed.

        Raises StandBy when another has the right for as long as it renews it, and JournalAway: then ask again, or
        `leave`. Raises JournalBusy when another has it for good, JournalVersion, or JournalError with the reason and
        what to do.
        """
        ...

    @property
    def held(self) -> tuple[Holder, ...]:
        """Who held which lease when `open_store` last said StandBy."""
        ...

    def hand_over(self) -> None:
        """Leave the work to others, for some seconds from now on, as soon as the store is closed."""
        ...

    def leave(self) -> None:
        """Neither work nor stand by any more."""
        ...

    def holders(self) -> list[Holder]:
        """Who holds which lease now; none where there are no leases."""
        ...

    def open_queries(self) -> Queries:
        """A connection that only reads, beside whoever writes. JournalError when there is nothing to read."""
        ...

    def translated(self) -> AbstractContextManager[None]:
        """Turn the database's errors into JournalError, or JournalAway."""
        ...

    def inspect(self) -> Inspection:
        """What a start would find. Raises JournalVersion for a newer keeper's journal, JournalError when a start could
        not write it.
        """
        ...

    def verify(self, *, limit: int = 100) -> list[Finding]:
        """Look for damage, and for broken promises; at most `limit` of each. JournalError when it can't be read."""
        ...

    def export(self) -> Iterator[bytes]:
        """Every row as one line of JSON with its `table`, as of one moment. u64 are plain numbers, bytes are base64."""
        ...

    def backup(self, target: Path) -> None:
        """Copy the journal to a new file, as of one moment. JournalError when the target exists."""
        ...

    def vacuum(self) -> tuple[int, int]:
        """Give the space of removed rows back; the size in bytes before and after. JournalBusy while a keeper runs."""
        ...


def refusal(error: Exception, doubled: str | None) -> JournalError:
    """The error of one caller whose operations the store's own rules, or their numbers, do not allow. `doubled` is the
    table whose unique index refused a row, if one did.
    """
    found: JournalError
    if doubled == "attempts":
        found = DuplicateAttempt(f"The journal's index refused the attempt: {error}.")
    elif doubled == "prepared":
        found = JournalConflict(f"The journal's index refused the prepared transaction: {error}.")
    else:
        found = JournalError(f"The journal can't keep this: {type(error).__name__}: {error}.")
    found.__cause__ = error
    return found


def one_by_one(
    callers: Sequence[Sequence[Op]],
    ids: tuple[int, int],
    *,
    execute: Callable[[str], object],
    load: Callable[[Wanted, Rows], None],
    save: Callable[[Rows], None],
    refused_with: Callable[[Exception], JournalError | None],
    refused: Callable[[Rows, Sequence[Op], float], JournalError | None] = refused,
) -> tuple[list[JournalError | None], tuple[int, int]]:
    """Apply each caller's operations under a savepoint of its own, in an open transaction, so that what the database
    refuses of one is not the others' loss. What each was refused with, and the next ids of orders and changes after
    `ids`. `refused_with` is None for an error that is not about one caller's rows, which is raised; `refused` does the
    operations, as far as they are allowed.
    """
    found: list[JournalError | None] = []
    for ops in callers:
        rows, wanted = Rows(*ids), Wanted()
        wanted.of(ops)
        execute("SAVEPOINT caller")
        try:
            load(wanted, rows)
            error = refused(rows, ops, time.time())
            save(rows)
        except Exception as failed:
            error = refused_with(failed)
            if error is None:
                raise
            execute("ROLLBACK TO caller")
        else:
            ids = rows.next_order_id, rows.next_change_id
        execute("RELEASE caller")
        found.append(error)
    return found, ids
