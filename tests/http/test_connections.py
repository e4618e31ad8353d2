"""Connections that say nothing, and too many of them: they end, and the keeper's own descriptors stay its own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import httpx
import pytest
from prometheus_client import CollectorRegistry

from keeper.http.edge.connections import ConnectionLimits
from keeper.http.edge.server import listen
from tests.http.http_world import LIMITS, World, serving
from tests.support import BOUND_S

pytestmark = pytest.mark.anyio
BEGUN = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
WHOLE = BEGUN + b"\r\n"


@asynccontextmanager
async def bounded(world: World, **limits: Any) -> AsyncIterator[int]:
    """The port of an API with these bounds on connections."""
    api = replace(LIMITS, connections=ConnectionLimits(**limits))
    async with serving(replace(world.ports, metrics=CollectorRegistry(), limits=api)) as port:
        yield port


@asynccontextmanager
async def connected(port: int, source: str = "127.0.0.1") -> AsyncIterator[anyio.abc.SocketStream]:
    """From an address of our choice."""
    raw = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
    raw.setblocking(False)
    async with await anyio.abc.SocketStream.from_socket(raw) as stream:
        yield stream


async def heard(stream: anyio.abc.SocketStream) -> bytes:
    """Everything until the connection's end."""
    found = b""
    with anyio.fail_after(5), contextlib.suppress(anyio.BrokenResourceError):
        async for piece in stream:
            found += piece
    return found


def test_an_answers_body_does_not_wait_until_its_head_is_acknowledged() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname(), timeout=BOUND_S):
        listener.settimeout(BOUND_S)
        with listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("begin", [b"", b"G", BEGUN], ids=["nothing", "a letter", "half a head"])
async def test_a_head_that_does_not_come_ends_its_connection(world: World, begin: bytes) -> None:
    async with bounded(world, head_s=0.2) as port, connected(port) as stream:
        if begin:
            await stream.send(begin)
        answer = await heard(stream)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"head_timeout" in answer


async def test_a_head_that_comes_in_drops_ends_its_connection(world: World) -> None:
    async with bounded(world, head_s=0.5) as port, connected(port) as stream, anyio.create_task_group() as tg:

        async def drop() -> None:
            await stream.send(BEGUN)
            while True:
                await stream.send(b"X-A: b\r\n")
                await anyio.sleep(0.05)

        tg.start_soon(drop)
        assert (await heard(stream)).startswith(b"HTTP/1.1 408 ")
        tg.cancel_scope.cancel()


async def test_a_body_in_drops_that_nobody_waits_for_ends_its_connection(world: World) -> None:
    """The answer does not need the body, and each drop of it is a sign of life to the server."""
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    async with bounded(world, head_s=0.5) as port, connected(port) as stream, anyio.create_task_group() as tg:

        async def drop() -> None:
            await stream.send(head)
            while True:
                await stream.send(b"x")
                await anyio.sleep(0.05)

        tg.start_soon(drop)
        assert (await heard(stream)).startswith(b"HTTP/1.1 200 ")
        tg.cancel_scope.cancel()


async def test_a_long_answer_is_not_cut_by_the_time_for_heads(world: World) -> None:
    async with (
        bounded(world, head_s=0.2) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        http.stream("GET", "/v1/orders/stream") as answer,
    ):
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 2000"
        with anyio.move_on_after(0.6) as quiet:
            async for _ in lines:
                pass
        assert quiet.cancelled_caught


async def test_one_address_has_so_many_and_another_has_its_own(world: World) -> None:
    async with (
        bounded(world, per_address=2) as port,
        connected(port) as first,
        connected(port) as second,
        connected(port) as third,
        connected(port, "127.0.0.2") as other,
    ):
        refusal = await heard(third)
        assert refusal.startswith(b"HTTP/1.1 503 ")
        assert b"too_many_connections" in refusal
        for stream in (first, second, other):
            await stream.send(WHOLE)
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")


async def test_a_place_that_was_left_is_free_again(world: World) -> None:
    async with bounded(world, per_address=1) as port:
        for _ in range(3):
            async with connected(port) as stream:
                await stream.send(BEGUN + b"Connection: close\r\n\r\n")
                assert (await heard(stream)).startswith(b"HTTP/1.1 200 ")


async def test_when_all_places_are_taken_the_longest_silence_ends(world: World) -> None:
    async with (
        bounded(world, total=2) as port,
        connected(port) as silent,
        connected(port) as younger,
        connected(port) as newest,
    ):
        await newest.send(WHOLE)
        assert (await newest.receive()).startswith(b"HTTP/1.1 200 ")
        assert await heard(silent) == b""
        await younger.send(WHOLE)
        assert (await younger.receive()).startswith(b"HTTP/1.1 200 ")


async def test_when_all_are_at_work_a_probe_is_answered_and_nothing_else(world: World) -> None:
    async with (
        bounded(world, total=1) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as http,
        http.stream("GET", "/v1/orders/stream") as stream,
    ):
        assert stream.status_code == 200
        async with httpx.AsyncClient(base_url=http.base_url) as supervisor:
            assert (await supervisor.get("/livez")).text == "ok\n"
        async with httpx.AsyncClient(base_url=http.base_url) as stranger:
            refused = await stranger.get("/v1/keeper")
            assert (refused.status_code, refused.json()["code"]) == (503, "too_many_connections")


# --- a process with few descriptors

SERVER = """
import os, resource, sys
import anyio
from starlette.responses import PlainTextResponse
from keeper.http.edge.server import serve

resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
eaten = []

async def app(scope, receive, send):
    if scope["path"] == "/own":
        # What the chain and the journal would open.
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(200)]
        for file in files:
            os.close(file)
    if scope["path"] == "/eat":
        try:
            while True:
                eaten.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
    if scope["path"] == "/free":
        while eaten:
            os.close(eaten.pop())
    await PlainTextResponse("ok")(scope, receive, send)

async def main():
    async with anyio.create_task_group() as tg:
        print(await tg.start(serve, app, "127.0.0.1", 0), flush=True)

anyio.run(main)
"""


@contextmanager
def few_descriptors() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            while not line.strip().isdigit():
                line = process.stdout.readline()
            yield int(line), process
        finally:
            process.kill()


async def test_silent_connections_leave_the_keeper_its_descriptors() -> None:
    with few_descriptors() as (port, _):
        silent = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(600)]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
                assert (await http.get("/own")).text == "ok"
        finally:
            for connection in silent:
                connection.close()


async def test_without_descriptors_it_waits_and_does_not_fill_the_log() -> None:
    with few_descriptors() as (port, process):
        assert process.stdout is not None
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            await http.get("/eat")
            waiting = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(20)]
            with anyio.fail_after(10):
                while "cannot_accept" not in await anyio.to_thread.run_sync(process.stdout.readline):
                    pass
            await http.get("/free")
            try:
                for connection in waiting:
                    connection.sendall(WHOLE)
                    assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
            finally:
                for connection in waiting:
                    connection.close()
        process.kill()
        assert len(process.stdout.read().splitlines()) < 10
