"""Programs that call programs: inner instructions and return data, in a simulation and in history."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest
from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.localnet import Localnet
from tests.localnet.localnet_clients import SOL, Payer, Rpc, make_blocks, wire

pytestmark = pytest.mark.anyio

SYSTEM = Pubkey.default()
TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
ASSOCIATED = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")


def put_mint(net: Localnet) -> Pubkey:
    # No mint authority, no supply, 6 decimals, initialized, no freeze authority.
    data = bytes(36) + bytes(8) + bytes([6, 1]) + bytes(36)
    mint = Pubkey.new_unique()
    net.bank.set_account(mint, Account(SOL, data, TOKEN))
    return mint


def create_token_account(payer: Payer, mint: Pubkey) -> tuple[Pubkey, VersionedTransaction]:
    address, _ = Pubkey.find_program_address([bytes(payer.address), bytes(TOKEN), bytes(mint)], ASSOCIATED)
    accounts = [
        AccountMeta(payer.address, is_signer=True, is_writable=True),
        AccountMeta(address, is_signer=False, is_writable=True),
        AccountMeta(payer.address, is_signer=False, is_writable=False),
        AccountMeta(mint, is_signer=False, is_writable=False),
        AccountMeta(SYSTEM, is_signer=False, is_writable=False),
        AccountMeta(TOKEN, is_signer=False, is_writable=False),
    ]
    return address, payer.sign(Instruction(ASSOCIATED, b"\x00", accounts))


async def test_simulated_inner_instructions(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    address, transaction = create_token_account(payer, put_mint(net))
    config: dict[str, Any] = {"encoding": "base64", "commitment": "processed", "innerInstructions": True}
    value = (await rpc("simulateTransaction", wire(transaction), config))["value"]
    assert value["err"] is None
    (group,) = value["innerInstructions"]
    assert group["index"] == 0
    # The size is asked for, the account is made, its owner is set, it is initialized.
    assert [inner["programId"] for inner in group["instructions"]] == [
        str(TOKEN),
        str(SYSTEM),
        str(TOKEN),
        str(TOKEN),
    ]
    assert {inner["stackHeight"] for inner in group["instructions"]} == {2}
    assert group["instructions"][1]["parsed"]["info"]["newAccount"] == str(address)
    del config["innerInstructions"]
    assert (await rpc("simulateTransaction", wire(transaction), config))["value"]["innerInstructions"] is None


async def test_inner_instructions_of_a_landed_transaction(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    mint = put_mint(net)
    address, transaction = create_token_account(payer, mint)
    signature = str(net.bank.submit(transaction))
    make_blocks(net, 1)
    owned = [found for found, _ in net.bank.owned_by(TOKEN)]
    assert address in owned
    config = {"commitment": "confirmed", "maxSupportedTransactionVersion": 0}
    meta = (await rpc("getTransaction", signature, config))["meta"]
    (group,) = meta["innerInstructions"]
    keys = (await rpc("getTransaction", signature, config))["transaction"]["message"]["accountKeys"]
    assert keys[group["instructions"][1]["programIdIndex"]] == str(SYSTEM)
    assert group["instructions"][1]["stackHeight"] == 2
    assert meta["preTokenBalances"] == []
    assert [balance["mint"] for balance in meta["postTokenBalances"]] == [str(mint)]


async def test_return_data(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    mint = put_mint(net)
    get_account_data_size = Instruction(TOKEN, b"\x15", [AccountMeta(mint, is_signer=False, is_writable=False)])
    transaction = payer.sign(get_account_data_size)
    config = {"encoding": "base64", "commitment": "processed"}
    returned = (await rpc("simulateTransaction", wire(transaction), config))["value"]["returnData"]
    assert returned["programId"] == str(TOKEN)
    assert int.from_bytes(b64decode(returned["data"][0]), "little") == 165
    signature = str(net.bank.submit(transaction))
    make_blocks(net, 1)
    settled = {"commitment": "confirmed", "maxSupportedTransactionVersion": 0}
    assert (await rpc("getTransaction", signature, settled))["meta"]["returnData"] == returned
