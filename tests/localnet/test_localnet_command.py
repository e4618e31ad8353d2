"""`python -m keeper.localnet` as a process, and many localnets in one."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from solders.pubkey import Pubkey

from keeper.localnet import Localnet, LocalnetConfig
from keeper.localnet.options import UsageError, parse_options
from keeper.localnet.program import PROGRAM_ID, PROGRAM_SO
from tests.localnet.localnet_clients import BOUND_S, SOL, Rpc, socket_to
from tests.support import until

pytestmark = pytest.mark.anyio

COMMAND = [sys.executable, "-m", "keeper.localnet"]


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def refused(*arguments: str) -> str:
    """The one line that a command is refused with."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def account_file(directory: Path, address: Pubkey, data: Any) -> Path:
    path = directory / "account.json"
    path.write_text(
        json.dumps(
            {
                "pubkey": str(address),
                "account": {
                    "lamports": 5 * SOL,
                    "data": data,
                    "owner": "11111111111111111111111111111111",
                    "executable": False,
                    "rentEpoch": 18446744073709551615,
                    "space": 3,
                },
            }
        )
    )
    return path


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_serves_until_a_signal(tmp_path: Path, stop: signal.Signals) -> None:
    address, program = Pubkey.new_unique(), Pubkey.new_unique()
    file = account_file(tmp_path, address, [b64encode(b"abc").decode(), "base64"])
    arguments = ["--rpc-port", "0", "--slot-ms", "20", "--reset", "--json", "--seed", "1"]
    arguments += ["--account", "-", str(file), "--bpf-program", str(program), str(PROGRAM_SO)]
    with running(*arguments) as process:
        assert process.stdout is not None
        ready = json.loads(await anyio.to_thread.run_sync(process.stdout.readline))
        assert set(ready) == {"rpc_url", "ws_url", "program_id", "genesis_hash", "identity"}
        assert ready["program_id"] == PROGRAM_ID
        rpc = Rpc(ready["rpc_url"])
        assert await rpc("getGenesisHash") == ready["genesis_hash"]
        config = {"commitment": "processed", "encoding": "base64"}
        loaded = (await rpc("getAccountInfo", str(address), config))["value"]
        assert loaded["lamports"] == 5 * SOL
        for deployed in (PROGRAM_ID, str(program)):
            assert (await rpc("getAccountInfo", deployed, config))["value"]["executable"] is True
        with anyio.fail_after(BOUND_S):  # blocks come by themselves
            while await rpc("getSlot", {"commitment": "processed"}) < 3:
                pass
        await rpc.http.aclose()
        process.send_signal(stop)
        assert await anyio.to_thread.run_sync(lambda: process.wait(BOUND_S)) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


async def test_says_what_it_serves() -> None:
    with running("--rpc-port", "0", "--no-program") as process:
        assert process.stdout is not None
        lines = [await anyio.to_thread.run_sync(process.stdout.readline) for _ in range(6)]
        text = "".join(lines)
        assert "JSON-RPC   http://127.0.0.1:" in text
        assert "WebSocket  ws://127.0.0.1:" in text
        assert "requestAirdrop" in text
        assert "reference" not in text


async def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused("--rpc-port", str(port))
    assert f"cannot listen on 127.0.0.1 port {port}" in line
    assert "--rpc-port" in line


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    text, empty = tmp_path / "text.so", tmp_path / "empty.so"
    text.write_text("no program")
    empty.write_bytes(b"\x7fELF" + bytes(60))
    some = str(Pubkey.new_unique())
    line = refused("--rpc-port", "0", "--bpf-program", some, str(empty))
    assert f"--bpf-program {some}: cannot deploy {empty}: not an ELF file" in line
    for arguments, words in (
        (["--bpf-program", some, "missing.so"], "cannot read missing.so (No such file or directory)"),
        (["--bpf-program", some, str(text)], "is not a program"),
        (["--bpf-program", "abc", str(PROGRAM_SO)], "'abc' is not a Solana address"),
        (["--account", some, "missing.json"], "cannot read missing.json"),
        (["--account", some, str(text)], "is not what `solana account --output json` writes"),
        (["--account", some, str(account_file(tmp_path, Pubkey.new_unique(), ["!", "base64"]))], "not base64"),
        (["--rpc-port", "70000"], "--rpc-port must be"),
        (["--rpc-port", "x"], "--rpc-port"),
        (["--slot-ms", "0"], "milliseconds of at least 1"),
        (["--slot-ms", "400,200"], "or 400,200@SLOT"),
        (["--slot-ms", "400,0@5"], "or 400,200@SLOT"),
        (["--confirmed-slots", "5", "--finalized-slots", "4"], "--confirmed-slots must be"),
        (["--consensus", "tower"], "say towerbft, alpenglow, or alpenglow@SLOT"),
        (["--consensus", "alpenglow@"], "say towerbft"),
        (["--consensus", "alpenglow@-1"], "say towerbft"),
        (["--warp-slot", "-1"], "--warp-slot must be"),
        (["--account-dir", "missing"], "--account-dir: missing is no directory"),
        (["--json", "--quiet"], "not allowed with"),
        (["--nonsense"], "--nonsense"),
    ):
        with pytest.raises(UsageError) as usage:
            parse_options(arguments, program="localnet")
        assert words in str(usage.value)


def test_the_pace_is_named_and_what_it_becomes() -> None:
    steady, changing = (parse_options(["--slot-ms", said], program="localnet").config for said in ("250", "400,200@90"))
    assert (steady.slot_ms, steady.pace_change) == (250, None)
    assert (changing.slot_ms, changing.pace_change) == (400, (90, 200))


async def test_the_pace_changes_in_mid_run() -> None:
    """From so slow that the test would not live to see the last slot."""
    async with Localnet(LocalnetConfig(rpc_port=0, slot_ms=2_500, pace_change=(1, 5))) as net:
        await until(lambda: net.bank.chain.tip.slot > 30)


@pytest.mark.parametrize(
    ("said", "from_slot"), [("towerbft", None), ("alpenglow", 0), ("alpenglow@700", 700), ("alpenglow@0", 0)]
)
def test_the_consensus_is_named_and_from_when(said: str, from_slot: int | None) -> None:
    options = parse_options(["--consensus", said], program="localnet")
    assert options.config.alpenglow_from == from_slot


def test_a_script_for_solana_test_validator_runs_as_it_is(tmp_path: Path) -> None:
    address = Pubkey.new_unique()
    account_file(tmp_path, address, ["AQID", "base64"])
    (tmp_path / "notes.txt").write_text("no account")
    script = ["-r", "-q", "--ledger", "test-ledger", "--limit-ledger-size", "10000", "--account-dir", str(tmp_path)]
    options = parse_options([*script, "--warp-slot", "1000"], program="localnet")
    assert options.announce == "nothing"
    assert options.config.first_slot == 1000
    assert [(loaded, account.data) for loaded, account in options.config.accounts] == [(address, b"\1\2\3")]


async def test_many_at_once_know_nothing_of_each_other() -> None:
    config = LocalnetConfig(rpc_port=0, slot_ms=20)
    async with Localnet(config) as one, Localnet(config) as other:
        assert len({one.rpc_url, other.rpc_url, one.ws_url, other.ws_url}) == 4
        assert one.bank.chain.genesis_hash != other.bank.chain.genesis_hash
        address = Pubkey.new_unique()
        one.bank.airdrop(address, SOL)
        assert one.bank.account(address) is not None
        assert other.bank.account(address) is None
        async with socket_to(other) as slots:
            await slots.call("slotSubscribe")
            heard = [(await slots.next())[2]["slot"] for _ in range(3)]
        assert heard == [heard[0], heard[0] + 1, heard[0] + 2]


async def test_the_ports_are_free_again_and_errors_come_out_as_they_are() -> None:
    config = LocalnetConfig(rpc_port=0, reference_program=False)
    async with Localnet(config) as net:
        port = int(net.rpc_url.rsplit(":", 1)[1])
    again = LocalnetConfig(rpc_port=port, reference_program=False)
    with pytest.raises(KeyError):  # and not in an exception group
        async with Localnet(again) as net, socket_to(net):
            raise KeyError("the caller's")
    async with Localnet(again):
        with pytest.raises(OSError, match="cannot listen"):
            async with Localnet(again):
                pass


async def test_stops_with_connections_open() -> None:
    with anyio.fail_after(BOUND_S):
        async with Localnet(LocalnetConfig(rpc_port=0, reference_program=False)) as net:
            rpc = Rpc(net.rpc_url)
            await rpc("getHealth")
            idle = socket.create_connection(("127.0.0.1", int(net.ws_url.rsplit(":", 1)[1])))
            await rpc("getHealth")  # by now the server has taken it
    await rpc.http.aclose()
    idle.close()
