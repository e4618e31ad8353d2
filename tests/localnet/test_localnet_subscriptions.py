"""What subscribers hear, at which commitment, and what they do not hear."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import anyio
import pytest
from solders.account import Account
from solders.pubkey import Pubkey
from solders.signature import Signature
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from keeper.localnet import Localnet, LocalnetConfig, base58
from tests.localnet.localnet_clients import BOUND_S, SOL, Payer, RpcFailure, Socket, make_blocks, socket_to

pytestmark = pytest.mark.anyio

OWNER = Pubkey.new_unique()
LEVELS = ("processed", "confirmed", "finalized")


def base64(commitment: str = "processed", **config: Any) -> dict[str, Any]:
    return {"encoding": "base64", "commitment": commitment} | config


def account(data: bytes, *, owner: Pubkey = OWNER) -> Account:
    return Account(SOL, data, owner)


async def test_account_at_each_commitment(net: Localnet, socket: Socket) -> None:
    address = Pubkey.new_unique()
    level_of = {await socket.call("accountSubscribe", str(address), base64(level)): level for level in LEVELS}
    written_in = net.bank.chain.tip.slot
    net.bank.set_account(address, account(b"first"))
    net.bank.set_account(address, account(b"last"))
    make_blocks(net, 5)
    heard = []
    for _ in range(4):
        method, subscription, result = await socket.next()
        assert method == "accountNotification"
        assert result["context"] == {"slot": written_in}
        heard.append((level_of[subscription], b64decode(result["value"]["data"][0])))
    # Processed is told at once and every time; later levels know the slot's last state only.
    assert heard == [
        ("processed", b"first"),
        ("processed", b"last"),
        ("confirmed", b"last"),
        ("finalized", b"last"),
    ]
    assert await socket.nothing_came()


async def test_account_encodings_and_closing(net: Localnet, socket: Socket) -> None:
    address = Pubkey.new_unique()
    await socket.call("accountSubscribe", str(address), {"commitment": "processed"})
    await socket.call("accountSubscribe", str(address), base64(encoding="base64+zstd"))
    net.bank.set_account(address, account(b"abc"))
    assert (await socket.next())[2]["value"]["data"] == base58.encode(b"abc")
    assert (await socket.next())[2]["value"]["data"][1] == "base64+zstd"
    net.bank.set_account(address, account(bytes(200)))
    # A reply would be refused; a notification has nobody to refuse.
    assert (await socket.next())[2]["value"]["data"] == "error: data too large for bs58 encoding"
    await socket.next()
    net.bank.set_account(address, None)
    closed = (await socket.next())[2]["value"]
    assert (closed["lamports"], closed["data"], closed["owner"]) == (0, "", "1" * 32)


async def test_program_with_filters(net: Localnet, socket: Socket) -> None:
    wanted = base64(filters=[{"dataSize": 3}, {"memcmp": {"offset": 1, "bytes": base58.encode(b"b")}}])
    subscription = await socket.call("programSubscribe", str(OWNER), wanted)
    fits, wrong_byte, wrong_size, other = (Pubkey.new_unique() for _ in range(4))
    net.bank.set_account(wrong_byte, account(b"axc"))
    net.bank.set_account(wrong_size, account(b"ab"))
    net.bank.set_account(other, account(b"abc", owner=Pubkey.new_unique()))
    net.bank.set_account(fits, account(b"abc"))
    method, heard, result = await socket.next()
    assert (method, heard) == ("programNotification", subscription)
    assert result["context"] == {"slot": net.bank.chain.tip.slot}
    assert result["value"]["pubkey"] == str(fits)
    assert result["value"]["account"]["data"] == ["YWJj", "base64"]
    # As with a validator: nothing is said when an account stops matching, or is closed.
    net.bank.set_account(fits, account(b"xyz"))
    net.bank.set_account(fits, account(b"abc"))
    await socket.next()
    net.bank.set_account(fits, None)
    assert await socket.nothing_came()


async def test_program_at_later_commitments(net: Localnet, socket: Socket) -> None:
    level_of = {await socket.call("programSubscribe", str(OWNER), base64(level)): level for level in LEVELS}
    address = Pubkey.new_unique()
    net.bank.set_account(address, account(b"x"))
    make_blocks(net, 5)
    assert [level_of[(await socket.next())[1]] for _ in range(3)] == list(LEVELS)
    assert await socket.nothing_came()


async def test_signature_at_each_commitment_once(net: Localnet, socket: Socket, payer: Payer) -> None:
    transaction = payer.pay(Pubkey.new_unique())
    signature = transaction.signatures[0]
    level_of = {
        await socket.call("signatureSubscribe", str(signature), {"commitment": level}): level for level in LEVELS
    }
    received = await socket.call(
        "signatureSubscribe",
        str(signature),
        {"commitment": "processed", "enableReceivedNotification": True},
    )
    slot = net.bank.chain.tip.slot
    net.bank.submit(transaction)
    make_blocks(net, 6)
    assert await socket.next() == (
        "signatureNotification",
        received,
        {"context": {"slot": slot}, "value": "receivedSignature"},
    )
    heard = [await socket.next() for _ in range(4)]
    assert all(result == {"context": {"slot": slot}, "value": {"err": None}} for _, _, result in heard)
    assert [level_of.get(subscription, "received") for _, subscription, _ in heard] == [
        "processed",
        "received",
        "confirmed",
        "finalized",
    ]
    assert await socket.nothing_came()
    with pytest.raises(RpcFailure):  # it ended by itself
        await socket.call("signatureUnsubscribe", received)


async def test_signature_that_landed_before_and_one_that_failed(net: Localnet, socket: Socket, payer: Payer) -> None:
    failing = payer.pay(Pubkey.new_unique(), 1_000 * SOL)
    net.bank.submit(failing)
    landed_in = net.bank.chain.tip.slot
    make_blocks(net, 1)
    subscription = await socket.call("signatureSubscribe", str(failing.signatures[0]), {"commitment": "processed"})
    assert await socket.next() == (
        "signatureNotification",
        subscription,
        {
            "context": {"slot": landed_in},
            "value": {"err": {"InstructionError": [0, {"Custom": 1}]}},
        },
    )


async def test_signature_that_never_lands_is_received_only(net: Localnet, socket: Socket, payer: Payer) -> None:
    net.bank.lose_transactions(1)
    transaction = payer.pay(Pubkey.new_unique())
    config = {"commitment": "processed", "enableReceivedNotification": True}
    await socket.call("signatureSubscribe", str(transaction.signatures[0]), config)
    net.bank.submit(transaction)
    make_blocks(net, 3)
    assert (await socket.next())[2]["value"] == "receivedSignature"
    assert await socket.nothing_came()


async def test_slots_and_roots(net: Localnet, socket: Socket) -> None:
    slots, roots = await socket.call("slotSubscribe"), await socket.call("rootSubscribe")
    make_blocks(net, 3)
    net.bank.advance(skip=2)
    heard = [await socket.next() for _ in range(5)]
    assert heard[:4] == [
        ("slotNotification", slots, {"parent": 1, "root": 0, "slot": 2}),
        ("slotNotification", slots, {"parent": 2, "root": 0, "slot": 3}),
        ("slotNotification", slots, {"parent": 3, "root": 0, "slot": 4}),
        ("slotNotification", slots, {"parent": 4, "root": 1, "slot": 7}),
    ]
    assert heard[4] == ("rootNotification", roots, 1)


async def test_logs(net: Localnet, socket: Socket, payer: Payer) -> None:
    target = Pubkey.new_unique()
    everything = await socket.call("logsSubscribe", "all", {"commitment": "processed"})
    mentions = await socket.call("logsSubscribe", {"mentions": [str(target)]}, {"commitment": "confirmed"})
    transaction = payer.pay(target)
    net.bank.submit(transaction)
    net.bank.submit(payer.pay(Pubkey.new_unique()))
    net.bank.advance()
    heard = [await socket.next() for _ in range(3)]
    assert [subscription for _, subscription, _ in heard] == [everything, everything, mentions]
    assert heard[2][2]["value"] == {
        "signature": str(transaction.signatures[0]),
        "err": None,
        "logs": [f"Program {'1' * 32} invoke [1]", f"Program {'1' * 32} success"],
    }
    with pytest.raises(RpcFailure) as refused:
        await socket.call("logsSubscribe", {"mentions": [str(target), str(OWNER)]})
    assert refused.value.code == -32602


async def test_a_fork_is_told_to_account_subscribers_only(net: Localnet, socket: Socket, payer: Payer) -> None:
    address = Pubkey.new_unique()
    net.bank.set_account(address, account(b"before"))
    fork_at = net.bank.chain.tip.slot
    net.bank.advance()
    by_account = await socket.call("accountSubscribe", str(address), base64())
    await socket.call("accountSubscribe", str(address), base64("finalized"))
    by_program = await socket.call("programSubscribe", str(OWNER), base64())
    transaction = payer.pay(Pubkey.new_unique(), blockhash=net.bank.chain.root.blockhash)
    config = {"commitment": "finalized"}
    by_signature = await socket.call("signatureSubscribe", str(transaction.signatures[0]), config)
    net.bank.set_account(address, account(b"on a fork"))
    net.bank.submit(transaction)
    net.bank.drop_slots_after(fork_at)
    heard = [await socket.next() for _ in range(3)]
    assert [subscription for _, subscription, _ in heard] == [by_account, by_program, by_account]
    restored = heard[2][2]
    assert b64decode(restored["value"]["data"][0]) == b"before"
    assert restored["context"]["slot"] == net.bank.chain.tip.slot
    # The signature is heard of when it lands for good, and the final level never saw the fork.
    net.bank.submit(transaction)
    make_blocks(net, 5)
    later = [await socket.next() for _ in range(2)]
    assert b64decode(later[0][2]["value"]["data"][0]) == b"before"
    assert later[1][1] == by_signature
    assert await socket.nothing_came()


async def test_unsubscribe(net: Localnet, socket: Socket) -> None:
    address = Pubkey.new_unique()
    subscription = await socket.call("accountSubscribe", str(address), base64())
    kept = await socket.call("accountSubscribe", str(address), base64())
    with pytest.raises(RpcFailure) as wrong_kind:
        await socket.call("programUnsubscribe", subscription)
    assert (wrong_kind.value.code, wrong_kind.value.message) == (-32602, "Invalid subscription id.")
    async with socket_to(net) as stranger:
        with pytest.raises(RpcFailure):
            await stranger.call("accountUnsubscribe", subscription)
    assert await socket.call("accountUnsubscribe", subscription) is True
    with pytest.raises(RpcFailure):
        await socket.call("accountUnsubscribe", subscription)
    net.bank.set_account(address, account(b"x"))
    assert (await socket.next())[1] == kept
    assert await socket.nothing_came()


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("accountSubscribe", [], -32602),
        ("accountSubscribe", ["abc"], -32602),
        ("accountSubscribe", [str(OWNER), {"commitment": "never"}], -32602),
        ("programSubscribe", [str(OWNER), {"filters": [{"dataSize": 1}] * 5}], -32602),
        ("signatureSubscribe", ["abc"], -32602),
        ("logsSubscribe", ["some"], -32602),
        ("voteSubscribe", [], -32601),
        ("getSlot", [], -32601),
    ],
)
async def test_wishes_that_make_no_sense(socket: Socket, method: str, params: list[Any], code: int) -> None:
    with pytest.raises(RpcFailure) as refused:
        await socket.call(method, *params)
    assert refused.value.code == code


async def test_a_client_that_leaves_takes_its_subscriptions_along(net: Localnet) -> None:
    async with Localnet(LocalnetConfig(rpc_port=0, slot_ms=0)) as own:
        async with socket_to(own) as leaving:
            await leaving.call("slotSubscribe")
            observer = own.bank._observers[0]
            assert repr(observer) == "<Subscriptions: 1 of 1 clients>"
        with anyio.fail_after(BOUND_S):
            while repr(observer) != "<Subscriptions: 0 of 0 clients>":
                await anyio.lowlevel.checkpoint()
        own.bank.advance()


async def test_a_client_message_above_4096_bytes_closes_with_1009(net: Localnet) -> None:
    async with connect(net.ws_url) as connection:
        await connection.send("x" * 4_097)
        with anyio.fail_after(BOUND_S), pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_malformed_messages_do_not_end_the_connection(net: Localnet, socket: Socket) -> None:
    await socket.connection.send("{")
    assert '"code":-32700' in str(await socket.connection.recv())
    await socket.connection.send(b"\xff\xff")
    assert '"code":-32700' in str(await socket.connection.recv())
    assert await socket.call("slotSubscribe") > 0


async def test_a_client_that_does_not_read_is_cut_off_and_holds_nobody_up() -> None:
    config = LocalnetConfig(rpc_port=0, slot_ms=0, client_queue_messages=20, reference_program=False)
    async with (
        Localnet(config) as net,
        socket_to(net) as reader,
        connect(net.ws_url, max_queue=1, ping_interval=None, close_timeout=0.1) as lazy,
    ):
        address = Pubkey.new_unique()
        await Socket(lazy).call("accountSubscribe", str(address), base64())
        last = await reader.call("accountSubscribe", str(address), base64())
        for number in range(400):
            net.bank.set_account(address, account(bytes([number % 256]) * 200_000))
            _, subscription, result = await reader.next()  # it hears of every one
            assert subscription == last
            assert b64decode(result["value"]["data"][0])[0] == number % 256
            if repr(net.bank._observers[0]) == "<Subscriptions: 1 of 1 clients>":
                return
        pytest.fail("the client that does not read was never disconnected")


async def test_unknown_signature_stays_silent(net: Localnet, socket: Socket) -> None:
    await socket.call("signatureSubscribe", str(Signature.new_unique()))
    make_blocks(net, 6)
    assert await socket.nothing_came()
