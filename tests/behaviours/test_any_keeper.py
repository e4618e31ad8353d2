"""Two keepers that share the markets, in the test's own event loop: each takes every request, whoever works on it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.domain.orders import OnchainStatus, OrderState
from keeper.journal import home_of, market_lease, shares
from tests.behaviours.stand import FAST, Stand, stop_loss
from tests.behaviours.test_standing_by import Life, answers
from tests.http.http_world import signed
from tests.support import KeeperConfig, until
from tests.support.keeper_process import START_WITHIN_S
from tests.support.postgres import fresh_database, missing

if why := missing():
    pytest.skip(why, allow_module_level=True)

pytestmark = pytest.mark.anyio
LEASE_S = 30.0
"""Longer than a busy machine holds anything up: here a lease is given back, and never runs out."""
TOKEN = "the operator's"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
BOT = {"Authorization": "Bearer bot's"}


@contextlib.asynccontextmanager
async def sharing(folder: Path) -> AsyncIterator[tuple[Stand, Life, Life, Pubkey]]:
    """A stand, keeper a, keeper b, whose sends arrive at endpoint 1, and a market that b works on."""
    url, wallet = fresh_database(), Keypair()
    (folder / "bot.json").touch(mode=0o600)
    (folder / "bot.json").write_text(json.dumps(list(bytes(wallet))))
    async with (
        Stand.open(folder, endpoints=2, journal={"url": url}) as stand,
        anyio.create_task_group() as tasks,
    ):
        markets = [stand.world.market(), stand.world.market()]
        bot = {
            "name": "bot",
            "key_file": str(folder / "bot.json"),
            "orders_per_day": 5,
            "token_sha256": [hashlib.sha256(b"bot's").hexdigest()],
            "markets": [stand.world.market_state(market).symbol for market in markets],
            "max_size": "10",
        }
        lives = []
        for name, proxy in zip("ab", stand.proxies, strict=True):
            settings: dict[str, Any] = {**FAST, "journal": {"url": url}, "managed": {"wallets": [bot]}}
            settings["http"] = {"admin_token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
            settings["cluster"] = {"name": name, "lease_s": LEASE_S, "share_markets": True}
            # What failed waits for an operator: nobody looks whether its user has paid in.
            settings["execution"] = {**FAST["execution"], "retry_budget": 1, "account_every_s": 60}
            settings["rpc"] = {**FAST["rpc"], "url": proxy.rpc_url, "ws_url": proxy.ws_url}
            lives.append(Life(KeeperConfig.at(folder / name, stand.config.key, **settings)))
        a, b = lives
        stand.world.bank.airdrop(wallet.pubkey(), 1_000_000_000)
        tasks.start_soon(a.run)
        await until(lambda: a.ready, within_s=START_WITHIN_S)
        tasks.start_soon(b.run)
        home = home_of(url)
        await until(lambda: shares(home.holders()) == {"a": 1, "b": 1}, within_s=START_WITHIN_S)
        await until(lambda: b.ready and len(a.ready) == 2, within_s=START_WITHIN_S)
        yield stand, a, b, next(market for market in markets if held_by(home.holders(), market) == "b")
        tasks.cancel_scope.cancel()


def held_by(leases: Any, market: Pubkey) -> str | None:
    lease = market_lease(leases, str(market))
    return None if lease is None else lease.holder


async def relay(http: httpx.AsyncClient, prepared: dict[str, Any], key: Keypair) -> httpx.Response:
    wire = base64.b64encode(signed(prepared, key)).decode()
    return await http.post("/v1/orders/execute", json={"id": prepared["id"], "signed_transaction": wire})


async def test_what_is_asked_of_one_is_done_by_the_other(tmp_path: Path) -> None:
    async with sharing(tmp_path) as (stand, a, _, market):
        trader, symbol = stand.world.trader(), stand.world.market_state(market).symbol
        terms = stop_loss(str(trader.address), symbol)
        async with httpx.AsyncClient(base_url=a.ready[-1].http_url, timeout=30) as http:
            told = await answers(http, "/v1/keeper", lambda found: len(found["keepers"]) == 2)
            assert {each["name"]: each["markets"] for each in told["keepers"]} == {"a": 1, "b": 1}
            assert told["markets_unheld"] == 0

            # A user's order, its cancel, and one that is executed.
            orders = []
            for _ in range(2):
                prepared = await http.post("/v1/orders", json=terms)
                assert prepared.status_code == 201, prepared.text
                answer = await relay(http, prepared.json(), trader.key)
                assert answer.status_code == 202, answer.text
                orders.append(Pubkey.from_string(prepared.json()["order"]))
                assert (await relay(http, prepared.json(), trader.key)).json() == answer.json()
            for order in orders:
                await until(lambda: (row := stand.row(order)) and row.state is OrderState.OPEN)  # noqa: B023
            cancel = (await http.post(f"/v1/orders/{orders[0]}/cancel")).json()
            assert (await relay(http, cancel, trader.key)).status_code == 202
            await stand.reach(orders[0], OrderState.CANCELLED)

            # An order of a managed wallet, and its cancel.
            del terms["user"]  # the wallet's own
            placed = await http.post("/v1/wallets/bot/orders", json=terms, headers={**BOT, "Idempotency-Key": "1"})
            assert placed.status_code == 202, placed.text
            managed = Pubkey.from_string(placed.json()["order"])
            await until(lambda: (row := stand.row(managed)) and row.state is OrderState.OPEN)
            cancelled = await http.post(f"/v1/wallets/bot/orders/{managed}/cancel", headers=BOT)
            assert cancelled.status_code == 202, cancelled.text
            await stand.reach(managed, OrderState.CANCELLED)

            # An order that fails, and is tried again.
            poor = stand.world.trader(collateral_1e6=0)
            unpaid = stand.world.place(poor, market, stop_price_1e6=95_000_000)
            await until(lambda: stand.row(unpaid) is not None)
            stand.world.set_price(market, 94_000_000)
            await stand.reach(orders[1], OrderState.FILLED)
            await stand.reach(unpaid, OrderState.FAILED)
            stand.world.deposit(poor, 1_000_000_000_000)
            retried = await http.post(f"/v1/admin/orders/{unpaid}/retry", headers=OPERATOR)
            assert retried.status_code == 200, retried.text
            await stand.reach(unpaid, OrderState.FILLED)

            assert {send.endpoint for send in stand.sends} == {1}, "all of it is b's"
            cancelled_order = stand.world.order(orders[0])
            assert cancelled_order is not None
            assert cancelled_order.status is OnchainStatus.CANCELLED
            assert stand.landed(orders[1]) == 1
            forwarded = (await http.get("/metrics")).text
            assert 'keeper_http_forwarded_total{how="answered"} ' in forwarded


async def test_a_drained_keeper_hands_its_share_over_and_what_it_is_asked_on(tmp_path: Path) -> None:
    async with sharing(tmp_path) as (stand, a, b, market):
        (tmp_path / "token").write_text(TOKEN)
        trader, symbol = stand.world.trader(), stand.world.market_state(market).symbol
        port = str(httpx.URL(a.ready[-1].http_url).port)
        where = ["--port", port, "--config", str(a.config.file)]
        status = await anyio.run_process([sys.executable, "-m", "keeper", "status", *where])
        assert b"works on 1 of 2 markets; b on 1" in status.stdout, status.stdout.decode()
        done = await anyio.run_process(
            [sys.executable, "-m", "keeper", "drain", *where, "--token-file", str(tmp_path / "token")], check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.startswith(b"b took over 1 market from a after"), done.stdout.decode()
        body = stop_loss(str(trader.address), symbol)
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
            httpx.AsyncClient(base_url=b.ready[-1].http_url, timeout=30) as other,
        ):
            await answers(http, "/healthz", lambda health: health["standing_by"] == "b")
            prepared = (await other.post("/v1/orders", json=body)).json()
            answer = await relay(http, prepared, trader.key)
            assert answer.status_code == 202, answer.text
            order = Pubkey.from_string(prepared["order"])
            await until(lambda: stand.row(order) is not None and stand.row(order).state is OrderState.OPEN)  # type: ignore[union-attr]
            assert {send.endpoint for send in stand.sends} == {1}
