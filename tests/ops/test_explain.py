"""`keeper explain`: one order's whole story, from whichever of journal, chain and keeper is there."""

from __future__ import annotations

import json
import socket
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair

from keeper.domain.attempts import AttemptKind, AttemptState, Fate
from keeper.domain.errors import KeeperError
from keeper.domain.orders import OrderState
from keeper.journal import AddAttempt, AddPrepared, Journal, MoveAttempt, NoteOrder
from keeper.localnet import Commitment
from tests.behaviours.edited_node import EditedNode
from tests.journal.journal_making import key, make_attempt, make_order, make_prepared
from tests.ops.test_operators_commands import keeper_command
from tests.support import KeeperConfig, KeeperProcess, World, until

pytestmark = pytest.mark.anyio


async def explained(config: KeeperConfig, order: object) -> dict[str, Any]:
    """What it says of the order, as JSON."""
    result = await keeper_command("explain", str(order), "--config", str(config.file), "--json")
    if result.exception is not None:
        raise result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def beside(world: World, folder: Path) -> KeeperConfig:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return KeeperConfig.beside(world, folder, http={"port": free.getsockname()[1]})


async def test_an_order_from_its_placing_to_its_fill(world: World, tmp_path: Path) -> None:
    config = beside(world, tmp_path)
    market, trader = world.market(), world.trader()
    order, later = (world.place(trader, market, stop_price_1e6=stop) for stop in (98_000_000, 90_000_000))
    async with KeeperProcess.running(config):
        with config.reading() as journal:  # what rests is noted after it is ready
            await until(lambda: journal.order(order) and journal.order(later))
        story = await explained(config, order)
        assert (story["state"], story["waits_for_by"], story["missing"]) == ("open", "keeper", {})
        assert story["waits_for"] == "The order fires at or below 98; the price is 100, 2 (2.00 %) away."
        world.set_price(market, 97_000_000)
        with config.reading() as journal:
            await until(lambda: any(a.state is AttemptState.FINALIZED for a in journal.attempts_of(order)))

        story = await explained(config, order)
        assert (story["type"], story["side"], story["size"], story["fires"]) == (
            "stop_loss",
            "long",
            "1",
            "at or below",
        )
        assert [(p["what"], p["price"]) for p in story["prices"]] == [
            ("trigger", "98"),
            ("decided attempt 1", "97"),
            ("entry of the position", "97"),
            ("now", "97"),
        ]
        (attempt,) = story["attempts"]
        assert (attempt["state"], attempt["fate"], attempt["error"]) == ("finalized", "executed", None)
        assert attempt["signed_at"] <= attempt["sent_at"] <= attempt["confirmed_at"] <= attempt["finalized_at"]
        assert attempt["slot"] >= attempt["trigger_slot"]
        assert attempt["fee_lamports"] > 5_000
        assert story["position"]["entry_price"] == "97"
        assert story["position"]["rent_lamports"] > 1_000_000
        # Why it rests may be noted with its first reading, or after it.
        assert [state for state, _ in groupby(e["state"] for e in story["history"])] == ["open", "executing", "filled"]
        steps = [(s["instruction"], s["by"]) for s in story["on_chain"]]
        assert steps == [("place_order", str(trader.address)), ("execute_conditional_order", "this keeper")]
        assert story["waits_for"] == "Nothing: it is filled."
        text = (await keeper_command("explain", str(order), "--config", str(config.file))).stdout
        for said in ("trigger: it fires at or below this", "1 execute: finalized, executed", "confirmed +", "cost: "):
            assert said in text

    # Without a keeper the chain and the journal tell it.
    story = await explained(config, later)
    assert list(story["missing"]) == ["keeper"]
    assert (story["state"], story["waits_for_by"]) == ("open", "chain")
    assert story["waits_for"].startswith("The order fires at or below 90; the price is 97, 7 (7.22 %) away. No keeper")


async def test_by_the_journal_alone(tmp_path: Path) -> None:
    """No node, no keeper: what was attempted, what it cost, and why it ended."""
    config = KeeperConfig.at(tmp_path, Keypair(), rpc={"url": "http://127.0.0.1:1"}, http={"port": 1})
    order, twins, prepared = make_order(), (make_order(), make_order()), make_prepared("p")
    began = time.time() // 1
    relayed = make_attempt(order.address, kind=AttemptKind.RELAY, signed_at=began - 10)
    attempt = make_attempt(order.address, signed_at=began, trigger_price_1e6=94_000_000, trigger_slot=101)
    async with Journal.open(config.journal) as journal:
        await journal.commit(NoteOrder(order, OrderState.OPEN, "It rests."), AddAttempt(relayed))
        await journal.commit(
            MoveAttempt(relayed.signature, AttemptState.FINALIZED, finalized_at=began), AddAttempt(attempt)
        )
        await journal.commit(
            MoveAttempt(
                attempt.signature,
                AttemptState.FAILED,
                sent_at=began + 1,
                ended_at=began + 2,
                fate=Fate.CANNOT_PAY,
                error_name="InsufficientCollateral",
                fee_lamports=5_120,
            ),
            NoteOrder(order, OrderState.FAILED, "Its user can't pay.", client_order_id="mine"),
            *(NoteOrder(twin, OrderState.OPEN, "It rests.", client_order_id="twin") for twin in twins),
            AddPrepared(prepared),
        )
    story = await explained(config, "mine")
    assert story["order"] == str(order.address)
    assert set(story["missing"]) == {"chain", "keeper"}
    assert (story["waits_for"], story["waits_for_by"]) == (
        "Its user can't pay. No keeper answers, so nothing is sent for it.",
        "journal",
    )
    assert [(a["error"], a["fee_lamports"], a["fate"]) for a in story["attempts"]] == [
        (None, None, None),
        ("InsufficientCollateral", 5_120, "cannot_pay"),
    ]
    # It was armed: signed before there was a price to decide by.
    (decided,) = (p["at"] for p in story["prices"] if p["what"] == "decided attempt 1")
    assert decided == story["attempts"][1]["sent_at"] > story["attempts"][1]["signed_at"]
    text = (await keeper_command("explain", "mine", "--config", str(config.file))).stdout
    assert "failed, cannot_pay: InsufficientCollateral" in text
    assert "ended +2." in text
    assert "cost: its user's" in text
    assert "chain: rpc: no connection" in text

    story = await explained(config, prepared.order)
    assert story["waits_for"] == "Its user's signature: it was prepared, and is not on chain."
    assert [(p["kind"], p["status"]) for p in story["prepared"]] == [("place", "prepared")]

    with pytest.raises(KeeperError, match=r"Several orders are called 'twin'.*Give an order's address") as raised:
        await explained(config, "twin")
    assert all(str(twin.address) in str(raised.value) for twin in twins)
    unknown = key()
    with pytest.raises(KeeperError, match=f"No order {unknown} was found. The chain is missing: .*keeper orders"):
        await explained(config, unknown)
    with pytest.raises(KeeperError, match="No order his was found"):
        await explained(config, "his")


def without_history(call: dict[str, Any], reply: dict[str, Any]) -> None:
    """Many plans leave it out."""
    if call["method"] == "getSignaturesForAddress":
        del reply["result"]
        reply["error"] = {"code": -32601, "message": "Method not found"}


async def test_by_the_chain_alone(world: World, tmp_path: Path) -> None:
    """Another keeper filled it, and there is no journal."""
    config = beside(world, tmp_path)
    world.bank.advance()  # an account of the genesis slot, 0, reads as one that was never seen
    market, trader, stranger = world.market(), world.trader(), world.wallet()
    order = world.place(trader, market, stop_price_1e6=101_000_000)
    world.execute(order, stranger)
    await until(lambda: (read := world.order(order, Commitment.CONFIRMED)) and not read.pending)
    story = await explained(config, order)
    assert set(story["missing"]) == {"journal", "keeper"}
    assert (story["state"], story["onchain_status"]) == (None, "filled")
    assert story["waits_for"] == "Nothing: it reads filled on chain."
    assert story["on_chain"][-1]["by"] == str(stranger.pubkey())
    assert story["position"]["entry_price"] == "100"
    async with EditedNode(world.net.rpc_url) as node:
        node.edit = without_history
        less = await explained(
            KeeperConfig.at(tmp_path, config.key, rpc={"url": node.rpc_url}, http={"port": 1}), order
        )
    assert less | {"prices": 0} == story | {"on_chain": [], "missing": less["missing"], "prices": 0}
    assert set(less["missing"]) == {"journal", "keeper", "history"}
    with pytest.raises(KeeperError, match=r"The journal is missing: .*Give an order's address"):
        await explained(config, "mine")
