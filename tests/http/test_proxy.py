"""The proxy that ships with the keeper (config/caddy/Caddyfile), with a real Caddy, where there is one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest
from prometheus_client import CollectorRegistry

from keeper.http.edge.connections import ConnectionLimits
from tests.http.http_world import LIMITS, World, problem, serving

CADDYFILE = Path(__file__).parents[2] / "config" / "caddy" / "Caddyfile"
CADDY = shutil.which("caddy")
pytestmark = [pytest.mark.anyio, pytest.mark.skipif(CADDY is None, reason="there is no caddy on the PATH")]


@asynccontextmanager
async def proxied(world: World, directory: Path) -> AsyncIterator[str]:
    """The URL of a Caddy before an API that lets two requests of a client through."""
    limits = replace(LIMITS, requests_per_s=0.1, burst=2, connections=ConnectionLimits(proxies=("127.0.0.1",)))
    assert CADDY is not None
    async with serving(replace(world.ports, metrics=CollectorRegistry(), limits=limits)) as port:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        environment = {
            **os.environ,
            "KEEPER_SITE": url,
            "KEEPER_API": f"127.0.0.1:{port}",
            "CADDY_ADMIN": f"unix/{directory / 'admin'}",
            "XDG_DATA_HOME": str(directory),
            "XDG_CONFIG_HOME": str(directory),
        }
        command = [CADDY, "run", "--config", str(CADDYFILE)]
        async with await anyio.open_process(command, env=environment, stderr=subprocess.DEVNULL) as caddy:
            try:
                with anyio.fail_after(20):
                    while True:
                        try:
                            await (await anyio.connect_tcp("127.0.0.1", int(url.rpartition(":")[2]))).aclose()
                            break
                        except OSError:
                            await anyio.sleep(0.05)
                yield url
            finally:
                caddy.terminate()


def client(url: str, address: str = "127.0.0.1") -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, transport=httpx.AsyncHTTPTransport(local_address=address), timeout=10)


async def test_limits_are_by_client_and_nobody_chooses_who_it_is(world: World, tmp_path: Path) -> None:
    async with proxied(world, tmp_path) as url, client(url) as first, client(url, "127.0.0.2") as second:
        codes = [
            (await first.get("/v1/markets", headers={"X-Forwarded-For": f"198.51.100.{n}"})).status_code
            for n in range(3)
        ]
        assert codes == [200, 200, 429]
        assert (await second.get("/v1/markets")).status_code == 200


async def test_streams_pass_as_they_come_and_what_is_not_for_users_does_not(world: World, tmp_path: Path) -> None:
    async with proxied(world, tmp_path) as url, client(url) as http:
        with anyio.fail_after(10):
            async with http.stream("GET", "/v1/orders/stream") as answer:
                assert await anext(answer.aiter_lines()) == "retry: 2000"
        for path in ("/metrics", "/v1/admin/status"):
            refused = await http.get(path)
            assert (refused.status_code, refused.content) == (404, b"")
        assert problem(await http.get("/v1/orders", params={"surprise": "1"}))["code"] == "unknown_field"


async def test_a_body_that_is_too_large_does_not_get_through(world: World, tmp_path: Path) -> None:
    async with proxied(world, tmp_path) as url, client(url) as http:
        large = await http.post("/v1/orders", content=b" " * 20_000, headers={"Content-Type": "application/json"})
        assert large.status_code == 413
