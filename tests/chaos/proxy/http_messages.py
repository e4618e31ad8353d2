"""HTTP/1.1 messages as bytes: a proxy that sends broken ones can't use a library that makes good ones."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"host", b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class HttpMessage:
    """A request or a response. Header names are lower case."""

    start: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    def with_body(self, body: bytes) -> HttpMessage:
        """The same message with another body."""
        return HttpMessage(self.start, self.headers, body)

    def encode(self, host: bytes | None = None, *, body_sent: int | None = None) -> bytes:
        """The bytes. With `body_sent`, only so many bytes of the body that the headers promise."""
        lines = [self.start]
        lines += [name + b": " + value for name, value in self.headers if name not in _HOP_BY_HOP]
        if host is not None:
            lines.append(b"host: " + host)
        lines.append(b"content-length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body[:body_sent]


def answer(status: bytes, kind: bytes, body: bytes, *headers: tuple[bytes, bytes]) -> HttpMessage:
    """A response of the proxy's own."""
    return HttpMessage(b"HTTP/1.1 " + status, ((b"content-type", kind), *headers), body)


async def read_message(reader: asyncio.StreamReader) -> HttpMessage | None:
    """The next message; None when the peer closed instead. ValueError for a body without a length."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    start, *lines = head[:-4].split(b"\r\n")
    headers = tuple(
        (name.lower().strip(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)
    )
    values = dict(headers)
    if b"transfer-encoding" in values:
        raise ValueError("a chunked body: neither the keeper nor the chain sends one")
    try:
        body = await reader.readexactly(int(values.get(b"content-length", b"0")))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return HttpMessage(start, headers, body)


@dataclass(slots=True)
class Upstream:
    """Keep-alive connections to the node behind."""

    host: str
    port: int
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def exchange(self, request: HttpMessage) -> HttpMessage:
        """One request, one response. ConnectionError when the node is not there."""
        wire = request.encode(f"{self.host}:{self.port}".encode())
        for _ in range(2):
            reused = bool(self._idle)
            reader, writer = self._idle.pop() if reused else await asyncio.open_connection(self.host, self.port)
            writer.write(wire)
            response = await read_message(reader)
            if response is not None:
                self._idle.append((reader, writer))
                return response
            writer.close()
            if not reused:
                break
            # A kept connection that the node closed meanwhile says nothing about the node.
            self.close()
        raise ConnectionError("the node behind the proxy closed the connection")

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop()[1].close()
