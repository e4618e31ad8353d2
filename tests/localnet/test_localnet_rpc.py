"""The shape of every RPC method, and what each refuses."""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from typing import Any

import anyio
import pytest
import zstandard
from solders.account import Account
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from keeper.localnet import Localnet, base58
from keeper.localnet.rpc import BANK_METHODS
from tests.localnet.localnet_clients import SOL, Payer, Rpc, RpcFailure, make_blocks, payment, wire

pytestmark = pytest.mark.anyio

PROCESSED = {"commitment": "processed"}
NO_PREFLIGHT = {"encoding": "base64", "skipPreflight": True}
PREFLIGHT = {"encoding": "base64", "preflightCommitment": "processed"}
OWNER = Pubkey.new_unique()
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")


def put(net: Localnet, data: bytes, *, owner: Pubkey = OWNER) -> Pubkey:
    address = Pubkey.new_unique()
    net.bank.set_account(address, Account(SOL, data, owner, rent_epoch=2**64 - 1))
    return address


def context(net: Localnet) -> dict[str, Any]:
    return {"apiVersion": "2.2.0", "slot": net.bank.chain.tip.slot}


# -- the node and its chain -----------------------------------------------------------------------------


async def test_node_methods(net: Localnet, rpc: Rpc) -> None:
    assert await rpc("getHealth") == "ok"
    assert await rpc("getVersion") == {"feature-set": 3_294_202_862, "solana-core": "2.2.0"}
    assert await rpc("getGenesisHash") == str(net.bank.chain.genesis_hash)
    assert await rpc("getIdentity") == {"identity": str(net.bank.identity.pubkey())}
    assert await rpc("getSlotLeader", PROCESSED) == str(net.bank.identity.pubkey())
    assert await rpc("getFirstAvailableBlock") == 0


async def test_an_unhealthy_node_says_by_how_much(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    net.bank.slots_behind = 42
    for call in (("getHealth",), ("sendTransaction", wire(payer.pay(OWNER)), PREFLIGHT)):
        with pytest.raises(RpcFailure) as refused:
            await rpc(*call)
        assert refused.value.code == -32005
        assert refused.value.message == "Node is behind by 42 slots"
        assert refused.value.data == {"numSlotsBehind": 42}
    assert (await rpc.http.get("/health")).text == "behind"


async def test_slots_heights_and_epochs(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    tip = net.bank.chain.tip.slot
    assert await rpc("getSlot", PROCESSED) == tip
    assert await rpc("getSlot", {"commitment": "confirmed"}) == tip - 1
    assert await rpc("getSlot") == tip - 4
    assert await rpc("getBlockHeight") == tip - 4
    assert await rpc("getTransactionCount", PROCESSED) == 1
    assert await rpc("getEpochInfo", PROCESSED) == {
        "absoluteSlot": tip,
        "blockHeight": tip,
        "epoch": 0,
        "slotIndex": tip,
        "slotsInEpoch": 432_000,
        "transactionCount": 1,
    }
    assert abs(await rpc("getBlockTime", tip - 1) - time.time()) < 60
    with pytest.raises(RpcFailure) as too_new:
        await rpc("getBlockTime", tip)
    assert too_new.value.code == -32004
    assert too_new.value.message == f"Block not available for slot {tip}"


async def test_latest_blockhash(net: Localnet, rpc: Rpc) -> None:
    tip = net.bank.chain.tip
    assert await rpc("getLatestBlockhash", PROCESSED) == {
        "context": context(net),
        "value": {"blockhash": str(tip.blockhash), "lastValidBlockHeight": tip.height + 150},
    }
    unknown = str(Hash.new_unique())
    assert (await rpc("isBlockhashValid", unknown, PROCESSED))["value"] is False
    with pytest.raises(RpcFailure) as refused:
        await rpc("isBlockhashValid", "abc")
    assert (refused.value.code, refused.value.message) == (-32602, "Invalid param: WrongSize")


async def test_rent(rpc: Rpc) -> None:
    assert await rpc("getMinimumBalanceForRentExemption", 0) == 890_880
    assert await rpc("getMinimumBalanceForRentExemption", 183) == 2_164_560


async def test_fee_for_message_is_what_is_charged(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    transactions = [
        payer.pay(Pubkey.new_unique()),
        payer.sign(
            set_compute_unit_limit(10_000),
            set_compute_unit_price(1_000_001),
            payment(payer.address, Pubkey.new_unique(), SOL),
        ),
        payer.sign(set_compute_unit_price(2_000_000), payment(payer.address, Pubkey.new_unique(), SOL)),
    ]
    fees = []
    for transaction in transactions:
        message = b64encode(to_bytes_versioned(transaction.message)).decode()
        answer = await rpc("getFeeForMessage", message, PROCESSED)
        before = net.bank.account(payer.address)
        await rpc("sendTransaction", wire(transaction), NO_PREFLIGHT)
        after = net.bank.account(payer.address)
        assert before is not None
        assert after is not None
        assert before.lamports - after.lamports == SOL + answer["value"]
        fees.append(answer["value"])
    assert fees == [5_000, 5_000 + 10_001, 5_000 + 12_000]
    make_blocks(net, 151)
    assert (await rpc("getFeeForMessage", message, PROCESSED))["value"] is None


async def test_recent_prioritization_fees_are_floors(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    cheap, dear = Pubkey.new_unique(), Pubkey.new_unique()
    for price, target in ((5, cheap), (900, dear)):
        await rpc(
            "sendTransaction",
            wire(payer.sign(set_compute_unit_price(price), payment(payer.address, target, SOL))),
            NO_PREFLIGHT,
        )
    slot = net.bank.chain.tip.slot
    make_blocks(net, 1)

    async def floor(*addresses: Pubkey) -> int:
        rows = await rpc("getRecentPrioritizationFees", [str(address) for address in addresses])
        return int(next(row["prioritizationFee"] for row in rows if row["slot"] == slot))

    assert await floor() == 5
    assert await floor(cheap) == 5
    assert await floor(dear) == 900
    assert await floor(dear, payer.address) == 900
    rows = await rpc("getRecentPrioritizationFees")
    assert [row["slot"] for row in rows] == sorted(row["slot"] for row in rows)
    assert slot + 1 not in [row["slot"] for row in rows]  # still being filled


# -- accounts -------------------------------------------------------------------------------------------


async def test_account_info_in_every_encoding(net: Localnet, rpc: Rpc) -> None:
    data = bytes(range(120))
    address = put(net, data)

    async def shown(**config: Any) -> Any:
        return (await rpc("getAccountInfo", str(address), PROCESSED | config))["value"]

    assert await shown(encoding="base64") == {
        "data": [b64encode(data).decode(), "base64"],
        "executable": False,
        "lamports": SOL,
        "owner": str(OWNER),
        "rentEpoch": 2**64 - 1,
        "space": 120,
    }
    assert (await shown(encoding="base58"))["data"] == [base58.encode(data), "base58"]
    assert (await shown())["data"] == base58.encode(data)
    packed, name = (await shown(encoding="base64+zstd"))["data"]
    assert name == "base64+zstd"
    assert zstandard.ZstdDecompressor().decompress(b64decode(packed)) == data
    assert (await shown(encoding="jsonParsed"))["data"][1] == "base64"  # no parser for this owner
    sliced = await shown(encoding="base64", dataSlice={"offset": 118, "length": 9})
    assert b64decode(sliced["data"][0]) == data[118:]
    assert sliced["space"] == 120


async def test_missing_closed_and_balance(net: Localnet, rpc: Rpc) -> None:
    address = put(net, b"x")
    assert await rpc("getBalance", str(address), PROCESSED) == {"context": context(net), "value": SOL}
    net.bank.set_account(address, None)
    for gone in (address, Pubkey.new_unique()):
        assert await rpc("getAccountInfo", str(gone), PROCESSED) == {"context": context(net), "value": None}
        assert (await rpc("getBalance", str(gone), PROCESSED))["value"] == 0


async def test_base58_is_for_small_data(net: Localnet, rpc: Rpc) -> None:
    address = str(put(net, bytes(129)))
    for call in (("getAccountInfo", address), ("getProgramAccounts", str(OWNER))):
        with pytest.raises(RpcFailure) as refused:
            await rpc(*call, PROCESSED | {"encoding": "base58"})
        assert refused.value.code == -32600
        assert refused.value.message == (
            "Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding."
        )
    config = PROCESSED | {"encoding": "base58", "dataSlice": {"offset": 0, "length": 10}}
    assert (await rpc("getAccountInfo", address, config))["value"]["data"] == ["1" * 10, "base58"]


async def test_multiple_accounts(net: Localnet, rpc: Rpc) -> None:
    one, two, none = put(net, b"1"), put(net, b"2"), Pubkey.new_unique()
    value = (await rpc("getMultipleAccounts", [str(two), str(none), str(one)], PROCESSED))["value"]
    assert [account and b64decode(account["data"][0]) for account in value] == [b"2", None, b"1"]
    with pytest.raises(RpcFailure) as refused:
        await rpc("getMultipleAccounts", [str(one)] * 101)
    assert (refused.value.code, refused.value.message) == (-32602, "Too many inputs provided; max 100")
    assert len((await rpc("getMultipleAccounts", [str(one)] * 100, PROCESSED))["value"]) == 100


async def test_program_accounts_and_filters(net: Localnet, rpc: Rpc) -> None:
    short, long = put(net, b"\x01\x02\x03"), put(net, b"\x01\x02\x03\x04")
    other = put(net, b"\x09\x02\x03\x04")

    async def found(*filters: Any, **config: Any) -> set[str]:
        wanted = PROCESSED | {"encoding": "base64", "filters": list(filters)} | config
        return {row["pubkey"] for row in await rpc("getProgramAccounts", str(OWNER), wanted)}

    def memcmp(offset: int, wanted: Any, **more: Any) -> dict[str, Any]:
        return {"memcmp": {"offset": offset, "bytes": wanted} | more}

    assert await found() == {str(short), str(long), str(other)}
    assert await found({"dataSize": 4}) == {str(long), str(other)}
    assert await found(memcmp(0, base58.encode(b"\x01\x02"))) == {str(short), str(long)}
    assert await found(memcmp(3, base58.encode(b"\x04"))) == {str(long), str(other)}
    assert await found({"dataSize": 4}, memcmp(0, b64encode(b"\x01").decode(), encoding="base64")) == {str(long)}
    assert await found(memcmp(1, [2, 3])) == {str(short), str(long), str(other)}
    with_context = await rpc("getProgramAccounts", str(OWNER), PROCESSED | {"withContext": True})
    assert with_context["context"] == context(net)
    assert len(with_context["value"]) == 3
    sliced = PROCESSED | {"encoding": "base64", "dataSlice": {"offset": 0, "length": 0}}
    rows = await rpc("getProgramAccounts", str(OWNER), sliced)
    assert {row["account"]["data"][0] for row in rows} == {""}
    assert {row["account"]["space"] for row in rows} == {3, 4}


@pytest.mark.parametrize(
    "filters",
    [
        [{"dataSize": 1}] * 5,
        [{"dataSize": -1}],
        [{"dataSize": "1"}],
        [{"memcmp": {"offset": 0, "bytes": "0OIl"}}],
        [{"memcmp": {"offset": 0, "bytes": base58.encode(b"\xff" * 129)}}],
        [{"memcmp": {"offset": 0, "bytes": "1" * 40_000}}],
        [{"memcmp": {"offset": 0, "bytes": [256]}}],
        [{"memcmp": {"bytes": "1"}}],
        [{"tokenAccountState": None}],
        {"dataSize": 1},
    ],
)
async def test_bad_filters(rpc: Rpc, filters: Any) -> None:
    with pytest.raises(RpcFailure) as refused:
        await rpc("getProgramAccounts", str(OWNER), {"filters": filters})
    assert refused.value.code == -32602


async def test_program_accounts_of_the_loader_lists_what_the_vm_is_born_with(rpc: Rpc) -> None:
    loader = "BPFLoader2111111111111111111111111111111111"
    config = PROCESSED | {"encoding": "base64", "dataSlice": {"offset": 0, "length": 0}}
    listed = {row["pubkey"] for row in await rpc("getProgramAccounts", loader, config)}
    assert {str(MEMO), "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"} <= listed


# -- sending --------------------------------------------------------------------------------------------


async def test_send_in_both_encodings_and_read_back(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    for encoding, text in (("base58", base58.encode), ("base64", lambda raw: b64encode(raw).decode())):
        transaction = payer.pay(Pubkey.new_unique())
        config = {"preflightCommitment": "processed", "maxRetries": 0}
        if encoding != "base58":  # the default
            config["encoding"] = encoding
        signature = await rpc("sendTransaction", text(bytes(transaction)), config)
        assert signature == str(transaction.signatures[0])
        slot = net.bank.chain.tip.slot
        net.bank.advance()
        status = (await rpc("getSignatureStatuses", [signature]))["value"][0]
        assert status == {
            "slot": slot,
            "confirmations": 1,
            "err": None,
            "status": {"Ok": None},
            "confirmationStatus": "confirmed",
        }


async def test_a_failed_transaction_lands_and_pays(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    transaction = payer.pay(Pubkey.new_unique(), 1_000 * SOL)
    with pytest.raises(RpcFailure) as refused:
        await rpc("sendTransaction", wire(transaction), PREFLIGHT)
    assert refused.value.code == -32002
    assert refused.value.message == (
        "Transaction simulation failed: Error processing Instruction 0: custom program error: 0x1"
    )
    data = refused.value.data
    assert data["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert data["unitsConsumed"] == 150
    assert data["logs"][-1] == "Program 11111111111111111111111111111111 failed: custom program error: 0x1"
    assert data["accounts"] is data["returnData"] is data["replacementBlockhash"] is None

    signature = await rpc("sendTransaction", wire(transaction), NO_PREFLIGHT)
    make_blocks(net, 1)
    status = (await rpc("getSignatureStatuses", [signature]))["value"][0]
    assert status["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert status["status"] == {"Err": status["err"]}
    assert (await rpc("getBalance", str(payer.address), PROCESSED))["value"] == 100 * SOL - 5_000


async def test_what_cannot_pay_never_lands(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    poor = Payer(net)
    signature = await rpc("sendTransaction", wire(poor.pay(OWNER)), NO_PREFLIGHT)
    assert (await rpc("getSignatureStatuses", [signature]))["value"] == [None]
    with pytest.raises(RpcFailure) as refused:
        await rpc("sendTransaction", wire(poor.pay(OWNER)), PREFLIGHT)
    assert refused.value.data["err"] == "AccountNotFound"
    dear = payer.sign(
        set_compute_unit_limit(1_400_000),
        set_compute_unit_price(10**12),
        payment(payer.address, OWNER, SOL),
    )
    assert net.bank.land(dear) == "InsufficientFundsForFee"
    assert (await rpc("getBalance", str(payer.address), PROCESSED))["value"] == 100 * SOL


async def test_a_bad_signature(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    good = payer.pay(OWNER)
    bad = VersionedTransaction.populate(good.message, [Signature.new_unique()])
    for method, config in (
        ("sendTransaction", PREFLIGHT),
        ("simulateTransaction", {"encoding": "base64", "sigVerify": True}),
    ):
        with pytest.raises(RpcFailure) as refused:
            await rpc(method, wire(bad), config)
        assert refused.value.code == -32003
        assert refused.value.message == "Transaction signature verification failure"
    signature = await rpc("sendTransaction", wire(bad), NO_PREFLIGHT)
    assert signature == str(bad.signatures[0])
    assert (await rpc("getSignatureStatuses", [signature]))["value"] == [None]


async def test_wire_texts_that_are_no_transaction(rpc: Rpc, payer: Payer) -> None:
    good = bytes(payer.pay(OWNER))
    crooked = VersionedTransaction.populate(payer.pay(OWNER).message, [])
    for text, config, words in (
        ("!!!", {"encoding": "base64"}, "invalid base64 encoding"),
        ("0OIl", {}, "invalid base58 encoding"),
        ("1" * 1_684, {}, "base58 encoded VersionedTransaction too large: 1684 bytes"),
        ("A" * 1_648, {"encoding": "base64"}, "base64 encoded VersionedTransaction too large"),
        (b64encode(bytes(1_233)).decode(), {"encoding": "base64"}, "decoded VersionedTransaction too large"),
        (b64encode(good[:-1]).decode(), {"encoding": "base64"}, "failed to deserialize"),
        (wire(crooked), {"encoding": "base64"}, "invalid transaction"),
        (wire(payer.pay(OWNER)), {"encoding": "jsonParsed"}, "unsupported encoding: jsonParsed"),
        (5, {}, "must be a string"),
    ):
        with pytest.raises(RpcFailure) as refused:
            await rpc("sendTransaction", text, config)
        assert refused.value.code == -32602
        assert words in refused.value.message


async def test_an_airdrop_is_a_transaction_each_time(net: Localnet, rpc: Rpc) -> None:
    address = Pubkey.new_unique()
    first = await rpc("requestAirdrop", str(address), SOL)
    second = await rpc("requestAirdrop", str(address), SOL)
    assert first != second
    assert (await rpc("getBalance", str(address), PROCESSED))["value"] == 2 * SOL


# -- simulating -----------------------------------------------------------------------------------------


async def test_simulation_with_everything(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    target = Pubkey.new_unique()
    make_blocks(net, 1)
    stale = payer.pay(target, blockhash=Hash.new_unique())
    config = PROCESSED | {
        "encoding": "base64",
        "replaceRecentBlockhash": True,
        "innerInstructions": True,
        "accounts": {"addresses": [str(target), str(payer.address)], "encoding": "base64"},
        "minContextSlot": 1,
    }
    answer = await rpc("simulateTransaction", wire(stale), config)
    assert answer["context"] == context(net)
    value = answer["value"]
    assert value["err"] is None
    assert value["unitsConsumed"] == 150
    assert value["logs"][0] == "Program 11111111111111111111111111111111 invoke [1]"
    assert [account["lamports"] for account in value["accounts"]] == [SOL, 99 * SOL - 5_000]
    assert value["innerInstructions"] == []
    assert value["returnData"] is None
    tip = net.bank.chain.tip
    assert value["replacementBlockhash"] == {
        "blockhash": str(tip.blockhash),
        "lastValidBlockHeight": tip.height + 150,
    }
    assert (await rpc("getBalance", str(target), PROCESSED))["value"] == 0  # it kept nothing

    failing = payer.pay(target, 1_000 * SOL)
    value = (await rpc("simulateTransaction", wire(failing), config))["value"]
    assert value["accounts"] == [None, None]
    assert value["err"] == {"InstructionError": [0, {"Custom": 1}]}


async def test_simulations_that_make_no_sense(rpc: Rpc, payer: Payer) -> None:
    transaction = wire(payer.pay(OWNER))
    for config, words in (
        ({"sigVerify": True, "replaceRecentBlockhash": True}, "sigVerify may not be used with"),
        ({"accounts": {"addresses": [], "encoding": "base58"}}, "base58 encoding not supported"),
        ({"accounts": {"addresses": [str(OWNER)] * 4}}, "Too many accounts provided; max 3"),
        ({"accounts": {}}, "accounts needs addresses"),
    ):
        with pytest.raises(RpcFailure) as refused:
            await rpc("simulateTransaction", transaction, PROCESSED | {"encoding": "base64"} | config)
        assert refused.value.code == -32602
        assert words in refused.value.message


async def test_a_simulation_needs_no_signature_unless_asked(rpc: Rpc, payer: Payer) -> None:
    unsigned = VersionedTransaction.populate(payer.pay(OWNER).message, [Signature.default()])
    value = (await rpc("simulateTransaction", wire(unsigned), PROCESSED | {"encoding": "base64"}))["value"]
    assert value["err"] is None


# -- looking back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1])
async def test_get_transaction_in_every_encoding(net: Localnet, rpc: Rpc, payer: Payer, version: int) -> None:
    target = Pubkey.new_unique()
    transaction = payer.pay(target)
    signature = await rpc("sendTransaction", wire(transaction), NO_PREFLIGHT)
    slot = net.bank.chain.tip.slot
    config = {"commitment": "confirmed", "maxSupportedTransactionVersion": version}
    assert await rpc("getTransaction", signature, config) is None  # processed only
    make_blocks(net, 1)
    shown = await rpc("getTransaction", signature, config)
    assert shown["slot"] == slot
    assert shown["version"] == 0
    assert abs(shown["blockTime"] - time.time()) < 60
    meta = shown["meta"]
    assert meta["err"] is None
    assert meta["status"] == {"Ok": None}
    assert meta["fee"] == 5_000
    assert meta["computeUnitsConsumed"] == 150
    assert meta["preBalances"] == [100 * SOL, 0, 1]
    assert meta["postBalances"] == [99 * SOL - 5_000, SOL, 1]
    assert meta["loadedAddresses"] == {"writable": [], "readonly": []}
    message = shown["transaction"]["message"]
    assert message["accountKeys"] == [str(payer.address), str(target), "1" * 32]
    assert message["header"]["numRequiredSignatures"] == 1
    assert message["instructions"][0]["programIdIndex"] == 2
    assert shown["transaction"]["signatures"] == [signature]

    parsed = await rpc("getTransaction", signature, config | {"encoding": "jsonParsed"})
    keys = parsed["transaction"]["message"]["accountKeys"]
    assert [(key["signer"], key["writable"]) for key in keys] == [(True, True), (False, True), (False, False)]
    for encoding, decode in (("base64", b64decode), ("base58", base58.decode)):
        text, name = (await rpc("getTransaction", signature, config | {"encoding": encoding}))["transaction"]
        assert name == encoding
        assert decode(text) == bytes(transaction)


async def test_a_version_that_the_caller_does_not_take(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    signature = await rpc("sendTransaction", wire(payer.pay(OWNER)), NO_PREFLIGHT)
    make_blocks(net, 5)
    with pytest.raises(RpcFailure) as refused:
        await rpc("getTransaction", signature, "json")
    assert refused.value.code == -32015
    assert '"maxSupportedTransactionVersion": 0' in refused.value.message


async def test_only_settled_history_is_shown(rpc: Rpc) -> None:
    for call in (("getTransaction", str(Signature.default())), ("getSignaturesForAddress", str(OWNER))):
        with pytest.raises(RpcFailure) as refused:
            await rpc(*call, PROCESSED)
        assert refused.value.code == -32602
        assert refused.value.message == "Method does not support commitment below `confirmed`"


async def test_signatures_for_address(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    target = Pubkey.new_unique()
    sent = []
    for lamports in (SOL, 2 * SOL, 1_000 * SOL):
        sent.append(await rpc("sendTransaction", wire(payer.pay(target, lamports)), NO_PREFLIGHT))
        make_blocks(net, 1)

    async def found(**config: Any) -> list[str]:
        wanted = {"commitment": "confirmed"} | config
        return [row["signature"] for row in await rpc("getSignaturesForAddress", str(target), wanted)]

    assert await found() == sent[::-1]
    assert await found(limit=1) == sent[2:]
    assert await found(before=sent[2]) == [sent[1], sent[0]]
    assert await found(until=sent[0]) == [sent[2], sent[1]]
    assert await found(before=sent[2], until=sent[0]) == [sent[1]]
    newest = (await rpc("getSignaturesForAddress", str(target), {"commitment": "confirmed"}))[0]
    assert newest["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert newest["confirmationStatus"] == "confirmed"
    assert newest["memo"] is None
    for limit in (0, 1_001):
        with pytest.raises(RpcFailure):
            await found(limit=limit)


async def test_memos_are_shown(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    note = Instruction(MEMO, "für später".encode(), [AccountMeta(payer.address, True, True)])
    await rpc("sendTransaction", wire(payer.sign(note)), NO_PREFLIGHT)
    make_blocks(net, 1)
    rows = await rpc("getSignaturesForAddress", str(MEMO), {"commitment": "confirmed"})
    assert rows[0]["memo"] == "[12] für später"


async def test_the_status_cache_and_the_history(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    signature = await rpc("sendTransaction", wire(payer.pay(OWNER)), NO_PREFLIGHT)
    make_blocks(net, 300)
    search = {"searchTransactionHistory": True}
    assert (await rpc("getSignatureStatuses", [signature]))["value"][0] is not None
    make_blocks(net, 1)
    assert (await rpc("getSignatureStatuses", [signature]))["value"] == [None]
    found = (await rpc("getSignatureStatuses", [signature], search))["value"][0]
    assert found["confirmationStatus"] == "finalized"
    with pytest.raises(RpcFailure) as refused:
        await rpc("getSignatureStatuses", [signature] * 257)
    assert refused.value.code == -32602


async def test_lookup_tables(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    from solders.address_lookup_table_account import AddressLookupTableAccount

    target, table = Pubkey.new_unique(), Pubkey.new_unique()
    program = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")
    # Type 1, never deactivated, extended at slot 0, no authority.
    header = (1).to_bytes(4, "little") + b"\xff" * 8 + bytes(8) + bytes(1) + bytes(1) + bytes(32) + bytes(2)
    net.bank.set_account(table, Account(SOL, header + bytes(target), program))
    make_blocks(net, 5)

    def looking_up(key: Pubkey) -> VersionedTransaction:
        message = MessageV0.try_compile(
            payer.address,
            [payment(payer.address, target, SOL)],
            [AddressLookupTableAccount(key, [target])],
            net.bank.chain.tip.blockhash,
        )
        assert target not in message.account_keys
        return VersionedTransaction(message, [payer.key])

    signature = await rpc("sendTransaction", wire(looking_up(table)), PREFLIGHT)
    assert (await rpc("getBalance", str(target), PROCESSED))["value"] == SOL
    make_blocks(net, 1)
    config = {"commitment": "confirmed", "maxSupportedTransactionVersion": 0}
    meta = (await rpc("getTransaction", signature, config))["meta"]
    assert meta["loadedAddresses"] == {"writable": [str(target)], "readonly": []}
    assert meta["postBalances"][-1] == SOL
    rows = await rpc("getSignaturesForAddress", str(target), {"commitment": "confirmed"})
    assert [row["signature"] for row in rows] == [signature]
    with pytest.raises(RpcFailure) as refused:
        await rpc("sendTransaction", wire(looking_up(Pubkey.new_unique())), PREFLIGHT)
    assert refused.value.data["err"] == "AddressLookupTableNotFound"


# -- the frame ------------------------------------------------------------------------------------------


def call(method: str, **members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method} | members


@pytest.mark.parametrize("method", ["getInflationReward", "simulateBundle", "", "getslot"])
async def test_what_is_not_known_is_not_made_up(rpc: Rpc, method: str) -> None:
    with pytest.raises(RpcFailure) as refused:
        await rpc(method)
    assert (refused.value.code, refused.value.message) == (-32601, "Method not found")


async def test_batches_keep_their_ids(rpc: Rpc) -> None:
    batch = [
        call("getSlot", id="a", params=[PROCESSED]),
        call("nope", id=2**60),
        {"jsonrpc": "2.0", "method": "getSlot"},  # a notification
        call("getHealth", id=None),
        5,
    ]
    replies = (await rpc.post(batch)).json()
    assert [reply["id"] for reply in replies] == ["a", 2**60, None, None]
    assert replies[0]["result"] == 1
    assert replies[1]["error"]["code"] == -32601
    assert replies[2]["result"] == "ok"
    assert replies[3]["error"]["code"] == -32600


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b"", -32700),
        (b"[" * 20_000, -32700),
        (b"[]", -32600),
        (b"5", -32600),
        (b'{"id":1}', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"getSlot"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"getSlot"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":{}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":["x"]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":[{"commitment":"never"}]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":[{"minContextSlot":-1}]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"getBalance"}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"getBalance","params":["abc"]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"getBlockTime","params":[true]}', -32602),
    ],
)
async def test_requests_that_are_none(rpc: Rpc, body: bytes, code: int) -> None:
    reply = await rpc.http.post("/", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 200
    assert reply.json()["error"]["code"] == code


async def test_notifications_are_not_answered(rpc: Rpc) -> None:
    silent = {"jsonrpc": "2.0", "method": "getSlot"}
    assert (await rpc.post(silent)).content == b""
    assert (await rpc.post([silent, silent | {"method": "nope"}])).content == b""


async def test_http_around_it(net: Localnet, rpc: Rpc) -> None:
    json = {"content-type": "application/json"}
    limit = net.config.max_body_bytes
    padded = b'{"jsonrpc":"2.0","id":1,"method":"getHealth"}'
    assert (await rpc.http.post("/", content=padded.ljust(limit), headers=json)).json()["result"] == "ok"
    assert (await rpc.http.post("/", content=b" " * (limit + 1), headers=json)).status_code == 413

    async def chunks() -> Any:
        for _ in range(60):
            yield b" " * 1_024

    assert (await rpc.http.post("/", content=chunks(), headers=json)).status_code == 413
    assert (await rpc.http.post("/", content=b"{}")).status_code == 415
    assert (await rpc.http.get("/")).status_code == 405
    assert (await rpc.http.get("/health")).text == "ok"
    options = await rpc.http.request("OPTIONS", "/")
    assert options.headers["access-control-allow-origin"] == "*"
    assert (await rpc.http.post("/", content=padded, headers=json)).headers["content-type"] == ("application/json")


async def test_a_socket_at_the_http_port_is_refused_and_nobody_is_advised(
    net: Localnet, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidStatus, match="405"):
        async with connect(net.rpc_url.replace("http:", "ws:")):
            pass
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


@pytest.mark.long
async def test_a_client_that_was_busy_for_20_s_finds_its_connection_open(net: Localnet) -> None:
    """web3.js sends on a connection that has been idle for less than that."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"getHealth"}'
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with await anyio.connect_tcp("127.0.0.1", int(net.rpc_url.rpartition(":")[2])) as stream:
        for pause_s in (0, 20):
            await anyio.sleep(pause_s)
            await stream.send(head + body)
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 OK")


async def test_every_method_survives_every_kind_of_parameter(net: Localnet, rpc: Rpc) -> None:
    odd: list[Any] = [None, True, -1, 2**64, 2**70, 1.5, "", "x", [], [1], [None], {}, {"a": 1}, str(OWNER)]
    odd += [str(Keypair().pubkey()), str(Signature.default()), {"commitment": 5}, {"encoding": 5}]
    batch = [
        call(name, params=params)
        for name in BANK_METHODS
        for value in odd
        for params in ([value], [value, value], [str(OWNER), value])
    ]
    for start in range(0, len(batch), 100):
        for reply in (await rpc.post(batch[start : start + 100])).json():
            assert reply.get("error", {}).get("code") != -32603, reply
