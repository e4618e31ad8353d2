"""While the nodes have too many sends to answer, what waits for them is handed to the senders at once."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from keeper.domain.actions import ExecuteOrder
from keeper.domain.orders import OrderState
from keeper.domain.prices import Price
from keeper.execution.drafting import Draft, Job
from keeper.execution.executor import Executor
from keeper.execution.flights import Flight, Flights
from keeper.execution.gate import Gate
from keeper.execution.limits import ExecutorLimits
from keeper.execution.orders import Orders
from keeper.execution.tries import RetryLimits
from keeper.journal.ops import Intend
from keeper.triggers.book import Book
from tests.journal.journal_making import make_attempt
from tests.triggers.order_making import make_order

pytestmark = pytest.mark.anyio


class SlowNodes:
    """In the lander's place: nodes that never answer, and what was done with each flight, in order."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []

    def begin(self, flights: list[Flight]) -> None:
        self.done += [("begun", flight.attempt.number) for flight in flights]

    def wait(self, flights: list[Flight]) -> None:
        self.done += [("waits", flight.attempt.number) for flight in flights]

    async def launch(self, flights: list[Flight], sending: None) -> None:
        await anyio.sleep_forever()


async def test_what_waits_for_the_nodes_is_handed_on_once_it_is_journaled() -> None:
    nodes, orders, committed = SlowNodes(), Orders(Book(), RetryLimits(5, 1.0, 1.0, 30)), list[int]()

    def draft(job: Job, *_: object) -> Draft:
        attempt = make_attempt(job.order.address, number=job.action.order.order_id)
        return Draft(job, attempt, Intend(job.order, attempt, "", None, OrderState.EXECUTING))

    async def commit(*ops: Any) -> None:
        assert nodes.done == []
        committed.extend(op.attempt.number for op in ops)

    async def note(gone: Sequence[Any]) -> None:
        assert not gone, "what waits is not held as armed"

    journal = SimpleNamespace(writer=SimpleNamespace(quick=False), healthy=True, commit=commit)
    executor = Executor(
        drafting=cast(Any, SimpleNamespace(draft=draft)),
        armory=cast(Any, SimpleNamespace(withdraw=lambda job, tasks: (), note=note, __contains__=lambda _: False)),
        retries=cast(Any, SimpleNamespace(drains=(), too_often=lambda job: False, learn_first=lambda *_: None)),
        blockhashes=cast(Any, SimpleNamespace(current=lambda: "a blockhash")),
        journal=cast(Any, journal),
        lander=cast(Any, nodes),
        flights=Flights(),
        orders=orders,
        purse=cast(Any, SimpleNamespace(reserve=lambda attempt: True)),
        gate=Gate(lambda report: None),
        report=lambda report: None,
        limits=ExecutorLimits(16, one_send=1, concurrent_sends=1),
    )
    async with anyio.create_task_group() as tg:
        await tg.start(executor.run)
        for number in (1, 2):
            order = make_order(number, order_id=number)
            action = ExecuteOrder(order, Price(order.market, 90_000_000, 1, 0), 0)
            record = orders.begin(order)
            executor._queue(Job(action, record, record.generation, order, action.price, 0, executes=True))
        executor.go()
        await anyio.wait_all_tasks_blocked()
        assert committed == [1, 2]
        assert nodes.done == [("begun", 1), ("waits", 2)]
        tg.cancel_scope.cancel()
