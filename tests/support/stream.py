"""The stream of orders, as an EventSource reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
import msgspec

from tests.support.waiting import BOUND_S


@dataclass
class Event:
    name: str
    id: int | None
    data: Any


@dataclass
class Stream:
    """What an EventSource makes of the bytes."""

    lines: AsyncIterator[str]
    last_id: int = 0
    comments: int = 0
    retry: str = ""
    seen: list[Event] = field(default_factory=list)

    async def next(self, within_s: float = BOUND_S) -> Event:
        name, data, event_id = "message", "", None
        with anyio.fail_after(within_s):
            async for line in self.lines:
                key, _, value = line.partition(": ")
                if line.startswith(":"):
                    self.comments += 1
                elif key == "event":
                    name = value
                elif key == "data":
                    data += value
                elif key == "id":
                    event_id = self.last_id = int(value)
                elif key == "retry":
                    self.retry = value
                elif line == "" and data:
                    return Event(name, event_id, msgspec.json.decode(data))
        raise EOFError("the stream ended")


@asynccontextmanager
async def stream(http: httpx.AsyncClient, last_id: int | None = None, **filters: str) -> AsyncIterator[Stream]:
    headers = {} if last_id is None else {"Last-Event-ID": str(last_id)}
    async with http.stream("GET", "/v1/orders/stream", params=filters, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        yield Stream(answer.aiter_lines())
