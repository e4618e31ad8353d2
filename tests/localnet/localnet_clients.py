"""Plain clients of a localnet, which hide nothing, and a wallet."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import msgspec
import pytest
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction
from websockets.asyncio.client import ClientConnection, connect

from keeper.localnet import Localnet

SOL = 1_000_000_000
BOUND_S = 60.0
"""Within this everything that a test waits for must have come."""


class RpcFailure(Exception):
    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error)
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: Any = error.get("data")


class Rpc:
    """A JSON-RPC client that hides nothing."""

    def __init__(self, url: str) -> None:
        # No TLS here, and loading certificates takes longer than most tests.
        self.http = httpx.AsyncClient(base_url=url, timeout=BOUND_S, verify=False)

    async def __call__(self, method: str, *params: Any) -> Any:
        reply = (await self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).json()
        assert reply["jsonrpc"] == "2.0"
        assert reply["id"] == 1
        if "error" in reply:
            raise RpcFailure(reply["error"])
        return reply["result"]

    async def post(self, document: Any) -> httpx.Response:
        return await self.http.post("/", json=document)


class Socket:
    """A WebSocket client that keeps replies and notifications apart."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._waiting: list[dict[str, Any]] = []

    async def call(self, method: str, *params: Any) -> Any:
        request = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        await self.connection.send(msgspec.json.encode(request), text=True)
        while "id" not in (message := await self._receive()):
            self._waiting.append(message)
        if "error" in message:
            raise RpcFailure(message["error"])
        return message["result"]

    async def next(self) -> tuple[str, int, Any]:
        """Method, subscription and result of the next notification."""
        message = self._waiting.pop(0) if self._waiting else await self._receive()
        return message["method"], message["params"]["subscription"], message["params"]["result"]

    async def nothing_came(self) -> bool:
        """Whether no notification waits: a reply to a later call would come behind it."""
        with pytest.raises(RpcFailure):
            await self.call("noSuchMethod")
        return not self._waiting

    async def _receive(self) -> dict[str, Any]:
        with anyio.fail_after(BOUND_S):
            received: dict[str, Any] = msgspec.json.decode(await self.connection.recv())
            return received


@asynccontextmanager
async def socket_to(net: Localnet) -> AsyncIterator[Socket]:
    async with connect(net.ws_url, max_size=None) as connection:
        yield Socket(connection)


class Payer:
    """A funded wallet that signs transactions."""

    def __init__(self, net: Localnet) -> None:
        self.net = net
        self.key = Keypair()
        self.address = self.key.pubkey()

    def sign(self, *instructions: Instruction, blockhash: Hash | None = None) -> VersionedTransaction:
        latest = blockhash or self.net.bank.chain.tip.blockhash
        return VersionedTransaction(MessageV0.try_compile(self.address, instructions, [], latest), [self.key])

    def pay(self, to: Pubkey, lamports: int = SOL, **options: Any) -> VersionedTransaction:
        return self.sign(payment(self.address, to, lamports), **options)


def payment(source: Pubkey, to: Pubkey, lamports: int) -> Instruction:
    return transfer(TransferParams(from_pubkey=source, to_pubkey=to, lamports=lamports))


def wire(transaction: VersionedTransaction) -> str:
    return b64encode(bytes(transaction)).decode()


def make_blocks(net: Localnet, count: int) -> None:
    for _ in range(count):
        net.bank.advance()


def values(statuses: Sequence[dict[str, Any] | None]) -> list[str | None]:
    return [None if status is None else status["confirmationStatus"] for status in statuses]
