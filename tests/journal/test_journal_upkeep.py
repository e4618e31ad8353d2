"""A bounded journal, and what an operator does to it."""

from __future__ import annotations

import base64
import json
import sqlite3
import stat
from pathlib import Path

import pytest

from keeper.domain.attempts import AttemptKind, AttemptState, Fate
from keeper.domain.errors import JournalBusy, JournalError
from keeper.domain.orders import OrderState
from keeper.journal import (
    AddAttempt,
    AddPrepared,
    AddSpend,
    Journal,
    MoveAttempt,
    MovePrepared,
    NoteOrder,
    NoteState,
    PreparedStatus,
    Pruned,
    Retention,
    home_of,
)
from tests.journal.journal_making import U64_MAX, key, make_attempt, make_order, make_prepared

pytestmark = pytest.mark.anyio
DAY = 86_400.0
NOW = 1_700_000_000.0


async def test_what_is_over_and_old_goes_and_the_rest_stays(tmp_path: Path) -> None:
    retention = Retention(history_days=10, prepared_hours=24, spend_days=30)
    old = NOW - 11 * DAY
    ended, kept_open, fresh, landing = (make_order() for _ in range(4))
    async with Journal.open(tmp_path / "j.db", retention=retention) as journal:
        for order in (ended, kept_open, landing):
            first = make_attempt(order.address, number=4, signed_at=old)
            await journal.commit(NoteOrder(order, at=old), AddAttempt(first))
            await journal.commit(MoveAttempt(first.signature, AttemptState.FAILED, fate=Fate.PRICE_STALE))
        live = make_attempt(landing.address, number=5, signed_at=old)
        await journal.commit(AddAttempt(live))
        for order in (ended, landing):
            await journal.commit(NoteState(order.address, OrderState.FILLED, "Filled.", at=old))
        await journal.commit(NoteOrder(fresh, OrderState.FILLED, "Filled.", at=NOW - DAY))
        await journal.commit(
            AddPrepared(make_prepared("old", idempotency_key="k", created_at=NOW - 2 * DAY)),
            AddPrepared(make_prepared("new", created_at=NOW - 3_600)),
            AddPrepared(make_prepared("never signed", created_at=NOW - 3_601)),
            AddPrepared(make_prepared("relayed", created_at=NOW - 3_601)),
            MovePrepared("relayed", PreparedStatus.SUBMITTED),
            AddSpend("2001-01-01", 1),
            AddSpend("2023-11-14", 2),
        )
        pruned = await journal.prune(now=NOW)
        assert pruned == Pruned(orders=1, attempts=3, prepared=2, done=True)
        assert await journal.order(ended.address) is None
        assert await journal.attempts_of(ended.address) == []
        assert await journal.changes_of(ended.address) == []
        assert await journal.order(fresh.address) is not None
        assert await journal.order(landing.address) is not None, "it has an attempt that is not rooted"
        assert await journal.open_attempts() == [live]
        assert await journal.attempts_of(kept_open.address) == []
        row = await journal.order(kept_open.address)
        assert row is not None
        assert row.attempts_made == 4, "the count goes on"
        assert await journal.prepared_by_key("k") is None
        assert await journal.prepared("new") is not None
        assert await journal.prepared("never signed") is None
        assert await journal.prepared("relayed") is not None
        assert (await journal.spent("2001-01-01"), await journal.spent("2023-11-14")) == (0, 2)
        assert (await journal.changes_after(0)).gap
        assert not (await journal.changes_after(journal.last_change_id)).gap
        assert await journal.prune(now=NOW) == Pruned()
    assert home_of(tmp_path / "j.db").verify() == []


async def test_a_large_backlog_goes_in_steps_that_let_commits_through(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db", retention=Retention(history_days=1)) as journal:
        orders = [make_order() for _ in range(1_800)]
        await journal.commit(*(NoteOrder(o, OrderState.FILLED, "Filled.", at=1.0) for o in orders))
        change = journal.last_change_id
        assert (await journal.prune()).orders == 1_800
        assert sum((await journal.counts_by_state()).values()) == 0
        # A reader far behind skips the hole in a few steps.
        last, steps = 0, 0
        await journal.commit(NoteOrder(make_order()))
        while last < journal.last_change_id:
            last = (await journal.changes_after(last, limit=10)).last_id
            steps += 1
        assert (last, journal.last_change_id) == (change + 1, change + 1)
        assert steps <= 3


async def filled(path: Path) -> tuple[str, str]:
    order = make_order(size_1e6=U64_MAX)
    attempt = make_attempt(order.address, last_valid_block_height=U64_MAX)
    async with Journal.open(path) as journal:
        await journal.commit(NoteOrder(order), AddAttempt(attempt), AddPrepared(make_prepared("p")))
        await journal.commit(
            MoveAttempt(attempt.signature, AttemptState.FINALIZED, fate=Fate.EXECUTED),
            NoteState(order.address, OrderState.FILLED, "Filled."),
        )
    return str(order.address), str(attempt.signature)


async def test_verify_finds_what_is_planted(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    address, signature = await filled(path)
    assert home_of(path).verify() == []
    columns = "kind, order_address, wire, blockhash, last_valid_block_height, number, signed_at"
    copy = f"SELECT 's2', 'signed', NULL, {columns} FROM attempts WHERE signature = '{signature}'"
    planted = {
        "could still land": [
            "DROP INDEX one_live_attempt",
            f"INSERT INTO attempts (signature, state, fate, {columns}) {copy}",
            f"INSERT INTO attempts (signature, state, fate, {columns}) {copy.replace('s2', 's3')}",
        ],
        "executed more than once": [
            f"INSERT INTO attempts (signature, state, fate, {columns}) "
            f"{copy.replace('signed', 'finalized', 1).replace('NULL', repr('executed'))}",
        ],
        "no named state": ["PRAGMA ignore_check_constraints = ON", "UPDATE orders SET reason = ''"],
        "closed mark": ["PRAGMA ignore_check_constraints = ON", "UPDATE orders SET closed = 0"],
        "order is not known": [f"UPDATE attempts SET order_address = '{key()}'"],
        "history ends in": ["DELETE FROM changes WHERE state = 'filled'"],
        "count of a state": ["UPDATE order_counts SET n = 7 WHERE state = 'open'"],
        "refers to one that is missing": ["UPDATE changes SET order_ref = 99 WHERE id = 1"],
    }
    for word, statements in planted.items():
        broken = tmp_path / f"{word}.db"
        home_of(path).backup(broken)
        conn = sqlite3.connect(broken, isolation_level=None)
        for statement in statements:
            conn.execute(statement)
        conn.close()
        findings = home_of(broken).verify()
        assert findings, word
        assert any(word in finding.what for finding in findings), (word, findings)
    assert any(address in f.subject for f in home_of(tmp_path / "could still land.db").verify())


async def test_export_is_exact_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    address, signature = await filled(path)
    rows = [json.loads(text) for text in home_of(path).export()]
    tables = [row["table"] for row in rows]
    assert tables == ["orders", "attempts", "changes", "changes", "prepared"]
    assert (rows[0]["address"], rows[0]["size"]) == (address, U64_MAX)
    assert (rows[1]["signature"], rows[1]["last_valid_block_height"]) == (signature, U64_MAX)
    assert base64.b64decode(rows[1]["wire"]) == make_attempt(key()).wire


def test_vacuum_of_a_journal_that_is_not_there_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="There is no journal at"):
        home_of(tmp_path / "j.db").vacuum()
    assert list(tmp_path.iterdir()) == []


async def test_backup_beside_a_running_keeper_and_vacuum_only_without(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    async with Journal.open(path, retention=Retention(history_days=1)) as journal:
        await journal.commit(*(NoteOrder(make_order(), OrderState.FILLED, "F.", at=1.0) for _ in range(1_000)))
        home_of(path).backup(tmp_path / "copy.db")
        with pytest.raises(JournalError, match="can't be created"):
            home_of(path).backup(tmp_path / "copy.db")
        with pytest.raises(JournalBusy):
            home_of(path).vacuum()
        await journal.prune()
    before, after = home_of(path).vacuum()
    assert after < before / 2
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    async with Journal.open(tmp_path / "copy.db") as copied:
        assert (await copied.counts_by_state())[OrderState.FILLED] == 1_000
    assert home_of(tmp_path / "copy.db").verify() == []


async def test_a_relay_of_an_order_in_the_journal_is_no_finding(tmp_path: Path) -> None:
    order = make_order()
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.commit(
            NoteOrder(order, OrderState.SUBMITTED, "Being landed."),
            AddAttempt(make_attempt(order.address, kind=AttemptKind.RELAY)),
            AddAttempt(make_attempt(order.address)),
        )
    assert home_of(tmp_path / "j.db").verify() == []
