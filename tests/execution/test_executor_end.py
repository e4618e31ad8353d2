"""What is decided while the keeper ends is not acted on: the executor's loop is over, and the next start decides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from keeper.domain.actions import ExecuteOrder
from keeper.domain.errors import Misconfigured
from keeper.domain.prices import Price
from keeper.execution.drafting import Job
from keeper.execution.executor import Executor
from keeper.execution.gate import Gate
from keeper.execution.limits import ExecutorLimits
from keeper.execution.orders import Orders
from keeper.execution.tries import RetryLimits
from keeper.triggers.book import Book
from tests.triggers.order_making import make_order

pytestmark = pytest.mark.anyio


class Signing:
    """In drafting's place: it counts what is to be signed, and refuses."""

    def __init__(self) -> None:
        self.asked = 0

    def draft(self, *_: object) -> None:
        self.asked += 1
        raise Misconfigured("this is as far as it goes")


class Armory:
    """Nothing is armed but `order`; what leaves is counted, and needs a task."""

    def __init__(self, order: object) -> None:
        self.order = order
        self.left = 0

    def __contains__(self, address: object) -> bool:
        return address == self.order

    def withdraw(self, job: Job, tasks: object) -> tuple[()]:
        return ()

    def launch(self, jobs: list[Job], tasks: Any) -> list[Job]:
        self.left += 1
        tasks.start_soon(anyio.lowlevel.checkpoint)
        return []


@pytest.mark.parametrize("armed", [False, True])
@pytest.mark.parametrize("ended", [False, True])
async def test_nothing_is_signed_or_sent_once_the_loop_has_ended(*, ended: bool, armed: bool) -> None:
    order = make_order()
    orders, signing = Orders(Book(), RetryLimits(5, 1.0, 1.0, 30)), Signing()
    armory = Armory(order.address if armed else None)
    journal = SimpleNamespace(writer=SimpleNamespace(quick=True), healthy=True, post=lambda note: True)
    executor = Executor(
        drafting=cast(Any, signing),
        armory=cast(Any, armory),
        retries=cast(Any, SimpleNamespace(drains=())),
        blockhashes=cast(Any, SimpleNamespace(current=lambda: None)),
        journal=cast(Any, journal),
        lander=cast(Any, None),
        flights=cast(Any, SimpleNamespace(open={}, in_flight=0)),
        orders=orders,
        purse=cast(Any, None),
        gate=Gate(lambda report: None),
        report=lambda report: None,
        limits=ExecutorLimits(16),
    )
    action = ExecuteOrder(order, Price(order.market, 90_000_000, 1, 0), 0)

    def decide() -> None:
        executor.submit(Job(action, (record := orders.begin(order)), record.generation, order, action.price, 0, True))
        executor.go()

    async with anyio.create_task_group() as tg:
        await tg.start(executor.run)
        await anyio.wait_all_tasks_blocked()
        if not ended:
            decide()
        tg.cancel_scope.cancel()
    if ended:
        decide()
    assert (signing.asked, armory.left) == ((0, 0) if ended else (0, 1) if armed else (1, 0))
    assert executor.queued == ended
