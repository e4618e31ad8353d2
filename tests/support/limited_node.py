"""A node that answers so many calls a second and refuses the rest, as providers do."""

from __future__ import annotations

import collections
import time
from typing import Final

import msgspec
from anyio.abc import SocketStream

from keeper.localnet import Bank
from keeper.localnet.rpc import bank_dispatcher

NODE_CALLS_PER_S: Final = 50.0


class LimitedNode:
    """A node's HTTP endpoint that answers so many calls a second, whoever asks, and a second's worth at once."""

    def __init__(self, bank: Bank) -> None:
        self.url = ""
        self.answered: collections.Counter[str] = collections.Counter()
        self.refused = 0
        self._dispatcher = bank_dispatcher(bank)
        self._left, self._since = NODE_CALLS_PER_S, time.monotonic()

    async def answer(self, stream: SocketStream, request: bytes) -> None:
        """Handle one request: `tests.support.http_node` gives it."""
        now = time.monotonic()
        self._left = min(NODE_CALLS_PER_S, self._left + (now - self._since) * NODE_CALLS_PER_S)
        self._since = now
        document = msgspec.json.decode(request)
        calls = document if isinstance(document, list) else [document]
        if self._left < 1.0:
            self.refused += len(calls)
            await stream.send(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n")
            return
        self._left -= len(calls)
        self.answered.update(call["method"] for call in calls)
        reply = self._dispatcher.handle(request)
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(reply) + reply)
