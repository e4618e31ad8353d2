"""Bounds that hold to the last one: a retry budget, a ceiling an hour, a wait by blocks and never by a clock."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from keeper.domain.attempts import AttemptKind, AttemptState
from keeper.domain.orders import OrderState, OrderType
from tests.behaviours.stand import USDC, Stand, stays
from tests.behaviours.test_landing import looked_up, triggered
from tests.support import until

pytestmark = pytest.mark.anyio


class Later:
    """The `time` of a room in which so many seconds more have passed than in the test."""

    def __init__(self, seconds: float) -> None:
        self._s = seconds

    def time(self) -> float:
        return time.time() + self._s

    def monotonic(self) -> float:
        return time.monotonic() + self._s

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + int(self._s * 1e9)

    def perf_counter(self) -> float:
        return time.perf_counter() + self._s


async def test_4_no_clock_ends_an_attempt(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks stand still for a day: what was signed can still land, so nothing new is signed, and it does land."""
    async with stand.keeper():
        _, order = await triggered(stand, before=lambda: stand.bank.lose_transactions(1_000_000))
        await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
        with stand.held():
            for name, module in sys.modules.items():
                if name.startswith("keeper.execution.") and getattr(module, "time", None) is time:
                    monkeypatch.setattr(module, "time", Later(86_400.0))
            await looked_up(stand, 8)
            (attempt,) = stand.attempts(order)
            assert attempt.state.in_flight
            assert set(stand.sent(order)) == {attempt.wire}
            stand.bank.lose_transactions(0)
            sent = len(stand.sent(order))
            await until(lambda: len(stand.sent(order)) > sent)
        await stand.reach(order, OrderState.FILLED)
        assert len(stand.attempts(order)) == 1
        monkeypatch.undo()


async def test_a_retry_budget_is_what_it_says(tmp_path: Path) -> None:
    """Three refusals, the first on chain and the others by a node: after the third it waits for an operator."""
    async with Stand.open(tmp_path, execution={"retry_budget": 3}) as stand:
        market, poor = stand.world.market(), stand.world.trader(collateral_1e6=0)
        order = stand.order(poor, market)
        async with stand.keeper():
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            for used in (1, 2):
                await until(lambda used=used: (row := stand.row(order)) and row.budget_used == used)  # type: ignore[misc]
                row = await stand.reach(order, OrderState.FAILED)
                assert "it is tried again when its user's account changes" in row.reason
                await stays(lambda used=used: stand.row(order).budget_used == used, stand)  # type: ignore[misc, union-attr]
                stand.world.deposit(poor, 1)
            row = await stand.reason(order, "Its retry budget is used up")
            assert (row.state, row.budget_used) == (OrderState.FAILED, 3)
            stand.world.deposit(poor, 1_000_000 * USDC)
            await stays(lambda: stand.row(order).budget_used == 3, stand)  # type: ignore[union-attr]
            assert stand.world.position(order) is None


@pytest.mark.parametrize("inline_ms", [100.0, 0.0], ids=["at once", "by the loop"])
async def test_9_the_ceiling_of_an_hour_holds_for_what_succeeds_too(tmp_path: Path, inline_ms: float) -> None:
    """A trailing stop is moved with each new high; no move fails, and the third of the hour is one too many."""
    ceiling, journal = {"attempts_per_hour": 2}, {"inline_below_ms": inline_ms}
    async with Stand.open(tmp_path, execution=ceiling, journal=journal) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.world.place(trader, market, OrderType.TRAILING_STOP, trailing_distance_ppm=50_000)
        async with stand.keeper():
            await stand.known(order)
            for made, price in ((1, 110), (2, 120)):
                stand.world.set_price(market, price * USDC)
                await until(lambda made=made: len(stand.attempts(order)) == made)  # type: ignore[misc]
                await until(lambda: not stand.attempts(order)[-1].state.in_flight)
            stand.world.set_price(market, 130 * USDC)
            await stand.reason(order, "tried too often within an hour")
            await stays(lambda: len(stand.attempts(order)) == 2, stand)
            assert {attempt.kind for attempt in stand.attempts(order)} == {AttemptKind.RATCHET}
