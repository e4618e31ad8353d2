"""One endpoint against a server that misbehaves: behaviours 12, 19, 20 and 21 of the landing rules."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
from anyio.abc import SocketStream

from keeper.domain.errors import BehindNode, ChainError, MalformedReply, NotServed, RateLimited, Rejected, Transient
from keeper.solana.http1 import HttpTransport
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import MAX_BODY_BYTES, BegunBatch, Call, Endpoint
from tests.support.http_node import Handler, http_node

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def node(handler: Handler) -> AsyncIterator[str]:
    """Such a node's URL, with a credential in it."""
    async with http_node(handler) as url:
        yield f"{url}/?api-key=sekret"


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


def answering(make: Callable[[object], bytes]) -> Handler:
    async def handler(stream: SocketStream, body: bytes) -> None:
        await stream.send(make(msgspec.json.decode(body)))

    return handler


def result(request: object, value: object) -> bytes:
    assert isinstance(request, dict)
    return http(msgspec.json.encode({"jsonrpc": "2.0", "id": request["id"], "result": value}))


def error(request: object, code: int, message: str = "no", **data: object) -> bytes:
    assert isinstance(request, dict)
    detail: dict[str, object] = {"code": code, "message": message}
    if data:
        detail["data"] = data
    return http(msgspec.json.encode({"jsonrpc": "2.0", "id": request["id"], "error": detail}))


@asynccontextmanager
async def endpoint(handler: Handler) -> AsyncIterator[Endpoint]:
    async with node(handler) as url:
        made = Endpoint("node", HttpTransport(url, label="node"))
        try:
            yield made
        finally:
            await made.aclose()


async def failure_of(handler: Handler, deadline_s: float = 5.0) -> ChainError:
    async with endpoint(handler) as made:
        with pytest.raises(ChainError) as caught:
            await made.call("getSlot", deadline_s=deadline_s)
    assert "sekret" not in str(caught.value)
    return caught.value


async def test_a_result_comes_back() -> None:
    async with endpoint(answering(lambda request: result(request, 42))) as made:
        assert await made.call("getSlot", deadline_s=5) == 42


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (-32002, Rejected),
        (-32003, Rejected),
        (-32004, BehindNode),
        (-32005, Transient),
        (-32016, BehindNode),
        (-32601, NotServed),
        (-32602, Rejected),
        (-32603, Transient),
        (429, RateLimited),
        (-32429, RateLimited),
        (-32000, Transient),
        (12345, Transient),
    ],
)
async def test_12_an_error_code_without_data_is_a_named_error(code: int, kind: type[ChainError]) -> None:
    """solders panics on -32002, -32005 and -32016 without data; solana-py returns unlisted codes as an int."""
    assert type(await failure_of(answering(lambda request: error(request, code)))) is kind


async def test_12_an_unknown_transaction_error_passes_through() -> None:
    unknown = {"SomethingNewOfNextYear": {"x": [1]}}
    caught = await failure_of(answering(lambda request: error(request, -32002, err=unknown, logs=["a", "b"])))
    assert isinstance(caught, Rejected)
    assert caught.err == unknown
    assert caught.logs == ("a", "b")


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (http(b"<html>busy</html>"), MalformedReply),
        (http(b'{"jsonrpc":"2.0","id":1,"resu'), MalformedReply),
        (http(b"[]"), MalformedReply),
        (http(b"null"), MalformedReply),
        (http(b'{"jsonrpc":"2.0","id":1}'), MalformedReply),
        (http(b'{"jsonrpc":"2.0","id":999,"result":1}'), MalformedReply),
        (http(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse"}}'), Transient),
        (http(b"<html>bad gateway</html>", "502 Bad Gateway"), Transient),
        (http(b"nope", "403 Forbidden"), NotServed),
        (http(b"too large", "413 Payload Too Large"), Rejected),
        (b"HTTP/1.1 garbage\r\n\r\n", Transient),
    ],
)
async def test_12_a_broken_reply_is_a_named_error(reply: bytes, kind: type[ChainError]) -> None:
    async def handler(stream: SocketStream, _body: bytes) -> None:
        await stream.send(reply)

    assert type(await failure_of(handler)) is kind


async def test_12_cancellation_passes_through_a_call() -> None:
    async def silent(_stream: SocketStream, _body: bytes) -> None:
        await anyio.sleep_forever()

    async with endpoint(silent) as made:
        with anyio.move_on_after(0.05) as scope:
            await made.call("getSlot", deadline_s=60)
        assert scope.cancelled_caught


async def test_20_retry_after_is_read_and_bounded() -> None:
    async def after(header: str) -> float | None:
        async def handler(stream: SocketStream, _body: bytes) -> None:
            await stream.send(http(b"", "429 Too Many Requests", header))

        caught = await failure_of(handler)
        assert isinstance(caught, RateLimited)
        return caught.retry_after_s

    assert await after("retry-after: 7\r\n") == 7.0
    assert await after("retry-after: 99999\r\n") == 60.0
    assert await after("retry-after: -3\r\n") == 0.0
    assert await after("retry-after: soon\r\n") is None
    assert await after("") is None
    assert await after("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n") == 0.0


async def test_20_a_429_benches_its_endpoint_and_no_other() -> None:
    async def limited(stream: SocketStream, _body: bytes) -> None:
        await stream.send(http(b"", "429 Too Many Requests", "retry-after: 30\r\n"))

    async with endpoint(limited) as first, endpoint(answering(lambda request: result(request, 5))) as second:
        pool = RpcPool([first, second], PoolLimits())
        assert await pool.call("getSlot") == 5
        assert await pool.call("getSlot") == 5
        one, other = pool.health
        assert one.errors == 1, "it was asked once, and not again while it rests"
        assert one.bench_reason == "rate limited"
        assert other.errors == 0


async def test_21_one_deadline_holds_a_drip_fed_reply() -> None:
    async def drip(stream: SocketStream, _body: bytes) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            await stream.send(b" ")
            await anyio.sleep(0.01)

    with anyio.fail_after(30):
        caught = await failure_of(drip, deadline_s=0.2)
    assert type(caught) is Transient
    assert "no complete answer" in str(caught)


async def test_a_refused_connection_is_transient_and_hides_the_url() -> None:
    made = Endpoint("node", HttpTransport("http://127.0.0.1:1/?api-key=sekret", label="node"))
    with pytest.raises(Transient) as caught:
        await made.call("getSlot", deadline_s=5)
    assert "sekret" not in str(caught.value)
    assert "sekret" not in repr(made)
    assert caught.value.__cause__ is None
    await made.aclose()


async def test_19_no_library_logs_the_url(caplog: pytest.LogCaptureFixture) -> None:
    from keeper.telemetry.logs import configure_logs

    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    configure_logs("debug", "json")
    root.addHandler(caplog.handler)
    try:
        async with endpoint(answering(lambda request: result(request, 1))) as made:
            await made.call("getSlot", deadline_s=5)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert "sekret" not in caplog.text


async def test_batch_replies_are_matched_by_id_in_any_order() -> None:
    def reversed_reply(requests: object) -> bytes:
        assert isinstance(requests, list)
        replies = [{"jsonrpc": "2.0", "id": r["id"], "result": r["params"][0]} for r in reversed(requests)]
        return http(msgspec.json.encode(replies))

    async with endpoint(answering(reversed_reply)) as made:
        assert await made.batch([Call("echo", (i,)) for i in range(50)], deadline_s=5) == list(range(50))


async def test_a_batch_is_cut_to_the_body_limit() -> None:
    sizes: list[int] = []

    async def handler(stream: SocketStream, body: bytes) -> None:
        sizes.append(len(body))
        replies = [{"jsonrpc": "2.0", "id": r["id"], "result": "ok"} for r in msgspec.json.decode(body)]
        await stream.send(http(msgspec.json.encode(replies)))

    async with endpoint(handler) as made:
        replies = await made.batch([Call("sendTransaction", ("x" * 1640,)) for _ in range(100)], deadline_s=5)
    assert replies == ["ok"] * 100
    assert len(sizes) > 1
    assert max(sizes) <= MAX_BODY_BYTES


async def test_one_error_in_a_batch_is_that_calls_alone() -> None:
    def mixed(requests: object) -> bytes:
        assert isinstance(requests, list)
        first, second, _lost = requests
        replies = [
            {"jsonrpc": "2.0", "id": second["id"], "error": {"code": -32602, "message": "bad"}},
            {"jsonrpc": "2.0", "id": first["id"], "result": 1},
        ]
        return http(msgspec.json.encode(replies))

    async with endpoint(answering(mixed)) as made:
        good, bad, lost = await made.batch([Call("a"), Call("b"), Call("c")], deadline_s=5)
    assert good == 1
    assert isinstance(bad, Rejected)
    assert isinstance(lost, MalformedReply)


def begin(made: Endpoint, calls: list[Call]) -> BegunBatch | None:
    """What the pool does: write a batch where a connection rests."""
    requests = [{"jsonrpc": "2.0", "id": n, "method": c.method, "params": c.params} for n, c in enumerate(calls, 1)]
    chunk = [(n, msgspec.json.encode(request)) for n, request in enumerate(requests, 1)]
    body = b"[" + b",".join(encoded for _, encoded in chunk) + b"]"
    request = made.transport.begin(body)
    return None if request is None else BegunBatch(chunk, body, request)


async def test_what_was_begun_is_on_the_wire_at_once_and_answered_like_any_other() -> None:
    seen: list[object] = []

    async def handler(stream: SocketStream, body: bytes) -> None:
        calls = msgspec.json.decode(body)
        seen.append([call["method"] for call in calls])
        replies = [{"jsonrpc": "2.0", "id": call["id"], "result": call["method"]} for call in calls]
        await stream.send(http(msgspec.json.encode(replies)))

    calls = [Call("first"), Call("second")]
    async with endpoint(handler) as made:
        assert begin(made, calls) is None, "no connection rests yet"
        await made.batch(calls, deadline_s=5)
        for _ in range(3):
            begun = begin(made, calls)
            assert begun is not None
            assert begin(made, calls) is None, "the only connection is taken"
            assert await made.batch(calls, deadline_s=5, begun=begun) == ["first", "second"]
    assert seen == [["first", "second"]] * 4, "each went out once"


async def test_what_was_begun_on_a_connection_that_the_node_had_closed_is_sent_again() -> None:
    requests = 0

    async def handler(stream: SocketStream, body: bytes) -> None:
        nonlocal requests
        requests += 1
        (call,) = msgspec.json.decode(body)
        await stream.send(http(msgspec.json.encode([{"jsonrpc": "2.0", "id": call["id"], "result": requests}])))
        if requests == 1:
            await stream.aclose()

    async with endpoint(handler) as made:
        assert await made.batch([Call("a")], deadline_s=5) == [1]
        # Before the loop has heard that it is closed.
        begun = begin(made, [Call("a")])
        assert begun is not None
        assert await made.batch([Call("a")], deadline_s=5, begun=begun) == [2]


async def test_what_was_begun_and_broke_off_is_unknown() -> None:
    async def handler(stream: SocketStream, body: bytes) -> None:
        (call,) = msgspec.json.decode(body)
        if call["method"] == "breaks":
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[")
            await stream.aclose()
            return
        await stream.send(http(msgspec.json.encode([{"jsonrpc": "2.0", "id": call["id"], "result": 1}])))

    async with endpoint(handler) as made:
        await made.batch([Call("a")], deadline_s=5)
        begun = begin(made, [Call("breaks")])
        assert begun is not None
        (reply,) = await made.batch([Call("breaks")], deadline_s=5, begun=begun)
        assert type(reply) is Transient
