"""12, further: whatever JSON a node answers, a call of the client ends in a value or in an error by name."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from anyio.abc import SocketStream
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.errors import ChainError, MalformedReply
from keeper.solana.account_stream import AccountSplitter
from keeper.solana.client import ChainClient, LandedTransaction, memcmp
from keeper.solana.history import history
from keeper.solana.http1 import Begun, HttpTransport
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint
from keeper.venue.landed import steps_of
from tests.chain.scripted_node import Scripted
from tests.support.http_node import http_node
from tests.support.world import PROGRAM

pytestmark = pytest.mark.anyio

ADDRESS = Pubkey.default()
CALLS: dict[str, Callable[[ChainClient], Awaitable[object]]] = {
    "genesis_hash": lambda c: c.genesis_hash(),
    "slot": lambda c: c.slot(),
    "block_height_and_slot": lambda c: c.block_height_and_slot(),
    "latest_blockhash": lambda c: c.latest_blockhash(),
    "balance": lambda c: c.balance(ADDRESS),
    "chain_time": lambda c: c.chain_time(),
    "accounts": lambda c: c.accounts([ADDRESS]),
    "program_accounts": lambda c: c.program_accounts(ADDRESS, [memcmp(0, b"12345678")]),
    "statuses": lambda c: c.statuses([Signature.default()]),
    "send": lambda c: c.pool.send([b"\x01" * 100]).replies(),
    "simulate": lambda c: c.simulate(b"\x01" * 100, sig_verify=True),
    "transactions": lambda c: c.transactions([Signature.default()] * 40),
    "rent_exempt_minimum": lambda c: c.rent_exempt_minimum(407),
    "recent_priority_fees": lambda c: c.recent_priority_fees([ADDRESS]),
}

WORDS = (
    "context", "slot", "value", "blockhash", "lastValidBlockHeight", "blockHeight", "absoluteSlot", "err", "logs",
    "unitsConsumed", "meta", "fee", "logMessages", "computeUnitsConsumed", "confirmationStatus", "confirmations",
    "data", "owner", "lamports", "pubkey", "account", "prioritizationFee", "executable", "retry_after", "code",
    "message",
)  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "base64", "finalized", str(ADDRESS), "AA==", "!", "12"]),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
        st.fixed_dictionaries({"context": st.fixed_dictionaries({"slot": LEAVES}), "value": inner}),
        st.fixed_dictionaries({"slot": LEAVES, "meta": inner}),
    ),
    max_leaves=12,
)


class Says(Scripted):
    """A node that answers every call with the same result, or the same error."""

    def __init__(self, **members: Any) -> None:
        self._members = members

    async def post(self, body: bytes, begun: Begun | None = None) -> tuple[int, dict[str, str], bytes]:
        document = msgspec.json.decode(body)
        calls = document if isinstance(document, list) else [document]
        replies = [{"jsonrpc": "2.0", "id": call["id"], **self._members} for call in calls]
        return 200, {}, msgspec.json.encode(replies if isinstance(document, list) else replies[0])


@pytest.mark.parametrize("name", CALLS)
@given(said=JSON, member=st.sampled_from(["result", "error"]))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_12_any_json_is_a_value_or_an_error_by_name(name: str, said: Any, member: str) -> None:
    client = ChainClient(RpcPool([Endpoint("node", Says(**{member: said}))], PoolLimits()))
    with contextlib.suppress(ChainError):
        await CALLS[name](client)


@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("transactions", {"slot": 1, "meta": None}),
        ("statuses", {"context": {"slot": None}, "value": [None]}),
        ("statuses", {"context": {"slot": 1}, "value": [{"slot": None}]}),
        ("program_accounts", {"context": {"slot": 1}, "value": [{"account": {}}]}),
        ("program_accounts", {"context": {"slot": 1}, "value": [{"pubkey": "?", "account": {}}]}),
        ("simulate", {"context": {"slot": 1}, "value": []}),
        ("simulate", {"context": {"slot": 1}, "value": {"logs": 7}}),
        ("recent_priority_fees", 7),
        (
            "latest_blockhash",
            {"context": {"slot": 1}, "value": {"blockhash": "no hash", "lastValidBlockHeight": 1}},
        ),
    ],
)
async def test_12_shapes_that_once_broke_the_client(method: str, result: Any) -> None:
    client = ChainClient(RpcPool([Endpoint("node", Says(result=result))], PoolLimits()))
    with contextlib.suppress(ChainError):
        await CALLS[method](client)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'[{"jsonrpc":"2.0","id":[1],"result":1}]',
        b'[{"jsonrpc":"2.0","id":{},"result":1}]',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":[],"message":1}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":{},"data":{"retry_after":"soon"}}}',
        b'{"jsonrpc":"2.0","id":1,"result":1e999}',
        b'"\xff\xfe"',
        b"",
        b"null",
    ],
)
async def test_12_bodies_that_are_no_reply(body: bytes) -> None:
    class Node(Says):
        async def post(self, _: bytes, begun: Begun | None = None) -> tuple[int, dict[str, str], bytes]:
            return 200, {}, body

    for call in CALLS.values():
        client = ChainClient(RpcPool([Endpoint("node", Node())], PoolLimits()))
        with contextlib.suppress(ChainError):
            await call(client)


@pytest.mark.parametrize("tail", [b"[" * 100_000, b'{"a":' * 100_000, b'"\xff\xfe"]}}'])
def test_12_a_list_of_accounts_that_goes_astray_is_a_malformed_reply(tail: bytes) -> None:
    splitter = AccountSplitter(1)
    splitter.feed(b'{"jsonrpc":"2.0","id":1,"result":{"context":{"slot":1},"value":[')
    with pytest.raises(MalformedReply):
        _ = splitter.feed(tail) + splitter.close()[1]


VERSION_1 = {
    "blockTime": 1_791_417_600,
    "meta": {
        "computeUnitsConsumed": 150,
        "costUnits": 1_500,
        "err": None,
        "fee": 7_341,
        "innerInstructions": [],
        "loadedAddresses": {"readonly": [], "writable": []},
        "logMessages": ["Program 11111111111111111111111111111111 success"],
        "postBalances": [1, 2, 1],
        "postTokenBalances": [],
        "preBalances": [7_344, 0, 1],
        "preTokenBalances": [],
        "rewards": None,
        "status": {"Ok": None},
    },
    "slot": 454_508_506,
    "transaction": ["gQEAAQ==", "base64"],
    "version": 1,
}
"""As nodes show a transaction of version 1: solders 0.26 reads no such message (0x81), but its outcome is as ever."""


async def node_with_version_1(stream: SocketStream, body: bytes) -> None:
    """It refuses to show the transaction, unless the request says that it takes version 1."""
    asked = msgspec.json.decode(body)

    def reply(call: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": call["id"]}
        if call["method"] == "getSignaturesForAddress":
            return answer | {
                "result": [{"signature": str(Signature.default()), "slot": VERSION_1["slot"], "err": None}]
            }
        if call["params"][1].get("maxSupportedTransactionVersion", -1) >= 1:
            return answer | {"result": VERSION_1}
        text = "Transaction version (1) is not supported by the requesting client."
        return answer | {"error": {"code": -32015, "message": text}}

    said = msgspec.json.encode([reply(call) for call in asked] if isinstance(asked, list) else reply(asked))
    await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))


async def test_a_transaction_of_version_1_is_read_like_any_other() -> None:
    async with http_node(node_with_version_1) as url:
        client = ChainClient(RpcPool([Endpoint("node", HttpTransport(url, "node"))], PoolLimits()))
        (landed,) = await client.transactions([Signature.default()])
        await client.pool.aclose()
    assert isinstance(landed, LandedTransaction)
    assert (landed.slot, landed.fee_lamports, landed.units, landed.err) == (454_508_506, 7_341, 150, None)


async def test_a_transaction_of_version_1_does_not_break_a_history() -> None:
    """Its outcome is known; which instructions it had is not."""
    async with http_node(node_with_version_1) as url:
        client = ChainClient(RpcPool([Endpoint("node", HttpTransport(url, "node"))], PoolLimits()))
        (touch,) = await history(client, Pubkey.default(), 5)
        await client.pool.aclose()
    assert (touch.slot, touch.err) == (454_508_506, None)
    assert touch.wire, "the node was asked in a way that it answers"
    assert steps_of(PROGRAM, touch) == []
