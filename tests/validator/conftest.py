"""Which chain: the one that the command line names, else a solana-test-validator of our own, else none."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.localnet.program import PROGRAM_ID, PROGRAM_SO
from keeper.venue.idl import PACKAGED, load_idl
from keeper.venue.program import Program
from tests.validator.cluster import Address, Cluster, Wallet

VALIDATOR = "solana-test-validator"
START_WITHIN_S = 120.0


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Session-wide here, because the chain is."""
    return "asyncio"


@pytest.fixture(scope="session")
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Where the chain is; skips with the reason when there is none."""
    option = request.config.getoption
    program_id = Pubkey.from_string(option("--program-id") or PROGRAM_ID)
    payer = None if option("--payer") is None else Wallet(Keypair.from_json(Path(option("--payer")).read_text()))
    url = option("--rpc-url")
    if url is not None:
        yield Address(url, option("--ws-url") or _next_port(url), program_id, payer)
        return
    binary = shutil.which(VALIDATOR)
    if binary is None:
        pytest.skip(f"no chain: give --rpc-url URL (and --ws-url URL), or put {VALIDATOR} on the PATH")
    folder = tmp_path_factory.mktemp("validator")
    rpc_port, faucet_port = _free_pair(), _free_pair()
    arguments = [binary, "--reset", "--quiet", "--ledger", str(folder / "ledger"), "--rpc-port", str(rpc_port)]
    arguments += ["--faucet-port", str(faucet_port), "--bpf-program", str(program_id), str(PROGRAM_SO)]
    with (folder / "validator.log").open("wb") as log:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{rpc_port}"
        _wait_until_healthy(url, process, folder / "validator.log")
        yield Address(url, f"ws://127.0.0.1:{rpc_port + 1}", program_id, payer)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
async def cluster(address: Address, anyio_backend: str) -> AsyncIterator[Cluster]:
    async with Cluster.open(address, Program(address.program_id, load_idl(PACKAGED["0.2"]))) as opened:
        yield opened


def _next_port(url: str) -> str:
    """Where a validator's WebSocket is: on the next port; behind a URL without one, the same host."""
    parts = urlsplit(url)
    port = "" if parts.port is None else f":{parts.port + 1}"
    return urlunsplit(parts._replace(scheme=parts.scheme.replace("http", "ws"), netloc=f"{parts.hostname}{port}"))


def _free_pair() -> int:
    """A free port whose next one is free, too."""
    for _ in range(100):
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except OSError:
                continue
            return port
    raise RuntimeError("no two free ports in a row")


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "getHealth"}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{VALIDATOR} ended with {process.returncode}:\n{log.read_text()[-2_000:]}"
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                if json.load(answer).get("result") == "ok":
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{VALIDATOR} was not healthy within {START_WITHIN_S:g} s:\n{log.read_text()[-2_000:]}")
