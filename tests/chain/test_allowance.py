"""What users ask of the nodes takes nothing from the executions'."""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest

from keeper.domain.errors import RateLimited
from keeper.solana.allowance import Allowance, UsersPool
from keeper.solana.pool import RpcPool
from keeper.solana.rpc import Call, Endpoint
from tests.chain.test_pool import Clock, ScriptedNode, pool_of

pytestmark = pytest.mark.anyio


def users_of(main: RpcPool, *nodes: ScriptedNode, per_s: float, clock: Clock) -> UsersPool:
    endpoints = [Endpoint(f"n{i}", node) for i, node in enumerate(nodes)]
    return UsersPool(main, endpoints, Allowance(per_s, clock))


async def test_users_ask_no_more_than_their_allowance_and_the_keeper_asks_on() -> None:
    node, clock = ScriptedNode(), Clock()
    main = pool_of(node, clock=clock)
    users = users_of(main, node, per_s=5, clock=clock)
    for _ in range(1_000):
        with contextlib.suppress(RateLimited):
            await users.call("getSlot")
    assert len(node.bodies) == 10, "two seconds' worth at once"
    with pytest.raises(RateLimited) as caught:
        await users.call("getSlot")
    assert caught.value.retry_after_s == pytest.approx(0.2)
    assert await main.call("getSlot") == 100
    clock.now += 1.0
    assert [await users.call("getSlot") for _ in range(5)] == [100] * 5
    with pytest.raises(RateLimited):
        await users.call("getSlot")


async def test_a_batch_costs_as_many_calls_as_are_in_it() -> None:
    node, clock = ScriptedNode(), Clock()
    users = users_of(pool_of(node, clock=clock), node, per_s=1, clock=clock)
    await users.batch([Call("getSlot")] * 10)
    clock.now += 8.0
    with pytest.raises(RateLimited):
        await users.batch([Call("getSlot")])
    clock.now += 1.5
    assert await users.batch([Call("getSlot")]) == [100]


async def test_a_node_that_refuses_users_is_not_benched_for_the_executions() -> None:
    node, clock = ScriptedNode(status=429), Clock()
    main = pool_of(ScriptedNode(), clock=clock)
    users = users_of(main, node, per_s=100, clock=clock)
    for _ in range(5):
        with pytest.raises(RateLimited):
            await users.call("getSlot")
    assert len(node.bodies) == 1, "it asked for a pause, and users pause"
    assert not main.health[0].benched(clock.now)
    assert main.health[0].errors == 0
    assert await main.call("getSlot") == 100


async def test_users_rest_while_the_node_has_no_time_for_the_executions() -> None:
    asked, refusing, clock = ScriptedNode(), ScriptedNode(status=429), Clock()
    main = pool_of(refusing, clock=clock)
    users = users_of(main, asked, per_s=100, clock=clock)
    with pytest.raises(RateLimited):
        await main.call("getSlot")
    with pytest.raises(RateLimited) as caught:
        await users.call("getSlot")
    assert caught.value.retry_after_s is not None
    assert asked.bodies == []
    clock.now += 10.0
    assert await users.call("getSlot") == 100


async def test_users_ask_only_whom_the_keeper_trusts() -> None:
    clock = Clock()
    ours, other = ScriptedNode(), ScriptedNode(genesis="genesis-b")
    main = pool_of(other, ours, clock=clock)
    await main.hold_to("genesis-a")
    users = users_of(main, other, ours, per_s=100, clock=clock)
    asked = len(other.bodies)
    assert await users.call("getSlot") == 100
    assert len(other.bodies) == asked


def test_who_asks_seldom_is_answered_while_ten_others_ask_for_all_there_is() -> None:
    clock = Clock()
    allowance = Allowance(10, clock)
    given: Counter[str] = Counter()
    for tick in range(6_000):
        clock.now += 0.01
        for stranger in range(10):
            with contextlib.suppress(RateLimited):
                allowance.take(f"stranger {stranger}")
                given[f"stranger {stranger}"] += 1
        if tick % 500 == 499:
            allowance.take("a trader")
            given["a trader"] += 1
    assert given["a trader"] == 12, "each at once"
    assert given.total() <= 10 * 60 + 20
    strangers = [given[f"stranger {n}"] for n in range(10)]
    assert max(strangers) <= 2 * min(strangers), "an equal share each"


def test_many_clients_together_have_no_more_than_one() -> None:
    clock = Clock()
    allowance = Allowance(10, clock)
    given = 0
    for n in range(10_000):
        clock.now += 0.001
        with contextlib.suppress(RateLimited):
            allowance.take(f"stranger {n}")
            given += 1
    assert given <= 10 * 10 + 20
