"""A wallet's positions and margin: what the chain has, in units that their names say, for one call of the node."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest
from prometheus_client import CollectorRegistry
from solders.account import Account
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.http.reading.margin import MarginReader
from keeper.solana.allowance import Allowance, UsersPool
from keeper.solana.client import ChainClient
from keeper.solana.http1 import HttpTransport
from keeper.solana.rpc import Endpoint
from tests.chain.test_deployed_accounts import accounts, data_of
from tests.http.http_world import AUTHORITY, USDC, World, problem, serving
from tests.http.test_deployed_revision import DEPLOYED, OneMarket
from tests.http.test_orders import on_chain

pytestmark = pytest.mark.anyio


def deposit(world: World, wallet: Keypair, amount_1e6: int) -> None:
    """A margin account with so much in it."""
    mine = {"user_account": world.program.user_account_address(wallet.pubkey()), "authority": wallet.pubkey()}
    world.land(world.program.instruction("create_user_account", {"account_index": 0}, mine), signer=wallet)
    world.land(world.program.instruction("deposit_collateral", {"amount": amount_1e6}, mine), signer=wallet)


async def filled(world: World, wallet: Keypair, at_1e6: int, **changes: str) -> str:
    """An order of the wallet's that was filled at this price; its position."""
    placed = await world.place(wallet, **changes)
    order = on_chain(world, placed["order"])
    world.set_price(at_1e6)
    world.land(world.program.execute(order, AUTHORITY.pubkey()))
    world.net.bank.advance()
    return str(world.program.position_of(order, AUTHORITY.pubkey()))


async def test_a_wallet_sees_its_positions_and_its_margin(world: World, wallet: Keypair) -> None:
    deposit(world, wallet, 1_000 * USDC)
    position = await filled(world, wallet, 95 * USDC)
    short = await filled(world, wallet, 105 * USDC, side="short", trigger_price="104.5", size="1")
    world.set_price(100 * USDC)
    found = (await world.http.get(f"/v1/wallets/{wallet.pubkey()}/positions")).json()
    assert (found["user"], found["total"]) == (str(wallet.pubkey()), 2)
    by_address = {view["position"]: view for view in found["positions"]}
    assert by_address.keys() == {position, short}
    view = by_address[position]
    assert view["opened_at"] > 0
    assert {name: view[name] for name in view if name not in ("opened_at", "position", "market_address")} == {
        "market": "SOL/USDC",
        "side": "long",
        "leverage": 5,
        "size_base": "2.5",
        "entry_price_quote": "95",
        "price_quote": "100",
        "liquidation_price_quote": "78.85",  # 95 less a fifth, and 3 % of 95 before that
        "initial_margin_quote": "47.5",
        "maintenance_margin_quote": "7.125",
        "profit_quote": "12.5",
    }
    assert by_address[short]["profit_quote"] == "5"
    margin = (await world.http.get(f"/v1/wallets/{wallet.pubkey()}/account")).json()
    assert margin.pop("slot") >= found["slot"] > 0
    assert margin == {
        "user": str(wallet.pubkey()),
        "account": str(world.program.user_account_address(wallet.pubkey())),
        "exists": True,
        "active": True,
        "collateral_quote": "1000",
        "available_margin_quote": "931.5",
        "initial_margin_quote": "68.5",
        "maintenance_margin_quote": "10.275",
        "positions": 2,
        "max_positions": margin["max_positions"],
    }
    page = (await world.http.get(f"/v1/wallets/{wallet.pubkey()}/positions?limit=1")).json()
    assert (len(page["positions"]), page["total"]) == (1, 2)


async def test_a_wallet_without_anything_has_nothing(world: World) -> None:
    stranger = Pubkey.new_unique()
    positions = (await world.http.get(f"/v1/wallets/{stranger}/positions")).json()
    assert (positions["positions"], positions["total"]) == ([], 0)
    margin = (await world.http.get(f"/v1/wallets/{stranger}/account")).json()
    assert (margin["exists"], margin["active"], margin["available_margin_quote"]) == (False, False, "0")
    for path in ("positions", "account"):
        refused = await world.http.get(f"/v1/wallets/bot/{path}")
        assert (refused.status_code, problem(refused)["field"]) == (422, "wallet")


async def test_a_wallet_costs_the_node_one_call_in_two_seconds_whoever_asks(world: World, wallet: Keypair) -> None:
    now = 100.0
    reader = MarginReader(world.ports, lambda: now)
    asked = len(world.calls)
    before = await reader.positions(wallet.pubkey())
    for _ in range(5):
        assert await reader.positions(wallet.pubkey()) == before
        assert (await reader.account(wallet.pubkey()))[2] is None
    assert world.calls[asked:] == ["getProgramAccounts", "getMultipleAccounts"]
    deposit(world, wallet, USDC)
    world.net.bank.advance()
    now += 2.0
    margin = (await reader.account(wallet.pubkey()))[2]
    assert margin is not None
    assert margin.collateral_1e6 == USDC


async def test_what_is_kept_of_wallets_is_bounded(world: World) -> None:
    reader = MarginReader(world.ports)
    for _ in range(1_030):
        await reader.account(Pubkey.new_unique())
    assert repr(reader) == "MarginReader(1024 kept)"


async def test_the_deployed_revision_has_positions_and_margin_too(world: World) -> None:
    (fixture,) = accounts("Position")[0].values
    address, data = data_of(fixture)
    user = Pubkey.from_bytes(data[40:72])
    account = DEPLOYED.user_account_address(user)
    margin_fixture = next(p.values[0] for p in accounts("UserAccount") if "one position" in p.values[0]["name"])
    for where, content in ((address, data), (account, data_of(margin_fixture)[1])):
        world.net.bank.set_account(where, Account(10_000_000, content, DEPLOYED.id))
    world.net.bank.advance()
    world.net.bank.advance()
    ports = replace(world.ports, program=DEPLOYED, desk=OneMarket(), metrics=CollectorRegistry())
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        (view,) = (await http.get(f"/v1/wallets/{user}/positions")).json()["positions"]
        margin = (await http.get(f"/v1/wallets/{user}/account")).json()
    assert (view["position"], view["side"], view["size_base"], view["entry_price_quote"], view["leverage"]) == (
        str(address),
        "short",
        "5",
        "111",
        5,
    )
    assert (view["initial_margin_quote"], view["maintenance_margin_quote"]) == ("111", "88.8")
    found = [margin[name] for name in ("account", "collateral_quote", "available_margin_quote", "positions")]
    assert found == [str(account), "10000", "9889", 1]


async def test_wallets_are_read_within_what_users_may_ask(world: World) -> None:
    main = world.client.pool
    endpoints = [Endpoint("local", HttpTransport(world.net.rpc_url, label="local"))]
    users = UsersPool(main, endpoints, Allowance(0.5))
    ports = replace(world.ports, client=ChainClient(users), metrics=CollectorRegistry())
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1/wallets") as http:
        asked = len(world.calls)
        answers = [await http.get(f"/{Pubkey.new_unique()}/{path}") for path in ("positions", "account") * 2]
    assert [answer.status_code for answer in answers] == [200, 503, 503, 503]
    assert problem(answers[-1])["code"] == "chain_unavailable"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert world.calls[asked:] == [], "none of it was the executions' pool's"
    await users.aclose()
