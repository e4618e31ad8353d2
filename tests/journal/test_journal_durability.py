"""What a kill -9 and a full disk leave behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from keeper.domain.errors import JournalError
from keeper.domain.orders import OrderState
from keeper.journal import Journal, NoteOrder, NoteState, home_of
from keeper.journal.sqlite.store import SqliteStore
from keeper.journal.store import Store
from tests.journal.journal_making import child, line, make_order, reap

pytestmark = pytest.mark.anyio


async def test_what_commit_returned_for_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    process = child(
        """
        order = make_order()
        async with Journal.open(path) as journal:
            await journal.commit(NoteOrder(order), AddAttempt(make_attempt(order.address)))
            say(str(order.address))
            os.kill(os.getpid(), 9)
        """,
        path,
    )
    address = line(process)
    assert process.wait(timeout=60) == -signal.SIGKILL
    process.communicate()
    async with Journal.open(path) as journal:
        (attempt,) = await journal.open_attempts()
        assert str(attempt.order) == address
        row = await journal.order(attempt.order)
        assert row is not None
        assert row.attempts_made == 1


@pytest.mark.parametrize("moment", range(4))
async def test_killed_at_any_moment_each_call_is_whole_or_absent(tmp_path: Path, moment: int) -> None:
    path = tmp_path / "j.db"
    process = child(
        """
        async def one(journal, number):
            order = make_order()
            await journal.commit(
                NoteOrder(order),
                AddAttempt(make_attempt(order.address)),
                NoteState(order.address, OrderState.EXECUTING, "Sent."),
            )
            say(str(order.address))

        async with Journal.open(path) as journal, anyio.create_task_group() as tg:
            for number in range(100_000):
                tg.start_soon(one, journal, number)
                if number % 50 == 0:
                    await anyio.sleep(0)
        """,
        path,
    )
    returned = {line(process) for _ in range(1 + 150 * moment)}
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    # The pipe may end in half a line: only whole ones were said.
    returned |= {said.strip() for said in process.stdout if said.endswith("\n")}
    reap(process)
    async with Journal.open(path) as journal:
        attempts = await journal.open_attempts()
        assert returned <= {str(attempt.order) for attempt in attempts}, "nothing that returned is lost"
        counts = await journal.counts_by_state()
        assert counts[OrderState.EXECUTING] == sum(counts.values()) == len(attempts), "nothing is half there"
    assert home_of(path).verify() == []


def test_a_full_disk_stops_the_journal_and_room_on_it_heals_it(tmp_path: Path) -> None:
    """The limit on a file's size stands for the disk's end: SQLite meets it in the same call."""
    path = tmp_path / "j.db"
    process = child(
        """
        import itertools, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        groups = []
        orders = [make_order() for _ in range(400)]
        async with Journal.open(path, on_group=groups.append) as journal:
            await journal.commit(NoteOrder(orders[0]))
            resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, hard))
            refused = 0
            for order in orders[1:]:
                try:
                    await journal.commit(NoteOrder(order), SetMeta(str(order.address), "whole"))
                except JournalError as error:
                    refused += 1
                    last = str(error)
                    break
            say(f"{refused} {journal.healthy} {journal.problem == last}")
            say(last.replace(path, "PATH"))
            failed = order
            journal.post(NoteOrder(orders[-1], OrderState.OPEN, "Posted while the disk was full."))
            assert await journal.order(failed.address) is None
            assert await journal.meta(str(failed.address)) is None
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            with anyio.fail_after(60):
                while not journal.healthy:
                    await anyio.sleep(0.01)
            say("healthy")
            await journal.commit(NoteOrder(failed))
            await journal.writer.submit(())
            row = await journal.order(orders[-1].address)
            say(row.reason)
        """,
        path,
    )
    said = [line(process) for _ in range(4)]
    process.communicate(timeout=60)
    assert said[0] == "1 False True"
    assert "PATH" in said[1]
    assert "full" in said[1] or "can't be written" in said[1]
    assert said[2:] == ["healthy", "Posted while the disk was full."]
    assert home_of(path).verify() == []


def test_it_heals_by_itself_without_anybody_writing(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    process = child(
        """
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        async with Journal.open(path) as journal:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
            try:
                await journal.commit(*(NoteOrder(make_order()) for _ in range(200)))
            except JournalError:
                say("failed")
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            with anyio.fail_after(60):
                while not journal.healthy:
                    await anyio.sleep(0.01)
            say(str(sum((await journal.counts_by_state()).values())))
        """,
        path,
    )
    said = [line(process) for _ in range(2)]
    assert process.wait(timeout=60) == 0
    process.communicate()
    assert said == ["failed", "0"]


def test_leaving_with_a_full_disk_says_what_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    process = child(
        """
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            async with Journal.open(path) as journal:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
                for _ in range(100):
                    journal.post(NoteOrder(make_order()))
        except JournalError as error:
            say(str(error))
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        async with Journal.open(path):
            say("opens again")
        """,
        path,
    )
    said = [line(process) for _ in range(2)]
    try:
        assert process.wait(timeout=60) == 0
    finally:
        reap(process)
    assert said[0].startswith("100 notes were lost on closing.")
    assert said[1] == "opens again"


async def test_a_write_without_an_fsync_leaves_the_next_commit_its_own(tmp_path: Path) -> None:
    def synchronous(store: Store) -> object:
        assert isinstance(store, SqliteStore)
        return store._db.execute("PRAGMA synchronous").fetchone()[0]

    order, unknown = make_order(), make_order()
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.write(NoteOrder(order))
        assert await journal.order(order.address) is not None
        assert await journal.writer.upkeep(synchronous) == 2, "FULL"
        with pytest.raises(JournalError, match="does not know"):
            await journal.write(NoteState(unknown.address, OrderState.OPEN, "Unknown."))
        assert await journal.writer.upkeep(synchronous) == 2
        await journal.commit(NoteState(order.address, OrderState.FAILED, "Why not."))
    assert home_of(tmp_path / "j.db").verify() == []
    async with Journal.open(tmp_path / "j.db") as journal:
        row = await journal.order(order.address)
        assert row is not None
        assert row.state is OrderState.FAILED
