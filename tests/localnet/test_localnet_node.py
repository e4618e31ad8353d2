"""The clients that people use, in Node, talk to a localnet as they would to a validator.

Each session is a program of its own in `node/`, with the libraries from npm at the versions named here.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from keeper.localnet import Localnet, LocalnetConfig
from keeper.venue.idl import PACKAGED
from keeper.venue.venue import ORDER_DISCRIMINATOR
from tests.support import PROGRAM, World

pytestmark = pytest.mark.anyio

PACKAGES = {
    "@solana/web3.js": "1.99.0",
    "@solana/spl-token": "0.4.15",
    "@solana/kit": "8.4.0",
    "@coral-xyz/anchor": "0.32.1",
    "@triton-one/yellowstone-grpc": "7.0.1",
}
SESSIONS = Path(__file__).with_name("node")
INSTALL_BOUND_S = 240
SESSION_BOUND_S = 90


@pytest.fixture(scope="module")
def home(request: pytest.FixtureRequest) -> Path:
    """A directory where node finds the libraries; made once, in pytest's cache."""
    if shutil.which("node") is None or (npm := shutil.which("npm")) is None:
        pytest.skip("the Node clients need node and npm on the PATH")
    cache = request.config.cache
    if cache is None:
        pytest.skip("the Node clients are installed into pytest's cache, which is switched off")
    made = Path(cache.mkdir("node-clients"))
    with (made / "lock").open("w") as lock:  # several workers may come for it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(npm, made)
    return made


def _install(npm: str, made: Path) -> None:
    """The libraries, unless they are there."""
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    installed = made / "installed"
    if installed.exists() and installed.read_text() == "\n".join(wanted):
        return
    (made / "package.json").write_text("{}")
    install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *wanted]
    try:
        done = subprocess.run(install, cwd=made, capture_output=True, text=True, timeout=INSTALL_BOUND_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install the Node clients within {INSTALL_BOUND_S} s")
    if done.returncode:
        pytest.skip(f"npm cannot install the Node clients: {done.stderr.strip()[-300:]}")
    installed.write_text("\n".join(wanted))


async def seen_by(home: Path, session: str, net: Localnet, *arguments: str) -> dict[str, Any]:
    """What a session printed, run to its end against this chain."""
    script = Path(shutil.copy(SESSIONS / session, home))  # node resolves packages from the script's place
    command = ["node", "--no-deprecation", str(script), net.rpc_url, *arguments]
    run = partial(subprocess.run, command, capture_output=True, text=True, timeout=SESSION_BOUND_S, check=False)
    done = await anyio.to_thread.run_sync(run)
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


async def test_web3js(home: Path) -> None:
    async with Localnet(LocalnetConfig(rpc_port=0, slot_ms=50, finalized_slots=4)) as net:
        seen = await seen_by(home, "web3js.mjs", net)
        genesis = str(net.bank.chain.genesis_hash)
    assert seen == {
        "version": "2.2.0",
        "genesis": genesis,
        "rent": 2_164_560,
        "balance": 10_000_000_000,
        "accountNews": [True, 8, 1_000_000_000],
        "programNews": True,
        "logNews": [True, None, 6],
        "slotNews": "number",
        "rootNews": "number",
        "status": [None, None],
        "account": 8,
        "several": [1_000_000_000, None],
        "owned": [True],
        "landed": [20_000, None, "legacy"],
        "parsed": 2,
        "history": [True],
        "blockTime": "number",
        "epoch": 0,
        "fees": True,
        "valid": True,
        "height": True,
        "fee": 5_000,
        "simulated": [{"InstructionError": [0, {"Custom": 1}]}, 150],
        "refusal": [True, True, 3],
        "failed": {"InstructionError": [0, {"Custom": 1}]},
    }


async def test_spl_token(home: Path) -> None:
    async with Localnet(LocalnetConfig(rpc_port=0, slot_ms=50, finalized_slots=4)) as net:
        seen = await seen_by(home, "tokens.mjs", net)
    assert seen == {
        "before": {"ours": "1.5", "theirs": "0"},
        "after": {"ours": "1.25", "theirs": "0.25"},
        "balance": 1.25,
        "supply": "1500000",
        "largest": ["1250000", "250000"],
        "byMint": 1,
        "parsed": [["spl-token", "1.25"]],
        "mint": 6,
        "wrapped": [True, "1", "2039280"],
        "block": True,
        "blocks": True,
        "failure": "SendTransactionError",
    }


async def test_kit(home: Path) -> None:
    async with Localnet(LocalnetConfig(rpc_port=0, slot_ms=50, finalized_slots=4)) as net:
        seen = await seen_by(home, "kit.mjs", net, net.ws_url)
    assert seen == {
        "balance": 2_000_000_000,
        "version": ["2.2.0", "number"],
        "tokens": [[], []],
        "block": True,
        "schedule": 432_000,
        "supply": "0",
        "votes": 0,
        "nodes": 1,
        "samples": True,
        "clock": "clock",
        "rentEpoch": str(2**64 - 1),
        "updates": ["completed", "createdBank", "frozen", "optimisticConfirmation", "root"],
    }


async def test_anchor(home: Path) -> None:
    async with Localnet(LocalnetConfig(rpc_port=0, slot_ms=50, finalized_slots=4)) as net:
        seen = await seen_by(home, "anchor.mjs", net, str(PACKAGED["0.2"]))
    assert seen == {
        "placed": "pending",
        "notMet": "ConditionNotMet",
        "event": [True, 80_000_000],
        "filled": "filled",
        "position": 1_000_000,
    }


async def test_yellowstone(home: Path) -> None:
    """Wire-compatible: the published client, whose messages and transport are the Rust client's."""
    async with World.open(geyser_port=0) as world:
        geyser, url = world.net.geyser, world.net.geyser_url
        assert geyser is not None
        assert url is not None
        geyser.replay_slots = 300
        for _ in range(geyser.replay_slots + 20):
            world.bank.advance()
        trader, market = world.trader(), world.market()

        async def trade() -> None:
            while True:
                world.place(trader, market, stop_price_1e6=1)
                await anyio.sleep(0.05)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(trade)
            prefix = b64encode(ORDER_DISCRIMINATOR).decode()
            seen = await seen_by(home, "yellowstone.mjs", world.net, url, str(PROGRAM.id), prefix)
            tasks.cancel_scope.cancel()
    too_old, unserved = seen.pop("tooOld"), seen.pop("unserved")
    assert "is not available" in too_old
    assert "this server tells of accounts and slots alone" in unserved
    assert seen == {
        "version": "keeper-localnet",
        "pong": 7,
        "slot": True,
        "blockhash": True,
        "account": [["orders"], 183, 2_164_560, 32],
        "again": -3,
        "ping": 3,
    }
