"""What a script needs: answers that wait, links to the next page, filters; and what is nobody else's to read."""

from __future__ import annotations

import base64
import time
from typing import Any

import anyio
import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptState, Fate
from keeper.domain.orders import OrderState
from keeper.journal import MoveAttempt, NoteState
from tests.http.http_world import World, problem, signed
from tests.http.test_history import executed

pytestmark = pytest.mark.anyio


async def test_a_relay_may_wait_for_what_becomes_of_the_order(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet)
    body = {"id": prepared["id"], "signed_transaction": base64.b64encode(signed(prepared, wallet)).decode()}
    answers = []

    async def relay() -> None:
        answers.append(await world.http.post("/v1/orders/execute", params={"wait_s": "20"}, json=body))

    async with anyio.create_task_group() as tg:
        tg.start_soon(relay)
        order = Pubkey.from_string(prepared["order"])
        with anyio.fail_after(10):
            seen = world.journal.last_change_id
            while (row := await world.journal.order(order)) is None or row.state is not OrderState.SUBMITTED:
                seen = await world.journal.changed(seen)
        await world.journal.commit(NoteState(order, OrderState.OPEN, "It rests."))
    (answer,) = answers
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["status_reason"]) == ("open", "It rests.")
    assert answer.headers["location"] == f"/v1/orders/{prepared['order']}"


async def test_a_relay_that_waits_in_vain_says_that_it_is_under_way(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet)
    body = {"id": prepared["id"], "signed_transaction": base64.b64encode(signed(prepared, wallet)).decode()}
    answer = await world.http.post("/v1/orders/execute", params={"wait_s": "0.05"}, json=body)
    assert (answer.status_code, answer.json()["status"]) == (202, "submitted")


async def test_the_next_page_is_a_link(world: World, wallet: Keypair) -> None:
    made = [(await world.noted(wallet))["order"] for _ in range(5)]
    seen: list[str] = []
    link: str | None = f"/v1/orders?user={wallet.pubkey()}&status=submitted&limit=2"
    while link is not None:
        page = (await world.http.get(link)).json()
        seen += [order["order"] for order in page["orders"]]
        link = page["next"]
    assert seen == made[::-1]


async def test_what_a_user_calls_an_order_is_told_to_nobody_else(world: World, wallet: Keypair) -> None:
    secret = f"for-the-divorce-{wallet.pubkey()}"[:64]
    order = (await world.noted(wallet, client_order_id=secret))["order"]
    await world.place(wallet, order_id="77")
    listed = await world.http.get("/v1/orders", params={"user": str(wallet.pubkey())})
    detail = await world.http.get(f"/v1/orders/{order}")
    async with world.http.stream("GET", "/v1/orders/stream", params={"user": str(wallet.pubkey())}) as stream:
        with anyio.fail_after(5):
            lines = stream.aiter_lines()
            snapshot = ""
            while "snapshot" not in snapshot or order not in snapshot:
                snapshot += await anext(lines)
    for text in (listed.text, detail.text, snapshot):
        assert order in text
        assert secret not in text
    (mine,) = (await world.http.get("/v1/orders", params={"client_order_id": secret})).json()["orders"]
    assert (mine["order"], mine["client_order_id"]) == (order, secret)


async def test_a_cancel_does_not_tell_what_its_user_calls_the_order(world: World, wallet: Keypair) -> None:
    placed = await world.place(wallet, client_order_id="not-yours")
    assert "not-yours" not in (await world.http.post(f"/v1/orders/{placed['order']}/cancel")).text


async def test_orders_of_a_type(world: World, wallet: Keypair) -> None:
    """Of many others, and with pages that go on where the looking ended."""
    rare = (await world.noted(wallet, order_type="take_profit"))["order"]
    for _ in range(3):
        await world.noted(wallet)
    filters = {"user": str(wallet.pubkey()), "market": "SOL/USDC"}
    page = (await world.http.get("/v1/orders", params={**filters, "order_type": "take_profit"})).json()
    assert [order["order"] for order in page["orders"]] == [rare]
    assert page["next"] is None
    of_one: dict[str, str | int] = {**filters, "order_type": "stop_loss", "limit": 2}
    first = (await world.http.get("/v1/orders", params=of_one)).json()
    second = (await world.http.get(first["next"])).json()
    assert [len(page["orders"]) for page in (first, second)] == [2, 1]
    assert {order["order_type"] for page in (first, second) for order in page["orders"]} == {"stop_loss"}
    assert problem(await world.http.get("/v1/orders", params={"order_type": "wish"}))["field"] == "order_type"


async def test_executions_and_failures_of_a_market_and_a_type(world: World, wallet: Keypair) -> None:
    order, _ = await executed(world, wallet, Fate.CANNOT_PAY, error_name="InsufficientCollateral", ended_at=time.time())
    await world.journal.commit(NoteState(Pubkey.from_string(order), OrderState.FAILED, "The wallet can't pay."))
    elsewhere = {"market": str(Pubkey.new_unique())}
    for path, key in (("/v1/executions", "executions"), ("/v1/failures", "failures")):
        here = {"market": "SOL/USDC", "order_type": "stop_loss"}
        assert order in {found["order"] for found in (await world.http.get(path, params=here)).json()[key]}
        assert (await world.http.get(path, params=elsewhere)).json()[key] == []
        other = {"order_type": "trailing_stop"}
        assert order not in {found["order"] for found in (await world.http.get(path, params=other)).json()[key]}


async def test_a_lost_race_of_two_cancels_is_no_failure_of_the_keepers(world: World, wallet: Keypair) -> None:
    placed = await world.place(wallet)
    (relayed,) = await world.journal.attempts_of(Pubkey.from_string(placed["order"]))
    lost: dict[str, Any] = {"fate": Fate.REFUSED, "error_name": "OrderNotPending", "ended_at": time.time()}
    await world.journal.commit(MoveAttempt(relayed.signature, AttemptState.FAILED, **lost))
    failures = (await world.http.get("/v1/failures", params={"limit": 100})).json()["failures"]
    assert placed["order"] not in {failure["order"] for failure in failures}
