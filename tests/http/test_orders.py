"""Preparing, relaying, cancelling and seeing orders, against the embedded chain."""

from __future__ import annotations

import base64
import datetime as dt
import time
from typing import Any

import anyio
import httpx
import pytest
from solders.compute_budget import set_compute_unit_price
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.orders import OnchainStatus, Order, OrderState, OrderType, Side
from keeper.journal import NoteOrder
from keeper.venue.venue import decode_order
from tests.http.http_world import LIVES_S, World, problem, signed

pytestmark = pytest.mark.anyio


def on_chain(world: World, order: str) -> Order:
    address = Pubkey.from_string(order)
    account = world.net.bank.account(address)
    assert account is not None
    return decode_order(address, bytes(account.data), 1)


async def test_an_order_goes_from_words_to_the_chain(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet, client_order_id="mine-1")
    assert prepared["kind"] == "place"
    assert prepared["summary"]["size"] == "2.5"
    assert prepared["summary"]["trigger_price"] == "95.5"
    assert prepared["summary"]["market"] == "SOL/USDC"
    assert prepared["order_id"] == prepared["summary"]["order_id"]

    seen = (await world.http.get(f"/v1/orders/{prepared['order']}")).json()
    assert (seen["status"], seen["onchain_status"], seen["slot"]) == ("prepared", None, None)
    assert prepared["summary"]["client_order_id"] == "mine-1"

    answer = await world.execute(prepared["id"], signed(prepared, wallet))
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/orders/{prepared['order']}"
    assert answer.json()["status"] == "submitted"

    order = on_chain(world, prepared["order"])
    assert (order.order_type, order.side, order.status) == (OrderType.STOP_LOSS, Side.LONG, OnchainStatus.PENDING)
    assert (order.size_1e6, order.stop_price_1e6, order.leverage) == (2_500_000, 95_500_000, 5)
    assert order.order_id == int(prepared["order_id"])

    seen = (await world.http.get(answer.headers["location"])).json()
    assert seen["status"] == "submitted"
    assert seen["status_reason"]
    (attempt,) = seen["attempts"]
    assert attempt["signature"] == answer.json()["signature"]
    assert (attempt["kind"], attempt["error"]) == ("relay", None)
    assert attempt["state"] in ("signed", "sent")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"order_type": "take_profit", "side": "short"}, {"order_type": OrderType.TAKE_PROFIT, "side": Side.SHORT}),
        ({"order_type": "stop_limit", "limit_price": "94"}, {"price_1e6": 94_000_000, "stop_price_1e6": 95_500_000}),
        ({"order_type": "limit", "limit_price": "98.123456", "trigger_price": None}, {"price_1e6": 98_123_456}),
        ({"order_type": "limit", "limit_price": "110", "trigger_price": None}, {"price_1e6": 110_000_000}),
        ({"order_type": "limit", "limit_price": "90.00", "trigger_price": None}, {"price_1e6": 90_000_000}),
        (
            {"order_type": "trailing_stop", "trailing_distance": "0.05", "trigger_price": None},
            {"trailing_distance_ppm": 50_000, "stop_price_1e6": 95_000_000},
        ),
        (
            {"order_type": "trailing_stop", "trailing_distance": "1"},
            {"trailing_distance_ppm": 1_000_000, "stop_price_1e6": 95_500_000},
        ),
        ({"size": "1000"}, {"size_1e6": 1_000_000_000}),
        ({"size": "0.000001"}, {"size_1e6": 1}),
        ({"leverage": 20}, {"leverage": 20}),
        ({"leverage": None}, {"leverage": 1}),
        ({"expires_at": 0}, {"expires_at": 0}),
        ({"order_id": "18446744073709551615"}, {"order_id": 2**64 - 1}),
    ],
)
async def test_every_type_and_bound_that_the_program_takes(
    world: World, wallet: Keypair, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    world.set_price(100_000_000)
    order = on_chain(world, (await world.place(wallet, **changes))["order"])
    assert {name: getattr(order, name) for name in expected} == expected


async def test_until_when_to_sign_follows_the_pace_of_blocks(world: World, wallet: Keypair) -> None:
    before = int(time.time())
    answer = await world.http.post("/v1/orders", json=world.body(wallet))
    assert before + LIVES_S <= answer.json()["sign_before"] <= time.time() + LIVES_S


async def test_an_expiry_in_either_form(world: World, wallet: Keypair) -> None:
    seconds = int(world.desk.chain_time_s() or 0) + 86_400
    text = await world.place(wallet, expires_at=_rfc3339(seconds))
    number = await world.place(wallet, expires_at=seconds)
    assert on_chain(world, text["order"]).expires_at == on_chain(world, number["order"]).expires_at == seconds
    assert text["summary"]["expires_at"] == seconds


def _rfc3339(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.timezone(dt.timedelta(hours=2))).isoformat()


# --- the Idempotency-Key


async def test_the_same_key_and_body_get_the_same_answer(world: World, wallet: Keypair) -> None:
    headers = {"Idempotency-Key": f"key-{wallet.pubkey()}"}
    body = world.body(wallet)
    first = await world.http.post("/v1/orders", json=body, headers=headers)
    # Another order of the keys, and the draft standard's quotes, are still the same request.
    again = await world.http.post(
        "/v1/orders",
        json=dict(reversed(body.items())),
        headers={"Idempotency-Key": f'"{headers["Idempotency-Key"]}"'},
    )
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


async def test_two_at_once_get_one_order(world: World, wallet: Keypair) -> None:
    headers = {"Idempotency-Key": f"race-{wallet.pubkey()}"}
    answers: list[httpx.Response] = []

    async def post() -> None:
        answers.append(await world.http.post("/v1/orders", json=world.body(wallet), headers=headers))

    async with anyio.create_task_group() as tg:
        for _ in range(8):
            tg.start_soon(post)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len(await world.journal.prepared_of(Pubkey.from_string(answers[0].json()["order"]))) == 1


async def test_another_body_with_the_same_key_is_refused(world: World, wallet: Keypair) -> None:
    headers = {"Idempotency-Key": f"reused-{wallet.pubkey()}"}
    assert (await world.http.post("/v1/orders", json=world.body(wallet), headers=headers)).status_code == 201
    answer = await world.http.post("/v1/orders", json=world.body(wallet, size="3"), headers=headers)
    assert problem(answer)["code"] == "idempotency_key_reused"
    assert answer.status_code == 422


@pytest.mark.parametrize("key", ["", "with space", "x" * 256, "é"])
async def test_a_key_that_is_none(world: World, wallet: Keypair, key: str) -> None:
    answer = await world.http.post("/v1/orders", json=world.body(wallet), headers={b"Idempotency-Key": key.encode()})
    assert problem(answer)["code"] == "invalid_idempotency_key"


# --- relaying


async def test_the_same_bytes_twice_get_the_same_answer_and_one_submission(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet)
    wire = signed(prepared, wallet)
    before = len(world.relay.submitted)
    answers: list[httpx.Response] = []

    async def execute() -> None:
        answers.append(await world.execute(prepared["id"], wire))

    async with anyio.create_task_group() as tg:
        for _ in range(5):
            tg.start_soon(execute)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert world.relay.submitted[before:] == [wire]


async def test_a_wallet_may_bid_a_fee_but_only_once(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet)
    assert (await world.execute(prepared["id"], signed(prepared, wallet))).status_code == 202
    message = VersionedTransaction.from_bytes(base64.b64decode(prepared["transaction"])).message
    assert isinstance(message, Message)
    bid = set_compute_unit_price(5)
    instructions = [bid, *_instructions(message)]
    other = Message.new_with_blockhash(instructions, wallet.pubkey(), message.recent_blockhash)
    answer = await world.execute(prepared["id"], bytes(VersionedTransaction(other, [wallet])))
    assert answer.status_code == 409
    assert problem(answer)["code"] == "already_submitted"


def _instructions(message: Message) -> list[Instruction]:
    keys, header = message.account_keys, message.header
    readonly_from = len(keys) - header.num_readonly_unsigned_accounts
    return [
        Instruction(
            keys[ix.program_id_index],
            bytes(ix.data),
            [AccountMeta(keys[i], i == 0, i < readonly_from) for i in bytes(ix.accounts)],
        )
        for ix in message.instructions
    ]


async def test_what_the_checks_refuse_comes_back_by_its_code(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet)
    unsigned = base64.b64decode(prepared["transaction"])
    answer = await world.execute(prepared["id"], unsigned)
    assert problem(answer)["code"] == "not_signed"
    assert problem(answer)["field"] == "signed_transaction"
    stranger = VersionedTransaction.from_bytes(unsigned).message
    forged = bytes([1]) + bytes(Keypair().sign_message(bytes(stranger))) + bytes(stranger)
    assert problem(await world.execute(prepared["id"], forged))["code"] == "bad_signature"
    assert problem(await world.execute(prepared["id"], b"\x01\x02"))["code"] == "undecodable"
    assert not any(wire[65:] == unsigned[65:] for wire in world.relay.submitted)


async def test_another_users_prepared_transaction_is_not_signed_by_me(world: World, wallet: Keypair) -> None:
    mine, theirs = await world.prepare(wallet), await world.prepare(world.trader())
    answer = await world.execute(theirs["id"], signed(mine, wallet))
    assert problem(answer)["code"] == "fee_payer"


@pytest.mark.parametrize("text", ["not base64!", "AAA", "é", "A" * 1_640 + "===="])
async def test_base64_is_strict(world: World, wallet: Keypair, text: str) -> None:
    prepared = await world.prepare(wallet)
    answer = await world.http.post("/v1/orders/execute", json={"id": prepared["id"], "signed_transaction": text})
    assert answer.status_code == 422
    assert problem(answer)["field"] == "signed_transaction"


async def test_an_unknown_id(world: World, wallet: Keypair) -> None:
    wire = signed(await world.prepare(wallet), wallet)
    answer = await world.execute("nothing", wire)
    assert answer.status_code == 404
    assert problem(answer)["code"] == "prepared_not_found"
    assert problem(answer)["field"] == "id"


async def test_a_signature_that_came_too_late(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet)
    for _ in range(160):
        world.net.bank.advance()
    answer = await world.execute(prepared["id"], signed(prepared, wallet))
    assert answer.status_code == 409
    assert problem(answer)["code"] == "blockhash_expired"
    assert (await world.http.get(f"/v1/orders/{prepared['order']}")).json()["status"] == "prepared"


async def test_a_simulation_that_fails_names_the_programs_error(world: World, wallet: Keypair) -> None:
    """The price moved between preparing and signing, so that the program refuses the limit."""
    prepared = await world.prepare(wallet, order_type="limit", limit_price="109", trigger_price=None)
    world.set_price(80_000_000)
    answer = await world.execute(prepared["id"], signed(prepared, wallet))
    world.set_price(100_000_000)
    document = problem(answer)
    assert (document["code"], document["field"]) == ("price_too_high", "limit_price")
    assert document["error"]["name"] == "PriceTooHigh"
    assert document["error"]["program"] == str(world.program.id)


async def test_a_wallet_without_money_is_told_so(world: World) -> None:
    poor = Keypair()
    prepared = await world.prepare(poor)
    assert problem(await world.execute(prepared["id"], signed(prepared, poor)))["code"] == "insufficient_funds"


async def test_what_the_wallet_sent_by_itself_is_still_accepted(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet)
    wire = signed(prepared, wallet)
    world.net.bank.land(VersionedTransaction.from_bytes(wire))
    assert (await world.execute(prepared["id"], wire)).status_code == 202


async def test_an_id_that_is_taken(world: World, wallet: Keypair) -> None:
    await world.place(wallet, order_id="7")
    answer = await world.http.post("/v1/orders", json=world.body(wallet, order_id="7"))
    assert answer.status_code == 409
    assert (problem(answer)["code"], problem(answer)["field"]) == ("order_exists", "order_id")


# --- cancelling


async def test_a_cancel_goes_the_same_way(world: World, wallet: Keypair) -> None:
    placed = await world.resting(wallet)
    answer = await world.http.post(f"/v1/orders/{placed['order']}/cancel")
    assert answer.status_code == 201
    prepared = answer.json()
    assert (prepared["kind"], prepared["order"]) == ("cancel", placed["order"])
    assert prepared["summary"]["size"] == "2.5"
    done = await world.execute(prepared["id"], signed(prepared, wallet))
    assert (done.status_code, done.json()["status"]) == (202, "cancelling")
    assert on_chain(world, placed["order"]).status is OnchainStatus.CANCELLED
    await world.journal.commit(NoteOrder(on_chain(world, placed["order"])._replace(slot=world.desk.slot + 1)))
    again = await world.http.post(f"/v1/orders/{placed['order']}/cancel", json={})
    assert (again.status_code, problem(again)["code"]) == (409, "order_not_pending")


async def test_a_cancel_with_a_key_is_repeated(world: World, wallet: Keypair) -> None:
    placed = await world.resting(wallet)
    path, headers = f"/v1/orders/{placed['order']}/cancel", {"Idempotency-Key": f"cancel-{placed['order']}"}
    first, again = [await world.http.post(path, headers=headers) for _ in range(2)]
    assert first.content == again.content
    place = await world.http.post("/v1/orders", json=world.body(wallet), headers=headers)
    assert problem(place)["code"] == "idempotency_key_reused"


async def test_a_key_is_one_operations_on_one_order(world: World, wallet: Keypair) -> None:
    """A cancel that is answered with another request's transaction leaves its order to be executed."""
    first, second = [await world.resting(wallet) for _ in range(2)]
    headers = {"Idempotency-Key": f"one-{wallet.pubkey()}"}
    placed = await world.http.post("/v1/orders", json=world.body(wallet), headers=headers)
    assert placed.status_code == 201
    cancels = {"Idempotency-Key": f"other-{wallet.pubkey()}"}
    assert (await world.http.post(f"/v1/orders/{first['order']}/cancel", headers=cancels)).status_code == 201
    for order, key in (
        (first["order"], headers),
        (second["order"], headers),
        (second["order"], cancels),
    ):
        refused = await world.http.post(f"/v1/orders/{order}/cancel", headers=key)
        assert (refused.status_code, problem(refused)["code"]) == (422, "idempotency_key_reused")


async def test_what_cannot_be_cancelled(world: World, wallet: Keypair) -> None:
    nowhere = await world.http.post(f"/v1/orders/{Pubkey.new_unique()}/cancel")
    assert (nowhere.status_code, problem(nowhere)["code"]) == (404, "order_not_found")
    no_order = await world.http.post(f"/v1/orders/{world.program.market_address('SOL', 'USDC')}/cancel")
    assert problem(no_order)["code"] == "order_not_found"
    unsigned = await world.prepare(wallet)
    not_yet = await world.http.post(f"/v1/orders/{unsigned['order']}/cancel")
    assert (not_yet.status_code, problem(not_yet)["code"]) == (404, "order_not_found")
    submitted = await world.noted(wallet)
    not_yet = await world.http.post(f"/v1/orders/{submitted['order']}/cancel")
    assert (not_yet.status_code, problem(not_yet)["code"]) == (409, "order_not_pending")


async def test_a_cancel_signed_by_someone_else_is_refused(world: World, wallet: Keypair) -> None:
    placed = await world.resting(wallet)
    prepared = (await world.http.post(f"/v1/orders/{placed['order']}/cancel")).json()
    message = VersionedTransaction.from_bytes(base64.b64decode(prepared["transaction"])).message
    forged = bytes([1]) + bytes(Keypair().sign_message(bytes(message))) + bytes(message)
    assert problem(await world.execute(prepared["id"], forged))["code"] == "bad_signature"
    seen = (await world.http.get(f"/v1/orders/{placed['order']}")).json()
    assert seen["status"] == "submitted"


# --- seeing


async def test_an_etag_spares_what_did_not_change(world: World, wallet: Keypair) -> None:
    path = f"/v1/orders/{(await world.prepare(wallet))['order']}"
    first = await world.http.get(path)
    tag = first.headers["etag"]
    for value in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        same = await world.http.get(path, headers={"If-None-Match": value})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    other = await world.http.get(path, headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.content) == (200, first.content)


async def test_why_an_order_rests_is_the_desks_to_say(world: World, wallet: Keypair) -> None:
    placed = await world.place(wallet)
    address = Pubkey.from_string(placed["order"])
    await world.journal.commit(NoteOrder(on_chain(world, placed["order"])))
    assert (await world.http.get(f"/v1/orders/{address}")).json()["status"] in ("open", "submitted")
    await world.journal.commit(NoteOrder(on_chain(world, placed["order"]), state=OrderState.OPEN))
    world.desk.reasons[address] = "The price is 100, its trigger 95.5."
    seen = await world.http.get(f"/v1/orders/{address}")
    assert (seen.json()["status"], seen.json()["status_reason"]) == ("open", "The price is 100, its trigger 95.5.")
    have = {"If-None-Match": seen.headers["etag"]}
    world.desk.reasons[address] = "The price is 99, its trigger 95.5."
    assert (await world.http.get(f"/v1/orders/{address}", headers=have)).status_code == 304
    world.desk.reasons[address] = "The price is 61 s old."
    assert (await world.http.get(f"/v1/orders/{address}", headers=have)).status_code == 200


async def test_an_order_that_only_the_book_knows_yet(world: World, wallet: Keypair) -> None:
    order_id = 4711
    address = world.program.order_address(wallet.pubkey(), order_id)
    accounts = {"market": world.program.market_address("SOL", "USDC"), "order": address, "user": wallet.pubkey()}
    arguments = {name: 0 for name, _ in world.program.idl.instruction("place_order").args}
    arguments |= {"order_id": order_id, "order_type": 2, "size": 1_000_000, "stop_price": 90_000_000, "leverage": 2}
    world.land(world.program.instruction("place_order", arguments, accounts), signer=wallet)
    assert (await world.http.get(f"/v1/orders/{address}")).status_code == 404
    world.desk.known.add(address)
    seen = (await world.http.get(f"/v1/orders/{address}")).json()
    assert (seen["status"], seen["onchain_status"], seen["size"]) == ("open", "pending", "1")
    # And it can be cancelled, though the journal never heard of it.
    world.net.bank.advance()
    prepared = (await world.http.post(f"/v1/orders/{address}/cancel")).json()
    assert (await world.execute(prepared["id"], signed(prepared, wallet))).status_code == 202


async def test_a_list_with_filters_and_a_cursor(world: World, wallet: Keypair) -> None:
    made = [(await world.noted(wallet, client_order_id=f"n{i}"))["order"] for i in range(5)]
    user = str(wallet.pubkey())

    async def listed(**params: Any) -> dict[str, Any]:
        answer = await world.http.get("/v1/orders", params={"user": user, **params})
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    page = await listed(limit=2)
    seen = [order["order"] for order in page["orders"]]
    while page["cursor"]:
        page = await listed(limit=2, cursor=page["cursor"])
        seen += [order["order"] for order in page["orders"]]
    assert seen == made[::-1]
    assert [o["order"] for o in (await listed(client_order_id="n3"))["orders"]] == [made[3]]
    assert len((await listed(status="active", market="SOL/USDC"))["orders"]) == 5
    assert len((await listed(status="submitted,open"))["orders"]) == 5
    assert (await listed(status="history"))["orders"] == []
    assert (await listed(market=str(Pubkey.new_unique())))["orders"] == []


@pytest.mark.parametrize(
    ("params", "code", "field"),
    [
        ({"status": "resting"}, "invalid_field", "status"),
        ({"limit": "0"}, "invalid_field", "limit"),
        ({"limit": "many"}, "invalid_field", "limit"),
        ({"user": "me"}, "invalid_field", "user"),
        ({"market": "NO/MARKET"}, "unknown_market", "market"),
        ({"market": "nothing"}, "invalid_field", "market"),
        ({"cursor": "!"}, "invalid_cursor", "cursor"),
        ({"staus": "open"}, "unknown_field", "staus"),
        ([("user", "a"), ("user", "b")], "invalid_field", "user"),
    ],
)
async def test_a_filter_that_is_none(world: World, params: Any, code: str, field: str) -> None:
    answer = await world.http.get("/v1/orders", params=params)
    assert (problem(answer)["code"], problem(answer)["field"]) == (code, field)


async def test_an_order_that_nobody_knows(world: World) -> None:
    answer = await world.http.get(f"/v1/orders/{Pubkey.new_unique()}")
    assert (answer.status_code, problem(answer)["code"]) == (404, "order_not_found")
    assert problem(await world.http.get("/v1/orders/l0O"))["field"] == "order"
