"""Two keepers' operators on one journal: a stop at one is a stop at both, and so is its end."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import anyio
import pytest

from keeper.execution.gate import NO_POSITION, Gate
from keeper.execution.operator import Operator
from keeper.execution.router import Router
from keeper.journal import Journal, SetMeta

pytestmark = pytest.mark.anyio


def operator_of(journal: Journal) -> tuple[Operator, Gate]:
    gate = Gate(lambda report: None)
    return Operator(journal, gate, cast(Router, None), lambda report: None), gate


async def test_a_pause_at_one_holds_at_the_other_and_either_ends_it(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "journal.db") as journal:
        (one, its_gate), (other, others_gate) = operator_of(journal), operator_of(journal)
        await one.pause("a look")
        await other.load()
        assert (one.paused, other.paused) == ("paused by an operator: a look",) * 2
        await other.resume()
        assert not its_gate.is_open, "it has not heard of it yet"
        await one.load()
        assert (its_gate.is_open, others_gate.is_open) == (True, True)


async def test_a_stop_that_the_journal_does_not_have_yet_stays(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "journal.db") as journal:
        one, gate = operator_of(journal)
        gate.close(NO_POSITION, "a fill without its position")
        await one.load()
        assert not gate.is_open
        await journal.commit(SetMeta(NO_POSITION, "a fill without its position"))
        await one.load()
        await journal.commit(SetMeta(NO_POSITION, None))
        await one.load()
        assert gate.is_open


async def test_an_answer_of_before_a_pause_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Journal.open(tmp_path / "journal.db") as journal:
        one, gate = operator_of(journal)
        await one.pause("first")
        await journal.commit(SetMeta("paused", None))  # another keeper's operator
        asked, answered, meta = anyio.Event(), anyio.Event(), journal.meta

        async def slow(key: str) -> str | None:
            found = await meta(key)
            asked.set()
            await answered.wait()
            return found

        monkeypatch.setattr(journal, "meta", slow)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.load)
            await asked.wait()
            tasks.start_soon(one.pause, "second")
            await anyio.wait_all_tasks_blocked()
            answered.set()
        assert one.paused == "paused by an operator: second"
        assert not gate.is_open
        await one.load()
        assert not gate.is_open
