"""The demo, whole: real processes, and its numbers counted once more with solana-py."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed
from solders.pubkey import Pubkey

from keeper.demo.validator import NAME, find
from keeper.localnet.program import PROGRAM_ID
from keeper.venue.idl import discriminator
from tests.demo.demo_process import demo_running
from tests.support import BOUND_S
from tests.support.postgres import missing

pytestmark = pytest.mark.anyio

ORDER_STATUS_OFFSET = 107
FILLED = 1


async def _accounts(url: str) -> dict[str, list[bytes]]:
    """The program's accounts by type, as solana-py reads them."""
    async with AsyncClient(url) as client:
        answer = await client.get_program_accounts(
            Pubkey.from_string(PROGRAM_ID), commitment=Confirmed, encoding="base64"
        )
    read = [bytes(entry.account.data) for entry in answer.value]
    return {
        kind: [data for data in read if data[:8] == discriminator("account", kind)] for kind in ("Order", "Position")
    }


@pytest.mark.parametrize(
    "chain",
    [
        "embedded",
        pytest.param("validator", marks=pytest.mark.long),
        pytest.param("three keepers, one killed", marks=pytest.mark.long),
    ],
)
async def test_every_triggered_order_is_executed_once_with_its_position(tmp_path: Path, chain: str) -> None:
    arguments = ["--json", "--orders", "40", "--seed", "7", "--speed", "4", "--poor", "1", "--hold"]
    if chain == "validator":
        if find() is None:
            pytest.skip(f"there is no {NAME}: put one on the PATH, or run make validator")
        # At its usual speed: a price is known a second later there, and the API refuses what is far from the price.
        arguments += ["--validator", "--speed", "1"]
    if chain.startswith("three"):
        if why := missing():
            pytest.skip(why)
        arguments += ["--keepers", "3", "--speed", "1"]
    with demo_running(tmp_path, arguments) as demo:
        summary: dict[str, Any] = demo.summary()
        assert summary["problems"] == []
        assert summary["ok"] is True
        assert summary["placed"] == 41
        assert summary["executed"] > 5
        assert summary["triggered"] == summary["executed"] + 1
        assert summary["positions"] == summary["executed"]
        assert (summary["duplicates"], summary["lost"], summary["failed"]) == (0, 0, 1)
        assert summary["failures"] == {"InsufficientCollateral": 1}
        assert summary["cancelled"] >= 1
        assert summary["resting"] >= 5
        assert summary["ratchets"] >= 1
        assert 0 < summary["trigger_to_confirm_ms"]["p50"] <= summary["trigger_to_confirm_ms"]["p99"]

        accounts = await _accounts(summary["rpc_url"])
        orders, positions = accounts["Order"], accounts["Position"]
        filled = [data for data in orders if data[ORDER_STATUS_OFFSET] == FILLED]
        assert len(orders) == summary["placed"]
        assert len(filled) == len(positions) == summary["executed"]

        async with httpx.AsyncClient(base_url=summary["http_url"]) as http:
            page = (await http.get("/v1/orders", params={"limit": 200, "status": "failed"})).json()
        assert len(page["orders"]) == 1
        assert "InsufficientCollateral" in page["orders"][0]["status_reason"]

        _place_one_more(demo.errors())
        children = demo.children()
        # The chain and the keeper, or the keepers that are left. (PostgreSQL is another thread's child.)
        assert len(children) == (3 if chain.startswith("three") else 2)
        # A second signal, while it stops, must leave neither behind.
        demo.process.terminate()
        demo.process.terminate()
        assert demo.process.wait(timeout=BOUND_S) == 0
        assert demo.alive(children) == []
        assert demo.files() == []
        shown = demo.errors()
        assert "the feed was dead; its last price met 1 new orders, and 0 were executed" in shown
        assert "was moved back at once" in shown
        assert ("keeper-1 was killed, and keeper-" in shown) is chain.startswith("three")


def _place_one_more(shown: str) -> None:
    """The line that the held demo prints, as it is, from anywhere: a take profit that the price has passed already."""
    line = shown.partition("Place an order of your own:\n")[2].splitlines()[0]
    done = subprocess.run(line, shell=True, cwd="/", capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "filled     Filled by this keeper, with its position." in done.stdout


@pytest.mark.long
def test_an_interrupt_stops_both_processes_and_says_so(tmp_path: Path) -> None:
    with demo_running(tmp_path, ["--json", "--orders", "30"]) as demo:
        while "placed, " not in demo.errors():
            assert demo.process.poll() is None, demo.errors()
            time.sleep(0.1)
        assert demo.interrupt() == 130
        assert "Interrupted" in demo.errors()
        assert demo.files() == []
        assert demo.process.stdout is not None
        assert demo.process.stdout.read() == ""
