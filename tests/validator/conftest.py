"""Which chain: the one that the command line names, else a solana-test-validator of our own, else none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.demo.validator import NAME, Validator, find, started_validator
from keeper.localnet.program import PROGRAM_ID, PROGRAM_SO
from keeper.venue.idl import PACKAGED, load_idl
from keeper.venue.program import Program
from tests.validator.cluster import Address, Cluster, Wallet


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Session-wide here, because the chain is."""
    return "asyncio"


@pytest.fixture(scope="session")
async def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> AsyncIterator[Address]:
    """Where the chain is; skips with the reason when there is none."""
    option = request.config.getoption
    program_id = Pubkey.from_string(option("--program-id") or PROGRAM_ID)
    payer = None if option("--payer") is None else _wallet(option("--payer"))
    url = option("--rpc-url")
    if url is not None:
        yield Address(url, option("--ws-url") or _next_port(url), program_id, payer)
        return
    binary = find()
    if binary is None:
        pytest.skip(f"no chain: give --rpc-url URL (and --ws-url URL), put {NAME} on the PATH, or run make validator")
    folder = tmp_path_factory.mktemp("validator")
    async with started_validator(Validator(binary, PROGRAM_SO), program_id, folder) as chain:
        yield Address(chain.ready["rpc_url"], chain.ready["ws_url"], program_id, payer)


@pytest.fixture(scope="session")
async def cluster(address: Address, anyio_backend: str) -> AsyncIterator[Cluster]:
    async with Cluster.open(address, Program(address.program_id, load_idl(PACKAGED["0.2"]))) as opened:
        yield opened


def _wallet(file: str) -> Wallet:
    return Wallet(Keypair.from_json(Path(file).read_text()))


def _next_port(url: str) -> str:
    """Where a validator's WebSocket is: on the next port; behind a URL without one, the same host."""
    parts = urlsplit(url)
    port = "" if parts.port is None else f":{parts.port + 1}"
    return urlunsplit(parts._replace(scheme=parts.scheme.replace("http", "ws"), netloc=f"{parts.hostname}{port}"))
