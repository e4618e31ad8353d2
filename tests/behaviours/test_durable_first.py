"""Promise 1 on the disk: what left the keeper, a real process, had been fsynced before."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptKind, AttemptState
from tests.behaviours.stand import stop_loss
from tests.http.http_world import signed
from tests.support import KeeperConfig, KeeperProcess, Trader, World, until
from tests.support.disk_log import DiskLog, NoCompiler, durable_at, sent

pytestmark = pytest.mark.anyio

USDC = 1_000_000
ORDERS = 12


async def place_by_api(url: str, world: World, market: Pubkey, trader: Trader) -> Pubkey:
    """A trader's own transaction, which the keeper relays."""
    terms = stop_loss(str(trader.address), world.market_state(market).symbol, "50")
    async with httpx.AsyncClient(base_url=url) as http:
        prepared = (await http.post("/v1/orders", json=terms)).raise_for_status().json()
        wire = base64.b64encode(signed(prepared, trader.key)).decode()
        body = {"id": prepared["id"], "signed_transaction": wire}
        (await http.post("/v1/orders/execute", json=body)).raise_for_status()
    return Pubkey.from_string(prepared["order"])


@pytest.mark.file_journal
@pytest.mark.parametrize("way", ["by the loop, at once", "by the journal's thread"])
async def test_1_every_transaction_was_fsynced_before_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    try:
        disk = DiskLog.build(tmp_path, under=tmp_path / "keeper")
    except NoCompiler as error:
        pytest.skip(str(error))
    inline_ms = 100.0 if way == "by the loop, at once" else 0.0
    async with World.open() as world:
        market, trader = world.market(), world.trader()
        config = KeeperConfig.beside(world, tmp_path / "keeper", journal={"inline_below_ms": inline_ms})
        lone = world.place(trader, market, stop_price_1e6=98 * USDC)
        many = [world.place(trader, market, stop_price_1e6=96 * USDC) for _ in range(ORDERS)]
        for name, value in disk.environment.items():
            monkeypatch.setenv(name, value)
        async with KeeperProcess.running(config) as keeper:
            world.set_price(market, 97 * USDC)
            await until(lambda: world.position(lone))
            relayed = await place_by_api(keeper.url, world, market, trader)
            world.set_price(market, 95 * USDC)
            await until(lambda: all(world.position(order) for order in many))
            with config.reading() as journal:
                # The relayed order rests, and is armed: nothing of that has left.
                await until(lambda: {a.state for a in journal.open_attempts()} <= {AttemptState.ARMED})
                attempts = [*journal.attempts_of(relayed), *(a for o in (lone, *many) for a in journal.attempts_of(o))]
        steps = disk.steps()
    first_sent: dict[bytes, int] = {}
    for at, wire in sent(steps):
        first_sent.setdefault(wire, at)
    assert {attempt.kind for attempt in attempts} == {AttemptKind.EXECUTE, AttemptKind.RELAY}
    assert {attempt.wire for attempt in attempts} == first_sent.keys(), "the log shows all that left"
    for attempt in attempts:
        assert attempt.state is AttemptState.FINALIZED
        durable = durable_at(steps, attempt.wire)
        assert durable is not None
        assert durable < first_sent[attempt.wire], f"{attempt.signature} left before it was durable"
