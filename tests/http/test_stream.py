"""Live status: the stream of orders, resuming it, slow readers, and waiting for one order."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import TaskStatus
from prometheus_client import CollectorRegistry
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.domain.orders import OrderState
from keeper.http.edge.problems import Problem
from keeper.http.stream.feed import MAX_WAITING_BYTES, Feed, Filter, Reader
from keeper.http.stream.sse import EventStream
from keeper.journal import NoteState
from keeper.journal.records import ChangeRow, OrderRow
from tests.http.http_world import LIMITS, World, problem, serving
from tests.support import BOUND_S
from tests.support.stream import stream

pytestmark = pytest.mark.anyio

BUSY = ["executing", "open"]


async def change(world: World, order: str, state: str, reason: str) -> None:
    await world.journal.commit(NoteState(Pubkey.from_string(order), OrderState(state), reason))


async def test_a_snapshot_then_each_change_in_order(world: World, wallet: Keypair) -> None:
    first = await world.noted(wallet)
    async with stream(world.http, user=str(wallet.pubkey())) as events:
        snapshot = await events.next()
        assert (snapshot.name, snapshot.data["complete"]) == ("snapshot", True)
        assert [o["order"] for o in snapshot.data["orders"]] == [first["order"]]
        assert events.retry == "2000"
        second = await world.noted(wallet, order_type="take_profit")
        placed = await events.next()
        assert (placed.name, placed.data["order"], placed.data["status"]) == ("order", second["order"], "submitted")
        for n in range(30):
            await change(world, first["order"], BUSY[n % 2], f"reason {n}")
        told = [await events.next() for _ in range(30)]
        assert [e.data["status_reason"] for e in told] == [f"reason {n}" for n in range(30)]
        assert [e.data["status"] for e in told] == [BUSY[n % 2] for n in range(30)]
        ids = [snapshot.id, placed.id, *(e.id for e in told)]
        assert ids == sorted({i for i in ids if i is not None})
        assert told[0].data["trigger_price"] == "95.5"


async def test_the_last_event_id_resumes_without_a_gap(world: World, wallet: Keypair) -> None:
    order = (await world.noted(wallet))["order"]
    async with stream(world.http, user=str(wallet.pubkey())) as events:
        await events.next()
    for n in range(700):
        await change(world, order, BUSY[n % 2], f"missed {n}")
    async with stream(world.http, events.last_id, user=str(wallet.pubkey())) as events:
        missed = [await events.next() for _ in range(700)]
        assert [e.data["status_reason"] for e in missed] == [f"missed {n}" for n in range(700)]
        await change(world, order, "executing", "live")
        assert (await events.next()).data["status_reason"] == "live"
    # From the middle, as well.
    async with stream(world.http, missed[650].id, user=str(wallet.pubkey())) as events:
        assert (await events.next()).data["status_reason"] == "missed 651"


async def test_nothing_is_lost_or_told_twice_while_a_stream_begins(world: World, wallet: Keypair) -> None:
    """Readers connect while changes are committed as fast as they can be."""
    order = (await world.noted(wallet))["order"]
    total = 150

    async def write() -> None:
        for n in range(total):
            await change(world, order, BUSY[n % 2], str(n))

    async def read(last_id: int | None) -> None:
        async with stream(world.http, last_id, user=str(wallet.pubkey())) as events:
            seen: list[int] = []
            while not seen or seen[-1] < total - 1:
                event = await events.next()
                row = event.data["orders"][0] if event.name == "snapshot" else event.data
                if row["status_reason"].isdigit():
                    seen.append(int(row["status_reason"]))
            assert seen == list(range(seen[0], total))
            if last_id is not None:
                assert seen[0] == 0

    start = world.journal.last_change_id
    async with anyio.create_task_group() as tg:
        tg.start_soon(write)
        for n in range(12):
            tg.start_soon(read, start if n % 2 else None)
            await anyio.sleep(0.01)


@pytest.mark.parametrize("filters", [{"user": "me"}, {"market": "SOL/USDC"}, {"market": "address"}, {}])
async def test_filters(world: World, wallet: Keypair, filters: dict[str, str]) -> None:
    market = str(world.program.market_address("SOL", "USDC"))
    given = {k: {"me": str(wallet.pubkey()), "address": market}.get(v, v) for k, v in filters.items()}
    stranger = world.trader()
    async with stream(world.http, None, **given) as events:
        assert (await events.next()).name == "snapshot"
        other = await world.noted(stranger)
        mine = await world.noted(wallet)
        expected = [mine["order"]] if "user" in filters else [other["order"], mine["order"]]
        assert [(await events.next()).data["order"] for _ in expected] == expected


async def test_a_stream_that_cannot_be_resumed_is_told_so_and_begins_anew(world: World, wallet: Keypair) -> None:
    order = (await world.noted(wallet))["order"]
    async with stream(world.http, 10**15, user=str(wallet.pubkey())) as events:
        assert (await events.next()).name == "reset"
        snapshot = await events.next()
        assert (snapshot.name, snapshot.data["orders"][0]["order"]) == ("snapshot", order)


async def test_what_retention_removed_can_not_be_resumed(world: World, wallet: Keypair) -> None:
    order = (await world.noted(wallet))["order"]
    before = world.journal.last_change_id
    await change(world, order, "dropped", "It is over.")
    await world.journal.prune(now=4e9)
    async with stream(world.http, before, user=str(wallet.pubkey())) as events:
        assert (await events.next()).name == "reset"
        assert (await events.next()).data["orders"] == []


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 30])
async def test_a_last_event_id_that_is_none(world: World, value: str) -> None:
    answer = await world.http.get("/v1/orders/stream", headers={"Last-Event-ID": value})
    assert problem(answer)["field"] == "Last-Event-ID"


async def test_open_streams_are_limited_and_given_back(world: World) -> None:
    ports = replace(world.ports, metrics=CollectorRegistry(), limits=replace(LIMITS, streams=2))
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        async with stream(http) as a, stream(http) as b:
            await a.next()
            await b.next()
            refused = await http.get("/v1/orders/stream")
            assert problem(refused)["code"] == "too_many_streams"
            assert refused.headers["retry-after"] == "5"
        with anyio.fail_after(BOUND_S):
            while True:
                async with http.stream("GET", "/v1/orders/stream") as answer:
                    if answer.status_code == 200:
                        break
                await anyio.sleep(0.02)


async def test_a_reader_that_does_not_read_is_cut_off_and_costs_nobody_else(world: World, wallet: Keypair) -> None:
    order = (await world.noted(wallet))["order"]
    stuck = socket.create_connection(("127.0.0.1", world.port))
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    try:
        stuck.sendall(f"GET /v1/orders/stream?user={wallet.pubkey()} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with stream(world.http, user=str(wallet.pubkey())) as events:
            await events.next()
            # Far more than the socket's buffers and the queue together take.
            reason = "r" * 1_000
            rounds = 6 * MAX_WAITING_BYTES // 1_500
            async with anyio.create_task_group() as tg:

                async def read() -> None:
                    for n in range(rounds):
                        event = await events.next()
                        assert event.data["status_reason"] == f"{n} {reason}"

                tg.start_soon(read)
                for n in range(rounds):
                    await change(world, order, BUSY[n % 2], f"{n} {reason}")
    finally:
        stuck.close()


async def test_a_stopping_api_ends_its_streams_at_once(world: World) -> None:
    ports = replace(world.ports, metrics=CollectorRegistry())
    ended = anyio.Event()

    async def until_its_end(http: httpx.AsyncClient, *, task_status: TaskStatus[None]) -> None:
        async with stream(http) as events:
            await events.next()
            task_status.started()
            with pytest.raises(EOFError):
                await events.next()
        ended.set()

    async with anyio.create_task_group() as tg, httpx.AsyncClient() as http:
        async with serving(ports) as port:
            http.base_url = httpx.URL(f"http://127.0.0.1:{port}")
            await tg.start(until_its_end, http)
            began = anyio.current_time()
        assert anyio.current_time() - began < 2
        with anyio.fail_after(BOUND_S):
            await ended.wait()


# --- the parts, where time has to be scripted


async def test_a_quiet_stream_is_kept_alive_and_its_id_goes_on(world: World, wallet: Keypair) -> None:
    feed = Feed(world.journal, lambda change, row: b"", max_readers=10)
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    async def receive() -> Any:
        await anyio.sleep_forever()

    with feed.reading(Filter(user=Pubkey.new_unique())) as reader:
        async with anyio.create_task_group() as tg:
            await tg.start(feed.run)
            answer = EventStream(feed, reader, b"", lambda: None, keep_alive_s=0.05)
            tg.start_soon(answer, {"type": "http"}, receive, send)
            await world.noted(wallet)  # somebody else's news
            with anyio.fail_after(BOUND_S):
                while b": keep-alive\nid: %d\n\n" % world.journal.last_change_id not in sent:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            tg.cancel_scope.cancel()


async def test_a_mistake_in_showing_an_order_does_not_end_the_keeper(world: World, wallet: Keypair) -> None:
    def broken(change: ChangeRow, row: OrderRow) -> bytes:
        raise ValueError("a mistake")

    feed = Feed(world.journal, broken, max_readers=10)
    async with anyio.create_task_group() as tg:
        await tg.start(feed.run)
        with feed.reading(Filter()) as reader:
            await world.noted(wallet)
            with anyio.fail_after(BOUND_S):
                assert await reader.news() == b""
            assert reader.cut
        tg.cancel_scope.cancel()
    with pytest.raises(Problem), feed.reading(Filter()):
        pass


async def test_readers_wait_for_the_execution_of_orders_and_not_for_ever(
    world: World, wallet: Keypair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.http.stream.feed._LONGEST_WAIT_S", 0.3)
    asked = 0

    def busy() -> bool:
        nonlocal asked
        asked += 1
        return True

    feed = Feed(world.journal, lambda change, row: b"%d " % change.id, max_readers=10, busy=busy)
    async with anyio.create_task_group() as tg:
        await tg.start(feed.run)
        with feed.reading(Filter()) as reader:
            await world.noted(wallet)
            with anyio.fail_after(BOUND_S):
                assert int(await reader.news()) == world.journal.last_change_id
        tg.cancel_scope.cancel()
    assert asked >= 10


async def test_everybody_gets_every_change_of_a_burst_once_and_in_order(world: World) -> None:
    """Those who were there before, who read in steps, and one who comes while the round is handed out."""
    feed: Feed
    late: list[tuple[int, Reader]] = []

    def render(change: ChangeRow, row: OrderRow) -> bytes:
        if change.id == first + 15 and not late:
            late.append((feed.position, stack.enter_context(feed.reading(Filter()))))
        return b"%d " % change.id

    feed = Feed(world.journal, render, max_readers=10)
    orders = [(await world.noted(world.trader()))["order"] for _ in range(2)]
    first = world.journal.last_change_id + 1
    wanted = list(range(first, first + 40))
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(feed.reading(Filter())) for _ in range(3)]
        readers += [stack.enter_context(feed.reading(Filter(order=Pubkey.from_string(orders[0]))))]
        got: list[list[int]] = [[], [], [], []]

        async def read(n: int) -> None:
            while len(got[n]) < (20 if n == 3 else 40):
                got[n] += [int(word) for word in (await readers[n].news()).split()]

        async with anyio.create_task_group() as tg:
            with anyio.fail_after(BOUND_S):
                async with anyio.create_task_group() as reading:
                    for n in range(4):
                        reading.start_soon(read, n)
                    for i in range(40):
                        state = OrderState.OPEN if i // 2 % 2 else OrderState.EXECUTING
                        note = NoteState(Pubkey.from_string(orders[i % 2]), state, f"Number {i}.")
                        await world.journal.commit(note)
                    await tg.start(feed.run)
                # It begins behind the step in which it came.
                (position, newcomer), rest = late[0], list[int]()
                while not rest or rest[-1] < wanted[-1]:
                    rest += [int(word) for word in (await newcomer.news()).split()]
            tg.cancel_scope.cancel()
    assert got[:3] == [wanted] * 3
    assert got[3] == wanted[::2]
    assert rest == list(range(position + 1, wanted[-1] + 1))


# --- one order


async def test_waiting_for_one_order(world: World, wallet: Keypair) -> None:
    path = f"/v1/orders/{(prepared := await world.noted(wallet))['order']}"
    seen = await world.http.get(path, params={"wait_s": 5})
    have = {"If-None-Match": seen.headers["etag"]}
    with anyio.fail_after(BOUND_S):
        same = await world.http.get(path, params={"wait_s": 0.1}, headers=have)
    assert (same.status_code, same.headers["etag"]) == (304, have["If-None-Match"])

    answers: list[httpx.Response] = []

    async def wait() -> None:
        answers.append(await world.http.get(path, params={"wait_s": 30}, headers=have))

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tg:
            for _ in range(5):
                tg.start_soon(wait)
            await anyio.sleep(0.1)
            await world.noted(world.trader())  # another order's news wakes nobody
            assert not answers
            await change(world, prepared["order"], "executing", "An attempt was sent.")
    assert {a.json()["status"] for a in answers} == {"executing"}
    assert problem(await world.http.get(path, params={"wait_s": 61}))["field"] == "wait_s"
