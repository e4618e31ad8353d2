"""Commits on the event loop's own thread: the same promises, and the thread's way whenever they would have to wait."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from keeper.domain.attempts import AttemptState
from keeper.domain.errors import DuplicateAttempt, JournalError
from keeper.domain.orders import OrderState
from keeper.domain.reports import GroupDone
from keeper.journal import AddAttempt, Journal, MoveAttempt, NoteOrder, NoteState, SetMeta, home_of
from tests.journal.journal_making import child, key, line, make_attempt, make_order
from tests.support import until

pytestmark = pytest.mark.anyio

ALWAYS_S = 60.0


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    """One that takes any disk for quick, after its first commit."""
    async with Journal.open(tmp_path / "j.db", inline_below_s=ALWAYS_S) as journal:
        await journal.commit(SetMeta("first", "commit"))
        await until(lambda: journal.writer.quick)
        yield journal


async def test_it_is_written_when_the_call_returns(journal: Journal) -> None:
    order = make_order()
    attempt = make_attempt(order.address)
    assert journal.writer.commit_now(NoteOrder(order), AddAttempt(attempt))
    assert [row.signature for row in await journal.open_attempts()] == [attempt.signature]
    assert home_of(journal.name).verify() == []


async def test_a_refusal_is_raised_and_nothing_of_the_call_is_written(journal: Journal) -> None:
    order = make_order()
    assert journal.writer.commit_now(NoteOrder(order), AddAttempt(make_attempt(order.address)))
    with pytest.raises(DuplicateAttempt):
        journal.writer.commit_now(SetMeta("of this", "call"), AddAttempt(make_attempt(order.address)))
    assert await journal.meta("of this") is None
    with pytest.raises(JournalError, match="does not know"):
        journal.writer.commit_now(NoteState(key(), OrderState.OPEN, "Unknown."))
    assert journal.healthy


async def test_never_unless_asked_for_nor_before_the_disk_is_known(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "never.db") as journal:
        await journal.commit(SetMeta("a", "b"))
        assert not journal.writer.commit_now(SetMeta("c", "d"))
        assert await journal.meta("c") is None
    async with Journal.open(tmp_path / "new.db", inline_below_s=ALWAYS_S) as journal:
        assert not journal.writer.commit_now(SetMeta("c", "d"))


async def test_not_while_others_wait_or_write(journal: Journal) -> None:
    async with anyio.create_task_group() as tg:
        tg.start_soon(journal.commit, SetMeta("theirs", "1"))
        await anyio.lowlevel.checkpoint()  # theirs is in the queue now, or the thread has it
        # Either is right: written after the other, or not at all.
        if journal.writer.commit_now(SetMeta("mine", "2")):
            assert await journal.meta("theirs") == "1"
        else:
            assert await journal.meta("mine") is None


async def test_notes_that_wait_on_its_order_come_first_and_the_others_go_on_waiting(journal: Journal) -> None:
    order, other = make_order(), make_order()
    journal.post(NoteOrder(order, OrderState.OPEN, "Noted before."))
    journal.post(NoteOrder(other, OrderState.OPEN, "Not in a hurry."))
    assert journal.writer.commit_now(
        NoteState(order.address, OrderState.EXECUTING, "On its way."), AddAttempt(make_attempt(order.address))
    )
    row = await journal.order(order.address)
    assert row is not None
    assert row.state is OrderState.EXECUTING
    assert journal.waiting_notes <= 1
    await journal.writer.submit(())
    assert journal.waiting_notes == 0
    assert await journal.order(other.address) is not None


async def test_calls_on_either_way_keep_their_order_and_are_told_of(tmp_path: Path) -> None:
    groups: list[GroupDone] = []
    async with Journal.open(tmp_path / "j.db", on_group=groups.append, inline_below_s=ALWAYS_S) as journal:
        order = make_order()
        await journal.commit(NoteOrder(order))
        for number in range(1, 30):
            attempt = make_attempt(order.address, number=number)
            ops = NoteState(order.address, OrderState.EXECUTING, "It goes."), AddAttempt(attempt)
            if number % 2:
                await journal.commit(*ops)
            else:  # as soon as the thread, which tidies after its own commits, lets it
                await until(lambda ops=ops: journal.writer.commit_now(*ops), every_s=0.0)  # type: ignore[misc]
            await journal.commit(
                MoveAttempt(attempt.signature, AttemptState.FAILED),
                NoteState(order.address, OrderState.OPEN, f"It rests, {'again ' * number}."),
            )
        row = await journal.order(order.address)
        assert row is not None
        assert row.attempts_made == 29
        changes = [change.id for change in await journal.changes_of(order.address)]
        assert sorted(changes) == list(range(1, len(changes) + 1)), "no id is given twice, none is left out"
        await journal.changed(len(changes) - 1)
        assert journal.last_change_id == len(changes)
    assert sum(group.inline for group in groups) == 14
    assert sum(group.callers for group in groups if not group.inline) == 1 + 15 + 29
    assert home_of(tmp_path / "j.db").verify() == []


async def test_another_program_that_has_the_file_is_not_waited_for(journal: Journal) -> None:
    order = make_order()
    journal.post(NoteOrder(order, OrderState.OPEN, "Noted before."))
    with contextlib.closing(sqlite3.connect(journal.name, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        began_s = time.monotonic()
        assert not journal.writer.commit_now(NoteOrder(order), AddAttempt(make_attempt(order.address)))
        assert time.monotonic() - began_s < 2.5, "SQLite waits for five seconds where it may"
        assert journal.healthy
        assert await journal.order(order.address) is None
        shell.execute("ROLLBACK")
    await journal.commit(SetMeta("after", "it"))
    row = await journal.order(order.address)
    assert row is not None, "the note waits on"
    assert row.reason == "Noted before."
    assert await journal.open_attempts() == []
    await until(lambda: journal.writer.quick)
    assert journal.writer.commit_now(AddAttempt(make_attempt(order.address)))


async def test_after_closing_it_says_so(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db", inline_below_s=ALWAYS_S) as journal:
        await journal.commit(SetMeta("a", "b"))
    with pytest.raises(JournalError, match="closed"):
        journal.writer.commit_now(SetMeta("c", "d"))


def test_what_it_returned_for_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    process = child(
        """
        async with Journal.open(path, inline_below_s=60) as journal:
            await journal.commit(SetMeta("a", "b"))
            with anyio.fail_after(60):
                while not journal.writer.quick:
                    await anyio.sleep(0)
            order = make_order()
            done = journal.writer.commit_now(NoteOrder(order), AddAttempt(make_attempt(order.address)))
            say(f"{done} {order.address}")
            os.kill(os.getpid(), 9)
        """,
        path,
    )
    done, address = line(process).split()
    assert process.wait(timeout=60) == -signal.SIGKILL
    process.communicate()
    assert done == "True"

    async def read() -> list[str]:
        async with Journal.open(path) as journal:
            return [str(attempt.order) for attempt in await journal.open_attempts()]

    assert anyio.run(read) == [address]


def test_a_full_disk_fails_the_call_and_the_thread_heals_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    process = child(
        """
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        async with Journal.open(path, inline_below_s=60) as journal:
            await journal.commit(SetMeta("a", "b"))
            with anyio.fail_after(60):
                while not journal.writer.quick:
                    await anyio.sleep(0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
            try:
                journal.writer.commit_now(*(NoteOrder(make_order()) for _ in range(200)))
            except JournalError as error:
                say(f"{journal.healthy} {journal.problem == str(error)}")
            say(str(journal.writer.commit_now(SetMeta("while", "unhealthy"))))
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            with anyio.fail_after(60):
                while not journal.healthy:
                    await anyio.sleep(0.01)
            say(str(sum((await journal.counts_by_state()).values())))
        """,
        path,
    )
    said = [line(process) for _ in range(3)]
    assert process.wait(timeout=60) == 0
    process.communicate()
    assert said == ["False True", "False", "0"]


async def test_one_slow_commit_among_the_last_ones_is_enough_to_stay_away(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db", inline_below_s=0.008) as journal:
        writer = journal.writer
        said = [writer.quick]
        for seconds in (0.002, 0.1, 0.001, 0.001, 0.001, 0.001, 0.001):
            writer._commits_s.append(seconds)
            said.append(writer.quick)
        assert said == [False, True, False, False, False, False, False, True]
    async with Journal.open(tmp_path / "j.db", inline_below_s=0.0) as journal:
        journal.writer._commits_s.append(0.0)
        assert not journal.writer.quick
