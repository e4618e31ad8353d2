"""What a keeper still knows after a restart: what it tried, what its attempts may still cost, and what stopped it."""

from __future__ import annotations

import base64
import hashlib
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import AttemptState
from keeper.domain.orders import OrderState
from tests.behaviours.stand import A_FILL_LAMPORTS, SOL, USDC, Stand, stays, stop_loss
from tests.support import KeeperConfig, KeeperProcess, Trader, World, until

pytestmark = pytest.mark.anyio


# -- how often an order was tried


async def refused_once(stand: Stand, market: Pubkey, order: Pubkey) -> None:
    """The price meets the order and has moved back when the attempt lands: it costs a fee and no budget."""
    before = len(stand.attempts(order))
    stand.bank.hold_transactions()
    stand.world.set_price(market, 94 * USDC)
    await until(lambda: len(stand.attempts(order)) > before)
    await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
    stand.world.set_price(market, 96 * USDC)
    stand.bank.release_transactions()
    await until(lambda: not stand.attempts(order)[-1].state.live)


async def test_the_ceiling_on_attempts_an_hour_holds_over_restarts(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, execution={"attempts_per_hour": 3}) as stand:
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        async with stand.keeper():
            await stand.known(order)
            await refused_once(stand, market, order)
            await refused_once(stand, market, order)
        async with stand.keeper():
            await refused_once(stand, market, order)
        async with stand.keeper():
            stand.world.set_price(market, 94 * USDC)
            await stand.reason(order, "tried too often within an hour")
            await stays(lambda: len(stand.attempts(order)) == 3, stand)


# -- what failed, and what is open


@pytest.mark.parametrize("budget", [1, 5], ids=["for good", "until its user pays"])
async def test_an_order_that_failed_is_not_tried_by_the_next_life(tmp_path: Path, budget: int) -> None:
    """The price meets it all the time; a restart is neither an operator's word nor a payment."""
    async with Stand.open(tmp_path, execution={"retry_budget": budget}) as stand:
        market, poor = stand.world.market(), stand.world.trader(collateral_1e6=0)
        order = stand.order(poor, market)
        async with stand.keeper():
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            failed = await stand.reach(order, OrderState.FAILED)
        for _ in range(2):
            async with stand.keeper():
                stand.world.set_price(market, 93 * USDC)
                await stays(lambda: len(stand.attempts(order)) == 1, stand, blocks=40)
                row = stand.row(order)
                assert row is not None
                assert (row.state, row.reason) == (OrderState.FAILED, failed.reason)
        if budget == 1:
            stand.world.deposit(poor, 1_000_000 * USDC)
        async with stand.keeper():
            await stays(lambda: len(stand.attempts(order)) == 1, stand, blocks=40)


async def test_11_a_start_asks_until_a_node_has_answered_before_it_signs_anything(stand: Stand) -> None:
    """The first answers are errors. Meanwhile another order is met, since the keeper was down."""
    market, trader = stand.world.market(), stand.world.trader()
    opened, late = stand.order(trader, market, 95), stand.order(trader, market, 90)
    sends_when_asked: list[int] = []

    def answer(call: dict[str, Any], reply: dict[str, Any]) -> None:
        if call["method"] != "getSignatureStatuses":
            return
        sends_when_asked.append(len(stand.sends))
        if len(sends_when_asked) <= 5:
            reply.pop("result", None)
            reply["error"] = {"code": -32603, "message": "Internal error"}

    with ExitStack() as blocks:
        async with stand.keeper():
            await stand.known(opened, late)
            blocks.enter_context(stand.held())  # or what is signed would grow too old to land
            stand.bank.hold_transactions()
            stand.world.set_price(market, 94 * USDC)
            await until(lambda: stand.attempt_state(opened) is AttemptState.SENT)
        stand.world.set_price(market, 89 * USDC)
        sends = len(stand.sends)
        stand.nodes[0].edit = answer
        async with stand.keeper():
            await until(lambda: stand.attempts(late))
            assert sends_when_asked[:6] == [sends] * 6, "nothing is sent before a node says what became of the open one"
            stand.bank.release_transactions()
            blocks.close()
            for order in (opened, late):
                await stand.reach(order, OrderState.FILLED)
                assert len(stand.attempts(order)) == 1


# -- what attempts may still cost


async def test_23_the_daily_cap_holds_for_attempts_in_flight_and_over_a_restart(tmp_path: Path) -> None:
    """A burst is decided before the first of it has cost anything: ten orders, and room for three."""
    cap = 3 * A_FILL_LAMPORTS
    async with Stand.open(tmp_path, fees={"daily_outflow_cap_lamports": cap}) as stand:
        market = stand.world.market()
        orders = [stand.order(stand.world.trader(), market) for _ in range(10)]
        with ExitStack() as blocks:
            async with stand.keeper():
                await stand.known(*orders)
                blocks.enter_context(stand.held())  # or what is signed would grow too old to land
                stand.bank.hold_transactions()
                stand.world.set_price(market, 94 * USDC)
                await until(lambda: len(signed(stand, orders)) == 3)
                for order in orders:
                    if not stand.attempts(order):
                        row = await stand.reason(order, "daily_outflow_cap_lamports")
                        assert row.state is OrderState.TRIGGERED
                await until(lambda: all(stand.sent(order) for order in signed(stand, orders)))
                assert "daily_outflow_cap_lamports" in (await stand.readiness("sending"))[1]
            # Nothing is spent yet, by the journal: what could still be is rebuilt from the open attempts.
            async with stand.keeper():
                await stand.told("sending", lambda sentence: "daily_outflow_cap_lamports" in sentence)
                assert len(signed(stand, orders)) == 3
                stand.bank.release_transactions()
                blocks.close()
                await until(lambda: sum(stand.state(order) is OrderState.FILLED for order in orders) == 3)
                await stays(lambda: len(signed(stand, orders)) == 3, stand)
        assert 2 * A_FILL_LAMPORTS < 100 * SOL - stand.lamports <= cap


async def test_23_what_can_no_longer_land_gives_its_part_of_the_cap_back(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, fees={"daily_outflow_cap_lamports": A_FILL_LAMPORTS}) as stand:
        market = stand.world.market()
        orders = [stand.order(stand.world.trader(), market) for _ in range(2)]
        async with stand.keeper():
            await stand.known(*orders)
            stand.bank.lose_transactions(1_000_000)
            stand.world.set_price(market, 94 * USDC)
            await until(lambda: len(signed(stand, orders)) == 1)
            (first,) = signed(stand, orders)
            await until(lambda: stand.sent(first))
            stand.outlive_blockhashes()
            stand.bank.lose_transactions(0)
            await until(lambda: stand.attempts(first)[0].state is AttemptState.EXPIRED)
            # Room for one again, whichever it is; it is looked for every ten seconds.
            await until(lambda: any(stand.state(order) is OrderState.FILLED for order in orders))


def signed(stand: Stand, orders: Sequence[Pubkey]) -> list[Pubkey]:
    """Those that were attempted."""
    return [order for order in orders if stand.attempts(order)]


# -- a dry run after a live one


def dry(config: KeeperConfig) -> KeeperConfig:
    """The same keeper, run dry."""
    sections = {name: values for name, values in config.settings.items() if name != "key"}
    sections["execution"] = {**sections["execution"], "dry_run": True}
    return KeeperConfig.at(config.folder, config.key, **sections)


async def relayed(stand: Stand, trader: Trader, market: Pubkey) -> tuple[Pubkey, httpx.Response]:
    """An order that is placed by the API, as a trader's own program does."""
    terms = stop_loss(str(trader.address), stand.world.market_state(market).symbol, "90")
    assert stand.ready is not None
    async with httpx.AsyncClient(base_url=stand.ready.http_url) as http:
        prepared = (await http.post("/v1/orders", json=terms)).raise_for_status().json()
        unsigned = VersionedTransaction.from_bytes(base64.b64decode(prepared["transaction"]))
        wire = bytes(VersionedTransaction(unsigned.message, [trader.key]))
        signed = {"id": prepared["id"], "signed_transaction": base64.b64encode(wire).decode()}
        return Pubkey.from_string(prepared["order"]), await http.post("/v1/orders/execute", json=signed)


async def test_a_dry_run_sends_nothing_that_a_live_run_left_and_records_what_became_of_it(stand: Stand) -> None:
    """One attempt that lands later by itself, one that is lost, and a user's transaction."""
    market, other = stand.world.market(), stand.world.market()
    trader = stand.world.trader()
    with ExitStack() as blocks:
        async with stand.keeper():
            lands, lost = stand.order(trader, market), stand.order(trader, other)
            await stand.known(lands, lost)
            blocks.enter_context(stand.held())  # or what is signed would grow too old to land
            stand.bank.hold_transactions()
            stand.world.set_price(market, 94 * USDC)
            placed, answer = await relayed(stand, trader, market)
            assert answer.status_code == 202
            for order in (lands, placed):
                await until(lambda order=order: stand.attempt_state(order) is AttemptState.SENT)  # type: ignore[misc]
            stand.bank.lose_transactions(1_000_000)
            stand.world.set_price(other, 94 * USDC)
            await until(lambda: stand.attempt_state(lost) is AttemptState.SENT)
        sends = len(stand.sends)
        async with stand.keeper(dry(stand.config)):
            ok, sentence = await stand.readiness("sending")
            assert ok
            assert "dry run: nothing is sent; 3 attempts of an earlier run" in sentence
            assert (await stand.get("/readyz")).status_code == 200
            stand.bank.lose_transactions(0)
            stand.bank.release_transactions()
            blocks.close()
            await stand.reach(lands, OrderState.FILLED)
            await stand.reach(placed, OrderState.OPEN)
            await stays(lambda: stand.attempts(lost)[0].state.in_flight, stand, blocks=30)
            stand.outlive_blockhashes()
            await until(lambda: stand.attempts(lost)[0].state is AttemptState.EXPIRED)
            await until(lambda: stand.attempt_state(lost) is AttemptState.DRY_RUN)
            await stand.told("sending", lambda sentence: sentence == "dry run: nothing is sent")
            order, answer = await relayed(stand, trader, market)
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert not stand.attempts(order)
            assert len(stand.sends) == sends, "nothing left the keeper"


# -- a pause


async def test_a_pause_by_the_operators_route_outlives_kill_9_until_the_resume(tmp_path: Path) -> None:
    async with World.open() as world:
        market, trader = world.market(), world.trader()
        config = KeeperConfig.beside(world, tmp_path / "keeper", http=ADMIN)
        async with KeeperProcess.running(config) as keeper:
            paused = await operator(keeper.url, "POST", "pause", {"reason": "maintenance"})
            assert paused["paused"] == "paused by an operator: maintenance"
            keeper.kill()
            assert await keeper.wait() == -signal.SIGKILL
        order = world.place(trader, market, stop_price_1e6=101 * USDC)
        async with KeeperProcess.running(config) as keeper:
            world.set_price(market, 100 * USDC)  # the first one may be too old by now
            assert (await operator(keeper.url, "GET", "status"))["paused"] == "paused by an operator: maintenance"
            with config.reading() as journal:
                await until(lambda: (row := journal.order(order)) and row.state is OrderState.TRIGGERED)
                row = journal.order(order)
                assert row is not None
                assert "maintenance" in row.reason
                assert not journal.attempts_of(order)
            assert world.position(order) is None
            assert (await operator(keeper.url, "POST", "resume"))["paused"] is None
            await until(lambda: world.position(order))
            keeper.kill()
            await keeper.wait()
        order = world.place(trader, market, stop_price_1e6=101 * USDC)
        async with KeeperProcess.running(config):
            world.set_price(market, 100 * USDC)
            await until(lambda: world.position(order))


TOKEN: Final = "the-operators-token"
ADMIN: Final = {"admin_token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}


async def operator(url: str, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
    """What the keeper answers to its operator."""
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        answer = await http.request(method, f"/v1/admin/{path}", json=body)
    told: dict[str, Any] = answer.raise_for_status().json()
    return told
