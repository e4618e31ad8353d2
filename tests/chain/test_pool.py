"""The pool: behaviours 20 and 22, with a scripted transport and a clock that stands still until it is moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec
import pytest

from keeper.domain.errors import BehindNode, Misconfigured, Rejected, Transient
from keeper.solana.http1 import Begun
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Call, Endpoint
from tests.chain.scripted_node import Scripted

pytestmark = pytest.mark.anyio


@dataclass
class ScriptedNode(Scripted):
    """Answers as told: a genesis, a slot, or a failure. It keeps the Transport contract of HttpTransport."""

    genesis: str = "genesis-a"
    slot: int = 100
    broken: bool = False
    hangs: bool = False
    behind: bool = False
    status: int = 200
    bodies: list[bytes] = field(default_factory=list)

    async def post(self, body: bytes, begun: Begun | None = None) -> tuple[int, dict[str, str], bytes]:
        self.bodies.append(body)
        if self.broken:
            raise Transient("node: ConnectError")
        if self.hangs:
            await anyio.sleep_forever()
        if self.status != 200:
            return self.status, {}, b""
        document = msgspec.json.decode(body)
        replies = [self._reply(r) for r in (document if isinstance(document, list) else [document])]
        return 200, {}, msgspec.json.encode(replies if isinstance(document, list) else replies[0])

    def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.behind:
            return {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32016, "message": "minimum context slot"}}
        values = {"getSlot": self.slot, "getGenesisHash": self.genesis, "sendTransaction": "sig"}
        if request["method"] == "refused":
            return {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32602, "message": "bad"}}
        return {"jsonrpc": "2.0", "id": request["id"], "result": values[request["method"]]}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pool_of(*nodes: ScriptedNode, clock: Clock | None = None) -> RpcPool:
    endpoints = [Endpoint(f"n{i}", node) for i, node in enumerate(nodes)]
    return RpcPool(endpoints, PoolLimits(max_slot_lag=10, probe_every_s=5), clock=clock or Clock())


def test_no_endpoint_is_a_setting_to_mend() -> None:
    with pytest.raises(Misconfigured, match=r"rpc\.url"):
        RpcPool([], PoolLimits())


async def test_reads_move_on_to_the_next_endpoint() -> None:
    down, up = ScriptedNode(broken=True), ScriptedNode(slot=7)
    assert await pool_of(down, up).call("getSlot") == 7


async def test_a_rejection_is_final_at_once() -> None:
    first, second = ScriptedNode(), ScriptedNode()
    with pytest.raises(Rejected):
        await pool_of(first, second).call("refused")
    assert second.bodies == []


async def test_sends_go_to_all_with_identical_bytes() -> None:
    nodes = [ScriptedNode(), ScriptedNode(), ScriptedNode(broken=True)]
    replies = await pool_of(*nodes).send([b"AAA"]).replies()
    assert replies == ["sig"]
    params = {msgspec.json.encode(msgspec.json.decode(node.bodies[0])[0]["params"]) for node in nodes}
    assert len(params) == 1


async def test_errors_in_a_row_bench_an_endpoint_and_it_comes_back() -> None:
    clock = Clock()
    bad, good = ScriptedNode(broken=True), ScriptedNode()
    pool = pool_of(bad, good, clock=clock)
    for _ in range(3):
        await pool.probe()
    asked = len(bad.bodies)
    assert pool.health[0].benched(clock.now)
    assert "3 errors in a row" in pool.health[0].bench_reason
    await pool.call("getSlot")
    assert len(bad.bodies) == asked, "it rests"
    bad.broken = False
    clock.now += 61
    await pool.probe()
    good.broken = True
    assert await pool.call("getSlot") == 100


async def test_22_an_endpoint_that_is_behind_is_benched_and_comes_back() -> None:
    clock = Clock()
    slow, quick = ScriptedNode(slot=80), ScriptedNode(slot=100)
    pool = pool_of(slow, quick, clock=clock)
    await pool.probe()
    assert pool.health[0].slot_lag == 20
    assert pool.health[0].benched(clock.now)
    assert await pool.call("getSlot") == 100
    slow.slot = 100
    clock.now += 8
    await pool.probe()
    assert not pool.health[0].benched(clock.now)
    assert pool.health[0].slot_lag == 0


async def pass_slots(pool: RpcPool, clock: Clock, *nodes: ScriptedNode, rounds: int = 1, broken_lead: int = 0) -> None:
    """Some rounds of probes, five seconds apart, in which the chain makes its 12 slots. With `broken_lead`, the last
    of the nodes says so many more at first, and its slots pass as the others'.
    """
    for _ in range(rounds):
        clock.now += 5
        for node in nodes:
            node.slot += 12
        nodes[-1].slot += broken_lead
        broken_lead = 0
        await pool.probe()


@pytest.mark.parametrize("lead", [11, 60, 10_000, 2**63])
async def test_22_one_of_three_that_says_too_high_a_slot_benches_nobody(lead: int) -> None:
    clock = Clock()
    nodes = ScriptedNode(), ScriptedNode(), ScriptedNode(slot=100 + lead)
    pool = pool_of(*nodes, clock=clock)
    await pool.probe()
    await pass_slots(pool, clock, *nodes, rounds=3)
    assert not any(health.benched(clock.now) for health in pool.health)
    nodes[0].slot -= 11
    await pool.probe()
    assert [health.benched(clock.now) for health in pool.health] == [True, False, False], "who is late is still found"
    assert pool.health[0].slot_lag == 11
    clock.now += 60
    assert pool.health[0].benched(clock.now), "until it says otherwise: the next round of probes may be late"


async def test_22_one_of_two_that_says_an_impossible_slot_does_not_bench_the_other() -> None:
    clock = Clock()
    honest, liar = ScriptedNode(), ScriptedNode()
    pool = pool_of(honest, liar, clock=clock)
    await pool.probe()
    await pass_slots(pool, clock, honest, liar, broken_lead=1_000)
    assert not pool.health[0].benched(clock.now)
    # However long it goes on: half an hour later its lead alone could have passed since they last agreed.
    await pass_slots(pool, clock, honest, liar, rounds=400)
    assert not pool.health[0].benched(clock.now)
    liar.slot = honest.slot
    await pass_slots(pool, clock, honest, liar)
    honest.slot -= 11
    await pool.probe()
    assert pool.health[0].benched(clock.now), "who is late is still found"


@pytest.mark.parametrize("slots_a_round", [12, 500])
async def test_22_one_of_two_that_stands_still_is_benched_at_any_pace(slots_a_round: int) -> None:
    """A private cluster makes a hundred slots a second: the lead of the one that goes on is possible there."""
    clock = Clock()
    stuck, going = ScriptedNode(), ScriptedNode()
    pool = pool_of(stuck, going, clock=clock)
    for _ in range(3):
        clock.now += 5
        stuck.slot = going.slot = going.slot + slots_a_round
        await pool.probe()
    for _ in range(3):
        clock.now += 5
        going.slot += slots_a_round
        await pool.probe()
    assert pool.health[0].slot_lag == 3 * slots_a_round
    assert pool.health[0].benched(clock.now)
    assert not pool.health[1].benched(clock.now)


async def test_22_an_endpoint_on_another_genesis_is_never_used_while_it_is() -> None:
    clock = Clock()
    ours, other = ScriptedNode(), ScriptedNode(genesis="genesis-b", slot=10_000)
    pool = pool_of(ours, other, clock=clock)
    await pool.hold_to("genesis-a")
    await pool.probe()
    assert pool.health[1].wrong_genesis
    assert not pool.health[0].benched(clock.now), "a foreign chain's slot makes nobody late"
    before = len(other.bodies)
    await pool.send([b"AAA"]).replies()
    assert len(other.bodies) == before
    other.genesis = "genesis-a"
    other.slot = 100
    await pool.probe()
    assert not pool.health[1].wrong_genesis


async def test_22_when_every_endpoint_is_on_another_genesis_none_is_asked() -> None:
    """What they say of an address is not of our chain: an empty balance, an attempt that can no longer land."""
    other = ScriptedNode()
    pool = pool_of(other)
    await pool.hold_to("genesis-a")
    other.genesis = "genesis-b"
    await pool.probe()
    before = len(other.bodies)
    with pytest.raises(Transient, match="another chain"):
        await pool.call("getBalance", "address")
    (reply,) = await pool.batch([Call("getBalance", ("address",))])
    assert isinstance(reply, Transient)
    (reply,) = await pool.send([b"AAA"]).replies()
    assert isinstance(reply, Transient)
    assert len(other.bodies) == before


async def test_22_an_endpoint_says_which_chain_it_is_on_before_its_socket_is_read() -> None:
    ours, other = ScriptedNode(), ScriptedNode(broken=True, genesis="genesis-b")
    pool = pool_of(ours, other)
    await pool.hold_to("genesis-a")
    labels = [health.label for health in pool.health]
    assert await pool.identify(labels[0]) == ours.slot
    with pytest.raises(Transient, match="has not said"):
        await pool.identify(labels[1])
    other.broken = False
    with pytest.raises(Transient, match="another chain"):
        await pool.identify(labels[1])
    ours.broken = True
    assert await pool.identify(labels[0]) is None, "it said so before, and a socket may be well when its calls are not"


async def test_when_all_are_benched_one_is_asked_anyway() -> None:
    clock = Clock()
    nodes = ScriptedNode(broken=True), ScriptedNode(broken=True)
    pool = pool_of(*nodes, clock=clock)
    for _ in range(4):
        with pytest.raises(Transient):
            await pool.call("getSlot")
    for node in nodes:
        node.broken = False
    assert await pool.call("getSlot") == 100


async def test_a_key_that_an_endpoint_refuses_costs_that_endpoint_only() -> None:
    """A revoked key at the preferred endpoint must not stop a keeper that has another one."""
    clock = Clock()
    for status in (401, 403, 404):
        revoked, good = ScriptedNode(status=status), ScriptedNode(slot=7)
        pool = pool_of(revoked, good, clock=clock)
        assert await pool.call("getSlot") == 7
        assert await pool.batch([Call("getSlot")]) == [7]
        for _ in range(2):
            assert await pool.send([b"AAA"]).replies() == ["sig"]
        assert pool.health[0].benched(clock.now)


async def test_a_node_that_has_not_reached_a_slot_yet_is_not_benched() -> None:
    """The keeper asks for one slot more than a node has after every failure: that is no sickness of the node's."""
    clock = Clock()
    node = ScriptedNode(behind=True)
    pool = pool_of(node, clock=clock)
    for _ in range(10):
        with pytest.raises(BehindNode):
            await pool.call("getSlot")
    assert not pool.health[0].benched(clock.now)


async def test_21_an_endpoint_that_hangs_leaves_time_for_the_next() -> None:
    pool = RpcPool([Endpoint("a", ScriptedNode(hangs=True)), Endpoint("b", ScriptedNode(slot=7))], PoolLimits())
    with anyio.fail_after(30):
        assert await pool.call("getSlot", deadline_s=0.2) == 7
        assert await pool.batch([Call("getSlot")], deadline_s=0.2) == [7]


async def test_20_an_endpoint_that_hangs_does_not_hold_up_a_send_that_another_took() -> None:
    hanging = ScriptedNode(hangs=True)
    limits = PoolLimits(deadline_s=60, straggler_s=0.02)
    pool = RpcPool([Endpoint("a", hanging), Endpoint("b", ScriptedNode())], limits)
    with anyio.fail_after(30):
        for _ in range(3):
            assert await pool.send([b"AAA"]).replies() == ["sig"]
    assert len(hanging.bodies) == 3
    assert "3 errors in a row" in pool.health[0].bench_reason


async def test_22_an_endpoint_that_never_said_its_genesis_is_asked_for_nothing_else() -> None:
    clock = Clock()
    silent, ours = ScriptedNode(broken=True, genesis="genesis-b", slot=10_000), ScriptedNode()
    pool = pool_of(silent, ours, clock=clock)
    await pool.hold_to("genesis-a")
    silent.broken = False
    assert await pool.call("getSlot") == 100
    await pool.send([b"AAA"]).replies()
    assert not any(b"sendTransaction" in body for body in silent.bodies)
    await pool.probe()
    assert pool.health[0].wrong_genesis
