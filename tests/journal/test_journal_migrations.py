"""Journals of every version that ever was, brought to the newest: nothing is lost, halfway is nowhere."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from keeper.domain.errors import JournalVersion
from keeper.journal import Journal, PreparedKind, Queries, Reader, home_of
from keeper.journal.postgres import schema as postgres_schema
from keeper.journal.sqlite import schema
from keeper.journal.sqlite.files import open_reader, open_writer
from tests.journal.freeze_journal import FOLDER, told
from tests.journal.journal_making import child, line, reap
from tests.support import KeeperConfig, KeeperProcess, World

pytestmark = pytest.mark.anyio

VERSIONS = range(1, schema.VERSION + 1)


def restored(version: int, path: Path) -> Path:
    """The frozen journal of a version, as the file that its keeper left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.executescript((FOLDER / f"version_{version}.sql").read_text())
    return path


def expected(version: int) -> Any:
    frozen = json.loads((FOLDER / f"version_{version}.json").read_text())
    for order in frozen["orders"].values():
        # Versions 1 and 2 have a column for it, which no keeper reads any more.
        order.pop("next_attempt_at", None)
        if version < 3 and order["state"] == "prepared":
            _end_unsigned(frozen, order)
    return frozen


def _end_unsigned(frozen: dict[str, Any], order: dict[str, Any]) -> None:
    """Version 3 has no order of what was only prepared."""
    frozen["last_change_id"] += 1
    reason = "It was prepared, and never came back signed."
    _, _, _, at, slot = order["changes"][0]
    order["changes"].append([frozen["last_change_id"], "dropped", reason, at, slot])
    order["state"], order["reason"] = "dropped", reason
    frozen["counts"]["dropped"] = frozen["counts"].get("dropped", 0) + frozen["counts"].pop("prepared")


def read(path: Path) -> Any:
    queries = Queries(open_reader(path))
    try:
        return json.loads(json.dumps(told(queries)))
    finally:
        queries.close()


def shape(path: Path) -> dict[str, Any]:
    """Every table's columns, and every index and trigger: what two journals of one version have in common."""
    with closing(sqlite3.connect(path)) as conn:
        tables = sorted(name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
        columns = {table: list(conn.execute(f"PRAGMA table_xinfo({table})")) for table in tables}
        rest = conn.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type <> 'table' ORDER BY 2")
        return {"columns": columns, "rest": list(rest)}


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    path = tmp_path / "fresh.sqlite"
    path.touch()
    open_writer(path).conn.close()
    return path


def test_each_version_is_frozen_and_the_present_one_is_what_was_frozen(tmp_path: Path, fresh: Path) -> None:
    missing = [version for version in VERSIONS if not (FOLDER / f"version_{version}.sql").exists()]
    assert not missing, "freeze the new version: python -m tests.journal.freeze_journal"
    text = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    frozen = restored(schema.VERSION, tmp_path / "frozen.sqlite")
    with closing(sqlite3.connect(fresh)) as new, closing(sqlite3.connect(frozen)) as old:
        remedy = "the schema changed without a version: undo that, and append a migration to schema.MIGRATIONS"
        assert list(new.execute(text)) == list(old.execute(text)), remedy


@pytest.mark.parametrize("version", VERSIONS)
def test_a_journal_of_each_version_comes_forward_whole(version: int, tmp_path: Path, fresh: Path) -> None:
    path = restored(version, tmp_path / "journal.sqlite")
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA user_version").fetchone() == (version,)
    open_writer(path).conn.close()
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert list(conn.execute("PRAGMA foreign_key_check")) == []
    assert home_of(path).verify() == []
    assert read(path) == expected(version)
    assert shape(path) == shape(fresh)


@pytest.mark.parametrize("version", range(1, 5))
def test_a_cancel_from_before_version_5_cancels_its_order(version: int, tmp_path: Path) -> None:
    path = restored(version, tmp_path / "journal.sqlite")
    open_writer(path).conn.close()
    queries = Queries(open_reader(path))
    rows = [row for row in map(queries.prepared, expected(version)["prepared"]) if row is not None]
    queries.close()
    assert {row.kind for row in rows} == {PreparedKind.PLACE, PreparedKind.CANCEL}
    assert all(row.cancels == ((row.order,) if row.kind is PreparedKind.CANCEL else ()) for row in rows)


@pytest.mark.file_journal
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_keeper_starts_on_a_journal_of_each_version(version: int, tmp_path: Path) -> None:
    """What was open in it is looked up; every order that it held can be asked for, and nothing of it is live."""
    path = restored(version, tmp_path / "journal.sqlite")
    async with World.open() as world:
        config = KeeperConfig.beside(world, tmp_path, journal={"path": str(path), "retention_days": 100_000})
        frozen = expected(version)
        async with KeeperProcess.running(config) as keeper, httpx.AsyncClient(base_url=keeper.url) as api:
            for address, order in frozen["orders"].items():
                shown = (await api.get(f"/v1/orders/{address}")).raise_for_status().json()
                assert (shown["user"], shown["client_order_id"]) == (order["user"], None)
                tried, told = {a[0] for a in order["attempts"]}, {a["signature"] for a in shown["attempts"]}
                # What was armed is shown as an attempt as soon as the start has taken it for one that was sent.
                assert tried <= told <= tried.union(frozen["open_attempts"])
        assert keeper.process.returncode == 0
    assert home_of(path).verify() == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_kill_in_the_middle_of_a_migration_leaves_the_older_version_whole(version: int, tmp_path: Path) -> None:
    path = restored(version, tmp_path / "journal.sqlite")
    # All that this code does to the version, then one step more, which is killed with its rows written.
    middle = child(
        """
        from keeper.journal.sqlite import schema
        from keeper.journal.sqlite.files import open_writer
        def step(db):
            db.execute("ALTER TABLE orders ADD COLUMN later INTEGER")
            db.execute("UPDATE orders SET later = 1, state = 'open', closed = 0")
            db.execute("DELETE FROM attempts")
            db.execute("PRAGMA cache_spill = 1")
            say("middle")
            sys.stdin.readline()
        schema.MIGRATIONS = (*schema.MIGRATIONS, step)
        schema.VERSION += 1
        open_writer(__import__("pathlib").Path(path))
        """,
        path,
    )
    assert line(middle) == "middle"
    reap(middle)
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA user_version").fetchone() == (version,)
        assert "later" not in [row[1] for row in conn.execute("PRAGMA table_info(orders)")]
    open_writer(path).conn.close()
    assert home_of(path).verify() == []
    assert read(path) == expected(version)


@pytest.mark.file_journal
async def test_a_journal_of_a_newer_keeper_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = restored(schema.VERSION, tmp_path / "journal.sqlite")
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
        before = list(conn.iterdump())
    with pytest.raises(JournalVersion, match="newer keeper"):
        async with Journal.open(path):
            pass
    with closing(Reader(path)) as reader, pytest.raises(JournalVersion, match="newer keeper"):
        await reader.meta("a")
    async with World.open() as world:
        config = KeeperConfig.beside(world, tmp_path, journal={"path": str(path)})
        keeper = await KeeperProcess.start(config)
        try:
            assert await keeper.wait() == 2
        finally:
            await keeper.stop()
        assert "newer keeper" in keeper.log_end()
    with closing(sqlite3.connect(path)) as conn:
        assert list(conn.iterdump()) == before


def test_the_versions_of_both_stores_are_numbered_alike() -> None:
    assert [version for version, _ in postgres_schema.MIGRATIONS][-1] == postgres_schema.VERSION == schema.VERSION
