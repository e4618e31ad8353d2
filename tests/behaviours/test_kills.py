"""Behaviours 1 and 11: kill -9 at every named point, and what a restart does about it.

The keeper is a real process that sends itself SIGKILL at the point. The witness in the proxy checks at the moment of
each send that the journal's file holds it (so the fsync came first) and that no earlier signature of the order could
still land. The campaign (`make chaos`) does the same at random, with faults.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import AttemptState
from keeper.domain.orders import OrderState
from keeper.execution.points import POINTS
from tests.behaviours.stand import USDC, Stand, stop_loss
from tests.chaos.invariants import executions_on_chain
from tests.chaos.lives import Lives
from tests.chaos.proxy import Fault, Kind
from tests.support import Trader, until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for the module, so that its keepers share one chain and one process to be forked from."""
    return "asyncio"


@dataclass
class Scene:
    """A stand whose keeper lives in processes."""

    stand: Stand
    lives: Lives

    async def armed(self, *points: str) -> None:
        """A new life that dies at the first point, and the lives after it at the next ones."""
        await self.lives.stop(graceful=True)
        await self.lives.start([self.stand.config], crash_at=f"{points[0]}:1")
        await self.lives.ready()
        for point in points[1:]:
            self.lives.arm_next(f"{point}:1")

    async def died_at(self, point: str, before: int) -> None:
        """Wait until a life ended at that point, and another one is ready."""
        await until(lambda: self.lives.kills[point] > before)
        await self.lives.ready()


ON_THE_LOOP_MS, ON_THE_THREAD_MS = 100.0, 0.0
UNARMED, ON_THE_THREAD, ARMED = (ON_THE_LOOP_MS, 0), (ON_THE_THREAD_MS, 0), (ON_THE_LOOP_MS, 8)


@pytest.fixture(scope="module")
async def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """Lone orders are journaled on the event loop's thread and not armed, unless the test says otherwise."""
    folder: Path = tmp_path_factory.mktemp("kills")
    inline_below_ms, armed_a_side = getattr(request, "param", UNARMED)
    journal = {"inline_below_ms": inline_below_ms}
    execution = {"attempts_per_hour": 1_000, "armed_a_side": armed_a_side}
    async with (
        Stand.open(folder, rpc={"deadline_s": 1.0}, execution=execution, journal=journal) as stand,
        Lives.open() as lives,
    ):
        yield Scene(stand, lives)


async def place_by_api(scene: Scene, trader: Trader, symbol: str) -> Pubkey:
    """As a trader's own program does; the order. The keeper may die before it answers."""
    terms = stop_loss(str(trader.address), symbol)
    assert scene.lives.url is not None
    async with httpx.AsyncClient(base_url=scene.lives.url) as http:
        prepared = (await http.post("/v1/orders", json=terms)).raise_for_status().json()
        unsigned = VersionedTransaction.from_bytes(base64.b64decode(prepared["transaction"]))
        wire = bytes(VersionedTransaction(unsigned.message, [trader.key]))
        try:
            signed = {"id": prepared["id"], "signed_transaction": base64.b64encode(wire).decode()}
            await http.post("/v1/orders/execute", json=signed)
        except httpx.HTTPError:
            pass
    return Pubkey.from_string(prepared["order"])


# A database is never committed to at once: there a lone intent is not held as an armed one is.
AT_ONCE = pytest.param("launched", marks=pytest.mark.file_journal)


@pytest.mark.parametrize("point", [AT_ONCE if point == "launched" else point for point in POINTS if point != "armed"])
async def test_1_a_kill_at_any_point_gives_no_order_two_live_signatures(scene: Scene, point: str) -> None:
    await killed_at(scene, point)


@pytest.mark.parametrize("scene", [ON_THE_THREAD], indirect=True)
@pytest.mark.parametrize("point", ["decided", "signed", "journaled", "sent"])
async def test_1_nor_one_where_the_journals_thread_commits(scene: Scene, point: str) -> None:
    await killed_at(scene, point)


@pytest.mark.parametrize("scene", [ARMED], indirect=True)
@pytest.mark.parametrize("point", ["armed", "launched", "sent_journaled", "recovering"])
async def test_1_nor_one_that_was_armed(scene: Scene, point: str) -> None:
    await killed_at(scene, point, armed=True)


async def killed_at(scene: Scene, point: str, *, armed: bool = False) -> None:
    """One order, a keeper that dies at the point on its way, and what becomes of the order."""
    stand, lives = scene.stand, scene.lives
    market = stand.world.market()
    poor = point in ("failed", "failed_journaled")
    trader = stand.world.trader(collateral_1e6=0 if poor else 1_000_000 * USDC)
    killed = lives.kills[point]
    # "recovering" is passed when there is something to recover: a life that died after it had sent.
    sent = "launched" if armed else "sent"
    await scene.armed(*((sent, "recovering") if point == "recovering" else (point,)))
    if point == "relay_journaled":
        with stand.held():  # what the user signed can land until the next life has sent it
            order = await place_by_api(scene, trader, stand.world.market_state(market).symbol)
            await until(lambda: lives.kills[point] > killed)
            await until(lambda: bool(stand.sent(order)))
    else:
        order = stand.order(trader, market)
        await stand.known(order)
        if armed:
            await until(lambda: order in {attempt.order for attempt in stand.journal.open_attempts()})
    fall = partial(stand.world.set_price, market, 94 * USDC)
    if point == "expired":
        stand.bank.lose_transactions(1_000_000)
        fall()
        await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
        stand.outlive_blockhashes()
        await until(lambda: lives.kills[point] > killed)
        stand.bank.lose_transactions(0)
    elif point == "seen_journaled":
        with stand.held():
            fall()
            await until(
                lambda: bool(stand.attempts(order)) and stand.attempts(order)[0].signature in stand.bank.history
            )
            stand.bank.advance()
            await until(lambda: lives.kills[point] > killed)
    elif point == "relay_journaled":
        await stand.reach(order, OrderState.OPEN)
        fall()
    else:
        fall()
    await scene.died_at(point, killed)
    if poor:
        row = await stand.reach(order, OrderState.FAILED)
        assert "InsufficientCollateral" in row.reason
        stand.world.deposit(trader, 1_000_000 * USDC)
    await stand.reach(order, OrderState.FILLED)
    await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
    assert len(executions_on_chain(stand.world, order)) == 1
    assert len(stand.attempts(order)) == 1 or not armed, "what was armed before the kill is what was sent after it"
    assert stand.world.position(order) is not None
    assert lives.bad_end is None
    assert stand.witness.violations == []


async def test_11_a_restart_looks_up_what_is_open_before_it_sends_anything_new(scene: Scene) -> None:
    stand, lives = scene.stand, scene.lives
    market, trader = stand.world.market(), stand.world.trader()
    killed = lives.kills["sent"]
    await scene.armed("sent")
    orders = [stand.order(trader, market, 95) for _ in range(3)]
    late = stand.order(trader, market, 90)
    await stand.known(*orders, late)
    stand.bank.hold_transactions()
    with stand.held():  # or what was signed would grow too old to land while a busy machine starts the next keeper
        await looks_up_first(scene, market, orders, late, killed)
        stand.bank.release_transactions()
    for order in (*orders, late):
        await stand.reach(order, OrderState.FILLED)
        assert len(stand.attempts(order)) == 1


async def looks_up_first(scene: Scene, market: Pubkey, orders: list[Pubkey], late: Pubkey, killed: int) -> None:
    """A price meets `orders`, the keeper dies when it has sent for them, and the next price meets `late`."""
    stand, lives = scene.stand, scene.lives
    stand.world.set_price(market, 94 * USDC)
    await until(lambda: lives.kills["sent"] > killed)
    open_ones = {attempt.signature for order in orders for attempt in stand.attempts(order)}
    assert len(open_ones) == 3
    sends = len(stand.sends)
    sent_when_answered: list[int] = []

    def answered(call: dict[str, Any], reply: dict[str, Any]) -> None:
        if call["method"] == "getSignatureStatuses":
            sent_when_answered.append(len(stand.sends))

    # The node takes its time to say what became of them; what the new price triggers has to wait for it.
    stand.nodes[0].edit = answered
    stand.scripts[0].break_request(Fault(Kind.REQUEST_DELAYED, 0.7), method="getSignatureStatuses")
    stand.world.set_price(market, 89 * USDC)
    await until(lambda: stand.attempts(late))
    assert sent_when_answered[0] == sends
    # What could still land is sent again.
    await until(lambda: {send.signature for send in stand.sends[sends:]} >= open_ones)
