"""One WebSocket to one node: subscribe, read, and know a silent socket from a quiet market.

The slot subscription is the heartbeat: a node that creates banks tells of each, so a socket that brings no
slot for a few seconds is dead however open it looks. Reconnecting is the caller's loop; this is one life of
one connection. No URL leaves this module.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from keeper.errors import Rejected, Transient

# A node refuses client messages above 4,096 bytes, so each subscription is a message of its own.
_MAX_CLIENT_MESSAGE: Final = 4096
# An account may have 10 MiB, more than a third of that again in base64.
_MAX_SERVER_MESSAGE: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscribe call: `method` such as programSubscribe, its parameters, and `tag` to know its news by."""

    tag: str
    method: str
    params: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Notification:
    """News from one subscription. `slot` is the context's (or the notification's own, for slotSubscribe)."""

    tag: str
    slot: int
    value: Any


@dataclass(slots=True)
class Subscribed:
    """An open socket whose subscriptions are all acknowledged. `malformed` counts the messages that were skipped."""

    label: str
    _socket: ClientConnection
    _tags: dict[int, str]
    _pending: list[bytes | str]
    silence_s: float
    malformed: int = 0

    async def notifications(self) -> AsyncGenerator[Notification, None]:
        """News as it arrives. Ends with Transient when the socket closes or falls silent for `silence_s`.

        One message that can't be read is counted and skipped: the socket is still good.
        """
        for raw in self._pending:
            news = self._parse(raw)
            if news is not None:
                yield news
        self._pending.clear()
        while True:
            raw = await self._receive()
            news = self._parse(raw)
            if news is not None:
                yield news

    async def _receive(self) -> bytes | str:
        # A function of its own: what is yielded inside a cancel scope would have the reader's work cancelled by it.
        try:
            with anyio.fail_after(self.silence_s):
                return await self._socket.recv()
        except TimeoutError:
            raise Transient(f"{self.label}: the socket was silent for {self.silence_s:g} s") from None
        except (WebSocketException, OSError) as e:
            raise Transient(f"{self.label}: the socket closed ({type(e).__name__})") from None

    def _parse(self, raw: bytes | str) -> Notification | None:
        try:
            document = msgspec.json.decode(raw)
            params = document["params"]
            tag = self._tags[params["subscription"]]
            result = params["result"]
            context = result.get("context")
            if context is None:
                return Notification(tag, int(result["slot"]), result)
            return Notification(tag, int(context["slot"]), result["value"])
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError):
            self.malformed += 1
            return None


@asynccontextmanager
async def subscribed(
    url: str, subscriptions: Sequence[Subscription], *, label: str, silence_s: float, connect_timeout_s: float = 10.0
) -> AsyncIterator[Subscribed]:
    """Connect and subscribe. Yields when every subscription is acknowledged, so that a snapshot taken after
    can't miss a change. Transient when the node can't be reached, Rejected when it refuses a subscription.
    """
    try:
        with anyio.fail_after(connect_timeout_s):
            # Compression costs more CPU than loopback or a data centre's network saves.
            socket = await connect(url, max_size=_MAX_SERVER_MESSAGE, compression=None, ping_interval=20)
    except TimeoutError:
        raise Transient(f"{label}: no WebSocket within {connect_timeout_s:g} s") from None
    except (WebSocketException, OSError) as e:
        raise Transient(f"{label}: no WebSocket ({type(e).__name__})") from None
    try:
        try:
            with anyio.fail_after(connect_timeout_s):
                tags, pending = await _subscribe(socket, subscriptions, label)
        except TimeoutError:
            raise Transient(f"{label}: subscriptions not acknowledged within {connect_timeout_s:g} s") from None
        except (WebSocketException, OSError) as e:
            raise Transient(f"{label}: the socket closed while subscribing ({type(e).__name__})") from None
        yield Subscribed(label, socket, tags, pending, silence_s)
    finally:
        with anyio.move_on_after(1, shield=True):
            await socket.close()


async def _subscribe(
    socket: ClientConnection, subscriptions: Sequence[Subscription], label: str
) -> tuple[dict[int, str], list[bytes | str]]:
    ids = itertools.count(1)
    waiting: dict[int, str] = {}
    for subscription in subscriptions:
        request_id = next(ids)
        message = msgspec.json.encode(
            {"jsonrpc": "2.0", "id": request_id, "method": subscription.method, "params": subscription.params}
        )
        if len(message) > _MAX_CLIENT_MESSAGE:
            raise Rejected(f"{label}: {subscription.method} is over the node's limit for one message")
        waiting[request_id] = subscription.tag
        await socket.send(message.decode())
    tags: dict[int, str] = {}
    pending: list[bytes | str] = []
    while waiting:
        raw = await socket.recv()
        try:
            document = msgspec.json.decode(raw)
        except msgspec.MsgspecError:
            continue
        if not isinstance(document, dict) or "id" not in document:
            # News of an earlier subscription may come before the acknowledgement of a later one.
            pending.append(raw)
            continue
        tag = waiting.pop(document["id"], None)
        if tag is None:
            continue
        if "error" in document or not isinstance(document.get("result"), int):
            raise Rejected(f"{label}: the node refused the subscription {tag}")
        tags[document["result"]] = tag
    return tags, pending
