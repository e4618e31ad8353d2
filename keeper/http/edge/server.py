"""uvicorn inside the keeper's own task group.

uvicorn is made for owning a process: it takes over signals and logging, and it says that it listens by a log
line. Here the keeper owns all that: no signal handlers, no loggers set up, ready when the socket listens, and a
cancellation ends it within a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import anyio
import structlog
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from keeper.domain.errors import Misconfigured
from keeper.http.edge.connections import ConnectionLimits, Connections
from keeper.http.edge.problems import Problem

MAX_HEAD_BYTES: Final = 16 * 1024
"""A request's path, query and headers together."""
_MOST_FRAMING_BYTES: Final = 128 * 1024
"""Chunk lengths and trailers of one body."""
_LAST_PORT: Final = 65_535
_BACKLOG: Final = 1024
_PEER_TAKES_NOTHING_MS: Final = 30_000
_SHORTEST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_LOG_EVERY_S: Final = 10.0
_LIMITS: Final = ConnectionLimits()
ONLY_PROBES: Final = "only_probes"
"""In a request's state: its connection was let in to ask how the keeper is."""

_log: Any = structlog.get_logger("keeper.http")


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    listener: socket.socket | None = None,
    limits: ConnectionLimits = _LIMITS,
    drain_s: float = 5.0,
    task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until cancelled; `task_status` is told the port once it listens. Port 0 takes any free one. A
    `listener` that is given listens already, and is closed at the end like one of its own.

    On cancellation no new connections are accepted and running requests get `drain_s` seconds to finish.
    Misconfigured, naming the setting, when the address can't be listened on.
    """
    listener = listener or listen(host, port)
    server = _Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            # The caller's address is the peer's, or what a proxy of ours says that it is. Of what anybody can send
            # only that counts which the last proxy wrote.
            proxy_headers=bool(limits.proxies),
            forwarded_allow_ips=list(limits.proxies),
            timeout_graceful_shutdown=max(1, int(drain_s)),
        )
    )
    finished = anyio.Event()
    # The server gets the shield, not this task: a cancellation wakes the wait below, which asks it to stop.
    shield = anyio.CancelScope(shield=True)

    async def run() -> None:
        try:
            with shield:
                # It gets its connections from `_accept`, and so no sockets to listen on.
                await server.serve(sockets=[])
        finally:
            finished.set()

    try:
        async with anyio.create_task_group() as tg:
            tg.start_soon(run, name="http-server")
            tg.start_soon(_accept, listener, server, Connections(limits), name="http-accept")
            try:
                # The socket listens since it was bound; what comes before it is accepted waits in the backlog.
                task_status.started(listener.getsockname()[1])
                await finished.wait()
            finally:
                server.should_exit = True
                shield.deadline = anyio.current_time() + drain_s + 1.0
    finally:
        listener.close()


async def _accept(listener: socket.socket, server: uvicorn.Server, connections: Connections) -> None:
    """Take connections until cancelled. Where a process has no descriptors left, it waits with the next one: asyncio
    itself would try again at once, a thousand times, and log each.
    """
    loop = asyncio.get_running_loop()
    pause_s, failed, logged_at = _SHORTEST_PAUSE_S, 0, -_LOG_EVERY_S

    async def connect(peer: socket.socket, protocol: Protocol) -> None:
        try:
            await loop.connect_accepted_socket(lambda: protocol, peer)
        except OSError:
            connections.closed(protocol)
            peer.close()

    try:
        async with anyio.create_task_group() as tg:
            while True:
                await anyio.wait_readable(listener)
                try:
                    peer, (address, *_) = listener.accept()
                except (BlockingIOError, ConnectionError):
                    continue  # it was gone before it was taken
                except OSError as e:
                    failed += 1
                    if loop.time() - logged_at >= _LOG_EVERY_S:
                        _log.warning("http.cannot_accept", detail=str(e), times=failed)
                        failed, logged_at = 0, loop.time()
                    await anyio.sleep(pause_s)
                    pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
                    continue
                pause_s = _SHORTEST_PAUSE_S
                peer.setblocking(False)
                if connections.admits(address):
                    tg.start_soon(connect, peer, Protocol(server, connections, address))
                else:
                    _turn_away(peer)
    finally:
        listener.close()


def _turn_away(peer: socket.socket) -> None:
    """Say why, if that can be said without waiting."""
    with contextlib.suppress(OSError):
        peer.send(_raw(Problem("too_many_connections", "Close some of your connections, or wait.", retry_after_s=5)))
    peer.close()


def _raw(problem: Problem) -> bytes:
    """A problem as the bytes of an answer that ends its connection."""
    answer = problem.response()
    head = b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
    status = HTTPStatus(answer.status_code)
    return b"HTTP/1.1 %d %s\r\n%sconnection: close\r\n\r\n%s" % (status, status.phrase.encode(), head, answer.body)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Misconfigured, naming the setting, when the address can't be had."""
    if not 0 <= port <= _LAST_PORT:
        raise Misconfigured(f"{port} is no port.", remedy=f"Set http.port to 0 to {_LAST_PORT}.")
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # `::` takes connections of IPv4, too
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except socket.gaierror as e:
        raise Misconfigured(f"{host!r} is no address to listen on.", remedy="Check the setting http.host.") from e
    except OSError as e:
        raise _cannot_listen(host, port, e) from e
    # Connections inherit it. asyncio sets it only on sockets that name their protocol, which accepted ones do not here.
    # Without it the body of an answer on a kept connection waits up to 40 ms for its head to be acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Connections inherit it: a peer that takes nothing for so long, dead or unwilling, is given up.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _PEER_TAKES_NOTHING_MS)
    listener.setblocking(False)
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> Misconfigured:
    if error.errno == errno.EADDRINUSE:
        return Misconfigured(
            f"Port {port} on {host} is in use.",
            remedy="Set http.port to a free one, or 0 for any, or stop what uses it.",
        )
    if error.errno == errno.EACCES:
        return Misconfigured(f"Port {port} needs privileges.", remedy="Set http.port to 1024 or above.")
    return Misconfigured(f"Can't listen on {host}:{port}: {error}.", remedy="Check http.host and http.port.")


class _Server(uvicorn.Server):
    """uvicorn's server without its hands on the process's signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Protocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with bounds on what a connection may send beside bodies, and on its silence.

    llhttp reads a request in a fifth of h11's time, and collects any number of header lines while it does. Here what
    came since a message began and is no body is counted, also header lines after a chunked body and the chunks' own
    lengths. A head that comes piece by piece ends with 431 and the connection's end once it is too long, and with 408
    once it takes too long.

    A head that comes in one read is bounded by the read's size, and `EveryRequest` answers it.
    """

    _beside_bodies = 0
    _head_ended = False

    def __init__(self, server: uvicorn.Server, connections: Connections, address: str) -> None:
        state = {ONLY_PROBES: True} if connections.opened(self, address) else {}
        super().__init__(config=server.config, server_state=server.server_state, app_state=state)
        self._connections = connections
        self._head_is_due = self.loop.call_later(connections.head_s, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place free."""
        self._head_is_due.cancel()
        self._connections.closed(self)
        super().connection_lost(exc)

    def close(self) -> None:
        """End it now, with nothing said."""
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; give the connection up when it collects too much."""
        self._beside_bodies += len(data)
        super().data_received(data)
        most = _MOST_FRAMING_BYTES if self._head_ended else MAX_HEAD_BYTES
        if self._beside_bodies > most and not self.transport.is_closing():
            self._refuse("headers_too_large", f"A request's head may have {MAX_HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """The bytes of this read count for the message from the next one on: where it began in it is not known."""
        self._beside_bodies, self._head_ended = 0, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The rest is the body's."""
        self._beside_bodies, self._head_ended = 0, True
        self._head_is_due.cancel()
        self._connections.speaks(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Bodies have their own bound, where they are read."""
        self._beside_bodies -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """An idle connection owes nothing."""
        self._beside_bodies = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The next head is due, unless it is here already. A body that nobody reads any more does not put it off."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._connections.falls_silent(self)
            self._head_is_due.cancel()
            self._head_is_due = self.loop.call_later(self._connections.head_s, self._head_is_late)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told so in the API's own form, not in uvicorn's."""
        self._refuse("malformed_request", msg)

    def _head_is_late(self) -> None:
        self._refuse("head_timeout", f"A request's head has to come within {self._connections.head_s:g} s.")

    def _refuse(self, code: str, detail: str) -> None:
        # uvicorn's annotations hide that there is no cycle before the first request, and no transport before that.
        cycle: RequestResponseCycle | None = self.cycle
        transport: asyncio.Transport | None = self.transport
        if transport is not None:
            if cycle is None or cycle.response_complete:
                # An answer of its own would come between those of a running request.
                transport.write(_raw(Problem(code, detail)))
            transport.close()
