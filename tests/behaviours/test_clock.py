"""The chain's clock, by which prices age and orders expire, is not one node's word."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from solders.pubkey import Pubkey

from keeper.domain.orders import OrderState
from keeper.solana.client import CLOCK_SYSVAR
from tests.behaviours.edited_node import Call, Edit
from tests.behaviours.stand import USDC, Stand, stays
from tests.support import Trader, until

pytestmark = pytest.mark.anyio

DAY_S: Final = 86_400
CLOCK_EVERY_S: Final = 5


def reads_the_clock(call: Call) -> bool:
    """Whether the call asks for the clock."""
    return call["method"] == "getMultipleAccounts" and str(CLOCK_SYSVAR) in call["params"][0]


def lying(times: int, by_s: int = 2 * DAY_S) -> tuple[Edit, Callable[[], int]]:
    """A node whose clock is wrong, the first `times` that it is asked; and how often it was."""
    lied = 0

    def edit(call: Call, reply: dict[str, Any]) -> None:
        nonlocal lied
        if lied < times and reads_the_clock(call):
            value = reply["result"]["value"][0]
            raw = bytearray(base64.b64decode(value["data"][0]))
            struct.pack_into("<q", raw, 32, struct.unpack_from("<q", raw, 32)[0] + by_s)
            value["data"][0] = base64.b64encode(bytes(raw)).decode()
            lied += 1

    return edit, lambda: lied


async def goes_on(stand: Stand, market: Pubkey, *orders: Pubkey) -> None:
    """Nothing is stale, nothing has expired, and what the price meets is executed."""
    assert (await stand.get("/readyz")).status_code == 200
    assert (await stand.readiness("prices"))[0]
    await stays(lambda: all(stand.state(order) is OrderState.OPEN for order in orders), stand)
    stand.world.set_price(market, 94 * USDC)
    for order in orders:
        await stand.reach(order, OrderState.FILLED)


def dated(stand: Stand, trader: Trader, market: Pubkey) -> Pubkey:
    """An order that has a day left."""
    return stand.order(trader, market, expires_at=stand.bank.chain.tip.time + DAY_S)


@pytest.mark.parametrize(
    ("times", "by_s"), [(1, 2 * DAY_S), (3, 2 * DAY_S), (1, -2 * DAY_S)], ids=["on", "on, three times", "back"]
)
async def test_a_wrong_word_of_the_clock_is_not_believed(
    stand: Stand, trader: Trader, market: Pubkey, times: int, by_s: int
) -> None:
    """Every market was blind for two days, and an order that had a day left was recorded as expired."""
    orders = stand.order(trader, market), dated(stand, trader, market)
    async with stand.keeper():
        await stand.known(*orders)
        stand.nodes[0].edit, lied = lying(times, by_s)
        await until(lambda: lied() == times, within_s=2 * CLOCK_EVERY_S)
        await goes_on(stand, market, *orders)
        assert "keeper_clock_doubted_total 1.0" in (await stand.get("/metrics")).text


async def test_the_first_word_of_the_clock_is_not_believed_alone(stand: Stand, trader: Trader, market: Pubkey) -> None:
    orders = stand.order(trader, market), dated(stand, trader, market)
    stand.nodes[0].edit, lied = lying(1)
    async with stand.keeper():
        assert lied() == 1
        await stand.known(*orders)
        await goes_on(stand, market, *orders)


@pytest.mark.parametrize("from_the_start", [False, True])
async def test_a_node_that_is_always_wrong_is_outvoted(tmp_path: Path, from_the_start: bool) -> None:
    """At a start there is nothing to compare two nodes with but this machine's clock."""
    async with Stand.open(tmp_path, endpoints=2) as stand:
        trader, market = stand.world.trader(), stand.world.market()
        orders = stand.order(trader, market), dated(stand, trader, market)
        edit, lied = lying(1_000)
        stand.nodes[0].edit = edit if from_the_start else None
        async with stand.keeper():
            await stand.known(*orders)
            stand.nodes[0].edit = edit
            before = lied()
            await until(lambda: lied() > before, within_s=2 * CLOCK_EVERY_S)
            await goes_on(stand, market, *orders)


async def test_a_clock_that_did_jump_is_followed(stand: Stand, trader: Trader, market: Pubkey) -> None:
    """A cluster that was halted comes back later than it went."""
    order = dated(stand, trader, market)
    async with stand.keeper():
        await stand.known(order)
        stand.bank.advance_clock(2 * DAY_S)
        await stand.reach(order, OrderState.EXPIRED, within_s=3 * CLOCK_EVERY_S)


async def test_no_clock_at_all_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keeper.runtime.surroundings._CLOCK_OLD_S", 1.0)
    async with Stand.open(tmp_path) as stand, stand.keeper():

        def refuse(call: Call, reply: dict[str, Any]) -> None:
            if reads_the_clock(call):
                del reply["result"]
                reply["error"] = {"code": -32603, "message": "Internal error"}

        stand.nodes[0].edit = refuse
        await stand.told("clock", lambda sentence: "nothing newer was told" in sentence)
        assert (await stand.get("/readyz")).status_code == 503
        stand.nodes[0].edit = None
        await stand.told("clock", lambda sentence: not sentence)
        await anyio.lowlevel.checkpoint()
