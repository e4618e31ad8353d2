"""The WebSocket endpoint: subscriptions and their notifications."""

from __future__ import annotations

import logging
import socket

import anyio
from anyio.abc import TaskStatus
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from keeper.localnet.subscription_methods import Session
from keeper.localnet.subscriptions import Subscriptions

MAX_CLIENT_MESSAGE_BYTES = 4_096

_GOODBYE_S = 0.5

_log = logging.getLogger(__name__)


class _Outbox:
    """What one client is to be sent. It never makes the bank wait: a client that does not read is cut off."""

    def __init__(self, connection: ServerConnection, limit: int) -> None:
        self._connection = connection
        self._limit = limit
        self._send, self._receive = anyio.create_memory_object_stream[bytes](limit)

    def push(self, message: bytes) -> None:
        """Queue a message for the client."""
        try:
            self._send.send_nowait(message)
        except anyio.WouldBlock:
            _log.warning("%s did not read %d messages: disconnecting it", self._peer, self._limit)
            # Not a closing handshake: that would wait behind what the client is not reading.
            self._connection.transport.abort()
            self._send.close()
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass  # it is being disconnected

    async def run(self) -> None:
        """Send what is queued until the connection ends."""
        async for message in self._receive:
            await self._connection.send(message, text=True)

    def close(self) -> None:
        """Take no more messages, and forget those that wait."""
        self._send.close()
        self._receive.close()

    @property
    def _peer(self) -> str:
        return f"the client at {self._connection.remote_address}"


async def serve_websocket(
    subscriptions: Subscriptions,
    listening: socket.socket,
    *,
    queue_messages: int,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started when connections are taken.

    A client that has `queue_messages` unread ones waiting is disconnected, and one that sends a message
    above 4,096 bytes is closed with 1009, as a validator does.
    """

    async def talk(connection: ServerConnection) -> None:
        outbox = _Outbox(connection, queue_messages)
        session = Session(subscriptions, outbox)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_until_closed, outbox)
                async for message in connection:
                    session.handle(message)
                tasks.cancel_scope.cancel()
        except* ConnectionClosed:
            pass  # without a closing handshake: also a way to go
        finally:
            session.close()
            outbox.close()

    server = await serve(talk, sock=listening, max_size=MAX_CLIENT_MESSAGE_BYTES, compression=None, server_header=None)
    try:
        task_status.started()
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(server)


async def _stop(server: Server) -> None:
    """Close with 1001; a client that does not answer it is cut off."""
    server.close()
    with anyio.move_on_after(_GOODBYE_S):
        await server.wait_closed()
    for connection in list(server.handlers):  # those still in the opening handshake, too
        connection.transport.abort()
    await server.wait_closed()


async def _until_closed(outbox: _Outbox) -> None:
    try:
        await outbox.run()
    except ConnectionClosed:
        return
