"""web3.js v1 talks to a localnet as it would to a validator."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import anyio
import pytest

from keeper.localnet import Localnet, LocalnetConfig

pytestmark = pytest.mark.anyio

VERSION = "1.98.4"
SESSION = Path(__file__).with_name("web3js_session.mjs")
INSTALL_BOUND_S = 180
SESSION_BOUND_S = 60


@pytest.fixture(scope="module")
def web3js(request: pytest.FixtureRequest) -> Path:
    """A directory where node finds web3.js; made once, in pytest's cache."""
    if shutil.which("node") is None or (npm := shutil.which("npm")) is None:
        pytest.skip("web3.js needs node and npm on the PATH")
    cache = request.config.cache
    if cache is None:
        pytest.skip("web3.js is installed into pytest's cache, which is switched off")
    home = Path(cache.mkdir(f"web3js-{VERSION}"))
    if not (home / "installed").exists():
        (home / "package.json").write_text("{}")
        install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", f"@solana/web3.js@{VERSION}"]
        try:
            done = subprocess.run(
                install, cwd=home, capture_output=True, text=True, timeout=INSTALL_BOUND_S, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not install web3.js within {INSTALL_BOUND_S} s")
        if done.returncode:
            pytest.skip(f"npm cannot install web3.js: {done.stderr.strip()[-300:]}")
        (home / "installed").touch()
    return home


async def test_a_web3js_session(web3js: Path) -> None:
    session = Path(shutil.copy(SESSION, web3js))  # node resolves packages from the script's place
    async with Localnet(LocalnetConfig(rpc_port=0, slot_ms=50, finalized_slots=4)) as net:
        command = ["node", "--no-deprecation", str(session), net.rpc_url]
        run = partial(subprocess.run, command, capture_output=True, text=True, timeout=SESSION_BOUND_S, check=False)
        done = await anyio.to_thread.run_sync(run)
        assert done.returncode == 0, done.stderr[-3000:]
        genesis = str(net.bank.chain.genesis_hash)
    assert json.loads(done.stdout) == {
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
