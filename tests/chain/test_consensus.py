"""Which consensus the chain has, as its nodes say, and what follows for a block's finality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.errors import Transient
from keeper.domain.reports import Note
from keeper.solana.client import ChainClient
from keeper.solana.http1 import Begun
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint
from tests.chain.scripted_node import Scripted

pytestmark = pytest.mark.anyio

NOT_FOUND = {"error": {"code": -32601, "message": "Method not found"}}


def certificate(slot: object) -> dict[str, Any]:
    signature = {"signature": [7] * 192, "bitmap": [0, 8, 0, 255]}
    return {"result": {"block": {"slot": slot, "blockId": [1] * 32}, "signature": signature}}


@dataclass
class Node(Scripted):
    """Answers getAgGenesisCert as told: members of a reply, an HTTP status, or no answer at all."""

    says: dict[str, Any] | int | None = None
    asked: int = 0

    async def post(self, body: bytes, begun: Begun | None = None) -> tuple[int, dict[str, str], bytes]:
        self.asked += 1
        if isinstance(self.says, int):
            return self.says, {"retry-after": "60"}, b""
        if self.says is None:
            raise Transient("node: ConnectError")
        request = msgspec.json.decode(body)
        assert request["method"] == "getAgGenesisCert"
        return 200, {}, msgspec.json.encode({"jsonrpc": "2.0", "id": request["id"], **self.says})


NONE_YET: dict[str, Any] = {"result": None}


def client_of(*nodes: Node) -> ChainClient:
    return ChainClient(RpcPool([Endpoint(f"n{i}", node) for i, node in enumerate(nodes)], PoolLimits()))


@pytest.mark.parametrize(
    ("said", "name", "since"),
    [
        ([NONE_YET], "towerbft", None),
        ([NONE_YET, NONE_YET], "towerbft", None),
        ([certificate(500)], "alpenglow", 500),
        ([certificate(500), certificate(500), certificate(500)], "alpenglow", 500),
        ([NOT_FOUND], "unknown", None),
        ([NOT_FOUND, NONE_YET], "towerbft", None),
        ([404, certificate(500)], "alpenglow", 500),
        ([429, certificate(500)], "alpenglow", 500),
        ([None, certificate(500)], "alpenglow", 500),
        ([500, 429, None], "unknown", None),
        ([certificate(500), NONE_YET], "towerbft", None),
        ([certificate("500")], "unknown", None),
        ([certificate(-1), certificate(True), certificate(2**64)], "unknown", None),
        ([{"result": []}, {"result": {"block": 7}}, {"result": True}], "unknown", None),
    ],
)
async def test_the_nodes_say_which_it_is(said: list[Any], name: str, since: int | None) -> None:
    client = client_of(*(Node(one) for one in said))
    notes: list[Any] = []
    await client.consensus.look(notes.append)
    assert (client.consensus.name, client.consensus.since_slot) == (name, since)
    assert [type(note) for note in notes] == ([] if name == "unknown" else [Note])


async def test_nodes_that_disagree_are_named_and_the_cautious_word_holds() -> None:
    client = client_of(Node(certificate(500)), Node(NONE_YET), Node(NONE_YET))
    await client.consensus.look(lambda report: None)
    assert "n0: of slot 500, n1: none, n2: none" in client.consensus.dispute
    assert not client.consensus.is_final("confirmed", 501)
    assert client.consensus.undone_blocks == 32


async def test_it_follows_the_chain_when_it_turns_in_mid_run() -> None:
    nodes = Node(NONE_YET), Node(NONE_YET)
    client = client_of(*nodes)
    notes: list[Any] = []
    for first, second in ((NONE_YET, NONE_YET), (certificate(9), NONE_YET), (certificate(9), certificate(9))):
        nodes[0].says, nodes[1].says = first, second
        await client.consensus.look(notes.append)
    assert [note.level for note in notes] == ["info", "warning", "info"]
    assert str(client.consensus) == "alpenglow since slot 9"
    assert client.consensus.undone_blocks == 0
    nodes[0].says = nodes[1].says = NONE_YET
    await client.consensus.look(notes.append)
    assert str(client.consensus) == "towerbft", "a cluster that was set back to a state from before"


async def test_what_a_node_said_stands_while_it_says_nothing() -> None:
    nodes = Node(NONE_YET), Node(certificate(500))
    client = client_of(*nodes)
    await client.consensus.look(lambda report: None)
    nodes[0].says = None
    await client.consensus.look(lambda report: None)
    assert client.consensus.name == "towerbft", "one that is down for a moment does not leave the word to the other"


async def test_a_provider_that_refuses_the_method_is_not_benched_for_it() -> None:
    nodes = Node(429), Node(404), Node(None)
    client = client_of(*nodes)
    for _ in range(5):
        await client.consensus.look(lambda report: None)
    assert [node.asked for node in nodes] == [5, 5, 5]
    assert not any(health.benched_until or health.errors for health in client.pool.health)


@given(st.sampled_from(["processed", "confirmed", "finalized"]), st.integers(0, 2**64), st.integers(0, 2**64 - 1))
def test_only_what_is_after_the_turn_is_final_when_confirmed(word: str, slot: int, since: int) -> None:
    consensus = client_of(Node()).consensus
    assert consensus.is_final(word, slot) == (word == "finalized")
    consensus.name, consensus.since_slot = "alpenglow", since
    assert consensus.is_final(word, slot) == (word == "finalized" or (word == "confirmed" and slot > since))
