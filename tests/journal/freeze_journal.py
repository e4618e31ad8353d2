"""Freeze a journal of the present version among the fixtures: `python -m tests.journal.freeze_journal`.

Run it once, by the code that raises `schema.VERSION`, and never again for that version: what an older keeper wrote
does not change. It writes the database as SQL, and what its own code reads from it as JSON.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio

from keeper.domain.attempts import AttemptKind, AttemptState, Fate
from keeper.domain.orders import OnchainStatus, Order, OrderState, OrderType, Side
from keeper.domain.ways import Answer, WayRow
from keeper.journal import (
    AddAttempt,
    AddPrepared,
    AddSpend,
    Journal,
    MoveAttempt,
    MovePrepared,
    NoteOrder,
    NoteState,
    PreparedKind,
    PreparedStatus,
    Queries,
    SetMeta,
    Source,
    UseBudget,
)
from keeper.journal.ops import NoteWays
from keeper.journal.sqlite import schema
from keeper.journal.sqlite.files import open_reader
from tests.journal.journal_making import U64_MAX, key, make_attempt, make_order, make_prepared

FOLDER = Path(__file__).parents[1] / "fixtures" / "journals"
AT = 1_700_000_000.25
DAY = "2023-11-14"
JOURNALED = list(AttemptState)


async def write(path: Path) -> None:
    """Orders in every state, attempts of every kind in every state, prepared transactions, spends."""
    async with Journal.open(path) as journal:
        await journal.commit(SetMeta("note", "kept"), AddSpend(DAY, 12_345))
        for n, state in enumerate(OrderState):
            order = make_order(
                order_type=OrderType.TRAILING_STOP if n % 2 else OrderType.STOP_LOSS,
                side=Side(n % 2),
                size_1e6=U64_MAX - n,
                trailing_distance_ppm=50_000 * (n % 2),
                order_id=U64_MAX - n,
            )
            source = Source.API if n % 3 == 0 else Source.CHAIN
            await journal.commit(NoteOrder(order, OrderState.OPEN, "it rests", source, f"client-{n}", at=AT))
            await _attempts(journal, order, n)
            await journal.commit(UseBudget(order.address, n % 4))
            note = NoteState(
                order.address,
                state,
                f"it is {state}",
                101,
                triggered_at=AT,
                trigger_price_1e6=95_000_000,
                trigger_slot=101,
                position=key(),
                reopen=True,
                at=AT + 1,
            )
            await journal.commit(note)
        closed = make_order(status=OnchainStatus.CANCELLED)
        await journal.commit(NoteOrder(closed, at=AT))
        for n, status in enumerate(PreparedStatus):
            kind = list(PreparedKind)[n % 3]
            row = make_prepared(f"prepared-{n}", kind=kind, idempotency_key=f"key-{n}", body_hash="00" * 32)
            if kind is not PreparedKind.PLACE:
                row = row._replace(cancels=(row.order if kind is PreparedKind.CANCEL else key(), key()))
            attempt = make_attempt(row.order, kind=AttemptKind.RELAY)
            await journal.commit(AddPrepared(row))
            await journal.commit(MovePrepared(row.id, status, attempt.signature))


async def _attempts(journal: Journal, order: Order, n: int) -> None:
    """A refused fill, a relay, and one of the keeper's own that may still be open: all states come round."""
    own = (AttemptKind.EXECUTE, AttemptKind.RATCHET)[n % 2]
    plan = (
        (AttemptKind.EXECUTE, AttemptState.FAILED),
        (AttemptKind.RELAY, JOURNALED[n % len(JOURNALED)]),
        (own, JOURNALED[(n + 4) % len(JOURNALED)]),
    )
    for number, (kind, state) in enumerate(plan, start=1):
        attempt = make_attempt(order.address, kind=kind, number=number, last_valid_block_height=1)
        if kind is AttemptKind.EXECUTE and number > 1:
            more = {"posted_from": key(), "posted_published_at": 1_700_000_098}
            more |= {"tip_lamports": 200_000, "tip_account": key()}
            attempt = make_attempt(order.address, kind=kind, number=number, last_valid_block_height=1, **more)
        await journal.commit(AddAttempt(attempt))
        await journal.commit(NoteWays((WayRow(attempt.signature, "rpc", AT, 2, Answer.ACCEPTED, None, AT + 0.1),)))
        if state is not AttemptState.SIGNED:
            refused = state is AttemptState.FAILED
            fate, name = (Fate.CANNOT_PAY, "InsufficientCollateral") if refused else (None, None)
            seen_slot = None if state in (AttemptState.SENT, AttemptState.UNKNOWN) else 101
            await journal.commit(MoveAttempt(attempt.signature, state, AT, seen_slot, fate=fate, error_name=name))


def told(queries: Queries) -> dict[str, Any]:
    """What a keeper reads from it. A later version may read more, but never something else of these."""
    orders = queries.orders(limit=1_000).items
    return {
        "orders": {
            str(row.address): {
                "user": str(row.order.user),
                "terms": [row.order.order_type.name, row.order.side.name, row.order.size_1e6, row.order.stop_price_1e6],
                "order_id": row.order.order_id,
                "state": row.state.value,
                "reason": row.reason,
                "budget_used": row.budget_used,
                "client_order_id": row.client_order_id,
                "source": row.source.value,
                "attempts": [
                    [str(a.signature), a.kind.value, a.state.value, a.number, a.wire.hex(), a.fate, a.error_name]
                    for a in queries.attempts_of(row.address)
                ],
                "changes": [[c.id, c.state.value, c.reason, c.at, c.slot] for c in queries.changes_of(row.address)],
            }
            for row in orders
        },
        "counts": {state.value: n for state, n in queries.counts_by_state().items() if n},
        "open_attempts": sorted(str(a.signature) for a in queries.open_attempts()),
        "prepared": {
            row.id: [row.kind.value, row.status.value, str(row.order), str(row.signature), row.message.hex()]
            for row in map(queries.prepared, (f"prepared-{n}" for n in range(len(PreparedStatus))))
            if row is not None
        },
        "by_key": [row and row.id for row in [queries.prepared_by_key("key-0")]],
        "spent": queries.spent(DAY),
        "meta": queries.meta("note"),
        "last_change_id": queries.last_change_id(),
    }


def main() -> int:
    """Write the fixture of the present version; refuses when it is there."""
    target = FOLDER / f"version_{schema.VERSION}.sql"
    if target.exists():
        print(f"{target} is frozen: a changed schema is a new version with a migration.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        anyio.run(write, path)
        queries = Queries(open_reader(path))
        target.with_suffix(".json").write_text(json.dumps(told(queries), indent=1, sort_keys=True) + "\n")
        queries.close()
        conn = sqlite3.connect(path)
        pragmas = [f"PRAGMA application_id = {schema.APPLICATION_ID};", f"PRAGMA user_version = {schema.VERSION};"]
        target.write_text("\n".join([*conn.iterdump(), *pragmas, ""]))
        conn.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
