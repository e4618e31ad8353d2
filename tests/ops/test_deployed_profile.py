"""config/deployed-0.1.toml, on a chain that holds what the deployed program's accounts really were.

Its code is not at hand: another program stands at its address, and the node answers simulations as 0.1 does.
"""

from __future__ import annotations

import base64
import json
import struct
import time
import tomllib
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from solders.account import Account
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.app.program import load_program
from keeper.config.loading import load_settings
from keeper.domain.attempts import AttemptState
from keeper.domain.orders import OrderState
from keeper.localnet import Commitment
from keeper.localnet.program import PROGRAM_SO
from keeper.venue.idl import discriminator
from keeper.venue.program import EXECUTE
from keeper.venue.venue import decode_market, decode_order
from tests.behaviours.edited_node import EditedNode, as_revision_0_1
from tests.ops.test_operators_commands import keeper_command
from tests.support import KeeperConfig, KeeperProcess, World, until
from tests.venue.feed_accounts import PYTH_RECEIVER, SOL_USD, SOL_USD_ACCOUNT, update

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PROFILE = tomllib.loads((ROOT / "config" / "deployed-0.1.toml").read_text())
VECTORS = json.loads((ROOT / "tests" / "fixtures" / "deployed_program.json").read_text())


def recorded(name: str) -> tuple[Pubkey, Account]:
    """An account as the deployed program left it."""
    row = next(row for row in VECTORS["accounts"] if row["name"] == name)
    data = base64.b64decode(row["data_base64"])
    return Pubkey.from_string(row["address"]), Account(row["lamports"], data, Pubkey.from_string(row["owner"]))


def priced(address: Pubkey, account: Account, price_1e6: int, at_s: int) -> Account:
    """The market with another price; in its layout the price and its time stand side by side."""
    data, market = bytes(account.data), decode_market(address, bytes(account.data), 0)
    old, new = (
        struct.pack("<Qq", *pair)
        for pair in ((market.last_oracle_price_1e6, market.last_oracle_update_s), (price_1e6, at_s))
    )
    assert data.count(old) == 1
    return Account(account.lamports, data.replace(old, new), account.owner)


async def test_the_profile_watches_and_decides_and_sends_nothing(tmp_path: Path) -> None:
    sent = []

    def as_the_deployed_program(call: dict[str, Any], reply: dict[str, Any]) -> None:
        if call["method"] == "sendTransaction":
            sent.append(call)
        as_revision_0_1(program, call, reply)

    program = PROFILE["program"]["id"]
    assert program == VECTORS["program_id"]
    market, market_account = recorded("market SOL/USDC priced at 100")
    address, order_account = recorded("order StopLoss long pending")
    order = decode_order(address, bytes(order_account.data), 0)
    programs = ((Pubkey.from_string(program), PROGRAM_SO),)
    async with World.open(programs=programs) as world, EditedNode(world.net.rpc_url) as node:
        node.edit = as_the_deployed_program
        world.bank.set_account(address, order_account)
        world.bank.set_account(
            market, priced(market, market_account, order.stop_price_1e6 + 1_000_000, int(time.time()))
        )
        rpc = {"url": node.rpc_url, "ws_url": world.net.ws_url}
        sections = {"program": PROFILE["program"], "execution": PROFILE["execution"]}
        config = KeeperConfig.at(tmp_path, world.wallet(), rpc=rpc, **sections)
        async with KeeperProcess.running(config) as keeper, httpx.AsyncClient(base_url=keeper.url) as api:
            shown = (await api.get(f"/v1/orders/{address}")).raise_for_status().json()
            assert (shown["status"], shown["attempts"]) == ("open", [])
            world.bank.set_account(market, priced(market, market_account, order.stop_price_1e6, int(time.time())))
            with config.reading() as journal:
                await until(lambda: journal.attempts_of(address))
                assert [a.state for a in journal.attempts_of(address)] == [AttemptState.DRY_RUN]
        assert sent == []


async def test_an_old_price_is_posted_in_the_deployed_programs_own_words(tmp_path: Path) -> None:
    """The operator holds the market's authority: what would be sent is what the deployed program took."""
    program, authority = Pubkey.from_string(PROFILE["program"]["id"]), Keypair()
    market, market_account = recorded("market SOL/USDC priced at 100")
    address, order_account = recorded("order StopLoss long pending")
    order = decode_order(address, bytes(order_account.data), 0)
    known = decode_market(market, bytes(market_account.data), 0)
    data = bytes(market_account.data)
    assert data.count(bytes(known.authority)) == 1
    data = data.replace(bytes(known.authority), bytes(authority.pubkey()))
    owned = Account(market_account.lamports, data, market_account.owner)
    file = tmp_path / "authority.json"
    file.touch(mode=0o600)
    file.write_text(str(list(bytes(authority))))
    async with World.open(programs=((program, PROGRAM_SO),)) as world, EditedNode(world.net.rpc_url) as node:
        node.edit = lambda call, reply: as_revision_0_1(str(program), call, reply)
        world.bank.set_account(address, order_account)
        at_s = int(time.time())
        world.bank.set_account(market, priced(market, owned, order.stop_price_1e6 + 1_000_000, at_s - 400))
        feed = update(price=(order.stop_price_1e6 - 500_000) * 100, time_s=at_s)
        world.bank.set_account(SOL_USD_ACCOUNT, Account(10**9, feed, PYTH_RECEIVER))
        await until(lambda: world.bank.account(market, Commitment.CONFIRMED))
        feeds = [{"market": "SOL/USDC", "kind": "pyth", "account": str(SOL_USD_ACCOUNT), "feed_id": SOL_USD.hex()}]
        crank: dict[str, Any] = {"markets": ["SOL/USDC"], "key_file": str(file)}
        config = KeeperConfig.at(
            tmp_path,
            world.wallet(),
            rpc={"url": node.rpc_url, "ws_url": world.net.ws_url},
            program=PROFILE["program"],
            execution=PROFILE["execution"],
            prices={"feeds": feeds},
            trigger={"max_price_age_s": 300, "breaker_trip": 0.05},
            crank=crank | {"max_deviation_ppm": 50_000, "max_feed_age_s": 300},
        )
        async with KeeperProcess.running(config):
            with config.reading() as journal:
                await until(lambda: journal.attempts_of(address))
                (attempt,) = journal.attempts_of(address)
    assert attempt.state is AttemptState.DRY_RUN
    assert (attempt.posted_from, attempt.posted_published_at) == (SOL_USD_ACCOUNT, at_s)
    transaction = VersionedTransaction.from_bytes(attempt.wire)
    assert transaction.verify_with_results() == [True, True]
    post, fill = transaction.message.instructions[2:]
    taken = next(row for row in VECTORS["transactions"] if row["name"] == "update_oracle_price SOL 100")
    mark = base64.b64decode(taken["instruction_data_base64"][0])[:8]
    assert bytes(post.data) == mark + struct.pack("<Q", order.stop_price_1e6 - 500_000)
    named = [transaction.message.account_keys[i] for i in post.accounts]
    assert named == [market, SOL_USD_ACCOUNT, authority.pubkey()]
    assert bytes(fill.data) == discriminator("global", EXECUTE)


async def test_the_profile_is_whole_and_never_executes_by_itself() -> None:
    settings = load_settings(ROOT / "config" / "deployed-0.1.toml")
    program = load_program(settings.program)
    assert str(program.id) == VECTORS["program_id"]
    assert not program.creates_position
    assert settings.execution.dry_run
    assert not settings.program.accept_fills_without_position


async def test_an_order_that_is_never_executed_waits_for_no_price(tmp_path: Path) -> None:
    """A limit order, and a market whose last price is old: nobody is woken by that."""
    program = PROFILE["program"]["id"]
    address, order_account = recorded("order Limit long pending")
    order = decode_order(address, bytes(order_account.data), 0)
    market, market_account = recorded("market SOL/USDC priced at 100")
    assert order.market == market
    programs = ((Pubkey.from_string(program), PROGRAM_SO),)
    async with World.open(programs=programs) as world, EditedNode(world.net.rpc_url) as node:
        node.edit = lambda call, reply: as_revision_0_1(program, call, reply)
        world.bank.set_account(address, order_account)
        world.bank.set_account(market, priced(market, market_account, 100_000_000, int(time.time()) - 3_600))
        rpc = {"url": node.rpc_url, "ws_url": world.net.ws_url}
        sections = {"program": PROFILE["program"], "execution": PROFILE["execution"]}
        config = KeeperConfig.at(tmp_path, world.wallet(), rpc=rpc, **sections)
        async with KeeperProcess.running(config) as keeper, httpx.AsyncClient(base_url=keeper.url) as api:
            health = (await api.get("/healthz")).json()
            assert {"name": "prices", "ok": True, "detail": ""} in health["checks"]
            metrics = ""
            with anyio.fail_after(10):
                while 'keeper_orders_never_executed{market="SOL/USDC",type="limit"} 1.0' not in metrics:
                    metrics = (await api.get("/metrics")).text
                    await anyio.sleep(0.1)
            assert "keeper_orders_resting{" not in metrics
            with config.reading() as journal:
                await until(lambda: journal.order(address))

        # And who looks at the order is told so, whatever they look with.
        never = "The program does not execute orders of type limit."
        listed = json.loads((await keeper_command("orders", "--journal", str(config.journal), "--json")).stdout)
        assert (listed["state"], listed["reason"]) == ("open", never)
        simulated = await keeper_command("simulate", str(address), "--config", str(config.file), "--json")
        told = json.loads(simulated.stdout)
        assert (simulated.exit_code, told["verdict"], told["would_execute"]) == (1, never, False)
        explained = await keeper_command("explain", str(address), "--config", str(config.file))
        assert never in explained.stdout


@pytest.mark.parametrize("own", [False, True], ids=["another market", "its own market"])
async def test_a_strangers_fill_through_another_market_is_named(tmp_path: Path, own: bool) -> None:
    """The deployed program judges an order by whichever market its executor names. The node tells of such a fill."""
    program = PROFILE["program"]["id"]
    address, order_account = recorded("order StopLoss long pending")
    _, filled = recorded("order StopLoss long filled")
    market, market_account = recorded("market SOL/USDC priced at 100")
    named = market if own else recorded("market BTC/USDT priced at 65000")[0]
    stranger = Keypair()
    metas = [AccountMeta(named, False, True), AccountMeta(address, False, True)]
    metas.append(AccountMeta(stranger.pubkey(), True, True))
    called = Instruction(Pubkey.from_string(program), discriminator("global", EXECUTE), metas)
    message = Message.new_with_blockhash([called], stranger.pubkey(), Hash.default())
    wire = bytes(VersionedTransaction(message, [stranger]))

    def with_the_fill(call: dict[str, Any], reply: dict[str, Any]) -> None:
        as_revision_0_1(program, call, reply)
        if call["method"] == "getSignaturesForAddress":
            reply["result"] = [{"signature": str(Signature.from_bytes(wire[1:65])), "slot": 7, "err": None}]
        if call["method"] == "getTransaction":
            meta: dict[str, Any] = {"fee": 5_000, "err": None, "logMessages": []}
            transaction = [base64.b64encode(wire).decode(), "base64"]
            reply["result"] = {"slot": 7, "meta": meta, "transaction": transaction, "blockTime": None}

    programs = ((Pubkey.from_string(program), PROGRAM_SO),)
    async with World.open(programs=programs) as world, EditedNode(world.net.rpc_url) as node:
        node.edit = with_the_fill
        world.bank.set_account(address, order_account)
        world.bank.set_account(market, priced(market, market_account, 100_000_000, int(time.time())))
        rpc = {"url": node.rpc_url, "ws_url": world.net.ws_url}
        sections = {"program": PROFILE["program"], "execution": PROFILE["execution"]}
        config = KeeperConfig.at(tmp_path, world.wallet(), rpc=rpc, **sections)
        async with KeeperProcess.running(config) as keeper, httpx.AsyncClient(base_url=keeper.url) as api:
            with config.reading() as journal:
                await until(lambda: journal.order(address))
                world.bank.set_account(address, filled)
                await until(lambda: (row := journal.order(address)) and row.state is OrderState.FILLED)
                row = journal.order(address)
            assert row is not None
            metrics = (await api.get("/metrics")).text
            if own:
                assert row.reason == "Another keeper filled it."
                assert "keeper_fills_off_condition_total 0.0" in metrics
            else:
                by = f"{stranger.pubkey()} filled it by the price of another market, {named}: its own did not meet it."
                assert row.reason == by
                assert "keeper_fills_off_condition_total 1.0" in metrics
                explained = (await keeper_command("explain", str(address), "--config", str(config.file))).stdout
                assert f"through the market {named}, which is not its own" in explained


async def test_nobody_is_given_a_cancel_that_nobody_can_sign(tmp_path: Path) -> None:
    """The deployed program makes accounts of OCO, TWAP and iceberg orders with user and market zeroed."""
    program = PROFILE["program"]["id"]
    address, account = recorded("order Iceberg long pending")
    data = bytes(account.data)
    zeroed = Account(account.lamports, data[:8] + bytes(64) + data[72:], account.owner)
    programs = ((Pubkey.from_string(program), PROGRAM_SO),)
    async with World.open(programs=programs) as world, EditedNode(world.net.rpc_url) as node:
        node.edit = lambda call, reply: as_revision_0_1(program, call, reply)
        world.bank.set_account(address, zeroed)
        rpc = {"url": node.rpc_url, "ws_url": world.net.ws_url}
        sections = {"program": PROFILE["program"], "execution": PROFILE["execution"]}
        config = KeeperConfig.at(tmp_path, world.wallet(), rpc=rpc, **sections)
        async with KeeperProcess.running(config) as keeper, httpx.AsyncClient(base_url=keeper.url) as api:
            shown = (await api.get(f"/v1/orders/{address}")).raise_for_status().json()
            never = "The program does not execute orders of type iceberg, and nobody can cancel it"
            assert shown["status_reason"] == f"{never}: its account names no user."
            refused = await api.post(f"/v1/orders/{address}/cancel")
            assert (refused.status_code, refused.json()["code"]) == (422, "unauthorized_user")
            assert "names no user" in refused.json()["detail"]
        simulated = await keeper_command("simulate", str(address), "--config", str(config.file))
        assert "nobody can cancel it" in str(simulated.exception)
