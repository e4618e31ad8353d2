"""`keeper check` names the cause, in its first failing line, whatever is broken."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from solders.account import Account
from solders.keypair import Keypair
from typer.testing import CliRunner, Result

from keeper.cli import cli
from keeper.journal import Journal, SetMeta
from keeper.journal.sqlite.lock import writer_lock
from keeper.localnet import Commitment
from keeper.venue.idl import PACKAGED
from tests.behaviours.edited_node import EditedNode, as_revision_0_1
from tests.support import KeeperConfig, KeeperProcess, World, until
from tests.venue.feed_accounts import NVDA_USD, PYTH_RECEIVER, SOL_USD, SOL_USD_ACCOUNT, update

pytestmark = pytest.mark.anyio

ELSEWHERE = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"


async def invoke(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    """The command in a thread of its own, because it runs an event loop and the chain needs this one."""
    return await anyio.to_thread.run_sync(
        lambda: CliRunner().invoke(cli, ["check", *arguments], env=env, catch_exceptions=False)
    )


async def check(config: KeeperConfig, *arguments: str, env: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """The lines. The exit code has to agree with them."""
    result = await invoke("--config", str(config.file), "--json", *arguments, env=env)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    failed = [line for line in lines if line["outcome"] == "fail"]
    expected = 0 if not failed else 2 if failed[0]["check"] == "settings" else 1
    assert result.exit_code == expected, result.output
    return lines


async def funded(world: World, config: KeeperConfig) -> None:
    """Until what the keeper's key has, if it has anything, is confirmed, which is what the check reads: two blocks."""
    key, bank = config.key.pubkey(), world.bank
    await until(lambda: bank.account(key, Commitment.CONFIRMED) == bank.account(key, Commitment.PROCESSED))


@dataclass
class Broken:
    """A set-up in the making: a good one that a case breaks in one place."""

    world: World
    folder: Path
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    key: Keypair | None = None

    def set(self, section: str, **values: Any) -> None:
        self.sections.setdefault(section, {}).update(values)

    @property
    def config(self) -> KeeperConfig:
        return KeeperConfig.beside(self.world, self.folder, key=self.key, **self.sections)


Case = Callable[[Broken], None]
CASES: dict[str, tuple[Case, Case, str, str]] = {}
"""By name: what breaks the settings, what breaks the files, the line that has to fail first, and what it says."""


def _nothing(_: Broken) -> None:
    pass


def case(line: str, says: str, *, after: bool = False) -> Callable[[Case], Case]:
    """`after`: the case breaks files that the set-up wrote, rather than the set-up."""

    def add(breaks: Case) -> Case:
        CASES[breaks.__name__] = (_nothing, breaks, line, says) if after else (breaks, _nothing, line, says)
        return breaks

    return add


@case("settings", "no setting rpc.urls. Did you mean rpc.url?")
def unknown_setting(b: Broken) -> None:
    b.set("rpc", urls="http://127.0.0.1:1")


@case("settings", "fees.unit_limit is wrong")
def value_out_of_range(b: Broken) -> None:
    b.set("fees", unit_limit=5)


@case("settings", "health.stalled_after_s (60) must be above 5 x rpc.deadline_s (100)")
def a_slow_call_would_be_a_stuck_loop(b: Broken) -> None:
    b.set("rpc", deadline_s=20)


@case("settings", "health.stalled_after_s (60) must be above rpc.silence_s (90)")
def a_silent_socket_would_be_a_stuck_loop(b: Broken) -> None:
    b.set("rpc", silence_s=90)


@case("settings", "program.id is wrong: it is not a base58 public key")
def no_program_id(b: Broken) -> None:
    b.set("program", id="Perp")


@case("settings", "rpc.genesis is wrong: it is neither mainnet, devnet, testnet nor a genesis hash")
def no_cluster(b: Broken) -> None:
    b.set("rpc", genesis="devnett")


@case("settings", "http.admin_token_sha256 is wrong: it is not the SHA-256 of a token")
def a_token_in_place_of_its_hash(b: Broken) -> None:
    b.set("http", admin_token_sha256="a-token-for-all-to-read")


@case("settings", "KEEPER_RPCC__URL is no setting")
def unknown_variable(b: Broken) -> None:
    b.env["KEEPER_RPCC__URL"] = "http://127.0.0.1:1"


@case("settings", "is not TOML", after=True)
def not_toml(b: Broken) -> None:
    (b.folder / "keeper.toml").write_text("[rpc\nurl = 1")


@case("settings", "can't be read: No such file", after=True)
def no_settings_file(b: Broken) -> None:
    (b.folder / "keeper.toml").unlink()


@case("key", "can't be read: No such file", after=True)
def no_key_file(b: Broken) -> None:
    (b.folder / "key.json").unlink()


@case("key", "is not a keypair", after=True)
def no_keypair(b: Broken) -> None:
    (b.folder / "key.json").write_text('"a seed phrase"')


@case("key", "can be read or changed by others", after=True)
def key_for_everybody(b: Broken) -> None:
    (b.folder / "key.json").chmod(0o644)


@case("idl", "missing.json")
def no_idl_file(b: Broken) -> None:
    b.set("program", idl=str(b.folder / "missing.json"))


@case("idl", "wants more arguments for place_order than the IDL 0.1.0 has")
def idl_of_another_revision(b: Broken) -> None:
    b.set("program", idl="0.1", id=str(b.world.program.id))


@case("idl", "describes: it answers execute_conditional_order with InvalidInstructionData")
def the_system_program(b: Broken) -> None:
    b.set("program", id="11111111111111111111111111111111")


@case("idl", "is not the one that the IDL 0.1.0 describes")
def the_token_program(b: Broken) -> None:
    b.set("program", idl="0.1", id="TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")


@case("rpc", "is not an http or https URL")
def no_url(b: Broken) -> None:
    b.set("rpc", url="localhost:8899")


@case("rpc 127.0.0.1:1", "it does not answer")
def nobody_there(b: Broken) -> None:
    b.set("rpc", url="http://127.0.0.1:1")


@case("rpc", "it does not answer")
def not_a_node(b: Broken) -> None:
    b.set("rpc", url=b.world.net.ws_url.replace("ws:", "http:"))


@case("rpc", "it speaks http and not https: its URL has to begin with http://")
def tls_where_there_is_none(b: Broken) -> None:
    b.set("rpc", url=b.world.net.rpc_url.replace("http:", "https:"))


@case("rpc", "another cluster")
def another_cluster(b: Broken) -> None:
    b.set("rpc", genesis="devnet")


@case("socket", "no WebSocket")
def no_socket(b: Broken) -> None:
    b.set("rpc", ws_url="ws://127.0.0.1:1")


@case("program", "There is no program at")
def no_program(b: Broken) -> None:
    b.set("program", id=str(Keypair().pubkey()))


@case("program", "is not a program")
def a_wallet_for_a_program(b: Broken) -> None:
    b.set("program", id=str(b.world.authority.pubkey()))


@case("balance", "nothing would be sent")
def no_money(b: Broken) -> None:
    b.key = Keypair()


@case("balance", "below fees.min_balance_lamports (200 SOL)")
def below_the_floor(b: Broken) -> None:
    b.set("fees", min_balance_lamports=200_000_000_000)


@case("journal", "is damaged or no SQLite database", after=True)
def no_database(b: Broken) -> None:
    (b.folder / "journal.sqlite").write_bytes(b"nothing of the kind" * 100)


@case("journal", "not a keeper's journal", after=True)
def somebody_elses_database(b: Broken) -> None:
    with sqlite3.connect(b.folder / "journal.sqlite") as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    db.close()


@case("journal", "this keeper knows versions up to", after=True)
def journal_from_the_future(b: Broken) -> None:
    _journal(b, "PRAGMA user_version = 99")


@case("journal", "belongs to another chain", after=True)
def journal_of_another_chain(b: Broken) -> None:
    _journal(b, f"INSERT INTO meta VALUES ('genesis_hash', '{ELSEWHERE}')")


@case("journal", "belongs to another program", after=True)
def journal_of_another_program(b: Broken) -> None:
    _journal(b, f"INSERT INTO meta VALUES ('program', '{ELSEWHERE}')")


@case("journal", "There is no folder ")
def no_folder(b: Broken) -> None:
    (b.folder / "file").write_text("")
    b.set("journal", path=str(b.folder / "file" / "journal.sqlite"))


@case("journal", "There is no folder /nowhere for the journal. Make it, or set another path.")
def a_mistyped_folder(b: Broken) -> None:
    b.set("journal", path="/nowhere/keeper.sqlite")


@case("api", "is no address to listen on")
def no_address(b: Broken) -> None:
    b.set("http", host="256.0.0.1")


def _crank(b: Broken, key: Keypair | None = None, **changes: Any) -> None:
    """A market whose authority the keeper holds, or `key` in its place."""
    feed = {"market": "CRANK/USDC", "kind": "pyth", "account": str(SOL_USD_ACCOUNT), "feed_id": SOL_USD.hex()}
    file = b.folder / "authority.json"
    file.touch(mode=0o600)
    file.write_text(str(list(bytes(b.world.authority if key is None else key))))
    if b.world.bank.account(b.world.program.market_address("CRANK", "USDC")) is None:
        b.world.market("CRANK/USDC")
    b.set("prices", feeds=[feed])
    b.set("crank", **{"markets": ["CRANK/USDC"], "key_file": str(file), **changes})


@case("crank", "is not the authority of the market CRANK/USDC")
def another_authority(b: Broken) -> None:
    _crank(b, Keypair())


@case("crank", "crank.key_file holds the keeper's own key")
def the_fee_key_as_authority(b: Broken) -> None:
    b.key = b.world.authority
    _crank(b)


@case("crank", "authority.json can be read or changed by others")
def authority_for_everybody(b: Broken) -> None:
    _crank(b)
    (b.folder / "authority.json").chmod(0o644)


@case("crank", "Check crank.key_file")
def no_authority_file(b: Broken) -> None:
    _crank(b, key_file=str(b.folder / "nowhere.json"))


@case("settings", "crank.markets names BTC/USDC, of which there is no feed by that name in prices.feeds")
def a_market_without_a_feed(b: Broken) -> None:
    _crank(b, markets=["CRANK/USDC", "BTC/USDC"])


@case("settings", "crank.key_file is set, and crank.markets names no market")
def an_authority_of_nothing(b: Broken) -> None:
    _crank(b, markets=[])


@case("settings", "crank.markets names markets, and crank.key_file has no key of their authority")
def nobody_to_post(b: Broken) -> None:
    _crank(b)
    del b.sections["crank"]["key_file"]


@case("settings", "crank.max_feed_age_s (90) must be at most trigger.max_price_age_s (60)")
def a_price_that_is_old_when_it_is_posted(b: Broken) -> None:
    _crank(b, max_feed_age_s=90.0)


@case("settings", "crank.max_deviation_ppm (60000) must be at most trigger.breaker_trip (0.05)")
def a_post_that_pauses_its_market(b: Broken) -> None:
    _crank(b, max_deviation_ppm=60_000)


@case("settings", "fees.cap_lamports (9999) must be at least 10000")
def no_room_for_a_second_signature(b: Broken) -> None:
    _crank(b)
    b.set("fees", cap_lamports=9_999)


@case("crank", "Two of prices.feeds are of the market CRANK/USDC")
def two_sources_of_one_price(b: Broken) -> None:
    _crank(b)
    (feed,) = b.sections["prices"]["feeds"]
    again = {**feed, "market": str(b.world.program.market_address("CRANK", "USDC"))}
    b.set("prices", feeds=[feed, again])


@case("crank", "The program has no market NONE/USDC, which crank.markets names")
def a_market_that_is_not_there(b: Broken) -> None:
    _crank(b, markets=["NONE/USDC"])
    (feed,) = b.sections["prices"]["feeds"]
    b.set("prices", feeds=[{**feed, "market": "NONE/USDC"}])


def _journal(b: Broken, change: str) -> None:
    """A journal of this version, changed by one statement."""

    async def make() -> None:
        async with Journal.open(b.folder / "journal.sqlite") as journal:
            await journal.commit(SetMeta("by", "a test"))

    anyio.run(make)
    with sqlite3.connect(b.folder / "journal.sqlite") as db:
        db.execute(change)
    db.close()


@pytest.mark.parametrize("name", CASES)
async def test_the_first_failing_line_names_the_cause(name: str, world: World, tmp_path: Path) -> None:
    settings, files, line, says = CASES[name]
    broken = Broken(world, tmp_path)
    settings(broken)
    config = broken.config
    await funded(world, config)
    await anyio.to_thread.run_sync(files, broken)

    lines = await check(config, env=broken.env)

    first = next(found for found in lines if found["outcome"] == "fail")
    assert first["check"].startswith(line)
    assert says in f"{first['detail']} {first['remedy']}"
    assert first["remedy"] or "." in first["detail"].rstrip(".")  # it says what to do


async def test_a_good_set_up_has_no_line_that_fails_or_warns_and_changes_nothing(world: World, tmp_path: Path) -> None:
    config = KeeperConfig.beside(world, tmp_path)
    await funded(world, config)

    lines = await check(config)

    assert {line["outcome"] for line in lines} == {"pass"}
    wanted = ["settings", "key", "api", "journal", "rpc", "socket", "clock", "program", "balance", "idl", "revision"]
    assert [line["check"].split(" ")[0] for line in lines] == wanted
    assert sorted(os.listdir(tmp_path)) == ["keeper.toml", "key.json"]  # noqa: PTH208


async def test_a_socket_on_another_chain_than_its_rpc_is_named(world: World, tmp_path: Path) -> None:
    async with World.open() as other:
        for _ in range(3_000):
            other.bank.advance()
        config = KeeperConfig.beside(world, tmp_path, rpc={"ws_url": other.net.ws_url})
        await funded(world, config)
        lines = await check(config)
    first = next(line for line in lines if line["outcome"] == "fail")
    assert first["check"].startswith("socket")
    assert "different chains" in first["detail"]


async def test_a_program_whose_fills_create_no_position_is_named(world: World, tmp_path: Path) -> None:
    async with EditedNode(world.net.rpc_url) as node:
        node.edit = partial(as_revision_0_1, str(world.program.id))
        revision = {"idl": "0.1", "id": str(world.program.id)}
        config = KeeperConfig.beside(world, tmp_path, rpc={"url": node.rpc_url}, program=revision)
        await funded(world, config)
        lines = await check(config)
    first = next(line for line in lines if line["outcome"] == "fail")
    assert first["check"] == "revision"
    assert "a fill creates no position" in first["detail"]


async def test_a_feed_is_read_and_what_is_wrong_with_it_is_named(world: World, tmp_path: Path) -> None:
    feeds = [
        {"market": market, "kind": "pyth", "account": str(address), "feed_id": feed_id}
        for market, address, feed_id in (
            ("SOL/USDC", SOL_USD_ACCOUNT, SOL_USD.hex()),
            ("NVDA/USDC", SOL_USD_ACCOUNT, NVDA_USD.hex()),
            ("NO/USDC", Keypair().pubkey(), NVDA_USD.hex()),
        )
    ]
    data = update(price=95_50000000, time_s=world.bank.chain.tip.time)
    world.bank.set_account(SOL_USD_ACCOUNT, Account(10**9, data, PYTH_RECEIVER))
    config = KeeperConfig.beside(world, tmp_path, prices={"feeds": feeds})
    await funded(world, config)
    lines = {line["check"]: line for line in await check(config)}
    assert lines["feed SOL/USDC"]["outcome"] == "pass"
    assert lines["feed SOL/USDC"]["detail"].startswith("95.5, ")
    assert lines["feed NVDA/USDC"]["outcome"] == lines["feed NO/USDC"]["outcome"] == "warn"
    assert "of another feed" in lines["feed NVDA/USDC"]["detail"]
    assert "no such account" in lines["feed NO/USDC"]["detail"]


async def test_who_posts_prices_is_named(world: World, tmp_path: Path) -> None:
    broken = Broken(world, tmp_path)
    _crank(broken)
    config = broken.config
    await funded(world, config)
    market = world.program.market_address("CRANK", "USDC")
    await until(lambda: world.bank.account(market, Commitment.CONFIRMED))
    (line,) = [line for line in await check(config) if line["check"] == "crank"]
    assert line["outcome"] == "pass"
    assert line["detail"] == f"{world.authority.pubkey()} is the authority of CRANK/USDC"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"feed_id": "ef0d"}, "not 64 hexadecimal digits"),
        ({"account": "nobody"}, "it is not a base58 public key"),
        ({"kind": "chainlink"}, "'pyth', 'pyth-legacy' or 'switchboard'"),
        ({"min_signatures": 0}, "greater than or equal to 1"),
    ],
)
async def test_a_feed_that_can_not_be_is_refused(
    world: World, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    feed = {"market": "SOL/USDC", "kind": "pyth", "account": str(SOL_USD_ACCOUNT), "feed_id": SOL_USD.hex()}
    config = KeeperConfig.beside(world, tmp_path, prices={"feeds": [feed | changes]})
    (line,) = await check(config)
    assert said in json.dumps(line)


async def test_a_table_of_errors_that_is_another_builds_is_named(world: World, tmp_path: Path) -> None:
    world.market()
    idl = json.loads(PACKAGED["0.2"].read_text())
    idl["errors"][0]["name"] = "PriceMoved"
    (tmp_path / "idl.json").write_text(json.dumps(idl))
    config = KeeperConfig.beside(world, tmp_path, program={"idl": str(tmp_path / "idl.json")})
    await funded(world, config)
    lines = await check(config)
    (told,) = [line for line in lines if line["outcome"] != "pass"]
    assert (told["check"], told["outcome"]) == ("errors", "warn")
    assert told["detail"].endswith("6000 is InvalidLeverage, and the IDL calls it PriceMoved")


async def test_what_a_key_without_money_leaves_unchecked_is_named(world: World, tmp_path: Path) -> None:
    lines = await check(KeeperConfig.beside(world, tmp_path, key=Keypair()))
    told = {line["check"]: line["outcome"] for line in lines[-3:]}
    assert told == {"balance": "fail", "idl": "warn", "revision": "pass"}


async def test_a_clock_far_from_the_chains_is_named(tmp_path: Path) -> None:
    async with World.open(slot_ms=20) as world:
        world.bank.advance_clock(900)
        await anyio.sleep(0.1)
        lines = await check(KeeperConfig.beside(world, tmp_path))
    first = next(line for line in lines if line["outcome"] == "fail")
    assert first["check"] == "clock"
    assert "ahead of this machine's" in first["detail"]


async def test_a_journal_that_another_process_writes(world: World, tmp_path: Path) -> None:
    config = KeeperConfig.beside(world, tmp_path)
    async with Journal.open(config.journal):
        pass
    with writer_lock(config.journal):
        lines = await check(config)
    first = next(line for line in lines if line["outcome"] == "fail")
    assert first["check"] == "journal"
    assert f"is in use by the keeper with process id {os.getpid()}" in first["detail"]


async def test_a_port_that_something_else_has(world: World, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.close()
        with socket.create_server(("127.0.0.1", port)):
            lines = await check(KeeperConfig.beside(world, tmp_path, http={"port": port}))
    first = next(line for line in lines if line["outcome"] == "fail")
    assert first["check"] == "api"
    assert f"Port {port}" in first["detail"]


@asynccontextmanager
async def running(world: World, folder: Path) -> AsyncIterator[KeeperConfig]:
    """A keeper that runs at a port that its settings name."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = KeeperConfig.beside(world, folder, http={"port": port})
    async with KeeperProcess.running(config):
        yield config


async def test_beside_a_running_keeper(world: World, tmp_path: Path) -> None:
    """Its journal and its port are taken, by itself: no reason to complain. And `--ready` asks it."""
    async with running(world, tmp_path) as config:
        lines = await check(config)
        assert {line["outcome"] for line in lines} == {"pass"}
        asked = await invoke("--config", str(config.file), "--ready", "--json")
        assert (asked.exit_code, json.loads(asked.stdout)) == (0, {"ready": True, "reasons": []})
    asked = await invoke("--config", str(config.file), "--ready", "--json")
    assert asked.exit_code == 1
    assert "No keeper answers" in json.loads(asked.stdout)["reasons"][0]


async def test_show_gives_each_setting_its_origin_and_no_secret(world: World, tmp_path: Path) -> None:
    config = KeeperConfig.beside(
        world,
        tmp_path,
        rpc={
            "url": "https://user:pass@rpc.example/v2/SECRET?api-key=SECRET",
            "fallbacks": [{"url": "https://b.example/SECRET"}],
            "streams": [{"kind": "yellowstone", "url": "https://c.example:443", "token": "SECRET"}],
        },
        http={"admin_token_sha256": "5ec2e7" + 58 * "0"},
    )
    arguments = ("--config", str(config.file), "--show", "--port", "9999")
    result = await invoke(*arguments, "--json", env={"KEEPER_FEES__RETRY_FACTOR": "2"})
    shown = json.loads(result.stdout)
    assert shown["rpc.url"] == {"value": "https://rpc.example/…", "origin": "file"}
    assert shown["rpc.fallbacks"]["value"] == [{"url": "https://b.example/…", "ws_url": None}]
    stream = {"kind": "yellowstone", "url": "https://c.example:443", "token": "(set)"}
    assert shown["rpc.streams"]["value"] == [stream]
    assert shown["http.admin_token_sha256"] == {"value": "(set)", "origin": "file"}
    assert shown["http.port"] == {"value": 9999, "origin": "flag"}
    assert shown["fees.retry_factor"] == {"value": 2.0, "origin": "env"}
    assert shown["trigger.breaker_trip"] == {"value": 0.05, "origin": "default"}
    plain = await invoke(*arguments)
    for output in (result.output, plain.output):
        assert not [secret for secret in ("SECRET", "pass", "user", "5ec2e7") if secret in output]


async def test_a_stream_is_looked_at_as_the_keeper_would_read_it(tmp_path: Path) -> None:
    """In a process of its own, as people run it."""
    token = "5ecret-t0ken"
    async with World.open(geyser_port=0, geyser_token=token) as world:
        url = world.net.geyser_url
        streams = [
            {"kind": "yellowstone", "url": url, "token": token},
            {"kind": "yellowstone", "url": url, "token": token + "x"},
            {"kind": "yellowstone", "url": world.net.rpc_url},
        ]
        config = KeeperConfig.beside(world, tmp_path, rpc={"streams": streams})
        await funded(world, config)
        command = [sys.executable, "-m", "keeper", "check", "--config", str(config.file), "--json"]
        done = await anyio.run_process(command, check=False)
    assert token.encode() not in done.stdout + done.stderr
    found = {line["check"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert found["stream-1"]["outcome"] == "pass"
    assert "tells of slots" in found["stream-1"]["detail"]
    assert found["stream-2"]["outcome"] == found["stream-3"]["outcome"] == "warn"
    assert found["stream-2"]["detail"] == "the server refuses the token (UNAUTHENTICATED)"
    assert "can't be reached" in found["stream-3"]["detail"]
    assert done.returncode == 0, done.stdout
