"""uvicorn inside the keeper's own task group.

uvicorn is made for owning a process: it takes over signals and logging, and it says that it listens by a log
line. Here the keeper owns all that: no signal handlers, no loggers set up, ready when the socket listens, and a
cancellation ends it within a bound.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Final

import anyio
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from keeper.domain.errors import Misconfigured
from keeper.http.edge.problems import Problem

MAX_HEAD_BYTES: Final = 16 * 1024
"""A request's path, query and headers together."""
_MOST_FRAMING_BYTES: Final = 128 * 1024
"""Chunk lengths and trailers of one body."""
_LAST_PORT: Final = 65_535
_BACKLOG: Final = 1024
_PEER_TAKES_NOTHING_MS: Final = 30_000
_MAX_CONNECTIONS: Final = 4096


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    drain_s: float = 5.0,
    task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until cancelled; `task_status` is told the port once it listens. Port 0 takes any free one.

    On cancellation no new connections are accepted and running requests get `drain_s` seconds to finish.
    Misconfigured, naming the setting, when the address can't be listened on.
    """
    listener = listen(host, port)
    server = _Server(
        uvicorn.Config(
            app,
            http=BoundedHeads,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            # The caller's address is the peer's: a header that anybody can send must not choose it.
            proxy_headers=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=max(1, int(drain_s)),
        )
    )
    finished = anyio.Event()
    # The server gets the shield, not this task: a cancellation wakes the wait below, which asks it to stop.
    shield = anyio.CancelScope(shield=True)

    async def run() -> None:
        try:
            with shield:
                await server.serve(sockets=[listener])
        finally:
            finished.set()

    try:
        async with anyio.create_task_group() as tg:
            tg.start_soon(run, name="http-server")
            try:
                # The socket listens since it was bound; what comes before uvicorn accepts waits in the backlog.
                task_status.started(listener.getsockname()[1])
                await finished.wait()
            finally:
                server.should_exit = True
                shield.deadline = anyio.current_time() + drain_s + 1.0
    finally:
        listener.close()


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


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's httptools protocol with a bound on what a connection may send beside bodies.

    llhttp reads a request in a fifth of h11's time, and collects any number of header lines while it does. Here what
    came since a message began and is no body is counted, also header lines after a chunked body and the chunks' own
    lengths. A head that comes piece by piece ends with 431 and the connection's end once it is too long.

    A head that comes in one read is bounded by the read's size, and `EveryRequest` answers it.
    """

    _beside_bodies = 0
    _head_ended = False

    def data_received(self, data: bytes) -> None:
        """Feed the parser; give the connection up when it collects too much."""
        self._beside_bodies += len(data)
        super().data_received(data)
        most = _MOST_FRAMING_BYTES if self._head_ended else MAX_HEAD_BYTES
        if self._beside_bodies > most and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        """The bytes of this read count for the message from the next one on: where it began in it is not known."""
        self._beside_bodies, self._head_ended = 0, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The rest is the body's."""
        self._beside_bodies, self._head_ended = 0, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Bodies have their own bound, where they are read."""
        self._beside_bodies -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """An idle connection owes nothing."""
        self._beside_bodies = 0
        super().on_message_complete()

    def _refuse(self) -> None:
        # uvicorn's annotation hides that there is no cycle before the first request.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            # An answer of its own would come between those of a running request.
            refusal = Problem("headers_too_large", f"A request's head may have {MAX_HEAD_BYTES} bytes.").response()
            head = b"".join(b"%s: %s\r\n" % header for header in refusal.raw_headers)
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n%sconnection: close\r\n\r\n%s" % (head, refusal.body)
            )
        self.transport.close()
