"""Nodes that cost the machine less than the embedded chain does, which answers all that they do not.

`PreparedNode`: its getProgramAccounts answer for orders was made before. Making half a gigabyte of JSON takes the chain
longer than reading it takes the keeper, and would stop its blocks meanwhile.

`InstantNode`: executions are confirmed when they arrive, and nothing runs them. The orders that it was told of read
Filled from then on, with their positions, as those of an execution that the chain did run.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from anyio.abc import SocketStream
from solders.account import Account
from solders.pubkey import Pubkey
from solders.signature import Signature

from bench.resting import reply_accounts, reply_end, reply_head
from keeper.localnet import Bank
from keeper.localnet.rpc import bank_dispatcher
from keeper.venue.venue import ORDER_DISCRIMINATOR, STATUS_OFFSET
from tests.support.http_node import http_node

_USER_OF_ORDER, _USER_OF_POSITION = slice(8, 40), slice(40, 72)
_STATUS, _FILLED_SIZE = slice(STATUS_OFFSET, STATUS_OFFSET + 1), slice(STATUS_OFFSET + 17, STATUS_OFFSET + 25)
_ORDERS = base64.b64encode(ORDER_DISCRIMINATOR)


class PreparedNode:
    """A node's HTTP endpoint: getProgramAccounts for orders from the prepared answer, all else from the bank."""

    def __init__(self, bank: Bank, body: Sequence[bytes]) -> None:
        self.url = ""
        self.asked_at: list[float] = []
        self.told_at: list[float] = []
        self._bank = bank
        self._dispatcher = bank_dispatcher(bank)
        self.tell(body)

    def tell(self, body: Sequence[bytes]) -> None:
        """Answer with this list from now on."""
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


class InstantNode:
    """A node's HTTP endpoint. `orders` are those that it executes, all of one size; `filled` and `position` one such
    order after it was executed, and its position. Times are by `time.perf_counter`.
    """

    def __init__(
        self, bank: Bank, program: Pubkey, orders: Mapping[Pubkey, Account], filled: Account, position: Account
    ) -> None:
        self.url = ""
        self.received: dict[str, tuple[float, int]] = {}
        """By signature, when it came first and the slot of then."""
        self.signatures: dict[str, set[str]] = {}
        """By order, all that would have filled it."""
        self.read_at: dict[str, float] = {}
        """By order, when it was first told to be filled."""
        self._bank = bank
        self._dispatcher = bank_dispatcher(bank)
        self._orders = {str(order): account for order, account in orders.items()}
        self._keys = {bytes(order): str(order) for order in orders}
        self._order_of = {
            str(Pubkey.find_program_address([b"position", key], program)[0]): order for key, order in self._keys.items()
        }
        self._filled, self._position = filled, position

    async def answer(self, stream: SocketStream, request: bytes) -> None:
        """Handle one request: `tests.support.http_node` gives it."""
        calls = msgspec.json.decode(request)
        batch = calls if isinstance(calls, list) else [calls]
        if all(self._its_own(call["method"], call.get("params")) for call in batch):
            results = [(call["id"], self._result(call["method"], call["params"])) for call in batch]
            replies = [{"jsonrpc": "2.0", "id": of, "result": result} for of, result in results]
            reply = msgspec.json.encode(replies if isinstance(calls, list) else replies[0])
        else:
            reply = self._dispatcher.handle(request)
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(reply) + reply)

    def _its_own(self, method: str, params: Sequence[Any]) -> bool:
        if method == "getMultipleAccounts":
            return all(address in self._orders or address in self._order_of for address in params[0])
        return method in ("sendTransaction", "getSignatureStatuses")

    def _result(self, method: str, params: Sequence[Any]) -> Any:
        slot = self._bank.chain.tip.slot
        if method == "sendTransaction":
            return self._taken(base64.b64decode(params[0]), slot)
        told = map(self._status if method == "getSignatureStatuses" else self._account, params[0])
        return {"context": {"slot": slot}, "value": list(told)}

    def _taken(self, wire: bytes, slot: int) -> str:
        signature = str(Signature(wire[1:65]))
        if signature not in self.received:
            self.received[signature] = time.perf_counter(), slot
            # One signature, three counts, and the number of the keys that follow.
            keys = {wire[at : at + 32] for at in range(69, 69 + 32 * wire[68], 32)}
            for key in keys & self._keys.keys():
                self.signatures.setdefault(self._keys[key], set()).add(signature)
        return signature

    def _status(self, signature: str) -> Any:
        if signature not in self.received:
            return None
        slot, ok = self.received[signature][1], {"Ok": None}
        return {"slot": slot, "confirmations": 1, "err": None, "status": ok, "confirmationStatus": "confirmed"}

    def _account(self, address: str) -> Any:
        order = self._order_of.get(address)
        if order is not None:
            if order not in self.signatures:
                return None
            data = bytearray(self._position.data)
            data[_USER_OF_POSITION] = self._orders[order].data[_USER_OF_ORDER]
            return _shown(self._position, data)
        pending = self._orders[address]
        if address not in self.signatures:
            return _shown(pending, pending.data)
        self.read_at.setdefault(address, time.perf_counter())
        data = bytearray(pending.data)
        data[_STATUS], data[_FILLED_SIZE] = self._filled.data[_STATUS], self._filled.data[_FILLED_SIZE]
        return _shown(self._filled, data)


def _shown(account: Account, data: bytes | bytearray) -> Any:
    return {
        "data": [base64.b64encode(data).decode(), "base64"],
        "executable": account.executable,
        "lamports": account.lamports,
        "owner": str(account.owner),
        "rentEpoch": account.rent_epoch,
        "space": len(data),
    }
