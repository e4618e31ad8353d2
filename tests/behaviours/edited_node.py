"""A node that says something else than the chain: a test edits its answers, so that it can lag or lie in one point."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

from tests.chaos.proxy.http_messages import Upstream, read_message
from tests.chaos.proxy.rewriting import calls_of

Call = dict[str, Any]
Edit = Callable[[Call, dict[str, Any]], None]
"""Is given a call and the node's reply to it, and changes the reply in place."""


def as_revision_0_1(program: str, call: Call, reply: dict[str, Any]) -> None:
    """A simulation ends as the deployed program ends one with wrong accounts: its code is not at hand."""
    if call["method"] == "simulateTransaction":
        logs = [
            f"Program {program} invoke [1]",
            "Program log: AnchorError caused by account: market. Error Code: AccountNotInitialized. "
            "Error Number: 3012. Error Message: The program expected this account to be already initialized.",
            f"Program {program} failed: custom program error: 0xbc4",
        ]
        value = {"err": {"InstructionError": [0, {"Custom": 3012}]}, "logs": logs, "unitsConsumed": 3_000}
        reply["result"] = {"context": {"slot": 1}, "value": value}


class EditedNode:
    """Forwards HTTP requests to the node at `rpc_url`, and lets `edit` change the replies. Listens while entered."""

    def __init__(self, rpc_url: str) -> None:
        self.edit: Edit | None = None
        parts = urlsplit(rpc_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._upstream = Upstream(parts.hostname, parts.port)
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()

    @property
    def rpc_url(self) -> str:
        """Where it is a JSON-RPC node."""
        assert self._server is not None, "it is not entered"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        self._upstream.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            while (request := await read_message(reader)) is not None:
                response = await self._upstream.exchange(request)
                writer.write(response.with_body(self._edited(calls_of(request.body), response.body)).encode())
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()
            self._handlers.discard(task)

    def _edited(self, calls: Sequence[Call], body: bytes) -> bytes:
        if self.edit is None:
            return body
        document = msgspec.json.decode(body)
        replies = {reply["id"]: reply for reply in (document if isinstance(document, list) else [document])}
        for call in calls:
            self.edit(call, replies[call["id"]])
        return msgspec.json.encode(document)
