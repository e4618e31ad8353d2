"""Opening: one writer, the right version, the right file, the right modes; and a clear word when it is not so."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keeper.domain.errors import JournalBusy, JournalError, JournalVersion
from keeper.journal import Journal, NoteOrder, Reader, SetMeta
from keeper.journal.sql import LIVE_SQL
from keeper.journal.sqlite import schema
from keeper.journal.sqlite.files import open_reader, open_writer
from tests.journal.journal_making import child, line, make_order, reap
from tests.support import BOUND_S

pytestmark = pytest.mark.anyio


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_fresh_journal_is_private_and_durable(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path) as journal:
        await journal.commit(SetMeta("a", "b"))
        assert mode_of(path) == 0o600
        assert mode_of(path.with_name("journal.db-wal")) == 0o600
        assert repr(journal) == f"<Journal {path} healthy, 0 callers, 0 notes wait>"
    assert not path.with_name("journal.db-wal").exists(), "leaving moves the WAL into the file"


def test_the_writers_pragmas(tmp_path: Path) -> None:
    (tmp_path / "j.db").touch()
    db = open_writer(tmp_path / "j.db")
    values = {
        name: db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "application_id", "user_version")
    }
    strict = {
        name: db.execute("SELECT strict FROM pragma_table_list WHERE name = ?", (name,)).fetchone()[0]
        for name in ("orders", "attempts", "changes", "prepared", "meta", "daily_spend")
    }
    db.conn.close()
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "application_id": schema.APPLICATION_ID,
        "user_version": schema.VERSION,
    }
    assert set(strict.values()) == {1}


def test_the_database_itself_refuses_a_second_live_attempt(tmp_path: Path) -> None:
    (tmp_path / "j.db").touch()
    db = open_writer(tmp_path / "j.db")
    sql = (
        "INSERT INTO attempts (signature, kind, order_address, wire, blockhash, last_valid_block_height, state, "
        "number, signed_at) VALUES (?, ?, 'order', x'00', 'hash', 1, ?, 1, 1.0)"
    )
    for state in LIVE_SQL.replace("'", "").split(", "):
        db.execute(sql, ("one", "execute", state))
        with pytest.raises(sqlite3.IntegrityError, match=r"attempts\.order_address"):
            db.execute(sql, ("two", "ratchet", "signed"))
        db.execute("DELETE FROM attempts")
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        db.execute(sql, ("three", "execute", "intended"))
    db.conn.close()


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    holder = child(
        """
        async with Journal.open(path):
            say("open")
            await anyio.sleep_forever()
        """,
        path,
    )
    try:
        assert line(holder) == "open"
        second = child(
            """
            try:
                async with Journal.open(path):
                    say("opened too")
            except JournalBusy as error:
                say(str(error))
            """,
            path,
        )
        refusal = line(second)
        second.communicate(timeout=BOUND_S)
        assert f"process id {holder.pid}." in refusal
        assert "Stop that one first" in refusal
    finally:
        reap(holder)
    third = child(
        """
        async with Journal.open(path):
            say("open")
        """,
        path,
    )
    assert line(third) == "open", "a killed holder holds nothing"
    third.communicate(timeout=BOUND_S)


async def test_a_second_writer_in_the_same_process_is_refused_and_a_reader_is_not(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    async with Journal.open(path) as journal:
        with pytest.raises(JournalBusy, match=f"process id {os.getpid()}"):
            async with Journal.open(path):
                pass
        order = make_order()
        await journal.commit(NoteOrder(order))
        with contextlib.closing(Reader(path)) as reader:
            assert await reader.order(order.address) is not None
            await journal.commit(SetMeta("a", "b"))
            assert await reader.meta("a") == "b"


async def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    async with Journal.open(path):
        pass
    with sqlite3.connect(path) as conn:
        conn.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    conn.close()
    with pytest.raises(JournalVersion, match="newer keeper"):
        async with Journal.open(path):
            pass
    with contextlib.closing(Reader(path)) as reader, pytest.raises(JournalVersion, match="newer keeper"):
        await reader.meta("a")


async def test_somebody_elses_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE photos (id INTEGER)")
    conn.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="not a keeper's journal"):
        async with Journal.open(path):
            pass
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(b"not a database at all, " * 500)
    damaged = r"damaged or no SQLite database.*start from a backup"
    with pytest.raises(JournalError, match=damaged):
        async with Journal.open(path):
            pass
    with contextlib.closing(Reader(path)) as reader, pytest.raises(JournalError, match=damaged):
        await reader.meta("a")


async def test_damage_inside_is_said_and_does_not_kill_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    async with Journal.open(path) as journal:
        await journal.commit(*(NoteOrder(make_order()) for _ in range(200)))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    async with Journal.open(tmp_path / "other.db"):
        pass
    with pytest.raises(JournalError, match="damaged"):
        async with Journal.open(path) as journal:
            await journal.commit(NoteOrder(make_order()))


async def test_a_missing_journal_is_not_made_by_a_reader(tmp_path: Path) -> None:
    with contextlib.closing(Reader(tmp_path / "j.db")) as reader, pytest.raises(JournalError, match="no journal at"):
        await reader.meta("a")
    assert not (tmp_path / "j.db").exists()


async def test_a_path_that_can_not_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("file", "mistyped"):
        with pytest.raises(JournalError, match=f"no folder {tmp_path / folder} for the journal. Make it"):
            async with Journal.open(tmp_path / folder / "j.db"):
                pass
        assert not (tmp_path / "mistyped").exists()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that everybody may enter. pytest keeps its own from them, and closes them again whenever one starts."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_a_read_only_folder_or_file(open_folder: Path) -> None:
    """As a user without special rights: root may write anywhere."""
    tmp_path = open_folder
    locked = tmp_path / "locked"
    locked.mkdir()
    old = tmp_path / "old"
    old.mkdir()
    (tmp_path / "warm").mkdir()
    (old / "j.db").touch()
    db = open_writer(old / "j.db")
    db.conn.close()
    (old / "j.db").chmod(0o444)
    old.chmod(0o777)
    locked.chmod(0o555)
    process = child(
        """
        import contextlib, pathlib, sqlite3, threading
        async with Journal.open(pathlib.Path(path) / "warm" / "j.db"):
            pass
        if os.geteuid() == 0:
            os.setuid(65534)
        for folder in ("locked", "old"):
            try:
                async with Journal.open(pathlib.Path(path) / folder / "j.db"):
                    say("opened")
            except JournalError as error:
                say(type(error).__name__ + " " + str(error))
        with contextlib.closing(Reader(pathlib.Path(path) / "old" / "j.db")) as journal:
            say(str(await journal.spent('2000-01-01')))
        """,
        tmp_path,
    )
    said = [line(process) for _ in range(3)]
    process.communicate(timeout=BOUND_S)
    assert "locked/j.db" in said[0]
    assert "Permission denied" in said[0]
    assert "old/j.db" in said[1]
    assert "write permission on the file" in said[1]
    assert said[2] == "0"


def test_a_backup_on_a_read_only_disk_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.touch()
    open_writer(path).conn.close()
    db = open_reader(path)
    assert db.execute("SELECT COUNT(*) FROM orders").fetchone() == (0,)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("INSERT INTO meta VALUES ('a', 'b')")
    db.conn.close()


def test_migrations_are_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.db"
    path.touch()

    def breaks(db: object) -> None:
        raise JournalError("in the middle")

    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, breaks))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(JournalError, match="in the middle"):
        open_writer(path)
    monkeypatch.undo()
    conn = sqlite3.connect(path)
    assert conn.execute("PRAGMA user_version").fetchone() == (0,)
    assert conn.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (0,)
    conn.close()
    db = open_writer(path)
    assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    db.conn.close()


def test_an_older_version_is_brought_forward_with_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.db"
    path.touch()
    db = open_writer(path)
    db.execute("INSERT INTO meta VALUES ('kept', 'yes')")
    db.conn.close()

    def adds(db: object) -> None:
        db.execute("CREATE TABLE later (id INTEGER) STRICT")  # type: ignore[attr-defined]

    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, adds))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(JournalError, match="Start this version's keeper on it once"):
        open_reader(path)
    db = open_writer(path)
    assert db.execute("SELECT value FROM meta").fetchone() == ("yes",)
    assert "later" in db.table_names()
    db.conn.close()
