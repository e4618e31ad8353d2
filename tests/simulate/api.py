"""The keeper's API without a socket: requests go straight into the application that the server would call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextvars import Context
from typing import Any, Final, TypeAlias

import anyio
from anyio.abc import TaskStatus

from keeper.http.api import create_api
from keeper.http.ports import ApiPorts
from tests.simulate.threads import Killed

_PORT: Final = 8080
Answer: TypeAlias = tuple[int, list[tuple[bytes, bytes]], bytes]
"""A status, headers and a body."""


class Api:
    """One life's API. The application is made when the first request comes. `context` is whose steps its are."""

    def __init__(self, ports: ApiPorts, wallets: Any, context: Context | None = None) -> None:
        self.ports, self._wallets, self._context = ports, wallets, context
        self._app: Any = None
        self._requests: dict[asyncio.Task[Answer], None] = {}

    async def serve(self, task_status: TaskStatus[int]) -> None:
        """In `run_api`'s place."""
        task_status.started(_PORT)
        try:
            await anyio.sleep_forever()
        finally:
            for task in self._requests:  # a keeper that ends hangs up
                task.cancel()

    async def ask(
        self, method: str, path: str, body: dict[str, Any], *, within_s: float, **headers: str
    ) -> tuple[int, Any]:
        """One request: the status and the JSON that it is answered with; 0 when no answer comes."""
        content = json.dumps(body).encode()
        lines = [(b"host", b"keeper"), (b"content-type", b"application/json")]
        lines.append((b"content-length", str(len(content)).encode()))
        lines += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        answer = await self.handle(method, path, lines, content, within_s=within_s)
        if answer is None:
            return 0, None
        status, _, text = answer
        return status, json.loads(text) if text else None

    async def handle(
        self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]], content: bytes, *, within_s: float
    ) -> Answer | None:
        """The answer to a request, as it would come over a socket; None when none comes."""
        # A task of the keeper's, not the caller's: it may hang for ever when the keeper dies.
        asked = self._ask(method, path, headers, content)
        task = asyncio.get_running_loop().create_task(asked, name="request", context=self._context)
        self._requests[task] = None
        await asyncio.wait({task}, timeout=within_s)
        del self._requests[task]
        if not task.done():
            task.cancel()
            return None
        try:
            return task.result()
        except (Killed, asyncio.CancelledError):
            return None

    async def _ask(self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]], content: bytes) -> Answer:
        if self._app is None:
            self._app = create_api(self.ports, self._wallets)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": list(headers),
            "client": ("192.0.2.1", 1),
            "server": ("192.0.2.2", _PORT),
            "state": {},
        }
        status, answer, answered = 0, b"", list[tuple[bytes, bytes]]()
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await anyio.sleep_forever()
            asked = True
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status, answer, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], list(message["headers"])
            else:
                answer += message.get("body", b"")

        await self._app(scope, receive, send)
        return status, answered, answer
