"""Group commit: what is durable, what is refused, and that one caller's failure is nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from keeper.domain.attempts import AttemptKind, AttemptState, Fate
from keeper.domain.errors import DuplicateAttempt, JournalError
from keeper.domain.orders import OrderState
from keeper.domain.reports import GroupDone
from keeper.journal import (
    AddAttempt,
    AddPrepared,
    AddSpend,
    Journal,
    JournalConflict,
    MoveAttempt,
    MovePrepared,
    NoteOrder,
    NoteState,
    PreparedStatus,
    Reader,
    ResetBudget,
    SetMeta,
    UseBudget,
)
from keeper.journal.sqlite.home import SqliteHome
from keeper.journal.sqlite.store import SqliteStore
from tests.journal.journal_making import key, make_attempt, make_order, make_prepared

pytestmark = pytest.mark.anyio


async def test_an_attempt_is_what_it_was_through_its_whole_life(tmp_path: Path) -> None:
    order = make_order()
    attempt = make_attempt(order.address, trigger_price_1e6=2**64 - 1, unit_limit=200_000)
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.commit(NoteOrder(order), AddAttempt(attempt))
        assert await journal.open_attempts() == [attempt]
        await journal.commit(MoveAttempt(attempt.signature, AttemptState.SENT, sent_at=1_700_000_101.654321))
        await journal.commit(
            MoveAttempt(
                attempt.signature,
                AttemptState.FINALIZED,
                seen_slot=2**64 - 1,
                finalized_at=1_700_000_113.1,
                ended_at=1_700_000_113.1,
                fate=Fate.EXECUTED,
                fee_lamports=5_000,
                position=order.user,
            )
        )
        ended = await journal.read(lambda queries: queries.attempt(attempt.signature))
        assert ended is not None
        assert await journal.open_attempts() == []
        assert (ended.state, ended.fate, ended.fee_lamports) == (AttemptState.FINALIZED, Fate.EXECUTED, 5_000)
        assert (ended.sent_at, ended.seen_slot, ended.position) == (1_700_000_101.654321, 2**64 - 1, order.user)
        assert (ended.wire, ended.trigger_price_1e6) == (attempt.wire, 2**64 - 1)
        row = await journal.order(order.address)
        assert row is not None
        assert row.version == 1 + 1 + 2, "each step of an attempt is a visible change of its order"


async def test_a_second_live_attempt_is_refused_and_the_others_of_its_group_commit(tmp_path: Path) -> None:
    orders = [make_order() for _ in range(20)]
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.commit(*(NoteOrder(order) for order in orders))
        await journal.commit(AddAttempt(make_attempt(orders[0].address)))
        outcomes: dict[int, type[BaseException] | None] = {}

        async def add(number: int) -> None:
            try:
                await journal.commit(
                    AddAttempt(make_attempt(orders[number].address, number=2)),
                    SetMeta(f"note-{number}", "kept"),
                )
                outcomes[number] = None
            except JournalError as error:
                outcomes[number] = type(error)

        async with anyio.create_task_group() as tg:
            for number in range(20):
                tg.start_soon(add, number)
        assert outcomes == {0: DuplicateAttempt} | dict.fromkeys(range(1, 20))
        assert await journal.meta("note-0") is None, "a refused call leaves nothing behind"
        assert await journal.meta("note-1") == "kept"
        assert len(await journal.open_attempts()) == 20


async def test_two_attempts_at_one_order_in_one_group_or_one_call(tmp_path: Path) -> None:
    order = make_order()
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.commit(NoteOrder(order))
        with pytest.raises(DuplicateAttempt):
            await journal.commit(
                AddAttempt(make_attempt(order.address)),
                AddAttempt(make_attempt(order.address, kind=AttemptKind.RATCHET)),
            )
        assert await journal.attempts_of(order.address) == []
        first = make_attempt(order.address)
        await journal.commit(AddAttempt(first))
        # The old one ends and the next begins in one call; a user's relay is not the keeper's.
        await journal.commit(
            MoveAttempt(first.signature, AttemptState.EXPIRED, ended_at=1.0, fate=Fate.TRANSIENT),
            AddAttempt(make_attempt(order.address, number=2)),
            AddAttempt(make_attempt(order.address, kind=AttemptKind.RELAY)),
        )
        assert len(await journal.open_attempts()) == 2
        with pytest.raises(DuplicateAttempt):
            await journal.commit(AddAttempt(make_attempt(order.address, number=3)))
        with pytest.raises(DuplicateAttempt):
            await journal.commit(AddAttempt(first))
        row = await journal.order(order.address)
        assert row is not None
        assert row.attempts_made == 2


async def test_what_an_attempt_cannot_do(tmp_path: Path) -> None:
    order = make_order()
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.commit(NoteOrder(order))
        attempt = make_attempt(order.address)
        with pytest.raises(JournalError, match="does not know"):
            await journal.commit(MoveAttempt(attempt.signature, AttemptState.SENT))
        await journal.commit(AddAttempt(attempt), MoveAttempt(attempt.signature, AttemptState.FAILED))
        with pytest.raises(JournalError, match="has ended"):
            await journal.commit(MoveAttempt(attempt.signature, AttemptState.SENT))
        await journal.commit(MoveAttempt(attempt.signature, AttemptState.FAILED, error_name="PriceStale"))
        with pytest.raises(JournalError, match="can't keep"):
            await journal.commit(AddAttempt(make_attempt(order.address, last_valid_block_height=2**64)))
        with pytest.raises(JournalError, match="can't keep"):
            await journal.commit(AddAttempt(make_attempt(order.address, unit_limit=2**64)))
        with pytest.raises(JournalError, match="can't keep"):
            await journal.commit(AddAttempt(make_attempt(order.address, wire=object())))
        assert journal.healthy
        (kept,) = await journal.attempts_of(order.address)
        assert kept.error_name == "PriceStale"


async def test_callers_that_come_together_share_one_group(tmp_path: Path) -> None:
    groups: list[GroupDone] = []
    orders = [make_order() for _ in range(500)]
    async with Journal.open(tmp_path / "j.db", on_group=groups.append) as journal:
        async with anyio.create_task_group() as tg:
            for order in orders:
                tg.start_soon(journal.commit, NoteOrder(order))
        assert sum(group.callers for group in groups) == 500
        assert len(groups) < 50
        assert all(group.problem is None and group.seconds > 0 for group in groups)


async def test_a_cancelled_caller_leaves_the_group_whole(tmp_path: Path) -> None:
    orders = [make_order() for _ in range(100)]
    async with Journal.open(tmp_path / "j.db") as journal:
        async with anyio.create_task_group() as doomed, anyio.create_task_group() as kept:
            for number, order in enumerate(orders):
                (doomed if number % 2 else kept).start_soon(journal.commit, NoteOrder(order))
            await asyncio.sleep(0)
            doomed.cancel_scope.cancel()
        await journal.writer.submit(())
        known = [await journal.order(order.address) for order in orders]
        assert all(row is not None for row in known[::2])
        assert sum(1 for row in known if row is not None) == (await journal.counts_by_state())[OrderState.OPEN]


async def test_posted_notes_are_merged_in_order_with_commits_and_flushed_on_leaving(tmp_path: Path) -> None:
    order = make_order()
    groups: list[GroupDone] = []
    async with Journal.open(tmp_path / "j.db", on_group=groups.append) as journal:
        for slot in range(100, 1_100):
            assert journal.post(NoteOrder(make_order(address=order.address, user=order.user, slot=slot)))
        assert journal.waiting_notes <= 1
        await journal.commit(NoteState(order.address, OrderState.EXECUTING, "Sent."))
        journal.post(NoteState(order.address, OrderState.FILLED, "Filled."))
        journal.post(NoteState(key(), OrderState.FILLED, "Nobody knows this one."))
    assert sum(group.notes for group in groups) < 20
    assert sum(group.refused for group in groups) == 1
    with contextlib.closing(Reader(tmp_path / "j.db")) as reader:
        row = await reader.order(order.address)
        assert row is not None
        assert (row.state, row.order.slot) == (OrderState.FILLED, 1_099)
        assert [c.state for c in await reader.changes_of(order.address)] == [
            OrderState.OPEN,
            OrderState.EXECUTING,
            OrderState.FILLED,
        ]


async def test_the_note_of_an_end_does_not_become_the_next_orders_at_its_address(tmp_path: Path) -> None:
    order = make_order(slot=100)
    again = make_order(address=order.address, user=order.user, slot=101, created_at=order.created_at + 1)
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.commit(NoteOrder(order))
        journal.post(NoteState(order.address, OrderState.FILLED, "Filled.", position=key()))
        journal.post(NoteOrder(again))
        failed = make_order(slot=100)
        await journal.commit(NoteOrder(failed))
        journal.post(NoteState(failed.address, OrderState.FAILED, "Refused."))
        journal.post(NoteOrder(failed, OrderState.OPEN, "It rests."))
    with contextlib.closing(Reader(tmp_path / "j.db")) as reader:
        made_again, refused = await reader.order(again.address), await reader.order(failed.address)
        assert made_again is not None
        assert (made_again.state, made_again.position) == (OrderState.OPEN, None)
        assert [c.state for c in await reader.changes_of(order.address)][-2:] == [OrderState.FILLED, OrderState.OPEN]
        assert refused is not None
        assert refused.state is OrderState.FAILED, "only a reopening lets it rest again"


async def test_notes_are_bounded(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db", max_notes=10) as journal:
        kept = [journal.post(NoteOrder(make_order())) for _ in range(30)]
        assert kept.count(False) > 0
        await journal.writer.submit(())
        assert journal.post(NoteOrder(make_order())), "there is room again"
    with contextlib.closing(Reader(tmp_path / "j.db")) as reader:
        assert sum((await reader.counts_by_state()).values()) == kept.count(True) + 1


async def test_prepared_transactions_and_their_keys(tmp_path: Path) -> None:
    row = make_prepared("p1", idempotency_key="k", body_hash="h", client_order_id="c")
    async with Journal.open(tmp_path / "j.db") as journal:
        outcomes: list[str] = []

        async def add(prepared_id: str) -> None:
            try:
                await journal.commit(AddPrepared(make_prepared(prepared_id, idempotency_key="same")))
                outcomes.append("kept")
            except JournalConflict:
                outcomes.append("refused")

        async with anyio.create_task_group() as tg:
            for number in range(8):
                tg.start_soon(add, f"racer-{number}")
        assert sorted(outcomes) == ["kept"] + ["refused"] * 7
        await journal.commit(AddPrepared(row))
        assert await journal.prepared("p1") == row == await journal.prepared_by_key("k")
        signature = make_attempt(row.order).signature
        move = MovePrepared("p1", PreparedStatus.SUBMITTED, signature, expected=PreparedStatus.PREPARED)
        await journal.commit(move)
        with pytest.raises(JournalConflict, match="is submitted by now"):
            await journal.commit(move)
        moved = await journal.prepared("p1")
        assert moved is not None
        assert (moved.status, moved.signature) == (PreparedStatus.SUBMITTED, signature)
        with pytest.raises(JournalConflict):
            await journal.commit(AddPrepared(row))
    async with Journal.open(tmp_path / "j.db") as journal:
        with pytest.raises(JournalConflict):
            await journal.commit(AddPrepared(make_prepared("p3", idempotency_key="k")))


async def test_budget_spend_and_meta(tmp_path: Path) -> None:
    order = make_order()
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.commit(NoteOrder(order), UseBudget(order.address, 2))
        await journal.commit(UseBudget(order.address))
        row = await journal.order(order.address)
        assert row is not None
        assert row.budget_used == 3
        await journal.commit(ResetBudget(order.address), AddSpend("2026-01-02", 5_000), AddSpend("2026-01-02", 1))
        await journal.commit(AddSpend("2026-01-02", 2), SetMeta("paused", "yes"))
        row = await journal.order(order.address)
        assert row is not None
        assert row.budget_used == 0
        assert await journal.spent("2026-01-02") == 5_003
        assert await journal.spent("2026-01-03") == 0
        assert await journal.meta("paused") == "yes"
        await journal.commit(SetMeta("paused", None))
        assert await journal.meta("paused") is None
        with pytest.raises(JournalError, match="does not know the order"):
            await journal.commit(UseBudget(key()))


class TellsAtOnce(SqliteHome):
    """A home whose store has news before it is opened: a lease that ran out at once, on a busy machine."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(path)
        self._loop = loop

    def open_store(self, on_news: Callable[[], None]) -> SqliteStore:
        on_news()
        asyncio.run_coroutine_threadsafe(anyio.lowlevel.checkpoint(), self._loop).result()  # it was heard
        return super().open_store(on_news)


async def test_news_of_a_store_that_is_being_opened_harm_nobody(tmp_path: Path) -> None:
    loop, errors = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    told: list[GroupDone] = []
    async with Journal.open(TellsAtOnce(tmp_path / "j.db", loop), on_group=told.append) as journal:
        await journal.commit(SetMeta("a", "b"))
    assert errors == []
    assert told[0].callers == 1


async def test_the_loop_is_never_blocked_by_the_disk(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        turns = 0
        done = anyio.Event()

        async def spin() -> None:
            nonlocal turns
            while not done.is_set():
                turns += 1
                await asyncio.sleep(0)

        async with anyio.create_task_group() as tg:
            tg.start_soon(spin)
            for _ in range(20):
                before = turns
                await journal.commit(*(NoteOrder(make_order()) for _ in range(50)))
                assert turns > before, "the loop turned while the writer wrote"
            done.set()


async def test_a_row_that_sqlite_refuses_fails_its_own_caller_only(tmp_path: Path) -> None:
    """The second guard: what the rows in memory let through, and the database does not."""
    orders = [make_order() for _ in range(10)]
    groups: list[GroupDone] = []
    async with Journal.open(tmp_path / "j.db", on_group=groups.append) as journal:
        outcomes: dict[int, bool] = {}

        async def add(number: int) -> None:
            wire = object() if number == 3 else b"bytes"
            try:
                await journal.commit(
                    NoteOrder(orders[number]), AddAttempt(make_attempt(orders[number].address, wire=wire))
                )
                outcomes[number] = True
            except JournalError:
                outcomes[number] = False

        journal.post(NoteOrder(make_order(leverage=2**70)))
        journal.post(NoteOrder(make_order()))
        async with anyio.create_task_group() as tg:
            for number in range(10):
                tg.start_soon(add, number)
        assert outcomes == {number: number != 3 for number in range(10)}
        assert await journal.order(orders[3].address) is None
        assert journal.healthy
        assert sum(group.refused for group in groups) == 2, "the note, and the caller"
        assert sum((await journal.counts_by_state()).values()) == 10
        page = await journal.changes_after(0)
        assert [change.id for change in page.changes] == list(range(1, 11)), "refused rows leave no gap"


async def test_a_ratchet_blocks_its_order_until_it_landed_and_is_followed_until_it_is_rooted(tmp_path: Path) -> None:
    """It can't land twice and never fills: a fill must not wait for its finality."""
    order = make_order()
    ratchet = make_attempt(order.address, kind=AttemptKind.RATCHET)
    fill = make_attempt(order.address, number=2)
    async with Journal.open(tmp_path / "j.sqlite") as journal:
        await journal.commit(NoteOrder(order), AddAttempt(ratchet))
        for state in (AttemptState.SENT, AttemptState.UNKNOWN, AttemptState.SEEN):
            await journal.commit(MoveAttempt(ratchet.signature, state))
            with pytest.raises(DuplicateAttempt):
                await journal.commit(AddAttempt(fill))
        await journal.commit(MoveAttempt(ratchet.signature, AttemptState.CONFIRMED))
        await journal.commit(AddAttempt(fill))
        assert {a.signature for a in await journal.open_attempts()} == {ratchet.signature, fill.signature}
        await journal.commit(MoveAttempt(ratchet.signature, AttemptState.FINALIZED))
        assert [a.signature for a in await journal.open_attempts()] == [fill.signature]
