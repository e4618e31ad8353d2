"""The README's two ways to place, watch and cancel an order, run as they are written, on a real keeper."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import httpx
import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.domain.orders import OnchainStatus
from tests.support import BOUND_S, KeeperConfig, KeeperProcess, World

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
TOKEN = "a token that only the bot has"


@pytest.fixture
async def anyio_chain() -> AsyncIterator[World]:
    async with World.open(slot_ms=25) as chain:
        chain.market("SOL/USDC", price_1e6=150_000_000)
        yield chain


def write_key(file: Path, key: Keypair) -> Path:
    file.touch(mode=0o600)
    file.write_text(json.dumps(list(bytes(key))))
    return file


async def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            env={**os.environ, **environment},
            check=False,
            cwd=ROOT,
        )

    return await anyio.to_thread.run_sync(call)


async def test_the_script_places_watches_and_cancels(anyio_chain: World, tmp_path: Path) -> None:
    trader = anyio_chain.trader()
    key = write_key(tmp_path / "trader.json", trader.key)
    async with KeeperProcess.running(KeeperConfig.beside(anyio_chain, tmp_path / "keeper")) as keeper:
        arguments = ["--api", keeper.url, "--key", str(key), "--trigger", "95", "--cancel-after", "2"]
        done = await run(sys.executable, "examples/place_order.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr + keeper.log_end()
    words = [line.split()[0] for line in done.stdout.splitlines()]
    assert words[:2] == ["prepared", "submitted"]
    assert "open" in words
    assert words[-1] == "cancelled"


async def test_curl_with_a_managed_wallet(anyio_chain: World, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    readme = (ROOT / "README.md").read_text()
    lines = re.search(r"```sh\n(curl --fail-with-body.*?)```", readme, re.DOTALL)
    assert lines is not None
    place, stream, cancel = re.split(r"\n(?=curl)", lines[1].strip())
    trader = anyio_chain.trader()
    wallet = {
        "name": "bot",
        "key_file": str(write_key(tmp_path / "bot.json", trader.key)),
        "markets": ["SOL/USDC"],
        "max_size": "10",
        "orders_per_day": 100,
        "token_sha256": [hashlib.sha256(TOKEN.encode()).hexdigest()],
    }
    config = KeeperConfig.beside(anyio_chain, tmp_path / "keeper", managed={"wallets": [wallet]})
    async with KeeperProcess.running(config) as keeper:

        async def shell(line: str, **environment: str) -> str:
            line = line.replace("http://127.0.0.1:8080", keeper.url)
            done = await run("bash", "-c", line, TOKEN=TOKEN, **environment)
            assert done.returncode in (0, 124), done.stdout + done.stderr + keeper.log_end()
            return done.stdout

        placed = json.loads(await shell(place))
        async with httpx.AsyncClient(base_url=keeper.url) as http:
            for _ in range(200):
                order = (await http.get(f"/v1/orders/{placed['order']}")).json()
                if order["status"] == "open":
                    break
                await anyio.sleep(0.05)
        assert order["user"] == str(trader.address)
        seen = await shell(f"timeout 2 {stream}")
        assert f'"order":"{placed["order"]}"' in seen
        cancelled = json.loads(await shell(cancel, ORDER=placed["order"]))
        assert cancelled["kind"] == "cancel"
        with anyio.fail_after(BOUND_S):
            while True:
                account = anyio_chain.order(trader_order := _address(placed))
                if account is not None and account.status is OnchainStatus.CANCELLED:
                    break
                await anyio.sleep(0.05)
        assert trader_order == _address(cancelled)
        assert TOKEN not in keeper.config.log.read_text()


def _address(answer: dict[str, str]) -> Pubkey:
    return Pubkey.from_string(answer["order"])
