"""The operator's commands against a real keeper: pause, resume, retry, simulate, and the journal's upkeep."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
from solders.keypair import Keypair
from typer.testing import CliRunner, Result

from keeper.cli import cli
from keeper.domain.errors import KeeperError, Misconfigured
from keeper.domain.orders import OrderState
from tests.support import KeeperConfig, KeeperProcess, World, until

pytestmark = pytest.mark.anyio


async def keeper_command(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    """A command, in a thread: it has an event loop of its own, and the chain runs in ours."""
    return await anyio.to_thread.run_sync(lambda: CliRunner().invoke(cli, [*arguments], env=env))


@asynccontextmanager
async def running(world: World, folder: Path, digest: str | None) -> AsyncIterator[tuple[KeeperConfig, KeeperProcess]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    http = {"port": port} if digest is None else {"port": port, "admin_token_sha256": digest}
    config = KeeperConfig.beside(world, folder, http=http, execution={"retry_budget": 1})
    async with KeeperProcess.running(config) as keeper:
        yield config, keeper


async def test_pause_resume_and_retry(world: World, tmp_path: Path) -> None:
    made = await keeper_command("admin-token", str(tmp_path / "token"))
    digest = made.stdout.split('"')[1]
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    market, trader, poor = world.market(), world.trader(), world.trader(collateral_1e6=0)
    order = world.place(trader, market, stop_price_1e6=98_000_000)
    async with running(world, tmp_path / "keeper", digest) as (config, keeper):
        where = ("--config", str(config.file))
        token = ("--token-file", str(tmp_path / "token"))

        paused = await keeper_command("pause", *where, *token, "--reason", "a drill")
        assert paused.stdout == "The keeper is paused by an operator: a drill.\n"
        status = await keeper_command("status", *where)
        assert status.exit_code == 1
        assert "FAIL  sending    paused by an operator: a drill" in status.stdout
        assert re.search(r"ok    attempts   (\d armed, )?0 in flight", status.stdout)
        world.set_price(market, 97_500_000)
        with config.reading() as journal:
            await until(lambda: (row := journal.order(order)) and row.state is OrderState.TRIGGERED)
        assert world.position(order) is None

        # The token from the environment will do as well.
        secret = (tmp_path / "token").read_text().strip()
        resumed = await keeper_command("resume", *where, env={"KEEPER_ADMIN_TOKEN": secret})
        assert resumed.stdout == "The keeper goes on.\n"
        await until(lambda: world.position(order))

        # An order that its user can't pay for fails; an operator lets it be tried again once they can.
        unpaid = world.place(poor, market, stop_price_1e6=98_000_000)
        with config.reading() as journal:
            await until(lambda: (row := journal.order(unpaid)) and row.state is OrderState.FAILED)
        simulated = await keeper_command("simulate", *where, str(unpaid), "--json")
        told = json.loads(simulated.stdout)
        assert (simulated.exit_code, told["error"], told["condition_met"]) == (1, "InsufficientCollateral", True)
        assert any("InsufficientCollateral" in line for line in told["logs"])
        world.deposit(poor, 1_000_000_000_000)
        simulated = await keeper_command("simulate", *where, str(unpaid))
        assert simulated.exit_code == 0
        assert "It would be executed." in simulated.stdout
        retried = await keeper_command("failures", "retry", *where, *token, str(unpaid))
        if retried.exit_code != 0:  # the keeper saw the deposit itself, and was faster
            assert "not failed" in str(retried.exception)
        await until(lambda: world.position(unpaid))

        unknown = await keeper_command("failures", "retry", *where, *token, str(Keypair().pubkey()))
        assert isinstance(unknown.exception, KeeperError)
        assert "knows no order" in str(unknown.exception)
        again = await keeper_command("failures", "retry", *where, *token, str(order))
        assert "can't be tried again: the order is filled" in str(again.exception)
        assert secret not in keeper.log_end(100_000)


async def test_a_pause_lasts_through_a_restart(world: World, tmp_path: Path) -> None:
    made = await keeper_command("admin-token", str(tmp_path / "token"))
    digest = made.stdout.split('"')[1]
    token = ("--token-file", str(tmp_path / "token"))
    async with running(world, tmp_path / "keeper", digest) as (config, _):
        await keeper_command("pause", "--config", str(config.file), *token)
    async with KeeperProcess.running(config):
        status = await keeper_command("status", "--config", str(config.file), "--json")
        assert not json.loads(status.stdout)["ready"]
        checked = await keeper_command("check", "--config", str(config.file))
        assert "warn  paused: the journal says: paused by an operator." in checked.stdout
        assert checked.exit_code == 0


async def test_who_may(world: World, tmp_path: Path) -> None:
    """Without a configured token there are no such routes; with one they are its bearers' only."""
    async with running(world, tmp_path / "open", None) as (config, keeper):
        async with httpx.AsyncClient(base_url=keeper.url) as api:
            answer = await api.post("/v1/admin/pause", headers={"Authorization": "Bearer anything"})
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        refused = await keeper_command("pause", "--config", str(config.file), env={"KEEPER_ADMIN_TOKEN": "anything"})
        assert "runs without http.admin_token_sha256" in str(refused.exception)
        nothing = await keeper_command("pause", "--config", str(config.file), env={"KEEPER_ADMIN_TOKEN": ""})
        assert isinstance(nothing.exception, Misconfigured)
    async with (
        running(world, tmp_path / "guarded", "5" * 64) as (_, keeper),
        httpx.AsyncClient(base_url=keeper.url) as api,
    ):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic " + "5" * 64}):
            for method, path in (
                ("GET", "status"),
                ("POST", "pause"),
                ("POST", "resume"),
                ("POST", f"orders/{Keypair().pubkey()}/retry"),
            ):
                answer = await api.request(method, f"/v1/admin/{path}", headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
        # Not /readyz: the prices of this file's chain grow old while it is slow.
        checks = (await api.get("/healthz")).json()["checks"]
        assert {"name": "sending", "ok": True, "detail": ""} in checks


async def test_the_journals_upkeep(world: World, tmp_path: Path) -> None:
    market, trader = world.market(), world.trader()
    order = world.place(trader, market, stop_price_1e6=98_000_000)
    async with running(world, tmp_path / "keeper", None) as (config, _):
        where = ("--config", str(config.file))
        world.set_price(market, 97_500_000)
        await until(lambda: world.position(order))
        # Beside the running keeper.
        assert (await keeper_command("journal", "verify", *where)).stdout.endswith("is sound.\n")
        rows = [json.loads(line) for line in (await keeper_command("journal", "export", *where)).stdout.splitlines()]
        assert str(order) in {row.get("address") for row in rows if row["table"] == "orders"}
        saved = tmp_path / "saved.sqlite"
        assert (await keeper_command("journal", "backup", *where, str(saved))).exit_code == 0
        busy = await keeper_command("journal", "vacuum", *where)
        assert "is in use by the keeper" in str(busy.exception)
    assert (await keeper_command("journal", "vacuum", *where)).exit_code == 0
    assert (await keeper_command("journal", "verify", "--journal", str(saved))).exit_code == 0
