"""config/provider.toml: a stream, two RPC endpoints and a sender, as `keeper check` and `keeper run` take it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
from solders.pubkey import Pubkey

from keeper.app.endpoints import endpoints_of, senders_of, streams_of
from keeper.config.loading import load_settings
from keeper.domain.attempts import AttemptState
from keeper.solana.http1 import HttpTransport
from tests.behaviours.scripted_way import Role, ScriptedWay
from tests.ops.test_check import check, funded
from tests.support import KeeperConfig, KeeperProcess, World, until

pytestmark = pytest.mark.anyio

FILE: Final = Path(__file__).parents[2] / "config" / "provider.toml"
PROFILE: Final[dict[str, Any]] = tomllib.loads(FILE.read_text())
TOKEN: Final = str(PROFILE["rpc"]["streams"][0]["token"])


def at(world: World, folder: Path, way: ScriptedWay) -> KeeperConfig:
    """The profile, with servers of this machine in the places of the provider's."""
    rpc = dict(PROFILE["rpc"])
    local = {"url": world.net.rpc_url, "ws_url": world.net.ws_url}
    rpc |= local | {"fallbacks": [local], "genesis": str(world.bank.chain.genesis_hash)}
    rpc["streams"] = [{**rpc["streams"][0], "url": world.net.geyser_url}]
    rpc["senders"] = [{**rpc["senders"][0], "url": way.url}]
    return KeeperConfig.beside(world, folder, rpc=rpc, fees=PROFILE["fees"])


def test_it_is_complete_but_for_what_the_provider_gives() -> None:
    settings = load_settings(FILE)
    assert [e.label for e in endpoints_of(settings.rpc)] == ["rpc", "fallback-1"]
    assert len(streams_of(settings.rpc)) == 1
    (sender,) = senders_of(settings.rpc, HttpTransport)
    assert sender.tip_accounts
    assert settings.fees.tip_lamports


async def test_it_passes_the_check_and_executes(tmp_path: Path) -> None:
    async with (
        World.open(geyser_port=0, geyser_token=TOKEN) as world,
        ScriptedWay(world.bank, Role.LANDS, token=("x-token", TOKEN)) as way,
    ):
        config = at(world, tmp_path, way)
        for address in PROFILE["rpc"]["senders"][0]["tip_accounts"]:
            world.bank.airdrop(Pubkey.from_string(address), 1_000_000)
        await funded(world, config)
        lines = await check(config)
        assert [line for line in lines if line["outcome"] != "pass"] == []
        named = {line["check"] for line in lines}
        assert {"stream-1", "sender fast"} <= named
        assert sum(name.startswith("rpc ") for name in (line["check"] for line in lines)) == 2
        assert way.wires == [], "a check sends nothing"
        market = world.market()
        order = world.place(world.trader(), market, stop_price_1e6=98_000_000)
        async with KeeperProcess.running(config):
            with config.reading() as journal:
                await until(lambda: journal.order(order))
                world.set_price(market, 97_000_000)
                await until(lambda: any(a.state is AttemptState.FINALIZED for a in journal.attempts_of(order)))
                (attempt,) = journal.attempts_of(order)
                assert attempt.tip_lamports == PROFILE["fees"]["tip_lamports"]
                await until(lambda: "fast" in {r.way for r in journal.ways_of([attempt.signature])[attempt.signature]})
        assert way.sends_of(attempt.signature) >= 1


@pytest.mark.parametrize(
    ("role", "token", "sentence"),
    [
        (Role.LANDS, "another", "it refuses the token or the key (HTTP 401)"),
        (Role.LANDS, TOKEN, "no account is there to take a tip"),
        (Role.SPEAKS_ELSE, TOKEN, "it speaks something else than JSON-RPC (HTTP 200)"),
        (Role.LIES, TOKEN, "it accepts what is no transaction"),
    ],
)
async def test_a_sender_that_is_none_is_named(tmp_path: Path, role: Role, token: str, sentence: str) -> None:
    async with (
        World.open(geyser_port=0, geyser_token=TOKEN) as world,
        ScriptedWay(world.bank, role, token=("x-token", token)) as way,
    ):
        way.judges = role is Role.LANDS
        config = at(world, tmp_path, way)
        await funded(world, config)
        (line,) = (line for line in await check(config) if line["check"] == "sender fast")
    assert line["outcome"] == "warn"
    assert sentence in line["detail"]
    assert "rpc.senders" in line["remedy"] or "tip_accounts" in line["remedy"]
    assert TOKEN not in line["detail"]
