"""The pace of slots is measured: no constant says how long a slot takes, and no single wrong word moves it."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.errors import Transient
from keeper.solana.client import ChainClient
from keeper.solana.pace import QUICKEST_S, SLOWEST_S, Pace
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint
from keeper.solana.transactions import Blockhashes
from tests.chain.test_client_shapes import Says
from tests.chain.test_pool import Clock, ScriptedNode, pool_of

pytestmark = pytest.mark.anyio


def paced(slot_s: float, rounds: int = 12, every_s: float = 5.0) -> Pace:
    pace = Pace()
    for n in range(rounds):
        pace.observe(int(n * every_s / slot_s), n * every_s)
    return pace


def test_before_a_measurement_a_life_is_held_to_be_short() -> None:
    pace = Pace()
    assert (pace.measured, pace.slot_s) == (False, QUICKEST_S)


@pytest.mark.parametrize("slot_s", [0.2, 0.214, 0.4])
def test_the_pace_is_what_was_measured(slot_s: float) -> None:
    assert paced(slot_s).slot_s == pytest.approx(slot_s, rel=0.02)


def test_a_new_pace_is_known_within_eight_measurements() -> None:
    pace = Pace()
    slot, now = 0, 0.0
    for slot_s in (0.4, 0.2):
        for _ in range(20 if slot_s == 0.4 else 8):
            slot, now = slot + round(5 / slot_s), now + 5
            pace.observe(slot, now)
    assert pace.slot_s == pytest.approx(0.2, rel=0.05)


@given(
    wrong=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 2**63)), max_size=2),
    pause_s=st.floats(0, 100_000),
    pause_at=st.integers(0, 59),
)
def test_wrong_slots_and_a_pause_do_not_move_it(wrong: list[tuple[int, int]], pause_s: float, pause_at: int) -> None:
    """A wrong word spoils the measurement before it and the one after it, a pause one: five of eleven together."""
    pace, now, said = paced(0.4), 100.0, dict(wrong)
    for n in range(60):
        now += 5 + (pause_s if n == pause_at else 0)
        pace.observe(said.get(n, 10_000 + n * 12), now)
        assert pace.slot_s == pytest.approx(0.4, rel=0.06)


def test_a_chain_that_stands_still_has_no_pace() -> None:
    pace = paced(0.4)
    for n in range(100):
        pace.observe(137, 60.0 + 5 * n)
    assert pace.slot_s == pytest.approx(0.4, rel=0.05)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.floats(0, 1e6)), max_size=60))
def test_whatever_is_said_the_pace_is_bounded(said: list[tuple[int, float]]) -> None:
    pace, now = Pace(), 0.0
    for slot, passed in said:
        now += passed
        pace.observe(slot, now)
    assert QUICKEST_S <= pace.slot_s <= SLOWEST_S


@pytest.mark.parametrize("nodes", [1, 2, 3])
async def test_the_pool_measures_by_what_its_endpoints_agree_on(nodes: int) -> None:
    clock = Clock()
    scripted = [ScriptedNode() for _ in range(nodes)]
    pool = pool_of(*scripted, clock=clock)
    for n in range(12):
        clock.now += 5
        for node in scripted:
            node.slot += 25
        scripted[-1].slot += 10_000 if n == 6 and nodes > 1 else 0
        await pool.probe()
    assert pool.pace.slot_s == pytest.approx(0.2)


@pytest.mark.parametrize("slot_s", [0.2, 0.4])
async def test_a_blockhash_lives_for_blocks_and_not_for_seconds(slot_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("keeper.solana.transactions.time", SimpleNamespace(monotonic=clock))
    value = {"blockhash": "1" * 32, "lastValidBlockHeight": 1_150}
    node = Says(result={"context": {"slot": 1_000}, "value": value})
    client = ChainClient(RpcPool([Endpoint("node", node)], PoolLimits()))
    for n in range(12):
        client.pool.pace.observe(round(n * 5 / slot_s), 5.0 * n)
    hashes = Blockhashes(client)
    await hashes.refresh()
    assert hashes.lives_s() == pytest.approx(150 * slot_s, rel=0.02)
    clock.now += 74 * slot_s
    assert hashes.current().last_valid_block_height == 1_150
    assert hashes.lives_s() == pytest.approx(76 * slot_s, rel=0.02)
    clock.now += 3 * slot_s
    with pytest.raises(Transient, match="no recent blockhash"):
        hashes.current()
    clock.now += random.uniform(80, 1_000) * slot_s
    assert hashes.lives_s() == 0.0
