"""A short run of the campaign, as `make chaos` runs it: workers, forked keepers, faults, kills, a verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from keeper.demo.validator import NAME, find
from keeper.execution.points import POINTS
from tests.chaos.scenario import Act, Scenario, Sharing, draw
from tests.support.postgres import missing

ROOT = Path(__file__).parents[2]
EPISODES = 16


def played(evidence: Path, *arguments: str, within_s: float = 600) -> dict[str, Any]:
    """What a campaign says of itself, which found nothing."""
    command = [sys.executable, "-m", "tests.chaos", *arguments, "--json", "--evidence", str(evidence)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=within_s, check=False)
    assert run.returncode == 0, run.stderr + run.stdout
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    assert result["violations"] == []
    return result


@pytest.mark.long
def test_a_short_campaign_finds_nothing(tmp_path: Path) -> None:
    result = played(tmp_path, "--episodes", str(EPISODES), "--seed", "5", within_s=300)
    # It says nothing when nothing happened.
    assert result["episodes"] == EPISODES
    assert result["orders"] > EPISODES
    assert result["kills"] >= 4
    assert result["faults"] >= EPISODES
    assert result["executed by the keeper"] >= EPISODES
    assert result["attempts_by_end"]["finalized"] >= EPISODES


@pytest.mark.long
def test_a_short_campaign_with_three_keepers_finds_nothing(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    result = played(tmp_path, "--keepers", "3", "--episodes", "2", "--seed", "6", "--workers", "1")
    assert result["episodes"] == 2
    assert result["lives"] > 3
    assert result["executed by the keeper"] >= 1


@pytest.mark.long
def test_a_short_campaign_on_a_real_validator_finds_nothing(tmp_path: Path) -> None:
    if find() is None:
        pytest.skip(f"there is no {NAME}: put one on the PATH, or run make validator")
    result = played(tmp_path, "--validator", "--episodes", "2", "--seed", "1")
    assert result["episodes"] == 2
    assert result["kills"] >= 1
    assert result["faults"] >= 1
    assert result["attempts_by_end"]["finalized"] >= result["executed by the keeper"] >= 2


def test_a_seed_is_a_plan() -> None:
    assert [draw(7, i) for i in range(20)] == [draw(7, i) for i in range(20)]
    assert draw(7, 0) != draw(8, 0)


def test_every_point_gets_its_turn() -> None:
    drawn = {(scenario.crash_at or scenario.crash_again or "").partition(":")[0] for scenario in _turn()}
    assert drawn >= set(POINTS)


@pytest.mark.long
def test_a_short_campaign_with_keepers_that_share_the_markets_finds_nothing(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    shared = ("--keepers", "2", "--share", "always")
    result = played(tmp_path, *shared, "--episodes", "2", "--seed", "7", "--workers", "1")
    assert result["episodes with shared markets"] == 2
    assert result["shares moved"] >= 1
    assert result["executed by the keeper"] >= 1


def test_each_thing_that_can_befall_several_keepers_does() -> None:
    plans = [draw(1, episode, keepers=3, lease_s=2.0) for episode in range(100)]
    acts = {event.act for plan in plans for event in plan.events}
    assert acts >= {
        Act.STOP,
        Act.CUT_DATABASE,
        Act.TEAR_DATABASE,
        Act.CUT_CHAIN,
        Act.DATABASE_DOWN,
        Act.DRAIN,
        Act.ROLL,
    }
    assert max(event.amount for plan in plans for event in plan.events if event.act is Act.STOP) > 2 * 2.0
    assert any((plan.crash_at or "").endswith(":stop") for plan in plans)
    assert all(len(plan.storms) == 6 for plan in plans)
    # Who is to be killed while it recovers takes over from one that left something open.
    assert {bool(plan.crash_at) for plan in plans if plan.crash_again} == {True}


def test_some_keepers_share_the_markets_over_which_the_orders_are_spread() -> None:
    def plans(sharing: Sharing) -> list[Scenario]:
        return [draw(1, episode, keepers=3, lease_s=2.0, sharing=sharing) for episode in range(100)]

    drawn = plans(Sharing.DRAWN)
    shared = [plan for plan in drawn if plan.markets > 1]
    assert 20 < len(shared) < 80
    assert {plan.markets for plan in shared} <= {4, 5, 6, 7}
    for plan in shared:
        assert len({order.market for order in plan.orders}) == min(plan.markets, len(plan.orders))
    assert {event.act for plan in shared for event in plan.events} >= {Act.MARKET}
    assert {plan.markets for plan in plans(Sharing.NEVER)} == {1}
    assert min(plan.markets for plan in plans(Sharing.ALWAYS)) >= 4
    assert draw(1, 0, sharing=Sharing.ALWAYS).markets == 1
    assert {plan.forgotten for plan in shared} == {True, False}
    assert not any(plan.forgotten for plan in drawn if plan.markets == 1)
    # Each change of kind is a new journal.
    assert sum(one.markets != next_.markets for one, next_ in pairwise(drawn)) < 15


def _turn() -> list[Scenario]:
    return [draw(1, episode) for episode in range(2 * len(POINTS))]
