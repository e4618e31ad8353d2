"""How long a blockhash lives, and that a signature is processed once."""

from __future__ import annotations

import pytest
from solders.hash import Hash
from solders.pubkey import Pubkey

from keeper.localnet import Localnet
from keeper.localnet.history import Landed
from tests.localnet.localnet_clients import SOL, Payer, Rpc, RpcFailure, make_blocks, wire

pytestmark = pytest.mark.anyio

NO_PREFLIGHT = {"encoding": "base64", "skipPreflight": True}
PREFLIGHT = {"encoding": "base64", "preflightCommitment": "processed"}
PROCESSED = {"commitment": "processed"}


async def test_a_transaction_can_land_at_last_valid_block_height_plus_one(
    net: Localnet, rpc: Rpc, payer: Payer
) -> None:
    latest = (await rpc("getLatestBlockhash", PROCESSED))["value"]
    last_valid = latest["lastValidBlockHeight"]
    blockhash = Hash.from_string(latest["blockhash"])
    target = Pubkey.new_unique()
    on_time = payer.pay(target, blockhash=blockhash)
    too_late = payer.pay(target, 2 * SOL, blockhash=blockhash)

    make_blocks(net, last_valid - net.bank.chain.tip.height)
    assert await rpc("getBlockHeight", PROCESSED) == last_valid
    assert (await rpc("isBlockhashValid", latest["blockhash"], PROCESSED))["value"] is True

    make_blocks(net, 1)
    assert (await rpc("isBlockhashValid", latest["blockhash"], PROCESSED))["value"] is False
    await rpc("sendTransaction", wire(on_time), NO_PREFLIGHT)
    assert (await rpc("getBalance", str(target), PROCESSED))["value"] == SOL

    make_blocks(net, 1)
    signature = await rpc("sendTransaction", wire(too_late), NO_PREFLIGHT)
    assert signature == str(too_late.signatures[0])  # an OK proves nothing
    assert (await rpc("getBalance", str(target), PROCESSED))["value"] == SOL
    assert (await rpc("getSignatureStatuses", [signature]))["value"] == [None]


async def test_preflight_wants_six_blocks_more_than_landing(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    transaction = payer.pay(Pubkey.new_unique())
    make_blocks(net, 144)
    assert (await rpc("simulateTransaction", wire(transaction), {"encoding": "base64"} | PROCESSED))["value"][
        "err"
    ] is None
    make_blocks(net, 1)
    with pytest.raises(RpcFailure) as refused:
        await rpc("sendTransaction", wire(transaction), PREFLIGHT)
    assert refused.value.code == -32002
    assert refused.value.message == "Transaction simulation failed: Blockhash not found"
    assert refused.value.data["err"] == "BlockhashNotFound"
    assert isinstance(net.bank.land(transaction), Landed)


async def test_a_signature_is_processed_once(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    target = Pubkey.new_unique()
    transaction = payer.pay(target)
    for _ in range(3):
        signature = await rpc("sendTransaction", wire(transaction), NO_PREFLIGHT)
        make_blocks(net, 1)
    assert (await rpc("getBalance", str(target), PROCESSED))["value"] == SOL
    assert net.bank.land(transaction) == "AlreadyProcessed"
    with pytest.raises(RpcFailure) as refused:
        await rpc("sendTransaction", wire(transaction), PREFLIGHT)
    assert refused.value.code == -32002
    assert refused.value.data["err"] == "AlreadyProcessed"
    assert (await rpc("getSignatureStatuses", [signature]))["value"][0]["err"] is None

    make_blocks(net, 151)  # now the blockhash is what keeps it out
    assert net.bank.land(transaction) == "BlockhashNotFound"


async def test_preflight_sees_the_blockhashes_of_its_commitment_only(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    fresh = payer.pay(Pubkey.new_unique())
    with pytest.raises(RpcFailure) as refused:  # the default is finalized
        await rpc("sendTransaction", wire(fresh), {"encoding": "base64"})
    assert refused.value.data["err"] == "BlockhashNotFound"
    await rpc("sendTransaction", wire(fresh), PREFLIGHT)


async def test_skipped_slots_widen_the_gap_between_slot_and_height(net: Localnet, rpc: Rpc) -> None:
    before = net.bank.chain.tip
    net.bank.advance(skip=10)
    net.bank.advance()
    assert await rpc("getSlot", PROCESSED) == before.slot + 12
    assert await rpc("getBlockHeight", PROCESSED) == before.height + 2
    with pytest.raises(RpcFailure) as skipped:
        await rpc("getBlockTime", before.slot + 5)
    assert skipped.value.code == -32007
