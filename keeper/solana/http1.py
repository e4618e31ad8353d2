"""HTTP/1.1 to one host, and as little of it as a JSON-RPC client needs: POST on connections that are kept open.

Why not httpx here: a call through it costs about 1 ms of CPU, more than everything else between a tick and the bytes
on the wire together; this costs less than a tenth of that. httptools (llhttp, Node's parser) reads the replies.
There are no redirects, no cookies, no compression and no proxies: an endpoint is the URL that it says.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httptools

from keeper.domain.errors import Rejected, Transient

_ANSWERED_IN_PLAIN: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""What OpenSSL calls the first bytes of a server that speaks no TLS, by its version."""
_UNREAD_BYTES: Final = 1 << 20
"""How much of a streamed body may wait to be taken before the socket is read no further."""


class HttpFailure(Exception):
    """The exchange broke; the message has no URL in it. Whether the request arrived is not known."""


@dataclass(slots=True)
class Response:
    """Status, headers with lower-case names, and the body, which is empty when it was streamed."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int
    tls: ssl.SSLContext | None
    head: bytes

    @classmethod
    def of(cls, url: str, headers: Mapping[str, str]) -> _Target:
        """ValueError when it is no http or https URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http or https URL")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        netloc = parts.netloc.rpartition("@")[2]
        lines = [f"POST {path} HTTP/1.1", f"host: {netloc}", "content-type: application/json", "accept: */*"]
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            lines.append(f"authorization: Basic {base64.b64encode(credentials).decode()}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = ("\r\n".join(lines) + "\r\ncontent-length: ").encode("ascii")
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, head)


@dataclass(frozen=True, slots=True)
class Begun:
    """A request that is written already, on this connection. `Http1.post` waits for its reply."""

    connection: _Connection
    done: asyncio.Future[None]


class Http1:
    """A few connections to one URL, with further `headers`. Requests above their number wait for one to be free."""

    def __init__(self, url: str, *, connections: int = 8, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self._target = _Target.of(url, headers)
        self._idle: list[_Connection] = []
        self._most_idle = connections
        self._begun: set[_Connection] = set()
        self._room = asyncio.Semaphore(connections)
        self._closed = False

    def begin(self, body: bytes) -> Begun | None:
        """Write a request now, on a connection that rests; None when none does. The same body is then to be given to
        `post`, with what this returns.
        """
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                self._begun.add(connection)
                return Begun(connection, connection.begin(self._request(body)))
            connection.close()
        return None

    async def post(self, body: bytes, begun: Begun | None = None) -> Response:
        """Post and read the whole reply. HttpFailure when the exchange breaks."""
        if begun is not None:
            connection = begun.connection
            try:
                response = await connection.finish(begun.done)
            except _ClosedUnused:
                connection.close()  # like below: asked again, on another connection
            except BaseException:
                connection.close()
                raise
            else:
                self._give_back(connection)
                return response
            finally:
                self._begun.discard(connection)
        async with self._room:
            connection, fresh = await self._connection()
            try:
                try:
                    response = await connection.exchange(self._request(body))
                except _ClosedUnused:
                    # The host had closed a connection that rested, and has seen nothing of this request.
                    connection.close()
                    if fresh:
                        raise HttpFailure("the host closed the connection") from None
                    connection = await self._connect()
                    response = await connection.exchange(self._request(body))
            except BaseException:
                connection.close()
                raise
            self._give_back(connection)
            return response

    async def stream(self, body: bytes) -> AsyncGenerator[Response | bytes]:
        """Post, and yield first the Response without a body, then the body piece by piece as it arrives.

        What is not taken is not read from the socket either, beyond a megabyte. Leaving early closes the connection.
        """
        async with self._room:
            # On a connection of its own: one that rested may be closed, and half a stream can't be asked for again.
            connection = await self._connect()
            try:
                async for piece in connection.streamed(self._request(body)):
                    yield piece
            finally:
                connection.close()

    async def aclose(self) -> None:
        """Close every connection."""
        self._closed = True
        for connection in (*self._idle, *self._begun):
            connection.close()
        self._idle.clear()

    def _request(self, body: bytes) -> bytes:
        return b"%b%d\r\n\r\n%b" % (self._target.head, len(body), body)

    async def _connection(self) -> tuple[_Connection, bool]:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection, False
            connection.close()
        return await self._connect(), True

    async def _connect(self) -> _Connection:
        target = self._target
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection, target.host, target.port, ssl=target.tls
            )
        except ssl.SSLError as e:
            if e.reason in _ANSWERED_IN_PLAIN:
                raise HttpFailure("it speaks http and not https: its URL has to begin with http://") from None
            raise HttpFailure(f"no TLS ({e.reason})") from None
        except OSError as e:
            raise HttpFailure(f"no connection ({type(e).__name__})") from None
        return connection

    def _give_back(self, connection: _Connection) -> None:
        if connection.usable and not self._closed and len(self._idle) < self._most_idle:
            self._idle.append(connection)
        else:
            connection.close()


class _ClosedUnused(HttpFailure):
    """Closed before a byte of the reply came."""


class _Connection(asyncio.Protocol):
    """One connection: one exchange at a time. The `on_*` methods are httptools' callbacks."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._done: asyncio.Future[None] | None = None
        self._response = Response()
        self._pieces: deque[bytes] = deque()
        self._unread = 0
        self._news: asyncio.Event | None = None
        self._has_headers = False
        self._answered = False
        self._keep = False
        self._lost = False

    @property
    def usable(self) -> bool:
        """Open, and nothing of an exchange is left on it."""
        return not self._lost and self._transport is not None and not self._transport.is_closing() and self._keep

    async def exchange(self, request: bytes) -> Response:
        """Write a request and wait for its whole reply."""
        return await self.finish(self.begin(request))

    async def finish(self, done: asyncio.Future[None]) -> Response:
        """Wait for the whole reply to the request that `begin` wrote."""
        await done
        response = self._response
        response.body = b"".join(self._pieces)
        self._pieces.clear()
        return response

    async def streamed(self, request: bytes) -> AsyncGenerator[Response | bytes]:
        """Write a request; see `Http1.stream`."""
        self._news = asyncio.Event()
        done = self.begin(request)
        told = False
        while True:
            if self._has_headers and not told:
                told = True
                yield self._response
            while told and self._pieces:
                piece = self._pieces.popleft()
                self._unread -= len(piece)
                yield piece
            if done.done():
                break
            if self._unread <= _UNREAD_BYTES and self._transport is not None:
                self._transport.resume_reading()
            self._news.clear()
            await self._news.wait()
        done.result()

    def close(self) -> None:
        """Close at once."""
        self._keep = False
        if self._done is not None and not self._done.done():
            self._done.cancel()
        if self._transport is not None:
            self._transport.abort()

    def begin(self, request: bytes) -> asyncio.Future[None]:
        """Write a request; the future is done when its reply is whole."""
        if self._transport is None or self._lost:
            raise _ClosedUnused("the host closed the connection")
        self._parser = httptools.HttpResponseParser(self)
        self._response = Response()
        self._pieces.clear()
        self._unread = 0
        self._has_headers = self._answered = self._keep = False
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    # -- asyncio's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._answered = True
        if self._done is None or self._done.done():
            self.close()  # nobody asked for this
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as e:
            self._end(HttpFailure(f"not HTTP ({type(e).__name__})"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._lost = True
        if self._has_headers and exc is None and not self._response.headers.keys() & _FRAMED:
            self._end(None)  # a body that ends with the connection
            return
        broken = HttpFailure if self._answered else _ClosedUnused
        self._end(broken("the host closed the connection"))

    # -- httptools'

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The body begins."""
        self._response.status = self._parser.get_status_code()
        self._has_headers = True
        if self._news is not None:
            self._news.set()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(body)
        if self._news is not None:
            self._unread += len(body)
            self._news.set()
            if self._unread > _UNREAD_BYTES and self._transport is not None:
                self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The reply is whole."""
        if 100 <= self._response.status < 200:
            self._response = Response()  # an interim reply; the real one follows
            self._has_headers = False
            return
        self._keep = self._parser.should_keep_alive()
        self._end(None)

    def _end(self, failure: HttpFailure | None) -> None:
        if self._done is not None and not self._done.done():
            if failure is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(failure)
        if self._news is not None:
            self._news.set()


_FRAMED: Final = frozenset({"content-length", "transfer-encoding"})


class HttpTransport:
    """Keep-alive connections to one URL. It never logs, and its repr hides the URL and the headers."""

    def __init__(
        self, url: str, label: str, *, connections: int = 8, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._label = label
        try:
            self._http: Http1 | None = Http1(url, connections=connections, headers=headers)
        except ValueError:
            self._http = None

    def __repr__(self) -> str:
        return f"HttpTransport({self._label})"

    def begin(self, body: bytes) -> Begun | None:
        """Write a request now if a connection rests; what is given goes to `post` with the same body."""
        return None if self._http is None else self._http.begin(body)

    async def post(self, body: bytes, begun: Begun | None = None) -> tuple[int, dict[str, str], bytes]:
        """Post; what breaks is Transient."""
        try:
            response = await self._open.post(body, begun)
        except HttpFailure as e:
            raise Transient(f"{self._label}: {e}") from None
        return response.status, response.headers, response.body

    async def stream(self, body: bytes) -> AsyncGenerator[Response | bytes]:
        """Post, and yield first the Response without a body, then the body in pieces as they arrive."""
        try:
            async with aclosing(self._open.stream(body)) as pieces:
                async for piece in pieces:
                    yield piece
        except HttpFailure as e:
            raise Transient(f"{self._label}: {e}") from None

    @property
    def _open(self) -> Http1:
        if self._http is None:
            raise Rejected(f"{self._label}: its URL is not valid")
        return self._http

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()
