"""What costs a stranger nothing, and must not cost the keeper, its users or each other anything either."""

from __future__ import annotations

from dataclasses import replace

import anyio
import httpx
import msgspec
import pytest
from prometheus_client import CollectorRegistry
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.domain.orders import OrderState
from keeper.http.edge.clients import Rates
from keeper.http.edge.costs import WRITE
from keeper.journal import MovePrepared, NoteOrder, NoteState, Retention
from keeper.journal.records import PreparedStatus
from tests.http.http_world import LIMITS, World, problem, serving, signed
from tests.http.test_orders import on_chain

pytestmark = pytest.mark.anyio

LIFE = 150 + 1 + 32
"""So many blocks after it was given a blockhash has landed nothing that had not landed before."""


def let_blocks_pass(world: World, count: int = LIFE + 1) -> None:
    for _ in range(count):
        world.net.bank.advance()


# --- the chain is not asked


async def test_looks_and_cancels_of_any_address_ask_the_chain_nothing(world: World, wallet: Keypair) -> None:
    placed = await world.resting(wallet)
    asked = len(world.calls)
    for _ in range(20):
        assert (await world.http.post(f"/v1/orders/{Pubkey.new_unique()}/cancel")).status_code == 404
        assert (await world.http.get(f"/v1/orders/{Pubkey.new_unique()}")).status_code == 404
        nothing = await world.http.post("/v1/orders/execute", json={"id": "none", "signed_transaction": "AA=="})
        assert nothing.status_code == 404
        assert (await world.http.post(f"/v1/orders/{placed['order']}/cancel")).status_code == 201
        assert (await world.http.get(f"/v1/orders/{placed['order']}")).status_code == 200
        assert (await world.http.post("/v1/orders", json=world.body(wallet))).status_code == 201
    assert world.calls[asked:] == []


async def test_a_transaction_that_came_too_late_asks_no_more_than_its_simulation(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet)
    let_blocks_pass(world)
    asked = len(world.calls)
    late = await world.execute(prepared["id"], signed(prepared, wallet))
    assert problem(late)["code"] == "blockhash_expired"
    assert world.calls[asked:] == ["simulateTransaction"]


async def test_a_row_in_the_journal_costs_its_client_many_requests(world: World, wallet: Keypair) -> None:
    limits = replace(LIMITS, requests_per_s=0.001, burst=3 * WRITE)
    ports = replace(world.ports, limits=limits, metrics=CollectorRegistry())
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        for _ in range(WRITE):
            assert (await http.get("/v1/markets")).status_code == 200
        prepared = [await http.post("/v1/orders", json=world.body(wallet)) for _ in range(3)]
        assert [answer.status_code for answer in prepared] == [201, 201, 429]
        assert (await http.get("/livez")).status_code == 200


def test_what_a_client_owes_is_paid_before_it_is_admitted_again() -> None:
    now = 0.0
    rates = Rates(10.0, 20, lambda: now)
    assert rates.admit("me").refused is None
    rates.charge("me", 49)
    refused = rates.admit("me")
    assert refused.refused is not None
    assert ("RateLimit", '"default";r=0;t=4') in refused.headers
    assert rates.admit("you").refused is None
    now = 3.2
    assert rates.admit("me").refused is None


# --- prepared and never signed


async def test_what_nobody_signed_is_no_order_in_lists_and_streams(world: World, wallet: Keypair) -> None:
    real = await world.noted(wallet, client_order_id="real")
    async with world.http.stream("GET", "/v1/orders/stream", params={"user": str(wallet.pubkey())}) as stream:
        lines = stream.aiter_lines()
        with anyio.fail_after(5):
            while not (line := await anext(lines)).startswith("data:"):
                pass
        assert [order["order"] for order in msgspec.json.decode(line[5:])["orders"]] == [real["order"]]
        for _ in range(5):
            await world.prepare(wallet, client_order_id="spoof")
        # The next thing to hear is news of the real one.
        await world.journal.commit(NoteState(Pubkey.from_string(real["order"]), OrderState.EXECUTING, "On its way."))
        with anyio.fail_after(5):
            while not (line := await anext(lines)).startswith("data:"):
                pass
        assert msgspec.json.decode(line[5:])["order"] == real["order"]
    for params in ({}, {"status": "active"}, {"status": "prepared"}, {"client_order_id": "spoof"}):
        page = (await world.http.get("/v1/orders", params={"user": str(wallet.pubkey()), **params})).json()
        assert {order["order"] for order in page["orders"]} <= {real["order"]}


async def test_it_can_be_looked_at_and_ends_as_dropped(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet, client_order_id="mine")
    path = f"/v1/orders/{prepared['order']}"
    shown = (await world.http.get(path)).json()
    assert (shown["status"], shown["size"], shown["client_order_id"]) == ("prepared", "2.5", None)
    assert (shown["onchain_status"], shown["attempts"]) == (None, [])
    let_blocks_pass(world)
    shown = (await world.http.get(path)).json()
    assert shown["status"] == "dropped"
    assert "can no longer land" in shown["status_reason"]


async def test_what_one_client_prepares_is_bounded_and_an_others_stays(world: World, wallet: Keypair) -> None:
    theirs = [await world.prepare(world.trader()) for _ in range(3)]
    mine = [await world.prepare(wallet) for _ in range(70)]
    kept = [await world.journal.prepared(prepared["id"]) is not None for prepared in mine]
    assert kept == [False] * 6 + [True] * 64, "so many for one user"
    assert all([await world.journal.prepared(prepared["id"]) for prepared in theirs])
    forgotten = await world.execute(mine[0]["id"], signed(mine[0], wallet))
    assert problem(forgotten)["code"] == "prepared_not_found"
    assert (await world.execute(mine[-1]["id"], signed(mine[-1], wallet))).status_code == 202


async def test_it_is_gone_within_hours(world: World, wallet: Keypair) -> None:
    unsigned, relayed = await world.prepare(wallet), await world.prepare(wallet)
    assert (await world.execute(relayed["id"], signed(relayed, wallet))).status_code == 202
    assert world.journal.retention == Retention()
    await world.journal.prune(now=world.ports.now() + 1.5 * 3600)
    assert await world.journal.prepared(unsigned["id"]) is None
    assert await world.journal.prepared(relayed["id"]) is not None


# --- what was relayed is what is journaled


async def test_nobody_overwrites_what_somebody_prepared(world: World, wallet: Keypair) -> None:
    victim = await world.prepare(wallet, client_order_id="victim")
    evil = await world.prepare(wallet, client_order_id="evil", size="9", order_id=victim["order_id"])
    assert evil["order"] == victim["order"]
    assert (await world.execute(victim["id"], signed(victim, wallet))).status_code == 202
    shown = (await world.http.get(f"/v1/orders/{victim['order']}")).json()
    assert (shown["status"], shown["size"], shown["client_order_id"]) == ("submitted", "2.5", None)
    found = (await world.http.get("/v1/orders", params={"client_order_id": "victim"})).json()["orders"]
    assert [order["order"] for order in found] == [victim["order"]]
    again = await world.http.post("/v1/orders", json=world.body(wallet, order_id=victim["order_id"], size="9"))
    assert problem(again)["code"] == "order_exists"


async def test_every_term_of_what_was_relayed_is_journaled(world: World, wallet: Keypair) -> None:
    bodies = [
        world.body(wallet),
        world.body(wallet, order_type="limit", trigger_price=None, limit_price="99.5", side="short", expires_at=None),
        world.body(wallet, order_type="stop_limit", limit_price="94"),
        world.body(wallet, order_type="trailing_stop", trigger_price="90", trailing_distance="0.05", leverage=2),
    ]
    for body in bodies:
        prepared = (await world.http.post("/v1/orders", json=body)).raise_for_status().json()
        assert (await world.execute(prepared["id"], signed(prepared, wallet))).status_code == 202
        row = await world.journal.order(Pubkey.from_string(prepared["order"]))
        landed = on_chain(world, prepared["order"])
        assert row is not None
        # The chain's clock and slot are the chain's to say.
        assert row.order == landed._replace(created_at=0, slot=0)


# --- idempotency keys


async def test_a_key_is_its_users_own(world: World, wallet: Keypair) -> None:
    headers = {"Idempotency-Key": f"key-{wallet.pubkey()}"}
    stranger = world.trader()
    mine = await world.http.post("/v1/orders", json=world.body(wallet), headers=headers)
    theirs = await world.http.post("/v1/orders", json=world.body(stranger), headers=headers)
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert mine.json()["summary"]["user"] != theirs.json()["summary"]["user"]
    again = await world.http.post("/v1/orders", json=world.body(wallet), headers=headers)
    assert again.content == mine.content


async def test_an_answer_that_can_land_no_more_is_not_given_again(world: World, wallet: Keypair) -> None:
    headers = {"Idempotency-Key": f"key-{wallet.pubkey()}"}
    first = (await world.http.post("/v1/orders", json=world.body(wallet), headers=headers)).json()
    let_blocks_pass(world)
    anew = await world.http.post("/v1/orders", json=world.body(wallet), headers=headers)
    assert anew.json()["id"] != first["id"]
    assert "idempotency-replayed" not in anew.headers
    assert (await world.execute(anew.json()["id"], signed(anew.json(), wallet))).status_code == 202
    let_blocks_pass(world)
    again = await world.http.post("/v1/orders", json=world.body(wallet), headers=headers)
    assert again.content == anew.content, "it was relayed: there is an order behind it"


async def test_an_order_that_its_wallet_sent_by_itself_is_not_prepared_again(world: World, wallet: Keypair) -> None:
    headers = {"Idempotency-Key": f"key-{wallet.pubkey()}"}
    first = await world.http.post("/v1/orders", json=world.body(wallet), headers=headers)
    await world.client.pool.send([signed(first.json(), wallet)]).replies()
    world.net.bank.advance()
    await world.journal.commit(NoteOrder(on_chain(world, first.json()["order"])))
    let_blocks_pass(world)
    again = await world.http.post("/v1/orders", json=world.body(wallet), headers=headers)
    assert again.content == first.content


async def test_a_relayed_transaction_that_failed_is_prepared_anew(world: World, wallet: Keypair) -> None:
    headers = {"Idempotency-Key": f"key-{wallet.pubkey()}"}
    first = (await world.http.post("/v1/orders", json=world.body(wallet), headers=headers)).json()
    assert (await world.execute(first["id"], signed(first, wallet))).status_code == 202
    await world.journal.commit(MovePrepared(first["id"], PreparedStatus.FAILED))
    anew = await world.http.post("/v1/orders", json=world.body(wallet), headers=headers)
    assert (anew.status_code, anew.json()["id"] == first["id"]) == (201, False)
