"""What stops the keeper by itself: a fill without its position, and a program that was changed under it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from solders.account import Account
from solders.pubkey import Pubkey

from keeper.domain.orders import OrderState
from keeper.localnet.program import PROGRAM_SO
from keeper.venue.idl import discriminator
from tests.behaviours.stand import USDC, Stand, stays
from tests.behaviours.test_between_steps import ADMIN, operator
from tests.support import until

pytestmark = pytest.mark.anyio

LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")


# -- a fill without its position


async def test_the_first_fill_without_its_position_stops_sending_until_an_operator_resumes(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, http=ADMIN) as stand:
        market = stand.world.market()
        orders = [stand.order(stand.world.trader(), market, 95 - i) for i in range(5)]
        others = orders[1:]
        async with stand.keeper() as keeper:
            await stand.known(*orders)
            hidden = set()
            for order in orders:
                known = stand.world.order(order)
                assert known is not None
                hidden.add(str(keeper.program.position_of(known, keeper.keeper)))

            def hide(call: dict[str, Any], reply: dict[str, Any]) -> None:
                if call["method"] == "getMultipleAccounts":
                    for i, address in enumerate(call["params"][0]):
                        if address in hidden:
                            reply["result"]["value"][i] = None

            stand.nodes[0].edit = hide
            stand.world.set_price(market, 95 * USDC - 1)
            await stand.reach(orders[0], OrderState.FAILED)
            ok, sentence = await stand.readiness("sending")
            assert not ok
            assert str(orders[0]) in sentence
            assert "keeper resume" in sentence
            stand.world.set_price(market, 90 * USDC)
            for order in others:
                assert "its position" in (await stand.reach(order, OrderState.TRIGGERED)).reason
            await stays(lambda: not any(stand.attempts(order) for order in others), stand)
            metrics = (await stand.get("/metrics")).text
            assert "keeper_fills_without_position_total 1.0" in metrics
            assert (await stand.get("/readyz")).status_code == 503
            stand.nodes[0].edit = None
        async with stand.keeper():
            assert not (await stand.readiness("sending"))[0], "a restart does not forget it"
            await stays(lambda: not any(stand.attempts(order) for order in others), stand)
            await operator(stand, "resume")
            await until(lambda: all(stand.state(order) is OrderState.FILLED for order in others))
            assert (await stand.readiness("sending"))[0]
        async with stand.keeper():
            assert (await stand.readiness("sending"))[0], "nor the resume"


# -- a program that is changed


def deploy(stand: Stand, program: Pubkey, elf: bytes) -> None:
    """Deploy it as the upgradeable loader does, in the present slot."""
    holder = Pubkey.find_program_address([bytes(program)], LOADER)[0]
    data = struct.pack("<IQB32x", 3, stand.bank.chain.tip.slot, 0) + elf
    pointer = struct.pack("<I", 2) + bytes(holder)
    for address, content, runs in ((holder, data, False), (program, pointer, True)):
        stand.bank.set_account(address, Account(stand.bank.rent_exempt_minimum(len(content)), content, LOADER, runs))


async def test_a_program_that_was_changed_is_sent_nothing_until_it_passes_the_check(tmp_path: Path) -> None:
    elf = PROGRAM_SO.read_bytes()
    half = discriminator("global", "execute_conditional_order")[:4]
    assert half in elf
    async with Stand.open(tmp_path) as stand:
        deploy(stand, stand.world.program.id, elf)
        market = stand.world.market()
        async with stand.keeper() as keeper:
            order = stand.order(stand.world.trader(), market)
            await stand.known(order)
            deploy(stand, keeper.program.id, elf.replace(half, b"nope"))
            await stand.told("sending", lambda sentence: "has no instruction execute_conditional_order" in sentence)
            assert (await stand.get("/readyz")).status_code == 503
            stand.world.set_price(market, 94 * USDC)
            assert "was changed since" in (await stand.reach(order, OrderState.TRIGGERED)).reason
            await stays(lambda: not stand.sends, stand)
            deploy(stand, keeper.program.id, elf)
            await stand.reach(order, OrderState.FILLED)


async def test_an_upgrade_that_passes_the_check_goes_on_by_itself(tmp_path: Path) -> None:
    async with Stand.open(tmp_path) as stand:
        deploy(stand, stand.world.program.id, PROGRAM_SO.read_bytes())
        market = stand.world.market()
        async with stand.keeper() as keeper:
            order = stand.order(stand.world.trader(), market)
            await stand.known(order)
            checks = rehearsals(stand)
            deploy(stand, keeper.program.id, PROGRAM_SO.read_bytes())
            await until(lambda: rehearsals(stand) >= checks + 4)  # each instruction that the keeper uses
            await stand.told("sending", lambda sentence: not sentence)
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.FILLED)
            known = rehearsals(stand)
            await stays(lambda: rehearsals(stand) <= known + 1, stand)  # one learns the units of a fill


def rehearsals(stand: Stand) -> int:
    return sum(methods.count("simulateTransaction") for methods in stand.calls)
