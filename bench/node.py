"""A node whose getProgramAccounts answer for orders was prepared: making half a gigabyte of JSON takes the embedded
chain longer than reading it takes the keeper, and would stop its blocks meanwhile. All else the chain answers itself.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
from anyio.abc import SocketStream
from solders.pubkey import Pubkey

from bench.resting import reply_accounts, reply_end, reply_head
from keeper.localnet import Bank
from keeper.localnet.rpc import bank_dispatcher
from keeper.venue.venue import ORDER_DISCRIMINATOR
from tests.support.http_node import http_node

_ORDERS = base64.b64encode(ORDER_DISCRIMINATOR)


class PreparedNode:
    """A node's HTTP endpoint: getProgramAccounts for orders from the prepared answer, all else from the bank."""

    def __init__(self, bank: Bank, body: Sequence[bytes]) -> None:
        self.url = ""
        self.asked_at: list[float] = []
        self.told_at: list[float] = []
        self._bank = bank
        self._dispatcher = bank_dispatcher(bank)
        self._body = body
        self._length = sum(map(len, body))

    async def answer(self, stream: SocketStream, request: bytes) -> None:
        """Handle one request: `tests.support.http_node` gives it."""
        call = msgspec.json.decode(request)
        if not (isinstance(call, dict) and call.get("method") == "getProgramAccounts" and _ORDERS in request):
            reply = self._dispatcher.handle(request)
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(reply) + reply)
            return
        self.asked_at.append(time.perf_counter())
        head, end = reply_head(self._bank.chain.tip.slot), reply_end(call["id"])
        length = len(head) + self._length + len(end)
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length + head)
        for piece in self._body:
            await stream.send(piece)
        await stream.send(end)
        self.told_at.append(time.perf_counter())


def prepare(program: Pubkey, accounts: Sequence[tuple[Pubkey, bytes]], lamports: int) -> list[bytes]:
    """The answer's list, in pieces."""
    return list(reply_accounts(program, accounts, lamports))


@asynccontextmanager
async def prepared_node(bank: Bank, body: Sequence[bytes]) -> AsyncIterator[PreparedNode]:
    """Serve until the end of the block."""
    node = PreparedNode(bank, body)
    async with http_node(node.answer) as node.url:
        yield node
