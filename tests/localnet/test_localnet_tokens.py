"""Tokens: the queries that wallets make, the balances in a transaction's meta data, and what jsonParsed says.

The figures and shapes are those of solana-test-validator 3.1.12, asked the same.
"""

from __future__ import annotations

from typing import Any

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM

from keeper.localnet import Localnet
from keeper.localnet.tokens import NATIVE_MINT
from tests.localnet.localnet_clients import SOL, Payer, Rpc, RpcFailure, make_blocks, payment
from tests.localnet.test_localnet_programs import TOKEN, create_token_account

pytestmark = pytest.mark.anyio

PARSED = {"encoding": "jsonParsed", "commitment": "processed"}
PROCESSED = {"commitment": "processed"}
WRAPPED = SOL + SOL // 4
SYNC_NATIVE = b"\x11"
APPROVE = b"\x04"


def amount(lamports: int, text: str) -> dict[str, Any]:
    return {"amount": str(lamports), "decimals": 9, "uiAmount": lamports / SOL, "uiAmountString": text}


def wrap(payer: Payer) -> Pubkey:
    """A token account of the payer's with 1.25 SOL in it."""
    address, transaction = create_token_account(payer, NATIVE_MINT)
    payer.net.bank.submit(transaction)
    sync = Instruction(TOKEN, SYNC_NATIVE, [AccountMeta(address, is_signer=False, is_writable=True)])
    payer.net.bank.submit(payer.sign(payment(payer.address, address, WRAPPED), sync))
    return address


async def test_wrapped_sol(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    assert (await rpc("getAccountInfo", str(NATIVE_MINT), PARSED))["value"]["data"] == {
        "program": "spl-token",
        "parsed": {
            "type": "mint",
            "info": {
                "decimals": 9,
                "freezeAuthority": None,
                "isInitialized": True,
                "mintAuthority": None,
                "supply": "0",
            },
        },
        "space": 82,
    }
    held = wrap(payer)
    info = (await rpc("getAccountInfo", str(held), PARSED))["value"]["data"]["parsed"]["info"]
    assert info == {
        "isNative": True,
        "mint": str(NATIVE_MINT),
        "owner": str(payer.address),
        "rentExemptReserve": amount(2_039_280, "0.00203928"),
        "state": "initialized",
        "tokenAmount": amount(WRAPPED, "1.25"),
    }
    assert (await rpc("getTokenAccountBalance", str(held), PROCESSED))["value"] == amount(WRAPPED, "1.25")
    assert (await rpc("getTokenSupply", str(NATIVE_MINT), PROCESSED))["value"] == amount(0, "0")
    largest = (await rpc("getTokenLargestAccounts", str(NATIVE_MINT), PROCESSED))["value"]
    assert largest == [{"address": str(held)} | amount(WRAPPED, "1.25")]
    # At a commitment that does not know the account yet, it is none.
    with pytest.raises(RpcFailure, match="not a Token account"):
        await rpc("getTokenAccountBalance", str(held))


@pytest.mark.parametrize("of", [{"mint": str(NATIVE_MINT)}, {"programId": str(TOKEN)}])
async def test_token_accounts_of_an_owner_and_of_a_delegate(rpc: Rpc, payer: Payer, of: dict[str, str]) -> None:
    held, delegate = wrap(payer), Pubkey.new_unique()
    found = (await rpc("getTokenAccountsByOwner", str(payer.address), of, PARSED))["value"]
    assert [row["pubkey"] for row in found] == [str(held)]
    assert found[0]["account"]["data"]["parsed"]["info"]["tokenAmount"]["uiAmountString"] == "1.25"
    assert (await rpc("getTokenAccountsByDelegate", str(delegate), of, PARSED))["value"] == []
    accounts = [
        AccountMeta(held, is_signer=False, is_writable=True),
        AccountMeta(delegate, is_signer=False, is_writable=False),
        AccountMeta(payer.address, is_signer=True, is_writable=False),
    ]
    payer.net.bank.submit(payer.sign(Instruction(TOKEN, APPROVE + (5).to_bytes(8, "little"), accounts)))
    (row,) = (await rpc("getTokenAccountsByDelegate", str(delegate), of, PARSED))["value"]
    info = row["account"]["data"]["parsed"]["info"]
    assert (info["delegate"], info["delegatedAmount"]["amount"]) == (str(delegate), "5")


@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("getTokenAccountBalance", [str(SYSTEM)], "Invalid param: not a Token account"),
        ("getTokenAccountBalance", [str(NATIVE_MINT)], "Invalid param: not a Token account"),
        ("getTokenSupply", [str(SYSTEM)], "Invalid param: not a Token mint"),
        ("getTokenLargestAccounts", [str(SYSTEM)], "Invalid param: not a Token mint"),
        ("getTokenAccountsByOwner", [str(SYSTEM), {"mint": str(SYSTEM)}], "Token mint could not be unpacked"),
        ("getTokenAccountsByOwner", [str(SYSTEM), {"programId": str(SYSTEM)}], "unrecognized Token program id"),
        ("getTokenAccountsByOwner", [str(SYSTEM), {}], "the filter needs a mint or a programId"),
    ],
)
async def test_what_is_no_token_is_refused(rpc: Rpc, method: str, params: list[Any], said: str) -> None:
    with pytest.raises(RpcFailure) as refused:
        await rpc(method, *params)
    assert refused.value.code == -32602
    assert said in refused.value.message


async def test_balances_in_the_meta_data(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    held, transaction = create_token_account(payer, NATIVE_MINT)
    net.bank.submit(transaction)
    sync = Instruction(TOKEN, SYNC_NATIVE, [AccountMeta(held, is_signer=False, is_writable=True)])
    signature = str(net.bank.submit(payer.sign(payment(payer.address, held, WRAPPED), sync)))
    plain = str(net.bank.submit(payer.pay(Pubkey.new_unique())))
    make_blocks(net, 1)
    config = {"commitment": "confirmed", "maxSupportedTransactionVersion": 0}
    landed = await rpc("getTransaction", signature, config)
    (before,), (after,) = landed["meta"]["preTokenBalances"], landed["meta"]["postTokenBalances"]
    index = landed["transaction"]["message"]["accountKeys"].index(str(held))
    of = {"accountIndex": index, "mint": str(NATIVE_MINT), "owner": str(payer.address), "programId": str(TOKEN)}
    # An empty account's number is null here, and only here: so it is with a validator.
    assert before == of | {"uiTokenAmount": amount(0, "0") | {"uiAmount": None}}
    assert after == of | {"uiTokenAmount": amount(WRAPPED, "1.25")}
    assert (await rpc("getTransaction", plain, config))["meta"]["postTokenBalances"] == []


async def test_sysvars_are_parsed_and_unknown_data_is_base64(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    clock = (await rpc("getAccountInfo", "SysvarC1ock11111111111111111111111111111111", PARSED))["value"]
    assert clock["data"]["parsed"]["info"]["slot"] == net.bank.chain.tip.slot
    assert clock["rentEpoch"] == 0
    schedule = (await rpc("getAccountInfo", "SysvarEpochSchedu1e111111111111111111111111", PARSED))["value"]["data"]
    assert schedule["parsed"] == {"type": "epochSchedule", "info": await rpc("getEpochSchedule")}
    wallet = (await rpc("getAccountInfo", str(payer.address), PARSED))["value"]
    assert (wallet["data"], wallet["rentEpoch"]) == (["", "base64"], 2**64 - 1)
