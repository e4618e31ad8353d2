"""What tells who works on what, where keepers share the markets: the API, an operator's drain, health and metrics."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import anyio.to_thread
import httpx
import pytest
from prometheus_client import CollectorRegistry
from solders.keypair import Keypair
from typer.testing import CliRunner, Result

from keeper.cli import cli
from keeper.commands import admin
from keeper.http.edge.clients import Tokens
from keeper.journal import Followed, Holder, Journal
from keeper.runtime.gauges import tell_leases
from keeper.runtime.health import shared_by
from keeper.telemetry.metrics import ServiceMetrics
from tests.http.http_world import World, problem, serving
from tests.http.test_operator_reads import NoBrakes

pytestmark = pytest.mark.anyio
MARKETS = [str(Keypair.from_seed(bytes([n] * 32)).pubkey()) for n in range(100)]
OPERATOR = {"Authorization": "Bearer operator's"}


def name(keeper: str, *, fit: bool = True) -> Holder:
    return Holder(f"keeper:{keeper}", keeper, 1, 0.0, 2.5, f"http://{keeper}:8080", fit)


def leases(**shares: int) -> list[Holder]:
    """The names of the keepers, and a lease on so many markets for each; `nobody` are those that are left out."""
    found, at = [name(keeper) for keeper in shares if keeper != "nobody"], 0
    for keeper, n in shares.items():
        markets, at = MARKETS[at : at + n], at + n
        found += [Holder(market, keeper, 2, 0.0, 2.0) for market in markets if keeper != "nobody"]
    return found


@dataclass
class Led:
    """The world's journal, with the leases of a database that several keepers share."""

    journal: Journal
    leases: Sequence[Holder]

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self.journal, attribute)

    async def holders(self) -> list[Holder]:
        return list(self.leases)


@asynccontextmanager
async def led(
    world: World, found: Sequence[Holder], hand_over: Callable[[Led], None] = lambda led: None
) -> AsyncIterator[httpx.AsyncClient]:
    """The API of the keeper `one`. `hand_over` is what becomes of the leases when it is drained."""
    journal = Led(world.journal, found)
    ports = replace(
        world.ports,
        journal=cast(Followed, journal),
        metrics=CollectorRegistry(),
        brakes=NoBrakes(),
        operators=Tokens({hashlib.sha256(b"operator's").hexdigest(): "operator"}),
        name="one",
        hand_over=lambda: hand_over(journal),
    )
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        yield http


async def test_the_keeper_tells_how_the_markets_are_shared_in_few_words(world: World) -> None:
    async with led(world, leases(one=34, two=33, three=33)) as http:
        answer = await http.get("/v1/keeper")
    told = answer.json()
    assert [(each["name"], each["markets"], each["fit"]) for each in told["keepers"]] == [
        ("one", 34, True),
        ("two", 33, True),
        ("three", 33, True),
    ]
    assert told["markets_unheld"] == 1, "the world's own"
    assert len(told["leases"]) == 103
    assert len(answer.content) < 20_000


async def test_one_keeper_for_all_markets_is_told_so_too(world: World) -> None:
    service = [Holder("*", "one", 3, 0.0, 2.5), name("one"), name("two", fit=False)]
    async with led(world, service) as http:
        told = (await http.get("/v1/keeper")).json()
    assert told["keepers"] == [
        {"name": "one", "markets": 1, "fit": True},
        {"name": "two", "markets": 0, "fit": False},
    ]
    assert told["markets_unheld"] == 0
    async with led(world, []) as http:
        alone = (await http.get("/v1/keeper")).json()
    assert (alone["leases"], alone["keepers"], alone["markets_unheld"]) == ([], [], 0)


# --- draining


async def test_a_drain_needs_another_keeper_that_is_fit(world: World) -> None:
    drained: list[Led] = []
    for others in ([], [name("two", fit=False)]):
        async with led(world, [*leases(one=2), *others], drained.append) as http:
            refused = await http.post("/v1/admin/drain", headers=OPERATOR)
            assert (refused.status_code, problem(refused)["code"]) == (409, "nobody_stands_by")
    assert not drained
    async with led(world, leases(one=2, two=0), drained.append) as http:
        answer = await http.post("/v1/admin/drain", headers=OPERATOR)
    assert answer.status_code == 202
    assert answer.json() == {"holder": "one", "term": 2, "markets": MARKETS[:2], "standing_by": ["two"]}
    assert len(drained) == 1
    # One that has no market has nothing to hand over.
    async with led(world, leases(one=0, two=3)) as http:
        assert problem(await http.post("/v1/admin/drain", headers=OPERATOR))["code"] == "nobody_stands_by"


async def drain(http: httpx.AsyncClient, folder: Path, *flags: str) -> Result:
    (folder / "token").write_text("operator's")
    where = ["--port", str(http.base_url.port), "--token-file", str(folder / "token"), *flags]
    run = CliRunner().invoke
    # In a thread: the API lives in this event loop.
    return await anyio.to_thread.run_sync(lambda: run(cli, ["drain", *where], env={"KEEPER_CLUSTER__LEASE_S": "1"}))


async def test_keeper_drain_says_who_has_the_markets_now(world: World, tmp_path: Path) -> None:
    def shared_out(journal: Led) -> None:
        journal.leases = [replace(each, holder="two") if i % 2 else each for i, each in enumerate(journal.leases)]
        journal.leases = [
            replace(each, holder="three") if each.holder == "one" and not each.on_name else each
            for each in journal.leases
        ]

    async with led(world, leases(one=5, two=1, three=1), shared_out) as http:
        done = await drain(http, tmp_path)
        assert done.exit_code == 0, done.output
        sentence = r"three, two took over 5 markets from one after \d+\.\d\d s; one stands by\.\n"
        assert re.fullmatch(sentence, done.stdout), done.stdout
    async with led(world, leases(one=5, two=1, three=1), shared_out) as http:
        told = json.loads((await drain(http, tmp_path, "--json")).stdout)
    assert (told["from"], told["to"], told["markets"]) == ("one", ["three", "two"], 5)


async def test_keeper_drain_fails_when_nobody_takes_over(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(journal: Led) -> None:
        journal.leases = [
            replace(each, holder="two") if each.what in MARKETS[:2] else each
            for each in journal.leases
            if each.what != MARKETS[4]
        ]

    monkeypatch.setattr(admin, "_TAKES_OVER_S", -0.5)
    async with led(world, leases(one=5, two=1), some) as http:
        done = await drain(http, tmp_path)
    assert done.exit_code != 0
    # 5, where a busy machine did not answer once in that time.
    assert re.search("[35] of 5 have gone to no other keeper", str(done.exception)), done.output


# --- health and metrics


def test_health_says_how_the_markets_are_shared_in_a_sentence() -> None:
    quarters = leases(one=25, two=25, three=50)
    assert shared_by(quarters, "one", MARKETS) == "works on 25 of 100 markets; three on 50, two on 25"
    assert shared_by(leases(one=98, nobody=2), "one", MARKETS) == "works on 98 of 100 markets; nobody on 2"
    assert shared_by(leases(one=0, two=1), "one", MARKETS[:1]) == "works on 0 of 1 markets; two on 1"
    assert shared_by([], "one", MARKETS) == "", "a journal in a file"
    assert shared_by([name("one"), name("two")], "one", MARKETS) == "", "nobody works, or one that is about to"


def test_metrics_tell_of_each_keepers_share_and_of_what_nobody_has() -> None:
    def told(found: Sequence[Holder], me: str = "one") -> dict[str, float | None]:
        metrics = ServiceMetrics("0")
        tell_leases(metrics, found, standing_by=False, me=me, markets=MARKETS)
        names = ("keepers", "markets_held", "markets_unheld", "lease_left_seconds", "lease_term")
        return {each: metrics.registry.get_sample_value(f"keeper_{each}") for each in names}

    shared = leases(one=34, two=60, nobody=6)
    assert told(shared) == {
        "keepers": 2,
        "markets_held": 34,
        "markets_unheld": 6,
        "lease_left_seconds": 2.0,
        "lease_term": 2 * 94,
    }
    assert told(shared, "two")["markets_held"] == 60
    service = [Holder("*", "one", 3, 0.0, 2.5), name("one")]
    assert told(service) == {
        "keepers": 1,
        "markets_held": 0,
        "markets_unheld": 0,
        "lease_left_seconds": 2.5,
        "lease_term": 3,
    }
    assert told([name("one")])["lease_left_seconds"] == 0
    assert told([name("one")])["markets_unheld"] == 0
