"""The network between a keeper and two nodes: both tell of one chain, each has its own weather.

An HTTP request reaches its node after a delay, is answered by the chain's own RPC methods at that moment, and the reply
takes its time back. A socket is told by the chain's own subscriptions. What breaks on the way is drawn from the same
kinds as in the campaign with real processes (`tests.chaos.proxy.faults`), and a few lies more.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import anyio
import anyio.lowlevel
import msgspec
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.http11 import Response as WebSocketResponse

from keeper.domain.errors import Transient
from keeper.localnet.subscription_methods import Session
from keeper.solana.http1 import Begun, Response
from tests.chaos.proxy.faults import Fault, Kind
from tests.chaos.proxy.rewriting import as_lagging, calls_of, from_lagging, refuse, rewritten
from tests.simulate.loop import VirtualLoop
from tests.simulate.node import Lie, Node, twisted
from tests.simulate.trace import Trace

_JSON: Final = {"content-type": "application/json"}
_PIECE: Final = 700
"""A streamed reply comes in pieces of so many bytes."""
_TAKEN_IN_S: Final = 0.05
"""Within that a reply that has arrived is known to the keeper."""
_MOST_WAITING: Final = 10_000
_OUT_OF_TOUCH_S: Final = 1.0
"""So long who is cut off waits for an answer."""


@dataclass(eq=False, slots=True)
class _Request:
    """One request that has left. `done` has the reply, or the error that the client sees."""

    done: asyncio.Future[tuple[int, dict[str, str], bytes]]


class Network:
    """The nodes and the way to them. `on_calls` is told of each request when it leaves the keeper."""

    def __init__(
        self,
        loop: VirtualLoop,
        nodes: Sequence[Node],
        trace: Trace,
        on_calls: Callable[[Link, str, Sequence[dict[str, Any]]], None],
    ) -> None:
        self.loop = loop
        self.nodes = nodes
        self.trace = trace
        self.on_calls = on_calls
        self.on_blockhash: Callable[[Link, int], None] = lambda link, height: None
        """Told of each blockhash that a keeper is given, by its last valid block height."""
        self.counts: Counter[str] = Counter()
        self.sockets: list[SimSocket] = []

    def cut(self, link: Link) -> None:
        """The process at the end of this link is no more: its connections are closed."""
        theirs = [socket for socket in self.sockets if socket.link is link]
        for socket in theirs:
            socket.abort()
        self.sockets = [socket for socket in self.sockets if socket.link is not link]

    def note(self, label: str, kind: str, about: str) -> None:
        """A fault happened."""
        self.counts[kind] += 1
        self.trace.note("net", f"{label}: {kind} ({about})")


class Link:
    """One life's way to the network. Nothing goes through once the life is over, nor while it is cut off."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.dead = False
        self.cut_until = 0.0
        """Until then it is cut off, by the loop's time."""

    @property
    def is_cut(self) -> bool:
        """Whether nothing goes through now."""
        return self.network.loop.time() < self.cut_until

    def transport(self, url: str, _label: str) -> SimTransport:
        """See Outside."""
        return SimTransport(self, self._node(url))

    async def connect(self, url: str) -> SimSocket:
        """See Outside."""
        node = self._node(url)
        await anyio.sleep(node.delay_s())
        if self.is_cut:
            raise InvalidStatus(WebSocketResponse(503, "no way there", cast(Any, {})))
        if node.faults is not None and node.faults.connection() is not None:
            self.network.note(node.label, Kind.SOCKET_REFUSED, "socket")
            raise InvalidStatus(WebSocketResponse(503, "no healthy upstream", cast(Any, {})))
        socket = SimSocket(self.network, node, self)
        self.network.sockets.append(socket)
        return socket

    def _node(self, url: str) -> Node:
        return next(node for node in self.network.nodes if node.label.split(":")[0] in url)


class SimTransport:
    """In `HttpTransport`'s place."""

    def __init__(self, link: Link, node: Node) -> None:
        self._link = link
        self._network = link.network
        self._node = node

    def begin(self, body: bytes) -> Begun | None:
        """It leaves now."""
        return cast(Begun, _Request(self._send(body)))

    async def post(self, body: bytes, begun: Begun | None = None) -> tuple[int, dict[str, str], bytes]:
        done = cast(_Request, begun).done if begun is not None else self._send(body)
        try:
            return await done
        finally:
            done.cancel()

    async def stream(self, body: bytes) -> AsyncGenerator[Response | bytes]:
        status, headers, content = await self.post(body)
        yield Response(status, headers)
        for at in range(0, len(content), _PIECE):
            yield content[at : at + _PIECE]
            await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        pass

    # -- what becomes of a request

    def _send(self, body: bytes) -> asyncio.Future[tuple[int, dict[str, str], bytes]]:
        network, node = self._network, self._node
        done: asyncio.Future[tuple[int, dict[str, str], bytes]] = network.loop.create_future()
        if self._link.dead:
            return done  # nobody hears of it
        calls = calls_of(body)
        network.on_calls(self._link, node.label, calls)
        if self._link.is_cut:
            network.loop.call_later(_OUT_OF_TOUCH_S, _give, done, Transient(f"{node.label}: no way there"))
            return done
        methods = [str(call.get("method")) for call in calls]
        fault = node.faults.request(methods) if node.faults is not None else None
        lie = node.lie(network.loop.time()) if fault is None else None
        if fault is not None:
            network.note(node.label, fault.kind, methods[0])
        way = node.delay_s()
        if fault is not None and fault.kind is Kind.REQUEST_DELAYED:
            way += fault.seconds
        network.loop.call_later(way, self._arrive, body, calls, fault, lie, done)
        if lie is Lie.DOUBLED:
            network.note(node.label, lie, methods[0])
            network.loop.call_later(way * 2, node.ask, body)
        return done

    def _arrive(
        self,
        body: bytes,
        calls: Sequence[dict[str, Any]],
        fault: Fault | None,
        lie: Lie | None,
        done: asyncio.Future[tuple[int, dict[str, str], bytes]],
    ) -> None:
        network, node = self._network, self._node
        kind = fault.kind if fault is not None else None
        seconds = fault.seconds if fault is not None else 0.0
        batch = body.startswith(b"[")
        back = node.delay_s()
        answer: tuple[int, dict[str, str], bytes] | Transient
        match kind:
            case None | Kind.REQUEST_DELAYED:
                answer = (200, _JSON, self._told(node, body, calls, lie))
                if lie is None and any(call.get("method") == "getLatestBlockhash" for call in calls):
                    network.loop.call_later(back + _TAKEN_IN_S, self._blockhash_given, answer[2])
            case Kind.REQUEST_LOST:
                back, answer = seconds, Transient(f"{node.label}: the host closed the connection")
            case Kind.REQUEST_RESET:
                answer = Transient(f"{node.label}: the host closed the connection")
            case Kind.HTTP_429:
                answer = (429, {}, b"slow down")
            case Kind.HTTP_429_RETRY_AFTER:
                answer = (429, {"retry-after": str(node.dice.randrange(2))}, b"slow down")
            case Kind.JSON_429:
                code = node.dice.choice((429, -32429, -32005))
                answer = (200, _JSON, refuse(calls, batch=batch, code=code, message="Too many requests: rate limited"))
            case Kind.HTTP_503:
                answer = (503, {}, b"no healthy upstream")
            case Kind.HTML:
                answer = (200, {}, b"<html>Just a moment...</html>")
            case Kind.LAGGING:
                answer = (200, _JSON, from_lagging(node.ask(as_lagging(body)), calls, batch=batch))
            case _:
                reply = node.ask(body)
                match kind:
                    case Kind.REPLY_LOST:
                        back, answer = seconds, Transient(f"{node.label}: the host closed the connection")
                    case Kind.REPLY_RESET | Kind.REPLY_CUT_OFF:
                        answer = Transient(f"{node.label}: the host closed the connection")
                    case Kind.REPLY_502:
                        answer = (502, {}, b"<html>Bad gateway</html>")
                    case Kind.REPLY_TRUNCATED:
                        answer = (200, _JSON, reply[: len(reply) // 2])
                    case Kind.REPLY_DRIPPED | Kind.REPLY_DELAYED:
                        back, answer = back + seconds, (200, _JSON, reply)
                    case _:
                        answer = (200, _JSON, rewritten(kind, reply, calls, node.dice))
        network.loop.call_later(back, _give, done, answer)

    def _blockhash_given(self, reply: bytes) -> None:
        if self._link.dead:
            return
        document = msgspec.json.decode(reply)
        for each in document if isinstance(document, list) else [document]:
            value = each["result"].get("value") if isinstance(each.get("result"), dict) else None
            if isinstance(value, dict) and "lastValidBlockHeight" in value:
                self._network.on_blockhash(self._link, value["lastValidBlockHeight"])

    def _told(self, node: Node, body: bytes, calls: Sequence[dict[str, Any]], lie: Lie | None) -> bytes:
        reply = node.ask(body)
        if lie is None or lie is Lie.DOUBLED:
            return reply
        told = node.remembered(calls, reply) if lie is Lie.OLD_REPLY else twisted(lie, reply, calls, node)
        if told is None or told == reply or any(call.get("method") == "sendTransaction" for call in calls):
            return reply
        self._network.note(node.label, lie, str(calls[0].get("method")))
        return told


def _give(
    done: asyncio.Future[tuple[int, dict[str, str], bytes]], answer: tuple[int, dict[str, str], bytes] | Transient
) -> None:
    if done.done():
        return
    if isinstance(answer, Transient):
        done.set_exception(answer)
    else:
        done.set_result(answer)


class SimSocket:
    """In a WebSocket's place: the chain's subscriptions at one end, the keeper's watch at the other."""

    def __init__(self, network: Network, node: Node, link: Link) -> None:
        self._network = network
        self._node = node
        self.link = link
        self._session = Session(node.subscriptions, self)
        self._inbox: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._closed = False
        self._silent_until = 0.0
        self._held: bytes | None = None
        self._last_due = 0.0

    @property
    def transport(self) -> asyncio.Transport:
        """`abort` is all that is asked of it."""
        return cast(asyncio.Transport, self)

    def abort(self) -> None:
        """End it at once."""
        if not self._closed:
            self._closed = True
            self._session.close()
            self._news.set()

    async def send(self, message: str) -> None:
        if self._closed:
            raise ConnectionClosedError(None, None)
        self._network.loop.call_later(self._node.delay_s(), self._handle, message)

    async def recv(self, decode: bool | None = None) -> bytes:
        while not self._inbox:
            if self._closed:
                raise ConnectionClosedError(None, None)
            self._news.clear()
            await self._news.wait()
        return self._inbox.popleft()

    async def close(self) -> None:
        self.abort()

    def _handle(self, message: str) -> None:
        if not self._closed:
            self._session.handle(message)

    # -- the node's end

    def push(self, message: bytes) -> None:
        """See `keeper.localnet.subscriptions.Client`."""
        node, loop = self._node, self._network.loop
        now = loop.time()
        news = message.startswith(b'{"jsonrpc":"2.0","method":')
        if now < self._silent_until or self.link.is_cut:
            return
        kind = message[27 : message.index(b'"', 27)].decode() if news else ""
        fault = node.faults.news(kind) if news and node.faults is not None else None
        due = max(self._last_due, now + node.delay_s())
        messages = [message]
        if fault is not None:
            self._network.note(node.label, fault.kind, kind)
            match fault.kind:
                case Kind.NEWS_DROPPED:
                    messages = []
                case Kind.NEWS_DUPLICATED:
                    messages = [message, message]
                case Kind.NEWS_SWAPPED:
                    messages = [] if self._held is None else [self._held]
                    self._held = message
                case Kind.NEWS_DELAYED:
                    due += fault.seconds
                case Kind.NEWS_GARBAGE:
                    messages = [message[: len(message) // 2], message]
                case Kind.SOCKET_SILENT:
                    self._silent_until = now + fault.seconds
                    return
                case _:
                    loop.call_at(due, self.abort)
                    return
        if self._held is not None and (fault is None or fault.kind is not Kind.NEWS_SWAPPED):
            messages.append(self._held)
            self._held = None
        self._last_due = due
        for each in messages:
            loop.call_at(due, self._deliver, each)

    def _deliver(self, message: bytes) -> None:
        if self._closed:
            return
        if len(self._inbox) >= _MOST_WAITING:
            self.abort()
            return
        self._inbox.append(message)
        self._news.set()
