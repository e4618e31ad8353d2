"""A way to send that does what a test says: it lands what it is given, or drops, delays, lies, refuses or babbles."""

from __future__ import annotations

import asyncio
import base64
import enum
import itertools
import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.localnet import Bank
from tests.chaos.proxy.http_messages import HttpMessage, answer, read_message

_JSON: Final = b"application/json"


class Role(enum.StrEnum):
    """What it does with each `sendTransaction`."""

    LANDS = "lands"
    DROPS = "drops"
    """It takes it, and nobody ever answers."""
    DELAYS = "delays"
    """It lands and answers when `late` is set: long after the signature is dead."""
    LIES = "lies"
    """It answers as if it had sent it."""
    BUNDLES = "bundles"
    """It answers with a bundle's id, and has sent nothing."""
    REFUSES = "refuses"
    """429, a token that it does not know, a page, JSON that is no answer, an error of its own, and so on again."""
    SPEAKS_ELSE = "speaks_else"
    """A page with HTTP 200."""


class ScriptedWay:
    """An HTTP server before the chain. Listens while entered. With `token`, who does not send it is answered 401."""

    def __init__(self, bank: Bank, role: Role, *, token: tuple[str, str] | None = None) -> None:
        self.role = role
        self.judges = True
        """Whether it refuses what is no transaction, whatever its role."""
        self.late = asyncio.Event()
        self.wires: list[bytes] = []
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        """Each request's path, headers and body."""
        self.on_calls: Callable[[Sequence[dict[str, Any]]], None] = lambda _: None
        self._bank = bank
        self.token = token
        self._refusals = itertools.cycle(_REFUSALS)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None, "it is not entered"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def sends_of(self, signature: Signature) -> int:
        """How often it was given this transaction."""
        return sum(wire[1:65] == bytes(signature) for wire in self.wires)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_message(reader)) is not None:
                writer.write((await self._answer(request)).encode())
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _answer(self, request: HttpMessage) -> HttpMessage:
        call = json.loads(request.body)
        headers = {name.decode(): value.decode() for name, value in request.headers}
        self.asked.append((request.start.split()[1].decode(), headers, call))
        if self.token is not None and headers.get(self.token[0]) != self.token[1]:
            return answer(b"401 Unauthorized", _JSON, b'{"error":"the token is unknown"}')
        if call["method"] != "sendTransaction":
            return _error(call, -32601, "Method not found")
        wire = base64.b64decode(call["params"][0])
        try:
            transaction = VersionedTransaction.from_bytes(wire)
        except ValueError:
            if self.role is Role.SPEAKS_ELSE and not self.judges:
                return answer(b"200 OK", b"text/html", b"<html>welcome</html>")
            if self.role is Role.LIES and not self.judges:
                return _result(call, "1" * 64)
            return _error(call, -32602, "failed to deserialize the transaction")
        self.on_calls([call])
        self.wires.append(wire)
        match self.role:
            case Role.DROPS:
                await asyncio.Event().wait()
            case Role.DELAYS:
                await self.late.wait()
                self._bank.submit(transaction, verified=False)
            case Role.LANDS:
                self._bank.submit(transaction, verified=False)
            case Role.BUNDLES:
                return _result(call, "bundle-" + "0" * 57)
            case Role.REFUSES:
                return next(self._refusals)(call)
            case Role.SPEAKS_ELSE:
                return answer(b"200 OK", b"text/html", b"<html>welcome</html>")
            case Role.LIES:
                pass
        return _result(call, str(transaction.signatures[0]))


def _result(call: dict[str, Any], result: object) -> HttpMessage:
    return answer(b"200 OK", _JSON, json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}).encode())


def _error(call: dict[str, Any], code: int, message: str) -> HttpMessage:
    error = {"jsonrpc": "2.0", "id": call["id"], "error": {"code": code, "message": message}}
    return answer(b"200 OK", _JSON, json.dumps(error).encode())


_REFUSALS: Final[Sequence[Callable[[dict[str, Any]], HttpMessage]]] = (
    lambda _: answer(b"429 Too Many Requests", _JSON, b"{}", (b"retry-after", b"0.05")),
    lambda _: answer(b"401 Unauthorized", _JSON, b'{"error":"unknown"}'),
    lambda _: answer(b"200 OK", b"text/html", b"<html>no</html>"),
    lambda call: _result(call, {"not": "a signature"}),
    lambda _: answer(b"200 OK", _JSON, b'["what?"]'),
    lambda call: _error(call, -32000, "the tip is too low"),
    lambda call: _error(call, -32002, "it would fail"),
)
