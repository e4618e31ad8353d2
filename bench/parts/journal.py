"""The journal: committed intents a second, and the queries of the API and the commands at a million executions.

An intent is what a burst commits before it sends: the order's facts, its state and the signed attempt, fsynced. The
large journal is made by copying rows inside SQLite, because what is measured is reading it. `keeper explain` is the
command as it is typed, from its start to its end, with a chain that has the order and no keeper that runs.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
from solders.pubkey import Pubkey
from solders.signature import Signature

from bench.figures import across, spread
from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.orders import OnchainStatus, Order, OrderState, OrderType, Side
from keeper.journal import AddAttempt, Journal, MoveAttempt, NoteOrder, NoteState, Op, Queries, Reader
from tests.support import KeeperConfig, World

_BATCH = 256
_SEEDS = 1_000
_EXPLAINED = 10
_ENDS = {0: OrderState.FAILED, 1: OrderState.CANCELLED, 2: OrderState.EXPIRED, 3: OrderState.OPEN}
"""How the orders of a market end that is not the usual one, by its number."""


async def measure(quick: bool) -> dict[str, Any]:
    """`journal`: `intents_per_s`, `single_commit_ms`, `query_ms_p50` (the slowest query's median) and each query's;
    `explain_s`.
    """
    intents = 2_000 if quick else 20_000
    rates, singles = [], []
    for _ in range(1 if quick else 3):
        with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
            rate, single = await _writing(Path(folder) / "journal.sqlite", intents)
            rates.append(rate)
            singles += single
    with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
        queries, explain_s = await _reading(Path(folder), 10_000 if quick else 1_000_000)
    return {
        "explain_s": explain_s,
        "journal": {
            "intents_per_s": across(rates)["median"],
            "intents_per_s_runs": across(rates),
            "single_commit_ms": spread(singles),
            "query_ms_p50": max(query["p50"] for query in queries.values()),
            "queries_ms": queries,
        },
    }


async def _writing(path: Path, intents: int) -> tuple[float, list[float]]:
    async with Journal.open(path) as journal:
        orders = [_order(i) for i in range(intents + 200)]
        for order in orders:
            journal.post(NoteOrder(order))
        await journal.writer.submit(())
        batches = [
            [op for order in orders[start : min(start + _BATCH, intents)] for op in _intent(order)]
            for start in range(0, intents, _BATCH)
        ]
        began = time.perf_counter()
        for batch in batches:
            await journal.commit(*batch)
        rate = intents / (time.perf_counter() - began)
        singles = []
        for order in orders[intents:]:
            ops = _intent(order)
            await anyio.sleep(0.002)
            began = time.perf_counter()
            await journal.commit(*ops)
            singles.append(1e3 * (time.perf_counter() - began))
        return rate, singles


async def _reading(folder: Path, executions: int) -> tuple[dict[str, Any], dict[str, float]]:
    async with World.open() as world:
        config = KeeperConfig.beside(world, folder)
        placed = world.place(world.trader(), world.market(), stop_price_1e6=95_000_000)
        known = world.order(placed)
        assert known is not None
        queries = await _queried(config.journal, executions, known)
        return queries, await _explained(config, placed)


async def _queried(path: Path, executions: int, placed: Order) -> dict[str, Any]:
    async with Journal.open(path) as journal:
        seeds = [_order(i) for i in range(_SEEDS)]
        ops: list[Op] = []
        for i, order in enumerate(seeds):
            attempt = _attempt(order)
            ops += [*_intent(order, attempt), *_end(attempt, _ENDS.get(i % 50, OrderState.FILLED))]
        ops.append(NoteOrder(seeds[500]._replace(slot=101), client_order_id="mine"))
        failed = _attempt(placed)
        ops += [*_intent(placed, failed), *_end(failed, OrderState.OPEN)]
        await journal.commit(*ops)
    _multiply(path, executions // _SEEDS)
    with contextlib.closing(Reader(path)) as journal:
        last_change = await journal.read(Queries.last_change_id)
        return {name: await _timed(journal, query) for name, query in _asked(seeds[500], last_change)}


async def _explained(config: KeeperConfig, order: Pubkey) -> dict[str, float]:
    """The seconds that the command takes."""
    command = [sys.executable, "-m", "keeper", "explain", str(order), "--config", str(config.file), "--json"]
    samples = []
    for _ in range(_EXPLAINED):
        began = time.perf_counter()
        told = json.loads((await anyio.run_process(command)).stdout)
        samples.append(time.perf_counter() - began)
        assert list(told["missing"]) == ["keeper"], told["missing"]
        assert len(told["attempts"]) == len(told["on_chain"]) == 1
    return spread(samples)


def _asked(one: Order, last_change: int) -> Iterator[tuple[str, Callable[[Queries], object]]]:
    """Every query of the API and the commands, with each filter that it allows; lists are pages of 100.

    A state's orders lie in one market of the fifty, so that asking another market for them finds nothing, which is the
    longest search.
    """
    history = [state for state in OrderState if state.terminal]
    active = [state for state in OrderState if not state.terminal]
    whose: dict[str, dict[str, Any]] = {
        "": {},
        "_of_user": {"user": one.user},
        "_of_market": {"market": one.market},
        "_of_other_market": {"market": _order(7).market},
        "_of_user_in_market": {"user": one.user, "market": one.market},
    }
    states: dict[str, list[OrderState] | None] = {"": None, "_active": active, "_history": history}
    states |= {f"_{state}": [state] for state in (OrderState.FILLED, OrderState.FAILED, OrderState.CANCELLED)}
    states["_some"] = [OrderState.FAILED, OrderState.CANCELLED, OrderState.FILLED, OrderState.OPEN]

    def orders(**filters: Any) -> Callable[[Queries], object]:
        return lambda queries: queries.orders(limit=100, **filters)

    def second_page(**filters: Any) -> Callable[[Queries], object]:
        cursors: list[str | None] = []

        def ask(queries: Queries) -> object:
            if not cursors:
                cursors.append(queries.orders(limit=100, **filters).cursor)
            return queries.orders(limit=100, cursor=cursors[0], **filters)

        return ask

    def executions(**filters: Any) -> Callable[[Queries], object]:
        def ask(queries: Queries) -> object:
            page = queries.executions(limit=100, **filters)
            return queries.orders_at(attempt.order for attempt in page.items)  # as the API's route does, too

        return ask

    for (whom, key), (which, wanted) in itertools.product(whose.items(), states.items()):
        yield f"orders{whom}{which}", orders(states=wanted, **key)
        yield f"orders{whom}{which}_next_page", second_page(states=wanted, **key)
    yield "orders_by_client_id", orders(client_order_id="mine")
    yield "orders_of_user_by_client_id", orders(client_order_id="mine", user=one.user, states=active)
    yield "order", lambda queries: queries.order(one.address)
    yield "attempts_of", lambda queries: queries.attempts_of(one.address)
    yield "changes_of", lambda queries: queries.changes_of(one.address)
    yield "executions", executions()
    yield "executions_since", executions(since=1_700_000_500.0)
    for fate in (Fate.EXECUTED, Fate.CANNOT_PAY, Fate.TRANSIENT):
        yield f"executions_{fate}", executions(outcome=fate)
    yield "failures", lambda queries: queries.failures(limit=25)
    yield "counts_by_state", lambda queries: queries.counts_by_state()
    yield "changes_after", lambda queries: queries.changes_after(last_change - 100)
    yield "changes_of_user_after", lambda queries: queries.changes_after(last_change - 10_000, user=one.user)
    yield "prepared_of", lambda queries: queries.prepared_of(one.address)
    yield "market_names", lambda queries: queries.market_names()
    yield "prepared_by_key", lambda queries: queries.prepared_by_key("none")


async def _timed(journal: Reader, query: Callable[[Queries], object]) -> dict[str, float]:
    samples = []
    await journal.read(query)
    for _ in range(30):
        began = time.perf_counter()
        await journal.read(query)
        samples.append(1e3 * (time.perf_counter() - began))
    return spread(samples)


def _multiply(path: Path, times: int) -> None:
    """Copy every order with its attempt and its changes; addresses and signatures end in the copy's number.

    The indices are made anew afterwards, which is many times faster than keeping them up.
    """
    db = sqlite3.connect(path)
    db.execute("PRAGMA synchronous = OFF")
    indices = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    for name, _ in indices:
        db.execute(f"DROP INDEX {name}")
    tail = "replace(printf('%06d', n), '0', 'z')"
    series = f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {times - 1})"
    for table, named in (("orders", ("address",)), ("attempts", ("signature", "order_address"))):
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[1] != "id"]
        picked = [f"substr({c}, 1, length({c}) - 6) || {tail}" if c in named else c for c in columns]
        db.execute(f"{series} INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(picked)} FROM s, {table}")
    db.execute(
        f"{series} INSERT INTO changes (order_ref, state, reason, at, slot) "
        f"SELECT order_ref + {_SEEDS} * n, state, reason, at, slot FROM s, changes"
    )
    for _, sql in indices:
        db.execute(sql)
    db.commit()
    db.close()


def _order(i: int) -> Order:
    # Keys whose text ends in six free characters: the copies' numbers.
    key = (i + 1).to_bytes(4, "big").ljust(24, b"\x55")
    return Order(
        address=Pubkey(b"\x70" + key + b"\x01" * 7),
        user=Pubkey(b"\x71" + (i % 100).to_bytes(2, "big") * 15 + b"\x01"),
        market=Pubkey(b"\x72" + bytes([i % 50]) * 31),
        order_type=OrderType.STOP_LOSS,
        side=Side.LONG,
        size_1e6=1_000_000,
        price_1e6=0,
        stop_price_1e6=95_000_000,
        trailing_distance_ppm=0,
        leverage=5,
        status=OnchainStatus.PENDING,
        created_at=1_700_000_000,
        expires_at=0,
        filled_size_1e6=0,
        order_id=i,
        slot=100,
    )


def _attempt(order: Order) -> Attempt:
    number = 0 if order.order_id is None else order.order_id
    return Attempt(
        signature=Signature(b"\x70" + number.to_bytes(4, "big") + bytes(order.address)[:32] + b"\x33" * 27),
        kind=AttemptKind.EXECUTE,
        order=order.address,
        wire=b"\x5a" * 420,
        blockhash="4uQeVj5tqViQh7yWWGStvkEG1Zmhx6uasJtWCJziofM",
        last_valid_block_height=1_000,
        state=AttemptState.SIGNED,
        number=1,
        signed_at=1_700_000_000.0 + number,
        trigger_price_1e6=94_000_000,
        trigger_slot=101,
        unit_limit=100_000,
        unit_price_micro_lamports=1_000,
        position=order.user,
    )


def _intent(order: Order, attempt: Attempt | None = None) -> list[Op]:
    reason = "Its condition is met; attempt 1 is on its way."
    return [
        NoteOrder(order),
        NoteState(order.address, OrderState.EXECUTING, reason),
        AddAttempt(attempt or _attempt(order)),
    ]


def _end(attempt: Attempt, end: OrderState) -> list[Op]:
    at = attempt.signed_at + 1
    if end is not OrderState.FILLED:
        reason = "Its retry budget is used up; the last attempt failed with InsufficientCollateral."
        state = AttemptState.FAILED
        return [
            MoveAttempt(
                attempt.signature, state, ended_at=at, fate=Fate.CANNOT_PAY, error_name="InsufficientCollateral"
            ),
            NoteState(attempt.order, end, reason),
        ]
    return [
        MoveAttempt(attempt.signature, AttemptState.FINALIZED, finalized_at=at, ended_at=at, fate=Fate.EXECUTED),
        NoteState(attempt.order, OrderState.FILLED, "Filled by this keeper, with its position."),
    ]
