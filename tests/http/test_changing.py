"""Cancel with a bid, cancel all of a wallet's orders, and put one order in another's place: from words to the chain."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from solders.compute_budget import ID as COMPUTE_BUDGET
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.orders import OnchainStatus, OrderState
from keeper.http.edge.costs import WRITE
from keeper.journal import NoteOrder, NoteState
from keeper.venue.placing import BUDGET, MOST_CANCELS
from keeper.venue.relay_checks import MAX_WIRE_BYTES
from tests.http.http_world import LIMITS, World, problem, serving, signed
from tests.http.test_deployed_revision import DEPLOYED
from tests.http.test_orders import on_chain

pytestmark = pytest.mark.anyio

BID = "priority_fee_micro_lamports_per_unit"


def bid_of(prepared: dict[str, Any]) -> dict[int, int]:
    """What the transaction's compute budget says: 2 is the limit in units, 3 the price in micro-lamports a unit."""
    message = VersionedTransaction.from_bytes(base64.b64decode(prepared["transaction"])).message
    budget = [ix for ix in message.instructions if message.account_keys[ix.program_id_index] == COMPUTE_BUDGET]
    return {ix.data[0]: int.from_bytes(ix.data[1:], "little") for ix in budget}


async def noted(world: World, *orders: dict[str, Any], state: OrderState = OrderState.OPEN) -> None:
    """The journal has the orders as the chain has them; that they were submitted is over."""
    for order in orders:
        as_it_is = on_chain(world, order["order"])._replace(slot=world.desk.slot)
        await world.journal.commit(NoteOrder(as_it_is, state, "It rests."))


def landed(world: World) -> None:
    world.net.bank.advance()
    world.net.bank.advance()


# --- what a transaction bids


async def test_a_user_says_what_a_transaction_bids(world: World, wallet: Keypair) -> None:
    unit = BUDGET.unit_limit
    assert bid_of(await world.prepare(wallet)) == {2: unit}
    assert bid_of(await world.prepare(wallet, **{BID: 25_000})) == {2: unit, 3: 25_000}
    placed = await world.resting(wallet, **{BID: 1})
    cancel = await world.http.post(f"/v1/orders/{placed['order']}/cancel", json={BID: 5_000_000})
    assert bid_of(cancel.json()) == {2: unit, 3: 5_000_000}
    assert (await world.execute(cancel.json()["id"], signed(cancel.json(), wallet))).status_code == 202
    landed(world)
    assert on_chain(world, placed["order"]).status is OnchainStatus.CANCELLED


async def test_a_bid_is_bounded_by_the_settings(world: World, wallet: Keypair) -> None:
    placed = await world.resting(wallet)
    ports = replace(
        world.ports, limits=replace(LIMITS, most_unit_price_micro_lamports=100), metrics=CollectorRegistry()
    )
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        for path, body in (
            ("", world.body(wallet)),
            (f"/{placed['order']}/cancel", {}),
            (f"/{placed['order']}/amend", {"size": "1"}),
        ):
            assert (await http.post(f"/v1/orders{path}", json={**body, BID: 100})).status_code == 201
            refused = await http.post(f"/v1/orders{path}", json={**body, BID: 101})
            assert (problem(refused)["code"], problem(refused)["field"]) == ("priority_fee", BID)
            assert "100 micro-lamports" in problem(refused)["detail"]
    for wrong in (-1, 20_000_001, "1", 1.5, None):
        refused = await world.http.post("/v1/orders", json={**world.body(wallet), BID: wrong})
        assert (refused.status_code, problem(refused)["field"]) == (422, BID)


# --- amend


async def amend(world: World, order: str, **changes: Any) -> httpx.Response:
    return await world.http.post(f"/v1/orders/{order}/amend", json=changes)


async def test_an_order_takes_anothers_place_in_one_transaction(world: World, wallet: Keypair) -> None:
    old = await world.resting(wallet, client_order_id="mine", expires_at=int(world.desk.chain_time_s() or 0) + 9_000)
    await noted(world, old)
    answer = await amend(world, old["order"], trigger_price="94.25", client_order_id="next", **{BID: 7})
    assert answer.status_code == 201, answer.text
    prepared = answer.json()
    assert (prepared["kind"], prepared["cancels"]) == ("amend", [old["order"]])
    assert prepared["order"] != old["order"]
    assert prepared["summary"]["client_order_id"] == "next"
    assert bid_of(prepared)[3] == 7
    before = on_chain(world, old["order"])
    seen = (await world.http.get(f"/v1/orders/{old['order']}")).json()
    assert seen["status"] == "open", "nothing happens before it is signed"
    relayed = await world.execute(prepared["id"], signed(prepared, wallet))
    assert relayed.status_code == 202, relayed.text
    assert (relayed.json()["kind"], relayed.json()["status"]) == ("amend", "submitted")
    assert relayed.json()["order"] == prepared["order"]
    for order, state in ((old["order"], "cancelling"), (prepared["order"], "submitted")):
        row = (await world.http.get(f"/v1/orders/{order}")).json()
        assert row["status"] == state
        assert row["status_reason"].startswith("Its user's signed amend transaction is being landed.")
    landed(world)
    cancelled, placed = on_chain(world, old["order"]), on_chain(world, prepared["order"])
    assert (cancelled.status, placed.status) == (OnchainStatus.CANCELLED, OnchainStatus.PENDING)
    same = ("user", "market", "order_type", "side", "size_1e6", "leverage", "expires_at", "price_1e6")
    assert [getattr(placed, name) for name in same] == [getattr(before, name) for name in same]
    assert placed.stop_price_1e6 == 94_250_000
    found = (await world.http.get("/v1/orders", params={"client_order_id": "next"})).json()["orders"]
    assert [one["order"] for one in found] == [prepared["order"]]


@pytest.mark.parametrize(
    ("terms", "changes", "expected"),
    [
        ({}, {"size": "1"}, {"size_1e6": 1_000_000, "stop_price_1e6": 95_500_000}),
        ({}, {"leverage": 2, "expires_at": 0}, {"leverage": 2, "expires_at": 0, "size_1e6": 2_500_000}),
        (
            {"order_type": "limit", "limit_price": "98", "trigger_price": None},
            {"limit_price": "99"},
            {"price_1e6": 99_000_000, "stop_price_1e6": 0},
        ),
        (
            {"order_type": "trailing_stop", "trailing_distance": "0.05", "trigger_price": "94"},
            {"size": "1"},
            {"stop_price_1e6": 94_000_000, "trailing_distance_ppm": 50_000},
        ),
        (
            {"order_type": "trailing_stop", "trailing_distance": "0.05", "trigger_price": "94"},
            {"trailing_distance": "0.02"},
            {"stop_price_1e6": 98_000_000, "trailing_distance_ppm": 20_000},
        ),
        (
            {"order_type": "stop_limit", "limit_price": "94"},
            {"trigger_price": "95"},
            {"price_1e6": 94_000_000, "stop_price_1e6": 95_000_000},
        ),
    ],
)
async def test_what_is_not_to_change_stays(
    world: World, wallet: Keypair, terms: dict[str, Any], changes: dict[str, Any], expected: dict[str, int]
) -> None:
    world.set_price(100_000_000)
    old = await world.resting(wallet, **terms)
    prepared = (await amend(world, old["order"], **changes)).json()
    assert (await world.execute(prepared["id"], signed(prepared, wallet))).status_code == 202
    landed(world)
    order = on_chain(world, prepared["order"])
    assert {name: getattr(order, name) for name in expected} == expected
    assert on_chain(world, old["order"]).status is OnchainStatus.CANCELLED


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({}, "missing_field", "size"),
        ({"client_order_id": "no-term"}, "missing_field", "size"),
        ({"size": "0"}, "invalid_size", "size"),
        ({"limit_price": "95"}, "field_not_used", "limit_price"),
        ({"leverage": 21}, "invalid_leverage", "leverage"),
        ({"user": "somebody"}, "unknown_field", "user"),
        ({"order_type": "limit"}, "unknown_field", "order_type"),
        ({"expires_at": 1}, "order_expired", "expires_at"),
    ],
)
async def test_a_change_that_can_not_be_is_refused_by_its_field(
    world: World, wallet: Keypair, changes: dict[str, Any], code: str, field: str
) -> None:
    old = await world.resting(wallet)
    refused = await amend(world, old["order"], **changes)
    assert (problem(refused)["code"], problem(refused)["field"]) == (code, field)


async def test_an_order_does_not_take_its_own_place(world: World, wallet: Keypair) -> None:
    """At the same address the program refuses it; and the new order would have the old one's record."""
    old = await world.resting(wallet)
    refused = await amend(world, old["order"], size="1", order_id=old["order_id"])
    assert (refused.status_code, problem(refused)["code"]) == (409, "order_exists")


async def test_what_is_not_pending_has_no_place_to_take(world: World, wallet: Keypair) -> None:
    assert problem(await amend(world, str(Pubkey.new_unique()), size="1"))["code"] == "order_not_found"
    old = await world.resting(wallet)
    prepared = (await amend(world, old["order"], size="1")).json()
    cancel = (await world.http.post(f"/v1/orders/{old['order']}/cancel")).json()
    assert (await world.execute(cancel["id"], signed(cancel, wallet))).status_code == 202
    landed(world)
    # The cancel won: the new order is not placed either.
    late = await world.execute(prepared["id"], signed(prepared, wallet))
    assert (late.status_code, problem(late)["code"]) == (409, "order_not_pending")
    assert world.net.bank.account(Pubkey.from_string(prepared["order"])) is None
    await noted(world, old, state=OrderState.CANCELLED)
    assert problem(await amend(world, old["order"], size="1"))["code"] == "order_not_pending"


async def test_the_deployed_revision_has_no_second_order_to_follow(world: World, wallet: Keypair) -> None:
    old = await world.resting(wallet)
    ports = replace(world.ports, program=DEPLOYED, metrics=CollectorRegistry())
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        refused = await http.post(f"/v1/orders/{old['order']}/amend", json={"size": "1"})
    assert (refused.status_code, problem(refused)["code"]) == (409, "order_exists")


async def test_the_same_amend_again_is_the_same_transaction(world: World, wallet: Keypair) -> None:
    old = await world.resting(wallet)
    headers = {"Idempotency-Key": "one"}
    path = f"/v1/orders/{old['order']}/amend"
    first, again = [await world.http.post(path, json={"size": "1"}, headers=headers) for _ in range(2)]
    assert first.content == again.content
    assert again.headers["idempotency-replayed"] == "true"
    other = await world.http.post(path, json={"size": "2"}, headers=headers)
    assert problem(other)["code"] == "idempotency_key_reused"


@pytest.mark.parametrize("keep", [[0, 2], [0, 1], [0, 2, 1], [0, 1, 1, 2], [0, 1, 2, 2]])
async def test_only_the_whole_of_an_amend_is_relayed(world: World, wallet: Keypair, keep: list[int]) -> None:
    """One that lost its cancel would leave two orders; one that lost its order, none."""
    old = await world.resting(wallet)
    prepared = (await amend(world, old["order"], size="1")).json()
    whole = VersionedTransaction.from_bytes(base64.b64decode(prepared["transaction"])).message
    assert isinstance(whole, Message)
    changed = Message.new_with_compiled_instructions(
        whole.header.num_required_signatures,
        whole.header.num_readonly_signed_accounts,
        whole.header.num_readonly_unsigned_accounts,
        whole.account_keys,
        whole.recent_blockhash,
        [whole.instructions[n] for n in keep],
    )
    refused = await world.execute(prepared["id"], bytes(VersionedTransaction(changed, [wallet])))
    assert problem(refused)["code"] in ("instruction_count", "other_instruction")
    assert (await world.execute(prepared["id"], signed(prepared, wallet))).status_code == 202


# --- cancel all


async def cancel_all(world: World, wallet: Keypair, **body: Any) -> dict[str, Any]:
    answer = await world.http.post("/v1/orders/cancel-all", json={"user": str(wallet.pubkey()), **body})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_all_orders_of_a_wallet_are_cancelled_by_as_few_transactions_as_carry_them(
    world: World, wallet: Keypair
) -> None:
    count = MOST_CANCELS + 3
    orders = [await world.resting(wallet) for _ in range(count)]
    others = await world.resting(world.trader())
    await noted(world, *orders, others)
    found = await cancel_all(world, wallet, **{BID: 3})
    assert (found["user"], found["more"]) == (str(wallet.pubkey()), False)
    assert [len(one["cancels"]) for one in found["transactions"]] == [MOST_CANCELS, 3]
    assert {order for one in found["transactions"] for order in one["cancels"]} == {one["order"] for one in orders}
    for one in found["transactions"]:
        wire = signed(one, wallet)
        assert len(wire) < MAX_WIRE_BYTES - 250, "there is room for what a wallet puts in"
        assert bid_of(one)[3] == 3
        answer = await world.execute(one["id"], wire)
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
    for one in orders:
        row = (await world.http.get(f"/v1/orders/{one['order']}")).json()
        assert row["status"] == "cancelling"
    landed(world)
    assert {on_chain(world, one["order"]).status for one in orders} == {OnchainStatus.CANCELLED}
    assert on_chain(world, others["order"]).status is OnchainStatus.PENDING
    assert (await cancel_all(world, wallet))["transactions"] == [], "they are being cancelled"


async def test_cancel_all_looks_at_market_and_type(world: World, wallet: Keypair) -> None:
    stop, limit = (
        await world.resting(wallet),
        await world.resting(wallet, order_type="limit", limit_price="99", trigger_price=None),
    )
    await noted(world, stop, limit)
    for filters, expected in (
        ({"order_type": "limit"}, {limit["order"]}),
        ({"market": "SOL/USDC"}, {stop["order"], limit["order"]}),
        ({"market": stop["summary"]["market_address"], "order_type": "stop_loss"}, {stop["order"]}),
        ({"market": str(Pubkey.new_unique())}, set()),
    ):
        found = await cancel_all(world, wallet, **filters)
        assert {order for one in found["transactions"] for order in one["cancels"]} == expected
    refused = await world.http.post("/v1/orders/cancel-all", json={"user": str(wallet.pubkey()), "market": "A/B"})
    assert problem(refused)["code"] == "unknown_market"


async def test_an_order_that_is_being_executed_takes_no_other_cancel_along(world: World, wallet: Keypair) -> None:
    orders = [await world.resting(wallet) for _ in range(3)]
    await noted(world, *orders)
    await world.journal.commit(NoteState(Pubkey.from_string(orders[1]["order"]), OrderState.EXECUTING, "Now."))
    found = await cancel_all(world, wallet)
    assert [one["cancels"] for one in found["transactions"]] == [
        [orders[1]["order"]],
        [orders[2]["order"], orders[0]["order"]],
    ]


async def test_what_cancel_all_hands_out_is_bounded_and_paid_for(world: World, wallet: Keypair) -> None:
    placed = await world.resting(wallet)
    order = on_chain(world, placed["order"])
    copies = [order._replace(address=Pubkey.new_unique()) for _ in range(130)]
    await world.journal.commit(*(NoteOrder(copy, OrderState.EXECUTING, "Now.") for copy in copies))
    found = await cancel_all(world, wallet)
    assert (len(found["transactions"]), found["more"]) == (32, True)
    ports = replace(
        world.ports, limits=replace(LIMITS, requests_per_s=0.001, burst=10 * WRITE), metrics=CollectorRegistry()
    )
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.post("/v1/orders/cancel-all", json={"user": str(wallet.pubkey())})).status_code == 201
        assert (await http.get("/v1/markets")).status_code == 429, "32 rows are 32 times a row's cost"
