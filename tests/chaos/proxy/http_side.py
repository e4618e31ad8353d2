"""The proxy's HTTP side: one handler per connection, which forwards requests and breaks some."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from tests.chaos.proxy.faults import Fault, Kind
from tests.chaos.proxy.http_messages import HttpMessage, Upstream, answer, read_message
from tests.chaos.proxy.rewriting import as_lagging, calls_of, from_lagging, refuse, rewritten

_HTML: Final = b"<html><body><h1>504 Gateway Time-out</h1></body></html>"
_JSON: Final = b"application/json"
_DRIPS: Final = 50

Calls = list[dict[str, Any]]


class HttpSide:
    """Serves connections. `draw` says what to break, and counts it; `on_calls` is told of every request first."""

    def __init__(
        self,
        upstream: Upstream,
        draw: Callable[[list[str]], Fault | None],
        on_calls: Callable[[Calls], None],
        rng: random.Random,
    ) -> None:
        self._upstream = upstream
        self._draw = draw
        self._on_calls = on_calls
        self._random = rng

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        try:
            while (request := await read_message(reader)) is not None:
                if not await self._one(request, reader, writer):
                    break
        except ConnectionError:
            pass  # it hung up in the middle: its right
        finally:
            writer.close()

    async def _one(self, request: HttpMessage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Handle one request; whether the connection lives on."""
        calls = calls_of(request.body)
        self._on_calls(calls)
        fault = self._draw([str(call.get("method")) for call in calls]) if calls else None
        if fault is None:
            writer.write((await self._upstream.exchange(request)).encode())
            await writer.drain()
            return True
        batch = request.body.lstrip().startswith(b"[")
        match fault.kind:
            case Kind.REQUEST_LOST:
                await _silence(reader, fault.seconds)
                return False
            case Kind.REQUEST_RESET:
                _reset(writer)
                return False
            case Kind.REQUEST_DELAYED:
                await asyncio.sleep(fault.seconds)
                response = await self._upstream.exchange(request)
            case Kind.HTTP_429:
                pause = [(b"retry-after", b"%d" % fault.seconds)] if fault.seconds else []
                response = answer(b"429 Too Many Requests", b"text/plain", b"slow down", *pause)
            case Kind.HTTP_429_RETRY_AFTER:
                # The header takes whole seconds; 0 and 1 keep the episode short.
                wait = b"%d" % self._random.randrange(2)
                response = answer(b"429 Too Many Requests", b"text/plain", b"slow down", (b"retry-after", wait))
            case Kind.JSON_429:
                code = self._random.choice((429, -32429, -32005))
                data = {"retry_after": fault.seconds} if fault.seconds else {}
                body = refuse(calls, batch=batch, code=code, message="Too many requests: rate limited", **data)
                response = answer(b"200 OK", _JSON, body)
            case Kind.HTTP_503:
                response = answer(b"503 Service Unavailable", b"text/plain", b"no healthy upstream")
            case Kind.HTML:
                response = answer(b"200 OK", b"text/html", _HTML)
            case Kind.LAGGING:
                response = await self._upstream.exchange(request.with_body(as_lagging(request.body)))
                response = response.with_body(from_lagging(response.body, calls, batch=batch))
            case _:
                return await self._broken_reply(fault, request, calls, reader, writer)
        writer.write(response.encode())
        await writer.drain()
        return True

    async def _broken_reply(
        self,
        fault: Fault,
        request: HttpMessage,
        calls: Calls,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """The request is forwarded; what comes back is not what the node said."""
        response = await self._upstream.exchange(request)
        match fault.kind:
            case Kind.REPLY_LOST:
                await _silence(reader, fault.seconds)
                return False
            case Kind.REPLY_RESET:
                _reset(writer)
                return False
            case Kind.REPLY_502:
                response = answer(b"502 Bad Gateway", b"text/html", _HTML)
            case Kind.REPLY_TRUNCATED:
                response = response.with_body(response.body[: len(response.body) // 2])
            case Kind.REPLY_CUT_OFF:
                writer.write(response.encode(body_sent=len(response.body) // 2))
                await writer.drain()
                return False
            case Kind.REPLY_DRIPPED:
                await _drip(writer, response, fault.seconds)
                return True
            case Kind.REPLY_DELAYED:
                await asyncio.sleep(fault.seconds)
            case _:
                response = response.with_body(rewritten(fault.kind, response.body, calls, self._random))
        writer.write(response.encode())
        await writer.drain()
        return True


async def _silence(reader: asyncio.StreamReader, seconds: float) -> None:
    """Say nothing until the client gives up, or until `seconds` are over."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reader.read(1), seconds)


async def _drip(writer: asyncio.StreamWriter, response: HttpMessage, seconds: float) -> None:
    wire = response.encode()
    head = len(wire) - len(response.body)
    writer.write(wire[:head])
    step = max(1, len(response.body) // _DRIPS)
    for at in range(head, len(wire), step):
        writer.write(wire[at : at + step])
        await writer.drain()
        await asyncio.sleep(seconds / _DRIPS)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST, which the peer sees as an error and not as the end of a reply."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
