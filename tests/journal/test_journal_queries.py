"""What can be asked, page by page, and that nothing asks for a pass over a large table."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.errors import JournalError
from keeper.domain.orders import OrderState
from keeper.journal import (
    AddAttempt,
    AddPrepared,
    Journal,
    MoveAttempt,
    MovePrepared,
    NoteOrder,
    NoteState,
    PreparedStatus,
    Queries,
    Retention,
    UseBudget,
)
from keeper.journal.applying import apply
from keeper.journal.pruning import prune_step
from keeper.journal.rows import ORDER_COLUMNS
from keeper.journal.saving import save
from keeper.journal.sqlite import statements as statements_of
from keeper.journal.sqlite.files import open_reader, open_writer
from keeper.journal.touched import Rows, Wanted
from tests.journal.journal_making import MARKET, key, make_attempt, make_order, make_prepared
from tests.support import BOUND_S, until

pytestmark = pytest.mark.anyio
ACTIVE = [state for state in OrderState if not state.terminal]
HISTORY = [state for state in OrderState if state.terminal]


async def test_a_closed_journal_is_read_no_more_and_what_is_being_read_leaves_no_connection(
    place: Path | str,
) -> None:
    reading, closed = threading.Event(), threading.Event()

    def read(queries: Queries) -> int:
        reading.set()
        assert closed.wait(BOUND_S)
        return queries.last_change_id()

    async with anyio.create_task_group() as tasks, Journal.open(place) as journal:
        tasks.start_soon(journal.read, read)
        await until(reading.is_set)
        journal.close()
        closed.set()
        with pytest.raises(JournalError, match="closed"):
            await journal.read(Queries.last_change_id)
        await until(lambda: journal._reading.borrowed_tokens == 0)
        assert journal._readers.empty()


async def test_orders_by_every_filter_page_by_page(place: Path | str) -> None:
    users, markets = [key() for _ in range(3)], [key(), MARKET]
    orders = [make_order(user=user, market=market) for user, market, _ in itertools.product(users, markets, range(12))]
    states = {order.address: list(OrderState)[n % 12] for n, order in enumerate(orders)}
    async with Journal.open(place) as journal:
        for n, order in enumerate(orders):
            client = f"client-{n % 6}"
            await journal.commit(NoteOrder(order, states[order.address], "As told.", client_order_id=client))
        filters: list[dict[str, object]] = [
            {},
            {"user": users[0]},
            {"user": users[0], "states": ACTIVE},
            {"user": users[1], "states": HISTORY, "market": markets[0]},
            {"market": markets[1]},
            {"market": markets[1], "states": HISTORY},
            {"market": markets[1], "states": [OrderState.FAILED]},
            {"states": [OrderState.OPEN, OrderState.FILLED]},
            {"states": []},
            {"client_order_id": "client-3"},
            {"client_order_id": "client-3", "user": users[2], "states": ACTIVE},
        ]
        for chosen in filters:
            expected = [
                order.address
                for n, order in reversed(list(enumerate(orders)))
                if chosen.get("user") in (None, order.user)
                and chosen.get("market") in (None, order.market)
                and ("states" not in chosen or states[order.address] in chosen["states"])  # type: ignore[operator]
                and chosen.get("client_order_id") in (None, f"client-{n % 6}")
            ]
            found, cursor = [], None
            while True:
                page = await journal.orders(**chosen, cursor=cursor, limit=5)  # type: ignore[arg-type]
                found += [row.address for row in page.items]
                assert len(page.items) <= 5
                cursor = page.cursor
                if cursor is None:
                    break
            assert found == expected, chosen
        counts = await journal.counts_by_state()
        assert counts == dict.fromkeys(OrderState, 6)
        assert set(await journal.seen_orders(ACTIVE)) == {a for a, s in states.items() if not s.terminal}


async def test_of_the_orders_that_rest_those_that_were_tried_come_by_their_numbers(place: Path | str) -> None:
    rests, used, failed, tried, ended = orders = [make_order() for _ in range(5)]
    async with Journal.open(place) as journal:
        await journal.commit(*(NoteOrder(order) for order in orders), UseBudget(used.address))
        await journal.commit(*(AddAttempt(make_attempt(order.address)) for order in (tried, ended)))
        await journal.commit(*(NoteState(order.address, OrderState.FAILED, "No.") for order in (failed, ended)))
        await journal.commit(NoteState(ended.address, OrderState.FILLED, "By another."))
        found, after = [], 0
        while rows := await journal.tried_orders(ACTIVE, after=after, limit=1):
            assert len(rows) == 1
            found.append(rows[0].address)
            after = rows[0].id
        assert found == [used.address, failed.address, tried.address]
        assert rests.address not in found


async def test_a_start_on_some_markets_asks_for_what_is_of_those(place: Path | str) -> None:
    markets = [key() for _ in range(3)]
    kinds = (AttemptKind.EXECUTE, AttemptKind.RATCHET, AttemptKind.RELAY)
    async with Journal.open(place) as journal:
        for market in markets:
            rests, failed, expired, gone, *tried = (make_order(market=market) for _ in range(4 + len(kinds)))
            orders = (rests, failed, expired, gone, *tried)
            await journal.commit(*(NoteOrder(order) for order in orders), UseBudget(rests.address))
            signed_at = time.time()
            for order, kind in zip(tried, kinds, strict=True):
                await journal.commit(AddAttempt(make_attempt(order.address, kind=kind, signed_at=signed_at)))
            ratchet = make_attempt(failed.address, kind=AttemptKind.RATCHET, signed_at=signed_at)
            await journal.commit(AddAttempt(ratchet))
            await journal.commit(MoveAttempt(ratchet.signature, AttemptState.CONFIRMED, fate=Fate.RATCHETED))
            await journal.commit(NoteState(failed.address, OrderState.FAILED, "No."))
            await journal.commit(NoteState(expired.address, OrderState.EXPIRED, "Its time is over."))
            await journal.commit(NoteState(gone.address, OrderState.DROPPED, "It is gone."))

        def asked(queries: Queries, some: list[Pubkey] | None) -> list[list[Pubkey]]:
            found = [
                [attempt.order for attempt in queries.open_attempts(markets=some)],
                [address for address, _ in queries.tried_since(1.0, markets=some)],
                [row.address for row in queries.tried_orders(ACTIVE, markets=some)],
                queries.seen_orders(ACTIVE, markets=some),
                queries.seen_orders(HISTORY, markets=some),
                queries.seen_orders([OrderState.OPEN, OrderState.DROPPED], markets=some),
                queries.expired_orders(1.0, markets=some),
            ]
            paged, after = [], 0
            while rows := queries.tried_orders(ACTIVE, markets=some, after=after, limit=1):
                paged.append(rows[0].address)
                after = rows[0].id
            assert paged == found[2]
            return found

        every = await journal.read(lambda queries: asked(queries, None))
        assert [len(found) for found in every] == [3 * n for n in (4, 3, 5, 5, 2, 5, 1)]
        known = await journal.read(lambda queries: queries.orders_at({a for found in every for a in found}))
        for some in ([], markets[:1], markets[1:], [*markets, key()]):
            found = await journal.read(lambda queries, some=some: asked(queries, some))  # type: ignore[misc]
            expected = [[address for address in each if known[address].order.market in some] for each in every]
            assert found[:3] == expected[:3], "in their order"
            assert list(map(set, found[3:])) == list(map(set, expected[3:]))
            assert list(map(len, found)) == list(map(len, expected)), "each once"


async def test_the_orders_of_a_page_come_in_one_query(place: Path | str) -> None:
    async with Journal.open(place) as journal:
        orders = [make_order() for _ in range(3)]
        await journal.commit(*(NoteOrder(order) for order in orders))
        asked = [orders[0].address, orders[2].address, orders[2].address, key()]
        found = await journal.read(lambda queries: queries.orders_at(asked))
        assert {address: row.order for address, row in found.items()} == {o.address: o for o in (orders[0], orders[2])}
        assert await journal.read(lambda queries: queries.orders_at([])) == {}


@pytest.mark.parametrize("cursor", ["", "garbage", "WyJhIl0", "W10", "é", "WzEsMl0"])
async def test_a_foreign_cursor_is_refused(place: Path | str, cursor: str) -> None:
    async with Journal.open(place) as journal:
        with pytest.raises(JournalError, match="cursor"):
            await journal.orders(cursor=cursor)
        with pytest.raises(JournalError, match="A page has"):
            await journal.orders(limit=0)


async def test_executions_and_failures(place: Path | str) -> None:
    orders = [make_order() for _ in range(30)]
    ends = [Fate.EXECUTED, Fate.CANNOT_PAY, Fate.LOST_RACE]
    async with Journal.open(place) as journal:
        for n, order in enumerate(orders):
            # Three share each moment of signing: the cursor has to tell them apart.
            attempt = make_attempt(order.address, signed_at=float(n // 3))
            relay = make_attempt(order.address, kind=AttemptKind.RELAY)
            await journal.commit(NoteOrder(order), AddAttempt(attempt), AddAttempt(relay))
            await journal.commit(MoveAttempt(attempt.signature, AttemptState.FAILED, fate=ends[n % 3]))
        for outcome, expected in ((None, 30), (Fate.CANNOT_PAY, 10), (Fate.NO_POSITION, 0)):
            found: list[Attempt] = []
            cursor = None
            while True:
                page = await journal.executions(outcome=outcome, cursor=cursor, limit=4)
                found += page.items
                cursor = page.cursor
                if cursor is None:
                    break
            assert len({a.signature for a in found}) == len(found) == expected
            assert [a.signed_at for a in found] == sorted((a.signed_at for a in found), reverse=True)
        assert len((await journal.executions(since=8.0)).items) == 6
        await journal.commit(NoteState(orders[0].address, OrderState.FAILED, "No position."))
        failures = await journal.failures()
        assert len(failures) == 11
        first = failures[0]
        assert first.order is not None
        assert (first.order.address, first.changes[-1].reason) == (orders[0].address, "No position.")
        assert [a.kind for a in first.attempts] == [AttemptKind.EXECUTE, AttemptKind.RELAY]
        assert failures[1].attempts[0].fate is Fate.CANNOT_PAY
        assert len(await journal.failures(limit=3)) == 3


async def test_changes_resume_without_a_gap(place: Path | str) -> None:
    users = [key(), key()]
    orders = [make_order(user=users[n % 2]) for n in range(40)]
    async with Journal.open(place) as journal:
        seen: list[int] = []

        async def follow() -> None:
            last = 0
            while last < 120:
                await journal.changed(last)
                page = await journal.changes_after(last, limit=7)
                assert not page.gap
                seen.extend(change.id for change in page.changes)
                last = page.last_id

        async def walk(n: int) -> None:
            await journal.commit(NoteOrder(orders[n]))
            if n % 10 == 0:
                with pytest.raises(JournalError):
                    await journal.commit(
                        NoteState(orders[n].address, OrderState.FAILED, "Taken back."), UseBudget(key())
                    )
            await journal.commit(NoteState(orders[n].address, OrderState.EXECUTING, "Sent."))
            journal.post(NoteState(orders[n].address, OrderState.FILLED, "Filled."))

        with anyio.fail_after(BOUND_S):
            async with anyio.create_task_group() as tg:
                tg.start_soon(follow)
                for n in range(40):
                    tg.start_soon(walk, n)
        assert seen == list(range(1, 121)), "each once, in order, none missing"
        mine = await journal.changes_after(0, user=users[0])
        assert len(mine.changes) == 60
        assert {change.user for change in mine.changes} == {users[0]}
        assert mine.last_id == 120
        assert (await journal.changes_after(0, market=key())).last_id == 120
        assert (await journal.changes_after(120)).changes == ()
        assert (await journal.changes_after(999)).last_id == 999
        assert journal.last_change_id == 120
    async with Journal.open(place) as journal:
        assert journal.last_change_id == 120
        await journal.commit(NoteOrder(make_order()))
        assert journal.last_change_id == 121


async def test_a_reader_sees_one_moment_and_never_holds_up_the_writer(place: Path | str) -> None:
    async with Journal.open(place) as journal:
        order = make_order()
        await journal.commit(NoteOrder(order))

        async def read(results: list[int]) -> None:
            results.append(len((await journal.orders(limit=1_000)).items))

        results: list[int] = []
        async with anyio.create_task_group() as tg:
            for _ in range(20):
                tg.start_soon(read, results)
                tg.start_soon(journal.commit, NoteOrder(make_order()))
        assert len(results) == 20


LARGE = ("orders", "attempts", "changes", "prepared")


def plans(path: Path) -> Iterator[tuple[str, str]]:
    """(statement, plan step) of everything that the room asks of SQLite while it runs."""
    writer = open_writer(path)
    order = make_order()
    attempt = make_attempt(order.address)
    statements: list[str] = []
    writer.conn.set_trace_callback(statements.append)
    groups = [
        (
            NoteOrder(order, client_order_id="c"),
            AddAttempt(attempt),
            AddPrepared(make_prepared("p", idempotency_key="k")),
        ),
        (NoteState(order.address, OrderState.EXECUTING, "Sent."),),
        (MoveAttempt(attempt.signature, AttemptState.SENT, sent_at=1.0), MovePrepared("p", PreparedStatus.LANDED)),
        (NoteOrder(make_order(address=order.address, slot=200), OrderState.FILLED, "Filled."),),
        (MoveAttempt(attempt.signature, AttemptState.FINALIZED, fate=Fate.EXECUTED, finalized_at=1.0),),
    ]
    next_order, next_change = 1, 1
    for ops in groups:
        rows = Rows(next_order_id=next_order, next_change_id=next_change)
        writer.execute("BEGIN")
        wanted = Wanted()
        wanted.of(ops)
        statements_of.load(writer, wanted, rows)
        apply(rows, ops, 1.0)
        save(statements_of.SqliteWriting(writer), rows)
        writer.execute("COMMIT")
        next_order, next_change = rows.next_order_id, rows.next_change_id
    for many in (2, 512):
        statements.append(statements_of._update_sql("orders", ORDER_COLUMNS[1:], many))
        statements.append(statements_of._update_sql("attempts", ("state", "sent_at"), many))
    prune_step(writer, Retention(), now=1e12)
    writer.conn.set_trace_callback(None)

    reader = open_reader(path)
    queries = Queries(reader)
    reader.conn.set_trace_callback(statements.append)
    user, market = key(), key()
    queries.order(user)
    queries.orders_at([user, market])
    for users, markets, client in itertools.product((None, user), (None, market), (None, "c")):
        for states in (None, ACTIVE, HISTORY, *([state] for state in OrderState)):
            queries.orders(user=users, market=markets, client_order_id=client, states=states)
    queries.orders(user=user, cursor="WzVd")
    queries.attempt(attempt.signature)
    queries.attempts_of(user)
    for some in (None, [market, key()]):
        queries.seen_orders(list(OrderState), markets=some)
        queries.tried_orders(ACTIVE, markets=some)
        queries.expired_orders(1.0, markets=some)
        queries.open_attempts(markets=some)
        queries.tried_since(1.0, markets=some)
    queries.executions()
    queries.executions(since=1.0, outcome=Fate.EXECUTED, cursor="WzEuNSw1XQ")
    queries.executions(since=1.0, cursor="WzEuNSw1XQ")
    queries.failures()
    queries.changes_of(user)
    queries.changes_after(0)
    queries.changes_after(0, user=user, market=market)
    queries.prepared("p")
    queries.prepared_by_key("k")
    queries.prepared_of(user)
    queries.market_names()
    queries.close()

    for statement in dict.fromkeys(statements):
        if statement.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            marks = (None,) * statement.count("?") if "?" in statement else ()
            # In a process with other native code SQLite was seen to spell a bound 1.0 as NaN. The plan is the same.
            statement = statement.replace("NaN", "NULL")
            for *_, step in writer.execute(f"EXPLAIN QUERY PLAN {statement}", marks or None).fetchall():
                yield statement, step
    writer.conn.close()


def test_nothing_passes_over_a_large_table(tmp_path: Path) -> None:
    (tmp_path / "j.db").touch()
    aliases = {"o": "orders", "c": "changes", "a": "attempts"}
    looked = 0
    for statement, step in plans(tmp_path / "j.db"):
        words = step.split()
        if words[0] in ("SCAN", "SEARCH"):
            looked += aliases.get(words[1], words[1]) in LARGE
        if step.endswith(("USING INDEX one_live_attempt", "USING INDEX followed_attempts")):
            continue  # these indexes hold just what was asked for: the attempts that could still land
        if words[0] == "SCAN":
            assert aliases.get(words[1], words[1]) not in LARGE, f"{step}\n{statement}"
        if "attempts_kind (kind=?)" in step:
            assert "ORDER BY signed_at DESC" in statement, f"all attempts of a kind: {statement}"
    assert looked > 40
