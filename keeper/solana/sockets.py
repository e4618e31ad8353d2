"""One WebSocket to one node: subscribe, read, and know a silent socket from a quiet market.

The slot subscription is the heartbeat: a node that creates banks tells of each, so a socket that brings no
slot for a few seconds is dead however open it looks. Reconnecting is the caller's loop; this is one life of
one connection. No URL leaves this module.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import anyio
import msgspec
from solders.pubkey import Pubkey
from websockets.asyncio import client
from websockets.exceptions import WebSocketException

from keeper.domain.errors import Rejected, Transient
from keeper.solana.account_stream import KeyedAccount, RawAccount
from keeper.solana.client import AccountBytes

# A node refuses client messages above 4,096 bytes, so each subscription is a message of its own.
_MAX_CLIENT_MESSAGE: Final = 4096
# An account may have 10 MiB, more than a third of that again in base64.
_MAX_SERVER_MESSAGE: Final = 32 * 1024 * 1024


class Socket(Protocol):
    """An open WebSocket, as far as it is used here; in a daemon one of `websockets`, whose errors it raises."""

    @property
    def transport(self) -> asyncio.Transport:
        """What `abort` ends at once."""
        ...

    async def recv(self, decode: bool | None = None) -> Any:
        """The next message; as bytes with `decode` False."""
        ...

    async def send(self, message: str) -> None:
        """Send a message."""
        ...

    async def close(self) -> None:
        """Close it politely."""
        ...


Connect = Callable[[str], Awaitable[Socket]]
"""Opens a WebSocket to a URL. Raises WebSocketException or OSError when it can't."""


async def connect(url: str) -> Socket:
    """Over the network."""
    # Compression costs more CPU than loopback or a data centre's network saves.
    return await client.connect(url, max_size=_MAX_SERVER_MESSAGE, compression=None, ping_interval=20)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscribe call: `method` such as programSubscribe, its parameters, and `tag` to know its news by.

    `repeats`, for a programSubscribe: nodes tell of these accounts again and again within a slot, changed or not; what
    is byte for byte the last news of its account is left out, unread.
    """

    tag: str
    method: str
    params: tuple[Any, ...] = ()
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Notification:
    """News from one subscription. `slot` is the context's, with the account; or a slot's own, without one. A
    subscription of one account has its address for a tag.
    """

    tag: str
    slot: int
    account: AccountBytes | None


class _Context(msgspec.Struct, gc=False):
    slot: int


class _Result(msgspec.Struct, gc=False):
    """Of an account: `context` and `value`. Of slotSubscribe: `slot`."""

    context: _Context | None = None
    value: KeyedAccount | None = None
    slot: int | None = None


class _Params(msgspec.Struct, gc=False):
    subscription: int
    result: _Result


class _Message(msgspec.Struct, gc=False):
    params: _Params


class _AccountResult(msgspec.Struct, gc=False):
    context: _Context
    value: RawAccount


class _AccountParams(msgspec.Struct, gc=False):
    subscription: int
    result: _AccountResult


class _AccountMessage(msgspec.Struct, gc=False):
    """News of accountSubscribe, which does not repeat the address."""

    params: _AccountParams


_message: Final = msgspec.json.Decoder(_Message)
_account_message: Final = msgspec.json.Decoder(_AccountMessage)
_MOST_REPEATING: Final = 4_096
_LONGEST_REPEATING: Final = 16_384
"""The last news of so many accounts is remembered, when it has no more bytes than this."""


class Silence:
    """Ends a reader that waits for more than `longest_s`: one timer a connection, where a time limit for each message
    would cost more than the message.
    """

    def __init__(self, longest_s: float, end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._longest_s = longest_s
        self._end = end
        self._asked: float | None = None
        self.waits_since: float | None = None
        """When the reader began to wait, by the loop's clock; None while it does not."""
        self.over = False
        self._timer = self._loop.call_later(longest_s, self._look)

    def stop(self) -> None:
        """The reader has ended."""
        self._timer.cancel()

    def _look(self) -> None:
        since, now = self.waits_since, self._loop.time()
        if since is None or now < since + self._longest_s:
            self._timer = self._loop.call_at((now if since is None else since) + self._longest_s, self._look)
        elif self._asked != since:
            # A loop that stood still finds timers and news due at once: the reader goes first.
            self._asked = since
            self._timer = self._loop.call_later(0.005, self._look)
        else:
            self.over = True
            self._end()


@dataclass(slots=True)
class Subscribed:
    """An open socket whose subscriptions are all acknowledged. `malformed` counts the messages that were skipped."""

    label: str
    _socket: Socket
    _tags: dict[int, str]
    _repeating: frozenset[str]
    _pending: list[bytes]
    silence_s: float
    malformed: int = 0
    _last: dict[str, bytes] = field(default_factory=dict, repr=False)
    _again: set[bytes] = field(default_factory=set, repr=False)

    async def notifications(self) -> AsyncGenerator[Notification, None]:
        """News as it arrives. Ends with Transient when the socket closes or falls silent for `silence_s`.

        One message that can't be read is counted and skipped: the socket is still good.
        """
        for raw in self._pending:
            news = self._parse(raw)
            if news is not None:
                yield news
        self._pending.clear()
        silence = Silence(self.silence_s, self._socket.transport.abort)
        now = asyncio.get_running_loop().time
        try:
            while True:
                silence.waits_since = now()
                try:
                    raw = await self._socket.recv(decode=False)
                except (WebSocketException, OSError) as e:
                    if silence.over:
                        raise Transient(f"{self.label}: the socket was silent for {self.silence_s:g} s") from None
                    raise Transient(f"{self.label}: the socket closed ({type(e).__name__})") from None
                silence.waits_since = None
                if raw in self._again:
                    continue
                news = self._parse(raw)
                if news is not None:
                    yield news
        finally:
            silence.stop()

    def _parse(self, raw: bytes) -> Notification | None:
        try:
            params = _message.decode(raw).params
            tag, result = self._tags[params.subscription], params.result
            if result.context is not None and result.value is not None:
                if tag in self._repeating:
                    self._note(result.value.pubkey, raw)
                return Notification(tag, result.context.slot, _account(result.value.pubkey, result.value.account))
            if result.slot is not None:
                return Notification(tag, result.slot, None)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
            pass
        try:  # the rarest last
            of_one = _account_message.decode(raw).params
            tag = self._tags[of_one.subscription]
            return Notification(tag, of_one.result.context.slot, _account(tag, of_one.result.value))
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
            self.malformed += 1
            return None

    def _note(self, account: str, raw: bytes) -> None:
        """The last news of an account, to know it when it comes again."""
        before = self._last.pop(account, None)
        if before is not None:
            self._again.discard(before)
        elif len(self._last) >= _MOST_REPEATING:
            self._last.clear()
            self._again.clear()
        if len(raw) <= _LONGEST_REPEATING:
            self._last[account] = raw
            self._again.add(raw)


def _account(address: str, raw: RawAccount) -> AccountBytes:
    """ValueError when it is none, or came in another encoding."""
    if raw.data[1] != "base64":
        raise ValueError(raw.data[1])
    return AccountBytes(Pubkey.from_string(address), Pubkey.from_string(raw.owner), raw.lamports, raw.data[0])


@asynccontextmanager
async def subscribed(
    url: str,
    subscriptions: Sequence[Subscription],
    *,
    label: str,
    silence_s: float,
    connect_timeout_s: float = 10.0,
    connect: Connect = connect,
) -> AsyncIterator[Subscribed]:
    """Connect and subscribe. Yields when every subscription is acknowledged, so that a snapshot taken after
    can't miss a change. Transient when the node can't be reached, Rejected when it refuses a subscription.
    """
    try:
        with anyio.fail_after(connect_timeout_s):
            socket = await connect(url)
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
        repeating = frozenset(s.tag for s in subscriptions if s.repeats)
        yield Subscribed(label, socket, tags, repeating, pending, silence_s)
    finally:
        with anyio.move_on_after(1, shield=True):
            await socket.close()


async def _subscribe(
    socket: Socket, subscriptions: Sequence[Subscription], label: str
) -> tuple[dict[int, str], list[bytes]]:
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
    pending: list[bytes] = []
    while waiting:
        raw = await socket.recv(decode=False)
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
