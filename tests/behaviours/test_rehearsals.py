"""What a node says of an order before it is tried again: only the program's own refusal counts, and no old one."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import AttemptState
from keeper.domain.orders import OrderState
from keeper.solana.transactions import MOST_UNITS
from tests.behaviours.edited_node import Call
from tests.behaviours.stand import USDC, Stand
from tests.behaviours.test_restarts import refused_once
from tests.support import PROGRAM, Trader, until

pytestmark = pytest.mark.anyio

CODES: Final = {name: code for code, name in PROGRAM.idl.errors.items()}


def rehearsals(stand: Stand) -> int:
    """How often the first endpoint was asked to simulate."""
    return sum(methods.count("simulateTransaction") for methods in stand.calls)


def refusing(call: Call, name: str) -> dict[str, Any]:
    """What a simulation says when the program refuses the call's last instruction with this error."""
    last = len(VersionedTransaction.from_bytes(base64.b64decode(call["params"][0])).message.instructions) - 1
    return {"err": {"InstructionError": [last, {"Custom": CODES[name]}]}, "logs": [], "unitsConsumed": 5_000}


@pytest.mark.parametrize("err", ["BlockhashNotFound", {"InstructionError": [7, {"Custom": 6013}]}], ids=str)
async def test_what_is_no_word_of_the_program_costs_nothing_and_holds_up_nothing(
    stand: Stand, trader: Trader, market: Pubkey, err: object
) -> None:
    """A node that lags simulates on a blockhash that it does not have: the order failed for good by that."""
    order = stand.order(trader, market)

    def say(call: Call, reply: dict[str, Any]) -> None:
        if call["method"] == "simulateTransaction":
            reply["result"]["value"] = {"err": err, "logs": [], "unitsConsumed": 0}

    async with stand.keeper():
        await stand.known(order)
        await refused_once(stand, market, order)
        stand.nodes[0].edit = say
        asked = rehearsals(stand)
        stand.world.set_price(market, 94 * USDC)
        row = await stand.reach(order, OrderState.FILLED)
        assert rehearsals(stand) == asked + 1
        assert row.budget_used == 0


@pytest.mark.parametrize("honest", [True, False], ids=["says that it is behind", "answers as of then"])
async def test_a_node_that_is_behind_refuses_nothing_and_is_not_asked_without_end(
    stand: Stand, trader: Trader, market: Pubkey, honest: bool
) -> None:
    """It knows a price from before the one that decided. It was asked 226 times in three seconds, for one order."""
    order = stand.order(trader, market)

    def lag(call: Call, reply: dict[str, Any]) -> None:
        if call["method"] != "simulateTransaction":
            return
        if honest and "minContextSlot" in call["params"][1]:
            del reply["result"]
            reply["error"] = {"code": -32016, "message": "Minimum context slot has not been reached"}
        else:
            slot = reply["result"]["context"]["slot"] - 20
            reply["result"] = {"context": {"slot": slot}, "value": refusing(call, "ConditionNotMet")}

    async with stand.keeper():
        await stand.known(order)
        await refused_once(stand, market, order)
        stand.nodes[0].edit = lag
        asked = rehearsals(stand)
        with stand.held():
            stand.world.set_price(market, 94 * USDC)
            stand.bank.advance()
            await until(lambda: rehearsals(stand) > asked)
            await anyio.sleep(3)  # as long as a storm would take to show
            assert rehearsals(stand) - asked <= 6
        row = await stand.reach(order, OrderState.FILLED)
        assert row.budget_used == 0


async def test_a_node_that_has_not_heard_of_the_deposit_refuses_nothing(tmp_path: Path) -> None:
    """Its user paid in, and the keeper read that; a simulation as of a slot before it costs the order nothing."""
    async with Stand.open(tmp_path) as stand:
        trader, market = stand.world.trader(collateral_1e6=0), stand.world.market()
        order = stand.order(trader, market)
        late = 0

        def lag(call: Call, reply: dict[str, Any]) -> None:
            if call["method"] == "simulateTransaction":
                value = refusing(call, "InsufficientCollateral")
                reply["result"] = {"context": {"slot": late}, "value": value}

        async with stand.keeper():
            await stand.known(order)
            asked = rehearsals(stand)
            stand.world.set_price(market, 94 * USDC)
            row = await stand.reason(order, "it is tried again when its user's account changes")
            assert row.budget_used == 1
            # The first is for the units that it needs; the next comes when its account was read, to be compared with.
            await until(lambda: rehearsals(stand) >= asked + 2)
            late = stand.bank.chain.tip.slot
            stand.nodes[0].edit = lag
            stand.bank.advance()  # the deposit is in a later slot than that
            stand.world.deposit(trader, 1_000_000 * USDC)
            row = await stand.reach(order, OrderState.FILLED)
            assert row.budget_used == 1


async def test_a_rehearsal_asks_for_all_the_units_there_are(tmp_path: Path) -> None:
    """With a limit in it a simulation fails where the transaction would, and never shows how much is needed."""
    async with Stand.open(tmp_path, fees={"unit_limit": 1_000}) as stand:
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        async with stand.keeper():
            await stand.known(order)
            before = len(stand.asked)
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.FILLED)
            assert stand.attempts(order)[0].unit_limit == 1_000
            assert len(stand.attempts(order)) == 2, "the first one had too few, and the second as many as it takes"
        simulated = [call for call in stand.asked[before:] if call["method"] == "simulateTransaction"]
        assert simulated
        for call in simulated:
            message = VersionedTransaction.from_bytes(base64.b64decode(call["params"][0])).message
            limit = bytes(message.instructions[0].data)
            assert limit == bytes([2]) + MOST_UNITS.to_bytes(4, "little")


@pytest.mark.parametrize("more_lamports", [1, 5_000_000_000])
async def test_what_would_drain_the_key_is_not_sent_and_an_operator_looks(
    stand: Stand, trader: Trader, market: Pubkey, more_lamports: int
) -> None:
    order, later = (stand.order(trader, market, stop) for stop in (95, 93))

    def drain(call: Call, reply: dict[str, Any]) -> None:
        if call["method"] == "simulateTransaction" and reply["result"]["value"]["err"] is None:
            reply["result"]["value"]["accounts"][0]["lamports"] -= more_lamports

    async with stand.keeper():
        await stand.known(order, later)
        await refused_once(stand, market, order)
        attempts, had = len(stand.attempts(order)), stand.lamports
        stand.nodes[0].edit = drain
        stand.world.set_price(market, 94 * USDC)
        row = await stand.reach(order, OrderState.FAILED)
        assert "It was not sent: KeyDrained (it would take" in row.reason
        assert row.reason.endswith("An operator has to look.")
        assert len(stand.attempts(order)) == attempts
        # What never failed is asked about first, too, from now on.
        stand.world.set_price(market, 92 * USDC)
        row = await stand.reach(later, OrderState.FAILED)
        assert "KeyDrained" in row.reason
        assert stand.attempts(later) == []
        assert stand.lamports == had
        metrics = (await stand.get("/metrics")).text
        assert 'keeper_attempt_states_total{kind="execute",state="signed"} 1.0' in metrics


async def test_when_the_first_fill_of_its_kind_is_found_to_drain_the_key_no_second_one_is_sent(
    stand: Stand, trader: Trader, market: Pubkey
) -> None:
    """The first one is rehearsed beside its send, to learn what it uses."""
    order, later = (stand.order(trader, market, stop) for stop in (95, 93))

    def drain(call: Call, reply: dict[str, Any]) -> None:
        if call["method"] == "simulateTransaction" and reply["result"]["value"]["err"] is None:
            reply["result"]["value"]["accounts"][0]["lamports"] -= 1

    async with stand.keeper():
        await stand.known(order, later)
        stand.nodes[0].edit = drain
        asked = rehearsals(stand)
        stand.bank.hold_transactions()
        stand.world.set_price(market, 94 * USDC)
        await until(lambda: rehearsals(stand) > asked)
        await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
        stand.bank.release_transactions()
        await stand.reach(order, OrderState.FILLED)
        stand.world.set_price(market, 92 * USDC)
        row = await stand.reach(later, OrderState.FAILED)
        assert "KeyDrained" in row.reason
        assert stand.attempts(later) == []
