"""tests/validator, run from outside against a `keeper localnet` that is a process of its own, and slow.

Its timing is unlike that of the other tests, the program is at an address that nobody knows beforehand, and a wallet
pays, as on a cluster without a faucet.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import httpx
import pytest
from solders.keypair import Keypair

from keeper.demo.processes import started
from keeper.localnet.program import PROGRAM_SO
from tests.localnet.localnet_clients import SOL

pytestmark = pytest.mark.anyio

REPOSITORY = Path(__file__).parents[2]
SLOW = ("--slot-ms", "150", "--confirmed-slots", "3", "--finalized-slots", "12")
END_WITHIN_S = 480.0


@pytest.mark.long
async def test_the_end_to_end_tests_pass_on_a_chain_known_by_its_url_alone(tmp_path: Path) -> None:
    payer, program_id = Keypair(), str(Keypair().pubkey())
    key_file = tmp_path / "payer.json"
    key_file.write_text(payer.to_json())
    arguments = ["localnet", "--rpc-port", "0", "--no-program", "--bpf-program", program_id, str(PROGRAM_SO), "--json"]
    async with started("chain", [*arguments, *SLOW], tmp_path / "chain.log") as chain:
        async with httpx.AsyncClient() as http:
            call = {"method": "requestAirdrop", "params": [str(payer.pubkey()), 5 * SOL], "jsonrpc": "2.0", "id": 1}
            assert "result" in (await http.post(chain.ready["rpc_url"], json=call)).json()
        options = ["--rpc-url", chain.ready["rpc_url"], "--ws-url", chain.ready["ws_url"]]
        options += ["--program-id", program_id, "--payer", str(key_file), "--basetemp", str(tmp_path / "inner")]
        command = [sys.executable, "-m", "pytest", "tests/validator", "-q", "-p", "no:cacheprovider", *options]
        with anyio.fail_after(END_WITHIN_S):
            run = await anyio.run_process(command, cwd=REPOSITORY, check=False, stderr=subprocess.STDOUT)
    said = run.stdout.decode(errors="replace")
    assert run.returncode == 0, said[-6_000:]
    assert "4 passed" in said
    assert "skipped" not in said
    assert json.dumps(list(bytes(payer)))[1:20] not in said
