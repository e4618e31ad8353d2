"""Behaviours 19, 22, 23 and 25, the brakes, and starts that must not be."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import sys
from contextlib import AsyncExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.app.wiring import run
from keeper.config.loading import load_settings
from keeper.domain.attempts import AttemptState, Fate
from keeper.domain.errors import Misconfigured
from keeper.domain.orders import OrderState, OrderType
from keeper.journal import PROGRAM, Journal, SetMeta
from tests.behaviours.edited_node import EditedNode, as_revision_0_1
from tests.behaviours.stand import A_FILL_LAMPORTS, SOL, USDC, Stand, stays
from tests.behaviours.test_durable_first import place_by_api
from tests.chaos.proxy import Fault, FaultProxy, Kind, Script
from tests.support import BOUND_S, KeeperConfig, KeeperProcess, World, until

pytestmark = pytest.mark.anyio


async def filled(stand: Stand, market: Pubkey | None = None) -> Pubkey:
    """An order that is placed already met, and filled."""
    order = stand.order(stand.world.trader(), market or stand.world.market(), 101)
    await stand.reach(order, OrderState.FILLED)
    return order


# -- 19: secrets


async def test_19_no_credential_in_any_log_at_any_level(tmp_path: Path) -> None:
    """A real keeper at debug: keys in the URLs of two endpoints, one of which refuses everything, with broken
    replies, closed sockets, and a failing start at the end.
    """
    secrets = ["s3cret-api-key", "hunter2-password", "t0ken-in-path"]
    async with (
        World.open() as world,
        FaultProxy(world.net.rpc_url, world.net.ws_url) as proxy,
    ):
        tail = f"/{secrets[2]}?api-key={secrets[0]}"

        def dressed(url: str) -> str:
            scheme, _, rest = url.partition("://")
            return f"{scheme}://user:{secrets[1]}@{rest}{tail}"

        dead = dressed("http://127.0.0.1:9")
        rpc = {
            "url": dressed(proxy.rpc_url),
            "ws_url": dressed(proxy.ws_url),
            "fallbacks": [{"url": dead, "ws_url": dressed("ws://127.0.0.1:9")}],
            "deadline_s": 1.0,
            "probe_every_s": 0.2,
            "silence_s": 1.0,
        }
        key = world.wallet()
        market, trader = world.market(), world.trader()
        config = KeeperConfig.at(tmp_path / "keeper", key, rpc=rpc, log={"level": "debug", "format": "json"})
        async with KeeperProcess.running(config):
            proxy.faults = script = Script()
            script.break_request(Fault(Kind.HTTP_503), times=2)
            script.break_request(Fault(Kind.HTML))
            script.break_request(Fault(Kind.REPLY_RESET))
            script.break_news(Fault(Kind.SOCKET_ABORTED))
            script.refuse_connections()
            await until(lambda: proxy.injected.total() == 6)
            order = world.place(trader, market, stop_price_1e6=101 * USDC)
            await until(lambda: world.position(order))
        printed = config.log.read_bytes()
        broken = KeeperConfig.at(
            tmp_path / "broken", key, rpc={"url": dead}, log={"level": "debug", "format": "console"}
        )
        done = await anyio.run_process(
            [sys.executable, "-m", "keeper", *broken.arguments], check=False, stderr=-1, env=clean_environment()
        )
        assert done.returncode == 2
        printed += done.stdout + done.stderr
    for line in (b"watch.reconnect", b"attempt.signed", b"can't be reached"):
        assert line in printed, "there is a log of the broken endpoint, the order's life, and the start that failed"
    for secret in [*secrets, str(key), json.dumps(list(bytes(key)))[1:60]]:
        assert secret.encode() not in printed


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("KEEPER_", "QUANTDESK_"))}


# -- 20 and 22: endpoints


@pytest.mark.parametrize("kind", [Kind.HTTP_429, Kind.JSON_429])
async def test_20_a_limited_endpoint_is_left_alone_and_the_other_serves(tmp_path: Path, kind: Kind) -> None:
    async with Stand.open(tmp_path, endpoints=2) as stand, stand.keeper():
        stand.scripts[0].break_request(Fault(kind, seconds=60), times=1)
        await stand.told("rpc", lambda sentence: "rate limited" in sentence)
        await filled(stand)  # what had left before that was heard has arrived by then
        asked = stand.proxies[0].requests
        await filled(stand)
        assert stand.proxies[0].requests == asked, "it asked for a pause of a minute"
        assert (await stand.readiness("rpc"))[0], "one of two serves"
        assert (await stand.get("/readyz")).status_code == 200


async def test_22_a_node_that_is_behind_is_benched_and_comes_back(tmp_path: Path) -> None:
    rpc = {"probe_every_s": 0.1, "max_slot_lag": 100}
    behind = 500
    async with AsyncExitStack() as stack:
        stand = await stack.enter_async_context(Stand.open(tmp_path, endpoints=2, rpc=rpc))
        for _ in range(behind + 100):  # before the keeper looks: slots that pass in no time are not believed
            stand.bank.advance()
        keeper = await stack.enter_async_context(stand.keeper())

        def late(call: dict[str, Any], reply: dict[str, Any]) -> None:
            if call["method"] == "getSlot":
                reply["result"] = max(0, reply["result"] - behind)

        # Some probes in which they agree: from then on it is known how fast this chain's slots pass.
        await until(lambda: sum("getSlot" in methods for methods in stand.calls) >= 5)
        stand.nodes[1].edit = late
        await stand.told("rpc", lambda sentence: "slots behind" in sentence)
        sends = len(stand.sends)
        await filled(stand)
        assert {send.endpoint for send in stand.sends[sends:]} == {0}, "who is behind is not asked"
        stand.nodes[1].edit = None
        await stand.told("rpc", lambda sentence: not sentence)
        sends = len(stand.sends)
        await filled(stand)
        assert {send.endpoint for send in stand.sends[sends:]} == {0, 1}
        assert keeper.http_url


async def test_a_keeper_whose_prices_are_all_too_old_is_not_ready_once_an_order_waits(stand: Stand) -> None:
    market = stand.world.market()
    stand.world.set_price(market, 96 * USDC)
    stand.bank.advance_clock(600)
    async with stand.keeper():
        assert (await stand.readiness("prices"))[0], "no order waits for one"
        assert (await stand.get("/readyz")).status_code == 200
        stand.order(stand.world.trader(), market)
        await stand.told("prices", lambda sentence: "old" in sentence)
        assert (await stand.get("/readyz")).text.startswith("[-] prices: ")


async def test_22_another_chains_journal_is_refused(stand: Stand, tmp_path: Path) -> None:
    async with stand.keeper():
        pass
    async with World.open() as other:
        rpc = {"url": other.net.rpc_url, "ws_url": other.net.ws_url}
        config = KeeperConfig.at(stand.config.folder, other.wallet(), rpc=rpc)
        with pytest.raises(Misconfigured, match="belongs to another chain"):
            await run(load_settings(config.file), on_ready=lambda ready: None)


async def test_another_programs_journal_is_refused(stand: Stand) -> None:
    async with stand.keeper():
        pass
    async with Journal.open(stand.config.place) as journal:
        assert await journal.meta(PROGRAM) == str(stand.world.program.id)
        await journal.commit(SetMeta(PROGRAM, str(stand.world.authority.pubkey())))
    with pytest.raises(Misconfigured, match="belongs to another program"):
        await run(load_settings(stand.config.file), on_ready=lambda ready: None)


# -- 23: what it costs


def budget_of(wire: bytes) -> tuple[int, int]:
    """The unit limit and the unit price in a transaction's first two instructions."""
    limit, price, _ = VersionedTransaction.from_bytes(wire).message.instructions
    return int.from_bytes(bytes(limit.data)[1:5], "little"), int.from_bytes(bytes(price.data)[1:9], "little")


async def test_23_the_unit_limit_comes_from_a_simulation_plus_a_margin(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, fees={"unit_limit": 300_000, "unit_margin": 0.2}) as stand, stand.keeper():
        first = await filled(stand)
        assert budget_of(stand.sent(first)[0])[0] == 300_000
        await until(lambda: any("simulateTransaction" in methods for methods in stand.calls))
        for _ in range(20):  # the simulation runs beside the first ones
            second = await filled(stand)
            limit, _ = budget_of(stand.sent(second)[0])
            if limit < 300_000:
                break
        landed = stand.bank.history.get(stand.attempts(second)[0].signature)
        assert landed is not None
        used = landed.meta.compute_units_consumed()
        assert used < limit < 2 * used + 40_000


async def test_23_no_fee_above_its_cap_and_retries_pay_more(tmp_path: Path) -> None:
    fees = {"unit_price_micro_lamports": 20_000, "cap_lamports": 9_000, "retry_factor": 2.0}
    async with Stand.open(tmp_path, fees=fees) as stand, stand.keeper():
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        await stand.known(order)
        for price in (94, 96) * 3:
            stand.bank.hold_transactions()
            before = len(stand.attempts(order))
            stand.world.set_price(market, price * USDC)
            if price == 94:
                await until(lambda before=before: len(stand.attempts(order)) > before)  # type: ignore[misc]
                await until(lambda: stand.sent(order))
                await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
                stand.world.set_price(market, 96 * USDC)
            stand.bank.release_transactions()
            await until(lambda: not stand.attempts(order) or not stand.attempts(order)[-1].state.live)
        wires = list(dict.fromkeys(stand.sent(order)))
        assert len(wires) == 3
        prices = [price for _, price in map(budget_of, wires)]
        assert prices[0] == 20_000
        assert prices[1] > prices[0]
        for wire in wires:
            limit, price = budget_of(wire)
            assert 5_000 + -(-limit * price // 1_000_000) <= 9_000


async def test_why_an_execution_waits_stands_when_the_orders_placing_is_confirmed(tmp_path: Path) -> None:
    """It was met at processed, and its fill is above the day's cap. That it had been placed was told over that."""
    async with Stand.open(tmp_path, fees={"daily_outflow_cap_lamports": 1_000_000}) as stand:
        market = stand.world.market(price_1e6=40 * USDC)
        async with stand.keeper() as keeper:
            order = await place_by_api(keeper.http_url, stand.world, market, stand.world.trader())
            await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
            row = stand.row(order)
            assert row is not None
            assert (row.state, "daily_outflow_cap" in row.reason) == (OrderState.TRIGGERED, True)


async def test_23_below_the_floor_nothing_is_sent_and_funding_goes_on_by_itself(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, lamports=SOL // 1_000) as stand, stand.keeper() as keeper:
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market, 101)
        row = await stand.reach(order, OrderState.TRIGGERED)
        assert "balance" in row.reason
        await stays(lambda: not stand.sends, stand)
        ok, sentence = await stand.readiness("sending")
        assert not ok
        assert str(keeper.keeper) in sentence
        assert (await stand.get("/readyz")).status_code == 503
        stand.bank.airdrop(keeper.keeper, SOL)
        await stand.reach(order, OrderState.FILLED)
        assert (await stand.get("/readyz")).status_code == 200


async def test_23_the_daily_cap_stops_sending(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, fees={"daily_outflow_cap_lamports": A_FILL_LAMPORTS}) as stand:
        market = stand.world.market()
        async with stand.keeper():
            await filled(stand, market)
        # The spending is in the journal: a restart on the same day does not begin anew.
        sends = len(stand.sends)
        async with stand.keeper():
            order = stand.order(stand.world.trader(), market, 101)
            row = await stand.reach(order, OrderState.TRIGGERED)
            assert "daily_outflow_cap_lamports" in row.reason
            await stays(lambda: len(stand.sends) == sends, stand)


# -- 25: one writer, and a good end


@pytest.mark.file_journal
async def test_25_a_second_keeper_on_the_journal_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async with World.open() as world:
        market, trader = world.market(), world.trader()
        config = KeeperConfig.beside(world, tmp_path / "keeper")
        async with KeeperProcess.running(config) as first:
            second = await KeeperProcess.start(config)
            assert await second.wait() == 2
            assert str(first.process.pid) in second.log_end()
            assert "Traceback" not in second.log_end()
            order = world.place(trader, market, stop_price_1e6=101 * USDC)
            await until(lambda: world.position(order))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_25_a_signal_drains_and_persists(tmp_path: Path, number: signal.Signals) -> None:
    async with World.open() as world:
        market, trader = world.market(), world.trader()
        config = KeeperConfig.beside(world, tmp_path / "keeper")
        async with KeeperProcess.running(config) as keeper:
            orders = [world.place(trader, market, stop_price_1e6=98 * USDC) for _ in range(20)]
            with config.reading() as journal:
                await until(lambda: len(journal.orders(limit=100).items) == len(orders))
                world.bank.hold_transactions()
                world.set_price(market, 97 * USDC)
                await until(lambda: any(attempt.state.in_flight for attempt in journal.open_attempts()))
            keeper.process.send_signal(number)
            assert await keeper.wait() == 0
            assert "Traceback" not in keeper.log_end()
        with config.reading() as journal:
            assert {row.address for row in journal.orders(limit=100).items} == set(orders)
            open_ones = journal.open_attempts()
            assert open_ones
        world.bank.release_transactions()
        async with KeeperProcess.running(config):
            await until(lambda: all(world.position(order) for order in orders))


# -- the brakes


async def test_a_pause_survives_a_restart_and_a_resume_goes_on(stand: Stand) -> None:
    async with Journal.open(stand.config.place) as journal:
        await journal.commit(SetMeta("paused", "paused by an operator: maintenance"))
    market = stand.world.market()
    order = stand.order(stand.world.trader(), market, 101)
    for _ in range(2):
        async with stand.keeper():
            await stand.reach(order, OrderState.TRIGGERED)
            await stays(lambda: not stand.sends, stand)
            assert "maintenance" in (await stand.readiness("sending"))[1]
    async with Journal.open(stand.config.place) as journal:
        await journal.commit(SetMeta("paused", None))
    async with stand.keeper():
        await stand.reach(order, OrderState.FILLED)


@pytest.fixture
async def paused(stand: Stand) -> Stand:
    """A stand whose keeper an operator has paused."""
    async with Journal.open(stand.config.place) as journal:
        await journal.commit(SetMeta("paused", "paused by an operator: maintenance"))
    return stand


async def test_what_becomes_of_an_order_while_the_keeper_is_paused_is_told(paused: Stand) -> None:
    """They were triggered before, and stayed `triggered` until somebody resumed, days after their ends."""
    market, trader = paused.world.market(), paused.world.trader()
    expiring = paused.order(trader, market, 101, expires_at=paused.bank.chain.tip.time + 60)
    cancelled, lasting = paused.order(trader, market, 101), paused.order(trader, market, 101)
    async with paused.keeper():
        for order in (expiring, cancelled, lasting):
            await paused.reach(order, OrderState.TRIGGERED)
        paused.bank.advance_clock(120)
        paused.world.cancel(trader, cancelled)
        await paused.reach(expiring, OrderState.EXPIRED)
        await paused.reach(cancelled, OrderState.CANCELLED)
        assert paused.state(lasting) is OrderState.TRIGGERED
        assert not paused.sends


async def test_a_stop_that_could_not_be_moved_while_the_keeper_is_paused_is_met_all_the_same(paused: Stand) -> None:
    """It waited to be moved, and nobody was told that it should have been filled meanwhile."""
    market, trader = paused.world.market(), paused.world.trader()
    order = paused.order(trader, market, order_type=OrderType.TRAILING_STOP, trailing_distance_ppm=50_000)
    async with paused.keeper():
        await paused.known(order)
        paused.world.set_price(market, 110 * USDC)
        while '"110"' not in (await paused.get("/v1/markets")).text:  # noqa: ASYNC110 - asked over HTTP
            await anyio.sleep(0.02)
        paused.world.set_price(market, 94 * USDC)
        await paused.reach(order, OrderState.TRIGGERED)


@pytest.mark.file_journal
async def test_what_the_journal_did_not_take_before_a_pause_says_that_it_waits(tmp_path: Path) -> None:
    """Its state stayed `open`, as if nothing had met its condition."""
    token = "an operator's token"
    async with Stand.open(tmp_path, http={"admin_token_sha256": sha256(token.encode()).hexdigest()}) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        async with stand.keeper() as keeper, httpx.AsyncClient(base_url=keeper.http_url) as api:
            order = stand.order(trader, market)
            await stand.known(order)
            with contextlib.closing(sqlite3.connect(stand.config.journal, isolation_level=None)) as other:
                other.execute(
                    "CREATE TRIGGER refuse BEFORE INSERT ON attempts BEGIN SELECT RAISE(ABORT, 'no room'); END"
                )
                stand.world.set_price(market, 94 * USDC)
                while "keeper_jobs_queued 1.0" not in (await api.get("/metrics")).text:  # noqa: ASYNC110 - over HTTP
                    await anyio.sleep(0.02)
                api.headers["authorization"] = f"Bearer {token}"
                assert (await api.post("/v1/admin/pause", json={"reason": "maintenance"})).status_code == 200
                await stand.reason(order, "maintenance")
                other.execute("DROP TRIGGER refuse")
            assert stand.state(order) is OrderState.TRIGGERED
            assert (await api.post("/v1/admin/resume")).status_code == 200
            await stand.reach(order, OrderState.FILLED)


async def test_a_jump_pauses_its_market_until_it_settles(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, trigger={"breaker_trip": 0.05, "breaker_settle": 0.02}) as stand:
        market, calm = stand.world.market(), stand.world.market()
        trader = stand.world.trader()
        async with stand.keeper():
            order, other = stand.order(trader, market), stand.order(trader, calm)
            await stand.known(order, other)
            stand.world.set_price(market, 80 * USDC)
            await stays(lambda: not stand.attempts(order), stand)
            stand.world.set_price(calm, 95 * USDC)
            await stand.reach(other, OrderState.FILLED)
            settled = 80 * USDC
            with anyio.fail_after(BOUND_S):
                while stand.state(order) is not OrderState.FILLED:
                    settled += 10_000
                    stand.world.set_price(market, settled)
                    await anyio.sleep(0.05)


async def test_a_dry_run_sends_nothing_and_records_what_it_would_have_sent(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, execution={"dry_run": True}) as stand, stand.keeper():
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        await stand.known(order)
        stand.world.set_price(market, 94 * USDC)
        await until(lambda: stand.attempts(order))
        (attempt,) = stand.attempts(order)
        assert (attempt.state, attempt.fate) == (AttemptState.DRY_RUN, Fate.DRY_RUN)
        assert VersionedTransaction.from_bytes(attempt.wire).verify_with_results() == [True]
        await stays(lambda: not stand.sends, stand)
        row = stand.row(order)
        assert row is not None
        assert "94" in row.reason
        # What is written down once is not written down again with each price, and no ceiling is hit by it.
        for n in range(35):
            stand.world.set_price(market, 94 * USDC - n)
            await anyio.sleep(0.02)
        with anyio.fail_after(BOUND_S):
            while (await stand.get("/v1/markets")).json()["markets"][0]["price"] != "93.999966":  # noqa: ASYNC110
                await anyio.sleep(0.02)
        shown = (await stand.get(f"/v1/orders/{order}")).json()
        assert shown["status_reason"] == "Dry run: it would have been executed, and nothing is sent."
        assert len(shown["attempts"]) == 1


# -- starts that must not be


async def ends_at_once(config: KeeperConfig, *more: str) -> str:
    """What `keeper run` says when it refuses to start: one line, exit code 2."""
    with anyio.fail_after(BOUND_S):
        done = await anyio.run_process(
            [sys.executable, "-m", "keeper", *config.arguments, *more], check=False, env=clean_environment()
        )
    said = done.stderr.decode()
    assert done.returncode == 2, said
    lines = [line for line in said.splitlines() if line.startswith("keeper: ")]
    assert len(lines) == 1
    assert "Traceback" not in said
    return lines[0]


async def test_a_keeper_that_can_not_work_says_so_in_one_line_and_ends_with_2(tmp_path: Path) -> None:
    async with World.open() as world:
        said: dict[str, str] = {}

        async def start(name: str, key: Keypair, **sections: Any) -> None:
            config = KeeperConfig.beside(world, tmp_path / name, key=key, **sections)
            if name == "key":
                (config.folder / "key.json").write_text("[1, 2, 3]")
            said[name] = await ends_at_once(config)

        wallet = world.wallet()
        nowhere = {"url": "http://127.0.0.1:9", "ws_url": "ws://127.0.0.1:9"}
        async with anyio.create_task_group() as tg:
            tg.start_soon(lambda: start("rpc", wallet, rpc=nowhere))
            tg.start_soon(lambda: start("program", wallet, program={"id": str(Pubkey.new_unique())}))
        async with anyio.create_task_group() as tg:
            tg.start_soon(lambda: start("key", wallet))
            tg.start_soon(lambda: start("idl", wallet, program={"idl": "0.1", "id": str(world.program.id)}))
    assert "rpc.url" in said["rpc"]
    assert "program.id" in said["program"]
    assert "key file" in said["key"]
    assert "idl" in said["idl"].lower()


async def test_the_revision_whose_fills_create_no_position_is_refused_unless_told_otherwise(tmp_path: Path) -> None:
    """The 0.1 IDL, and a program that answers as 0.1 does: whatever else is right, promise 3 can't be kept.

    The deployed program's code is not at hand, so the node says for it what it says to accounts that can't be right.
    """

    async with World.open() as world, EditedNode(world.net.rpc_url) as node:
        program = world.program.id
        node.edit = partial(as_revision_0_1, str(program))
        rpc, wallet = {"url": node.rpc_url, "ws_url": world.net.ws_url}, world.wallet()
        revision = {"idl": "0.1", "id": str(program)}

        def config(name: str, **sections: Any) -> KeeperConfig:
            return KeeperConfig.at(tmp_path / name, wallet, rpc=rpc, **{"program": revision, **sections})

        said = await ends_at_once(config("refused"))
        assert "a fill creates no position" in said
        assert "program.accept_fills_without_position = true" in said
        assert "execution.dry_run" in said
        accepting = {**revision, "accept_fills_without_position": True}
        for name, sections in (("accepted", {"program": accepting}), ("dry", {"execution": {"dry_run": True}})):
            async with KeeperProcess.running(config(name, **sections)) as keeper, httpx.AsyncClient() as http:
                assert (await http.get(f"{keeper.url}/livez")).status_code == 200
