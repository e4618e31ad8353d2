"""A localnet whose blocks are made by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from keeper.localnet import Localnet, LocalnetConfig
from tests.localnet.localnet_clients import SOL, Payer, Rpc, Socket, make_blocks, socket_to


@pytest.fixture
async def net() -> AsyncIterator[Localnet]:
    """Confirmed after 1 block, final after 4; blocks are made by hand."""
    config = LocalnetConfig(rpc_port=0, slot_ms=0, finalized_slots=4, reference_program=False, seed=7)
    async with Localnet(config) as running:
        running.bank.advance()
        yield running


@pytest.fixture
async def rpc(net: Localnet) -> AsyncIterator[Rpc]:
    client = Rpc(net.rpc_url)
    yield client
    await client.http.aclose()


@pytest.fixture
async def socket(net: Localnet) -> AsyncIterator[Socket]:
    async with socket_to(net) as opened:
        yield opened


@pytest.fixture
async def payer(net: Localnet) -> Payer:
    """100 SOL, final."""
    wallet = Payer(net)
    net.bank.airdrop(wallet.address, 100 * SOL)
    make_blocks(net, 5)
    return wallet
