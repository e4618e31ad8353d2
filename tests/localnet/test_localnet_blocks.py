"""Whole blocks, and what a client asks about a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from solders.pubkey import Pubkey

from keeper.localnet import Localnet, LocalnetConfig
from keeper.localnet.bank import Bank, BankSettings
from tests.localnet.localnet_clients import Payer, Rpc, RpcFailure, Socket, make_blocks

pytestmark = pytest.mark.anyio

CONFIRMED = {"commitment": "confirmed", "maxSupportedTransactionVersion": 1}


async def test_a_block_with_its_transactions(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    slot, parent = net.bank.chain.tip.slot, net.bank.chain.tip.parent
    signatures = [str(net.bank.submit(payer.pay(Pubkey.new_unique()))) for _ in range(2)]
    make_blocks(net, 1)
    full = await rpc("getBlock", slot, CONFIRMED)
    assert full["parentSlot"] == parent
    assert full["previousBlockhash"] == (await rpc("getBlock", parent, CONFIRMED))["blockhash"]
    assert [one["transaction"]["signatures"][0] for one in full["transactions"]] == signatures
    assert full["transactions"][0] == {
        name: value
        for name, value in (await rpc("getTransaction", signatures[0], CONFIRMED)).items()
        if name not in ("slot", "blockTime")
    }
    told = await rpc("getBlock", slot, CONFIRMED | {"transactionDetails": "signatures", "rewards": False})
    assert told["signatures"] == signatures
    assert not {"transactions", "rewards"} & set(told)
    accounts = await rpc("getBlock", slot, CONFIRMED | {"transactionDetails": "accounts"})
    (first, _) = accounts["transactions"]
    assert first["transaction"]["accountKeys"][0]["pubkey"] == str(payer.address)
    nothing = await rpc("getBlock", slot, CONFIRMED | {"transactionDetails": "none"})
    assert set(nothing) == set(told) - {"signatures"} | {"rewards"}
    # A block of it stays when it is final, and is gone with a fork.
    make_blocks(net, 6)
    assert (await rpc("getBlock", slot, {"maxSupportedTransactionVersion": 0}))["transactions"] == full["transactions"]


async def test_the_transactions_of_a_fork_are_not_of_the_block_that_stays(net: Localnet, payer: Payer) -> None:
    stays = net.bank.submit(payer.pay(Pubkey.new_unique()))
    slot = net.bank.chain.tip.slot
    make_blocks(net, 1)
    net.bank.submit(payer.pay(Pubkey.new_unique()))
    dropped = net.bank.chain.tip.slot
    net.bank.drop_slots_after(slot)
    assert [landed.signature for landed in net.bank.history.of_slot(slot)] == [stays]
    assert list(net.bank.history.of_slot(dropped)) == []


async def test_a_block_whose_transactions_are_partly_forgotten_is_not_shown(rpc: Rpc, net: Localnet) -> None:
    net.bank.history.complete_from = 1
    with pytest.raises(RpcFailure, match="cleaned up"):
        await rpc("getBlock", 0, CONFIRMED)
    assert (await rpc("getBlock", 0, CONFIRMED | {"transactionDetails": "none"}))["blockHeight"] == 0


def test_history_says_from_where_it_is_complete() -> None:
    bank = Bank(BankSettings(history_transactions=2, status_cache_blocks=1, finalized_slots=2))
    slots = []
    for _ in range(4):
        slots.append(bank.advance().slot)
        bank.airdrop(Pubkey.new_unique(), 1_000_000)
    for _ in range(200):  # a signature is kept for as long as its blockhash lives
        bank.advance()
    assert bank.history.complete_from == slots[1] + 1
    assert [len(bank.history.of_slot(slot)) for slot in slots] == [0, 0, 1, 1]


async def test_the_slots_that_have_a_block(net: Localnet, rpc: Rpc) -> None:
    net.bank.advance(skip=2)
    make_blocks(net, 2)
    newest = net.bank.chain.tip.slot - 1  # the newest confirmed one
    there = [slot for slot in range(newest + 1) if slot not in (2, 3)]
    assert await rpc("getBlocks", 0, CONFIRMED) == there
    assert await rpc("getBlocks", 1, 4, CONFIRMED) == [1, 4]
    assert await rpc("getBlocks", 5, 1, CONFIRMED) == []
    assert await rpc("getBlocksWithLimit", 1, 2, CONFIRMED) == [1, 4]
    for slot, said in ((2, "was skipped"), (newest + 1, "not available")):
        with pytest.raises(RpcFailure, match=said):
            await rpc("getBlock", slot, CONFIRMED)
    with pytest.raises(RpcFailure, match="below `confirmed`"):
        await rpc("getBlocks", 0, {"commitment": "processed"})


async def test_a_minute_is_a_performance_sample(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    make_blocks(net, 2)
    assert await rpc("getRecentPerformanceSamples") == []
    net.bank.advance_clock(61)
    net.bank.submit(payer.pay(Pubkey.new_unique()))
    make_blocks(net, 1)
    (sample,) = await rpc("getRecentPerformanceSamples", 5)
    assert sample["slot"] == net.bank.chain.tip.slot - 1
    assert sample["samplePeriodSecs"] >= 60
    assert (sample["numTransactions"], sample["numNonVoteTransactions"]) == (1, 1)
    with pytest.raises(RpcFailure, match="Invalid limit; max 720"):
        await rpc("getRecentPerformanceSamples", 721)


async def test_what_a_client_asks_about_the_cluster(net: Localnet, rpc: Rpc) -> None:
    (node,) = await rpc("getClusterNodes")
    assert node["pubkey"] == (await rpc("getIdentity"))["identity"]
    assert node["featureSet"] == (await rpc("getVersion"))["feature-set"]
    assert await rpc("getVoteAccounts") == {"current": [], "delinquent": []}
    supply = (await rpc("getSupply"))["value"]
    assert supply["total"] == supply["circulating"] > 10**9
    assert await rpc("minimumLedgerSlot") == 0


async def test_what_becomes_of_slots(net: Localnet, socket: Socket, payer: Payer) -> None:
    subscription = await socket.call("slotsUpdatesSubscribe")
    net.bank.submit(payer.pay(Pubkey.new_unique()))
    full = net.bank.chain.tip.slot
    tip = net.bank.advance().slot
    heard: list[dict[str, Any]] = []
    while not heard or heard[-1]["type"] != "root":
        method, to, update = await socket.next()
        assert (method, to) == ("slotsUpdatesNotification", subscription)
        heard.append(update)
    assert [(update["type"], update["slot"]) for update in heard] == [
        ("completed", full),
        ("frozen", full),
        ("createdBank", tip),
        ("optimisticConfirmation", full),
        ("root", full - 3),
    ]
    assert heard[1]["stats"]["numSuccessfulTransactions"] == 1
    assert heard[2]["parent"] == full
    assert await socket.call("slotsUpdatesUnsubscribe", subscription) is True


async def test_a_failure_is_told_when_its_block_is_complete(
    net: Localnet, rpc: Rpc, socket: Socket, payer: Payer
) -> None:
    """web3.js asks for the status as soon as it has sent: what failed already would be thrown at it bare."""
    signature = net.bank.submit(payer.pay(Pubkey.new_unique(), lamports=10**15))
    subscription = await socket.call("signatureSubscribe", str(signature), {"commitment": "processed"})
    assert (await rpc("getSignatureStatuses", [str(signature)]))["value"] == [None]
    assert await socket.nothing_came()
    net.bank.advance()
    (status,) = (await rpc("getSignatureStatuses", [str(signature)]))["value"]
    assert status["err"] == {"InstructionError": [0, {"Custom": 1}]}
    _, told, result = await socket.next()
    assert (told, result["value"]["err"]) == (subscription, status["err"])


async def test_a_chain_that_begins_later() -> None:
    async with Localnet(LocalnetConfig(rpc_port=0, slot_ms=0, first_slot=250_000_000, finalized_slots=4)) as net:
        rpc = Rpc(net.rpc_url)
        try:
            assert await rpc("getSlot") == 250_000_000
            assert await rpc("getBlocks", 249_999_999) == [250_000_000]
        finally:
            await rpc.http.aclose()
