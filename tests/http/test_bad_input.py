"""Each bad input comes back as a problem that names the field, and none of them reaches the chain."""

from __future__ import annotations

import dataclasses
import json
import math
import socket
from typing import Any

import anyio
import anyio.to_thread
import pytest
from prometheus_client import CollectorRegistry
from solders.keypair import Keypair

from tests.http.http_world import KEEPER, LIMITS, World, problem, serving
from tests.support import BOUND_S

pytestmark = pytest.mark.anyio

DAY_S = 86_400


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"user": None}, "missing_field", "user"),
        ({"size": None}, "missing_field", "size"),
        ({"trigger_price": None}, "missing_field", "trigger_price"),
        ({"order_type": "limit", "trigger_price": None}, "missing_field", "limit_price"),
        ({"order_type": "stop_limit"}, "missing_field", "limit_price"),
        ({"order_type": "trailing_stop"}, "missing_field", "trailing_distance"),
        ({"sise": "1"}, "unknown_field", "sise"),
        ({"user": "me"}, "invalid_field", "user"),
        ({"user": "1" * 44}, "invalid_field", "user"),
        ({"user": str(KEEPER.pubkey())}, "invalid_field", "user"),
        ({"user": 7}, "invalid_field", "user"),
        ({"market": "SOL/DOGE"}, "unknown_market", "market"),
        ({"market": "sol/usdc"}, "unknown_market", "market"),
        ({"market": ["SOL", "USDC"]}, "invalid_field", "market"),
        ({"order_type": "stoploss"}, "invalid_field", "order_type"),
        ({"order_type": "twap"}, "order_type_not_executed", "order_type"),
        ({"order_type": "market"}, "order_type_not_executed", "order_type"),
        ({"side": "up"}, "invalid_field", "side"),
        ({"size": "0"}, "invalid_size", "size"),
        ({"size": "0.000000"}, "invalid_size", "size"),
        ({"size": "1000.000001"}, "position_too_large", "size"),
        ({"size": "0.0000001"}, "invalid_field", "size"),
        ({"size": "-1"}, "invalid_field", "size"),
        ({"size": "1e3"}, "invalid_field", "size"),
        ({"size": "1,5"}, "invalid_field", "size"),
        ({"size": ".5"}, "invalid_field", "size"),
        ({"size": " 1"}, "invalid_field", "size"),
        ({"size": "١"}, "invalid_field", "size"),
        ({"size": ""}, "invalid_field", "size"),
        ({"size": "9" * 41}, "invalid_field", "size"),
        ({"size": "99999999999999999999"}, "invalid_field", "size"),
        ({"size": 2.5}, "invalid_field", "size"),
        ({"size": 2}, "invalid_field", "size"),
        ({"size": True}, "invalid_field", "size"),
        ({"trigger_price": "0"}, "invalid_stop_price", "trigger_price"),
        ({"trigger_price": 95.5}, "invalid_field", "trigger_price"),
        ({"trigger_price": "NaN"}, "invalid_field", "trigger_price"),
        ({"limit_price": "94"}, "field_not_used", "limit_price"),
        ({"trailing_distance": "0.1"}, "field_not_used", "trailing_distance"),
        ({"order_type": "limit", "limit_price": "99"}, "field_not_used", "trigger_price"),
        ({"order_type": "limit", "limit_price": "110.000001", "trigger_price": None}, "price_too_high", "limit_price"),
        ({"order_type": "limit", "limit_price": "89.999999", "trigger_price": None}, "price_too_low", "limit_price"),
        ({"order_type": "limit", "limit_price": "0", "trigger_price": None}, "invalid_price", "limit_price"),
        (
            {"order_type": "trailing_stop", "trailing_distance": "0"},
            "invalid_trailing_distance",
            "trailing_distance",
        ),
        (
            {"order_type": "trailing_stop", "trailing_distance": "1.000001"},
            "invalid_trailing_distance",
            "trailing_distance",
        ),
        ({"order_type": "trailing_stop", "trailing_distance": "5%"}, "invalid_field", "trailing_distance"),
        ({"leverage": 0}, "invalid_field", "leverage"),
        ({"leverage": 21}, "invalid_leverage", "leverage"),
        ({"leverage": 256}, "invalid_field", "leverage"),
        ({"leverage": 1.5}, "invalid_field", "leverage"),
        ({"leverage": "5"}, "invalid_field", "leverage"),
        ({"leverage": 10**30}, "invalid_field", "leverage"),
        ({"expires_at": 1}, "order_expired", "expires_at"),
        ({"expires_at": -1}, "order_expired", "expires_at"),
        ({"expires_at": 10**18}, "order_expiration_too_long", "expires_at"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "order_expired", "expires_at"),
        ({"expires_at": "2031-01-01T00:00:00"}, "invalid_field", "expires_at"),
        ({"expires_at": "2031-01-01"}, "invalid_field", "expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+23:59"}, "order_expired", "expires_at"),
        ({"expires_at": "tomorrow"}, "invalid_field", "expires_at"),
        ({"expires_at": 1.5}, "invalid_field", "expires_at"),
        ({"order_id": "18446744073709551616"}, "invalid_field", "order_id"),
        ({"order_id": "-1"}, "invalid_field", "order_id"),
        ({"order_id": 1}, "invalid_field", "order_id"),
        ({"client_order_id": "x" * 65}, "invalid_field", "client_order_id"),
        ({"client_order_id": "a b"}, "invalid_field", "client_order_id"),
        ({"client_order_id": ""}, "invalid_field", "client_order_id"),
    ],
)
async def test_an_order_that_would_be_refused(
    world: World, wallet: Keypair, changes: dict[str, Any], code: str, field: str
) -> None:
    answer = await world.http.post("/v1/orders", json=world.body(wallet, **changes))
    document = problem(answer)
    assert (document["code"], document["field"]) == (code, field)
    assert answer.status_code == 422
    orders = await world.http.get("/v1/orders", params={"user": str(wallet.pubkey())})
    assert orders.json()["orders"] == []


async def test_a_float_is_told_to_come_as_a_string(world: World, wallet: Keypair) -> None:
    document = problem(await world.http.post("/v1/orders", json=world.body(wallet, size=0.1)))
    assert '"95.5"' in document["detail"]


async def test_thirty_days_by_the_chains_clock(world: World, wallet: Keypair) -> None:
    now = math.floor(world.desk.chain_time_s() or 0)
    assert await world.prepare(wallet, expires_at=now + 30 * DAY_S)
    answer = await world.http.post("/v1/orders", json=world.body(wallet, expires_at=now + 30 * DAY_S + 10))
    assert problem(answer)["code"] == "order_expiration_too_long"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b"null", "invalid_field"),
        (b"[]", "invalid_field"),
        (b'"text"', "invalid_field"),
        (b'{"size": NaN}', "malformed_json"),
        (b'{"size": Infinity}', "malformed_json"),
        (b'{"size": "1", "size": "2"}', "duplicate_key"),
        (b'{"user": {"a": 1, "a": 2}}', "duplicate_key"),
        (b'{"size": "\xff"}', "malformed_json"),
        (b'{"client_order_id": "\\ud800"}', "malformed_json"),
        (b"[" * 10_000, "malformed_json"),
        (b'{"leverage": 1' + b"0" * 9_000 + b"}", "malformed_json"),
        (b'{"a": 1} {"b": 2}', "malformed_json"),
        (b"\xef\xbb\xbf{}", "malformed_json"),
        (b'{"market\\u0000": 1}', "unknown_field"),
    ],
)
async def test_a_body_that_is_no_order(world: World, body: bytes, code: str) -> None:
    answer = await world.http.post("/v1/orders", content=body, headers={"Content-Type": "application/json"})
    assert problem(answer)["code"] == code
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_another_media_type(world: World, wallet: Keypair, media_type: str) -> None:
    content = json.dumps(world.body(wallet)).encode()
    answer = await world.http.post("/v1/orders", content=content, headers={"Content-Type": media_type})
    assert (answer.status_code, problem(answer)["code"]) == (415, "unsupported_media_type")


async def test_a_body_that_is_too_large_announced_or_not(world: World) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 1024

    headers = {"Content-Type": "application/json"}
    for content in (b" " * 16_385, chunks()):
        answer = await world.http.post("/v1/orders", content=content, headers=headers)
        assert (answer.status_code, problem(answer)["code"]) == (413, "body_too_large")
        assert answer.headers["connection"] == "close"


async def test_no_such_path_and_no_such_method(world: World) -> None:
    nowhere = await world.http.get("/v1/nothing")
    assert (nowhere.status_code, problem(nowhere)["code"]) == (404, "not_found")
    method = await world.http.delete("/v1/orders")
    assert (method.status_code, problem(method)["code"]) == (405, "method_not_allowed")
    assert method.headers["allow"] == "GET, HEAD, POST"


async def test_every_answer_has_a_request_id(world: World) -> None:
    given = await world.http.get("/livez", headers={"X-Request-Id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    for bad in ("with space", "x" * 65, "new\tline"):
        answer = await world.http.get("/v1/nothing", headers={"X-Request-Id": bad})
        assert answer.headers["x-request-id"] not in (bad, "")


async def test_headers_have_a_limit(world: World) -> None:
    answer = await world.http.get("/livez", headers={"X-Long": "x" * 17_000})
    assert (answer.status_code, problem(answer)["code"]) == (431, "headers_too_large")
    assert (await world.http.get("/v1/orders", params={"user": "x" * 17_000})).status_code == 431


async def test_what_is_no_http_is_a_problem_like_any_other(world: World) -> None:
    """The parser refuses it, before there is a request that anything else could answer."""

    def say() -> bytes:
        with socket.create_connection(("127.0.0.1", world.port), BOUND_S) as raw:
            raw.sendall(b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: =\r\n\r\n")
            return b"".join(iter(lambda: raw.recv(65_536), b""))

    head, _, body = (await anyio.to_thread.run_sync(say)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "malformed_request"


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"X-More: " + b"x" * 1_000 + b"\r\n"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ", b"x" * 1_000),
        (b"GET /", b"x" * 1_000),
    ],
    ids=["header lines", "one header line", "a path"],
)
async def test_a_head_that_never_ends_is_given_up(world: World, begin: bytes, more: bytes) -> None:
    heard = await anyio.to_thread.run_sync(heard_while_sending, world.port, begin, more)
    assert heard.startswith(b"HTTP/1.1 431 ")
    assert b"headers_too_large" in heard


async def test_trailers_that_never_end_are_given_up(world: World) -> None:
    """Trailers are header lines, too. Where their request was answered already, only the connection ends."""
    begin = b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    more = b"X-More: " + b"x" * 10_000 + b"\r\n"
    heard = await anyio.to_thread.run_sync(heard_while_sending, world.port, begin, more)
    assert heard.startswith((b"HTTP/1.1 405 ", b"HTTP/1.1 431 "))


def heard_while_sending(port: int, begin: bytes, more: bytes) -> bytes:
    """All that a client hears who sends `more` until the server hangs up.

    On a plain socket what came before the end can be read after it, however late that is: a busy machine's server may
    hang up with some of `more` unread, and an event loop's stream then loses the answer.
    """
    with socket.create_connection(("127.0.0.1", port), BOUND_S) as endless:
        endless.sendall(begin)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            endless.sendall(more * 10_000)
        heard = b""
        while received := endless.recv(65_536):
            heard += received
    return heard


async def test_a_body_that_never_ends_is_given_up(world: World) -> None:
    ports = dataclasses.replace(
        world.ports, metrics=CollectorRegistry(), limits=dataclasses.replace(LIMITS, body_timeout_s=0.2)
    )
    async with serving(ports) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        head = "POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        await stream.send(head.encode())
        with anyio.fail_after(BOUND_S):
            assert (await stream.receive()).startswith(b"HTTP/1.1 408 ")
