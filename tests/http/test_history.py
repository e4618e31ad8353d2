"""The keeper itself, its executions and its failures; the files of the pages."""

from __future__ import annotations

import time
from typing import Any

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.orders import OrderState
from keeper.journal import AddAttempt, MoveAttempt, NoteState
from tests.http.http_world import KEEPER, World, problem, signed

pytestmark = pytest.mark.anyio


async def executed(
    world: World, wallet: Keypair, fate: Fate, *, triggered_after_s: float = -0.01, **patch: Any
) -> tuple[str, Attempt]:
    """An order with one attempt that ended so. What was armed was signed before its order was triggered."""
    prepared = await world.noted(wallet)
    order = Pubkey.from_string(prepared["order"])
    attempt = Attempt(
        signature=Signature.new_unique(),
        kind=AttemptKind.EXECUTE,
        order=order,
        wire=b"x",
        blockhash="h",
        last_valid_block_height=9,
        state=AttemptState.SIGNED,
        number=1,
        signed_at=time.time(),
    )
    await world.journal.commit(
        NoteState(order, OrderState.TRIGGERED, "met", triggered_at=attempt.signed_at + triggered_after_s),
        AddAttempt(attempt),
    )
    state = AttemptState.FINALIZED if fate is Fate.EXECUTED else AttemptState.FAILED
    if fate is Fate.EXECUTED:
        patch = {"confirmed_at": attempt.signed_at + 0.2, **patch}
    await world.journal.commit(MoveAttempt(attempt.signature, state, fate=fate, **patch))
    return prepared["order"], attempt


async def test_an_execution_that_was_armed_has_its_latency(world: World, wallet: Keypair) -> None:
    await executed(world, wallet, Fate.EXECUTED, triggered_after_s=0.1)
    (armed,) = (await world.http.get("/v1/executions", params={"limit": 1})).json()["executions"]
    assert armed["latency_ms"] in (99, 100, 101)


async def test_executions_with_their_latency(world: World, wallet: Keypair) -> None:
    order, attempt = await executed(world, wallet, Fate.EXECUTED, seen_slot=7)
    newest = (await world.http.get("/v1/executions", params={"limit": 1})).json()
    (found,) = newest["executions"]
    assert (found["order"], found["signature"], found["market"]) == (order, str(attempt.signature), "SOL/USDC")
    assert (found["order_type"], found["side"], found["size"], found["fate"]) == (
        "stop_loss",
        "long",
        "2.5",
        "executed",
    )
    assert found["latency_ms"] in (209, 210, 211)
    refused, _ = await executed(world, wallet, Fate.REFUSED, error_name="InvalidSize", ended_at=time.time())
    only = (await world.http.get("/v1/executions", params={"outcome": "refused"})).json()["executions"]
    assert [(e["order"], e["error"]["name"], e["latency_ms"]) for e in only] == [(refused, "InvalidSize", None)]
    page = (await world.http.get("/v1/executions", params={"limit": 1})).json()
    rest = (await world.http.get("/v1/executions", params={"cursor": page["cursor"], "limit": 1})).json()
    assert rest["executions"][0]["order"] == order
    assert (await world.http.get("/v1/executions", params={"since": time.time() + 60})).json()["executions"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [({"outcome": "won"}, "outcome"), ({"cursor": "no"}, "cursor"), ({"limit": 0}, "limit"), ({"since": "x"}, "since")],
)
async def test_executions_that_cannot_be_asked_for(world: World, query: dict[str, Any], field: str) -> None:
    assert problem(await world.http.get("/v1/executions", params=query))["field"] == field


async def test_failures_with_their_reasons(world: World, wallet: Keypair) -> None:
    order, _ = await executed(world, wallet, Fate.CANNOT_PAY, error_name="InsufficientCollateral", ended_at=time.time())
    await world.journal.commit(NoteState(Pubkey.from_string(order), OrderState.FAILED, "The wallet can't pay."))
    found = (await world.http.get("/v1/failures", params={"limit": 1})).json()["failures"][0]
    assert (found["order"], found["status"], found["reason"]) == (order, "failed", "The wallet can't pay.")
    assert [a["error"]["name"] for a in found["attempts"]] == ["InsufficientCollateral"]
    assert "wire" not in found["attempts"][0]


async def test_the_keeper_itself(world: World, wallet: Keypair) -> None:
    before = (await world.http.get("/v1/keeper")).json()
    assert (before["keeper"], before["program"]) == (str(KEEPER.pubkey()), str(world.program.id))
    assert "trailing_stop" in before["executes"]
    prepared = await world.noted(wallet)
    await world.execute(prepared["id"], signed(prepared, wallet))
    after = (await world.http.get("/v1/keeper")).json()
    gained = {o["status"]: o["orders"] - b["orders"] for o, b in zip(after["orders"], before["orders"], strict=True)}
    assert {state: n for state, n in gained.items() if n} == {"submitted": 1}


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/", "text/html"), ("/docs", "text/html"), ("/page/main.js", "text/javascript"), ("/page/icon.svg", "image/svg")],
)
async def test_the_pages_files_come_with_a_strict_policy(world: World, path: str, media_type: str) -> None:
    answer = await world.http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(media_type)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    same = await world.http.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/__init__.py", "/page/..%2f__init__.py"])
async def test_what_is_no_file_of_the_page(world: World, path: str) -> None:
    assert problem(await world.http.get(path))["code"] == "not_found"
