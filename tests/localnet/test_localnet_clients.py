"""solana-py talks to a localnet as it would to a validator."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator

import anyio
import pytest
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed, Finalized, Processed
from solana.rpc.core import RPCException
from solana.rpc.types import DataSliceOpts, MemcmpOpts, TxOpts
from solders.account import Account
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.rpc.config import RpcTransactionLogsFilterMentions
from solders.transaction_status import TransactionConfirmationStatus, TransactionErrorInstructionError

from keeper.localnet import Localnet, base58
from tests.localnet.localnet_clients import BOUND_S, SOL, Payer, make_blocks

with warnings.catch_warnings():
    # solana-py still uses the old client of websockets.
    warnings.simplefilter("ignore", DeprecationWarning)
    from solana.rpc.websocket_api import SolanaWsClientProtocol, connect

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

OWNER = Pubkey.new_unique()


@pytest.fixture
async def client(net: Localnet) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(net.rpc_url, commitment=Processed) as opened:
        yield opened


async def test_node_and_chain(net: Localnet, client: AsyncClient, payer: Payer) -> None:
    assert await client.is_connected()
    assert (await client.get_version()).value.solana_core == "2.2.0"
    assert (await client.get_genesis_hash()).value == net.bank.chain.genesis_hash
    assert (await client.get_identity()).value.identity == net.bank.identity.pubkey()
    tip = net.bank.chain.tip
    assert (await client.get_slot()).value == tip.slot
    assert (await client.get_slot(Finalized)).value == tip.slot - 4
    assert (await client.get_block_height()).value == tip.height
    assert (await client.get_block_time(tip.slot - 1)).value == tip.time
    assert (await client.get_epoch_info()).value.absolute_slot == tip.slot
    assert (await client.get_transaction_count()).value == 1
    assert (await client.get_slot_leader()).value == net.bank.identity.pubkey()
    latest = (await client.get_latest_blockhash()).value
    assert (latest.blockhash, latest.last_valid_block_height) == (tip.blockhash, tip.height + 150)
    assert (await client.get_minimum_balance_for_rent_exemption(0)).value == 890_880
    message = payer.pay(OWNER).message
    assert isinstance(message, MessageV0)
    assert (await client.get_fee_for_message(message)).value == 5_000


async def test_accounts(net: Localnet, client: AsyncClient) -> None:
    one, two = Pubkey.new_unique(), Pubkey.new_unique()
    net.bank.set_account(one, Account(SOL, b"\x01\x02\x03", OWNER))
    net.bank.set_account(two, Account(SOL, b"\x01\x02\x03\x04", OWNER))
    assert (await client.get_balance(one)).value == SOL
    for encoding in ("base64", "base64+zstd", "base58"):
        found = (await client.get_account_info(one, encoding=encoding)).value
        assert found is not None
        assert found.data == b"\x01\x02\x03"
        assert found.owner == OWNER
    assert (await client.get_account_info(Pubkey.new_unique())).value is None
    several = (await client.get_multiple_accounts([two, Pubkey.new_unique(), one])).value
    assert [account and account.data for account in several] == [b"\x01\x02\x03\x04", None, b"\x01\x02\x03"]
    filters: list[int | MemcmpOpts] = [4, MemcmpOpts(offset=1, bytes=base58.encode(b"\x02"))]
    rows = (await client.get_program_accounts(OWNER, encoding="base64", filters=filters)).value
    assert [row.pubkey for row in rows] == [two]
    sliced = await client.get_program_accounts(OWNER, encoding="base64", data_slice=DataSliceOpts(offset=0, length=1))
    assert {row.account.data for row in sliced.value} == {b"\x01"}


async def test_the_life_of_a_transaction(net: Localnet, client: AsyncClient, payer: Payer) -> None:
    target = Pubkey.new_unique()
    transaction = payer.pay(target)
    simulated = (await client.simulate_transaction(transaction, sig_verify=True)).value
    assert (simulated.err, simulated.units_consumed) == (None, 150)
    options = TxOpts(skip_preflight=False, preflight_commitment=Processed)
    signature = (await client.send_transaction(transaction, options)).value
    assert signature == transaction.signatures[0]
    assert (await client.get_signature_statuses([signature])).value == [None], "its block is not complete"
    levels = []
    for _ in range(4):
        net.bank.advance()
        status = (await client.get_signature_statuses([signature])).value[0]
        assert status is not None
        levels.append((status.confirmation_status, status.confirmations))
    assert levels[0] == (TransactionConfirmationStatus.Confirmed, 1)
    assert levels[3] == (TransactionConfirmationStatus.Finalized, None)
    for encoding in ("json", "jsonParsed", "base64", "base58"):
        found = (await client.get_transaction(signature, encoding, Confirmed, 0)).value
        assert found is not None
        assert found.transaction.meta is not None
        assert found.transaction.meta.fee == 5_000
    listed = (await client.get_signatures_for_address(target, commitment=Confirmed)).value
    assert [row.signature for row in listed] == [signature]
    with pytest.raises(RPCException) as refused:
        await client.send_transaction(transaction, options)
    assert "already been processed" in str(refused.value)


async def test_a_failing_transaction(net: Localnet, client: AsyncClient, payer: Payer) -> None:
    options = TxOpts(skip_preflight=True, preflight_commitment=Processed)
    sent = await client.send_transaction(payer.pay(OWNER, 1_000 * SOL), options)
    net.bank.advance()
    status = (await client.get_signature_statuses([sent.value])).value[0]
    assert status is not None
    assert isinstance(status.err, TransactionErrorInstructionError)


async def test_an_airdrop_confirms(net: Localnet, client: AsyncClient) -> None:
    signature = (await client.request_airdrop(OWNER, SOL)).value
    net.bank.advance()
    with anyio.fail_after(BOUND_S):
        confirmed = await client.confirm_transaction(signature, Confirmed, sleep_seconds=0.01)
    assert confirmed.value[0] is not None
    assert (await client.get_balance(OWNER)).value == SOL


async def test_its_websocket_client(net: Localnet, payer: Payer) -> None:
    target = Pubkey.new_unique()
    transaction = payer.pay(target)
    async with connect(net.ws_url) as opened:
        socket: SolanaWsClientProtocol = opened
        await socket.account_subscribe(target, Processed, "base64")
        await socket.program_subscribe(OWNER, Processed, "base64", filters=[3])
        await socket.logs_subscribe(RpcTransactionLogsFilterMentions(target), Processed)
        await socket.signature_subscribe(transaction.signatures[0], Confirmed)
        await socket.slot_subscribe()
        await socket.root_subscribe()
        for _ in range(6):
            await receive(socket)
        net.bank.submit(transaction)
        net.bank.set_account(Pubkey.new_unique(), Account(SOL, b"abc", OWNER))
        make_blocks(net, 1)
        heard = [type(await receive(socket)).__name__ for _ in range(6)]
        assert heard == [
            "AccountNotification",
            "LogsNotification",
            "ProgramNotification",
            "SignatureNotification",
            "SlotNotification",
            "RootNotification",
        ]


async def receive(socket: SolanaWsClientProtocol) -> object:
    with anyio.fail_after(BOUND_S):
        (message,) = await socket.recv()
    return message
