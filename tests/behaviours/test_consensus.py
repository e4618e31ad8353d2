"""A chain that changes: behaviours 2, 4, 10 and 11 under TowerBFT, under Alpenglow, and while it turns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from keeper.domain.attempts import AttemptState, Fate
from keeper.domain.orders import OrderState
from tests.behaviours.stand import Stand
from tests.behaviours.test_landing import looked_up, triggered
from tests.support import until

pytestmark = pytest.mark.anyio

MODES = ("towerbft", "alpenglow", "turns")


@pytest.fixture(params=MODES)
async def on(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Stand, Callable[[], None]]]:
    """A stand in a mode, and what a test calls when the chain is to turn, if it does that in this mode."""
    mode = request.param
    async with Stand.open(tmp_path, chain={"alpenglow_from": 0 if mode == "alpenglow" else None}) as stand:

        def turn() -> None:
            if mode == "turns":
                stand.bank.chain.alpenglow_from = stand.bank.chain.tip.slot

        yield stand, turn


async def shown(stand: Stand) -> str:
    """The consensus as the API tells it, which is as the health's check and the metrics do."""
    said: str = (await stand.get("/v1/keeper")).json()["consensus"]
    assert (await stand.readiness("consensus"))[1].startswith(said)
    return said


async def test_a_fill_is_closed_when_it_is_final(on: tuple[Stand, Callable[[], None]]) -> None:
    stand, turn = on
    async with stand.keeper():
        with stand.held():
            _, order = await triggered(stand)
            await until(lambda: bool(stand.attempts(order)))
            (attempt,) = stand.attempts(order)
            await until(lambda: attempt.signature in stand.bank.history)
            stand.bank.advance()
            stand.bank.advance()
            if stand.bank.chain.alpenglow is None:
                await until(lambda: stand.attempt_state(order) is AttemptState.CONFIRMED)
                assert stand.attempt_state(order) is AttemptState.CONFIRMED, "a fork could undo it yet"
                turn()
                stand.bank.advance()
            if stand.bank.chain.alpenglow is not None:
                await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
        await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
        assert stand.attempts(order)[0].fate is Fate.EXECUTED


async def test_what_a_fork_drops_lands_once(on: tuple[Stand, Callable[[], None]]) -> None:
    stand, turn = on
    async with stand.keeper():
        with stand.held():
            market, order = await triggered(stand, before=stand.bank.advance)
            await until(lambda: bool(stand.attempts(order)))
            (attempt,) = stand.attempts(order)
            await until(lambda: attempt.signature in stand.bank.history)
            landed = stand.bank.history.get(attempt.signature)
            assert landed is not None
            assert attempt.signature in stand.bank.drop_slots_after(landed.slot - 1)
            turn()
            stand.bank.advance()
            stand.world.set_price(market, 94_000_000)
        await stand.reach(order, OrderState.FILLED)
        await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
        assert stand.landed(order) == 1
        assert len(set(stand.sent(order))) == len(stand.attempts(order))


async def test_what_never_lands_expires_by_heights_alone(on: tuple[Stand, Callable[[], None]]) -> None:
    stand, turn = on
    async with stand.keeper():
        _, order = await triggered(stand, before=lambda: stand.bank.lose_transactions(1_000_000))
        await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
        (first,) = stand.attempts(order)
        turn()
        with stand.held():
            while stand.bank.chain.root.height < first.last_valid_block_height + 1:
                stand.bank.advance()
            on_top = stand.bank.chain.tip.height - stand.bank.chain.root.height
            assert on_top == (6 if stand.bank.chain.alpenglow is None else 1)
            await looked_up(stand)
            assert stand.attempts(order)[0].state.in_flight, "landing is possible at the last valid height plus one"
            stand.bank.lose_transactions(0)
            stand.bank.advance()
            await until(lambda: len(stand.attempts(order)) == 2)
        await stand.reach(order, OrderState.FILLED)
        assert stand.attempts(order)[0].state is AttemptState.EXPIRED
        assert stand.attempts(order)[1].fate is Fate.EXECUTED


async def test_a_restart_resolves_what_was_open(on: tuple[Stand, Callable[[], None]]) -> None:
    stand, turn = on
    async with stand.keeper():
        _, order = await triggered(stand, before=stand.bank.hold_transactions)
        await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
    turn()
    stand.bank.release_transactions()
    stand.bank.advance()
    async with stand.keeper():
        await stand.reach(order, OrderState.FILLED)
        await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
        assert len(stand.attempts(order)) == 1
        wanted = "towerbft" if stand.bank.chain.alpenglow is None else "alpenglow"
        with anyio.fail_after(30):
            while await shown(stand) != wanted:  # noqa: ASYNC110 - asked over HTTP
                await anyio.sleep(0.02)
        metrics = (await stand.get("/metrics")).text
        assert "keeper_chain_consensus" in metrics


@pytest.mark.long
@pytest.mark.parametrize("block_s", [0.2, 0.4])
@pytest.mark.parametrize("alpenglow_from", [None, 0], ids=["towerbft", "alpenglow"])
async def test_a_fill_at_a_clusters_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_s: float, alpenglow_from: int | None
) -> None:
    monkeypatch.setattr("tests.behaviours.stand.BLOCK_S", block_s)
    async with Stand.open(tmp_path, chain={"alpenglow_from": alpenglow_from}) as stand, stand.keeper():
        _, order = await triggered(stand)
        await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
        assert (stand.landed(order), len(stand.attempts(order))) == (1, 1)
        await stand.told("consensus", lambda detail: "s a slot" in detail)
        # The first measurement takes a second, which two slots or three may begin in.
        assert (await stand.get("/v1/keeper")).json()["slot_s"] > 0.6 * block_s
