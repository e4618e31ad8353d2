"""That each commit is fsynced before its call returns, which no kill -9 can show: the kernel's cache survives it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.journal.journal_making import child, line, reap
from tests.support.disk_log import DiskLog, NoCompiler, durable_at

# What the child does between two lines that it says. Each leaves the token of its name in the journal.
KINDS = {
    "lone": "await journal.commit(SetMeta('a', token('lone')))",
    "attempt": "await journal.commit(NoteOrder(order, OrderState.OPEN, token('attempt')), AddAttempt(attempt))",
    "move": """
        await journal.commit(
            MoveAttempt(attempt.signature, AttemptState.SENT, sent_at=1.0),
            NoteState(order.address, OrderState.EXECUTING, token('move')),
        )""",
    "many": """
        async with anyio.create_task_group() as tg:
            for i in range(20):
                tg.start_soon(journal.commit, SetMeta(f'many {i}', token('many')))""",
    "after a write": """
        await journal.write(NoteOrder(make_order(), OrderState.OPEN, 'Written, and not made durable.'))
        await journal.commit(SetMeta('b', token('after a write')))""",
    "inline": """
        with anyio.fail_after(60):
            while not journal.writer.commit_now(SetMeta('c', token('inline'))):
                await anyio.sleep(0)""",
    "inline after a write": """
        await journal.write(NoteOrder(make_order(), OrderState.OPEN, 'Written, and not made durable.'))
        with anyio.fail_after(60):
            while not journal.writer.commit_now(SetMeta('d', token('inline after a write'))):
                await anyio.sleep(0)""",
    "beside a refused one": """
        async def refused():
            try:
                await journal.commit(NoteState(key(), OrderState.OPEN, 'Of an order that nobody knows.'))
            except JournalError:
                say('refused')
        async with anyio.create_task_group() as tg:
            tg.start_soon(refused)
            tg.start_soon(journal.commit, SetMeta('e', token('beside a refused one')))""",
    "one by one": """
        other = sqlite3.connect(path)
        other.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON meta WHEN NEW.key = 'no' BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        other.close()
        async def refused():
            try:
                await journal.commit(SetMeta('no', 'no'))
            except JournalError:
                say('refused')
        async with anyio.create_task_group() as tg:
            tg.start_soon(refused)
            tg.start_soon(journal.commit, SetMeta('f', token('one by one')))""",
    "flushed notes": """
        journal.post(NoteOrder(make_order(), OrderState.OPEN, token('flushed notes')))
        await journal.writer.submit(())""",
    "notes by themselves": """
        journal.post(NoteOrder(make_order(), OrderState.OPEN, token('notes by themselves')))
        with anyio.fail_after(60):
            while not any(token('notes by themselves') == c.reason for c in (await journal.changes_after(0)).changes):
                await anyio.sleep(0.01)""",
}


def token(kind: str) -> str:
    """What the kind leaves in the file, and nothing else does."""
    return f"<{kind}>"


@pytest.fixture
def disk(tmp_path: Path) -> DiskLog:
    made = tmp_path / "log"
    made.mkdir()
    (tmp_path / "disk").mkdir()
    try:
        return DiskLog.build(made, under=tmp_path / "disk")
    except NoCompiler as error:
        pytest.skip(str(error))


def test_every_kind_of_commit_is_on_the_disk_when_it_returns(tmp_path: Path, disk: DiskLog) -> None:
    steps = "".join(
        f"{textwrap.dedent(code).strip()}\nsay({kind!r})\nsys.stdin.readline()\n" for kind, code in KINDS.items()
    )
    life = _LIFE.replace("    STEPS", textwrap.indent(steps, "    "))
    process = child(life, tmp_path / "disk" / "j.db", disk.environment)
    try:
        assert process.stdin is not None
        for kind in KINDS:
            while (said := line(process)) == "refused":
                pass
            assert said == kind
            seen = disk.steps()
            assert any(token(kind).encode() in step.data for step in seen), f"{kind}: written nowhere"
            assert durable_at(seen, token(kind).encode()) is not None, f"{kind}: it returned before any fsync"
            process.stdin.write("go on\n")
            process.stdin.flush()
        assert line(process) == "closed"
        seen = disk.steps()
        assert durable_at(seen, b"<at the end>") is not None
        assert process.wait(timeout=60) == 0
    finally:
        reap(process)


_LIFE = """
import sqlite3
def token(kind):
    return f"<{kind}>"
order = make_order()
attempt = make_attempt(order.address)
async with Journal.open(path, inline_below_s=60) as journal:
    STEPS
    journal.post(NoteOrder(make_order(), OrderState.OPEN, token("at the end")))
say("closed")
"""
