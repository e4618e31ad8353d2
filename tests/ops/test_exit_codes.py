"""How a command ends: by a signal, at whatever moment it comes, and by a journal that a keeper can't start with."""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from solders.keypair import Keypair

from keeper.journal.sqlite.lock import writer_lock
from tests.support import KeeperConfig, KeeperProcess, World, until

pytestmark = pytest.mark.anyio

STARTING = [
    "keeper.cli",
    "typer",
    "keeper.commands.run",
    "pydantic",
    "keeper.config.settings",
    "anyio",
    "keeper.app.wiring",
]
"""What has just been imported, in this order, by the time that the signal comes."""
QUICKLY = ("keeper.cli", "pydantic", "keeper.app")
"""Those of them that `make test` tries: before the command is known, while it is imported, and at the end of that."""


def test_nothing_is_raised_where_an_older_python_puts_a_group_around_it() -> None:
    """3.11.2, Debian 12's, ends with a traceback and 1 then, where this one's Python has one line and 2."""
    raising = [
        f"{file}:{raised.lineno}"
        for file in (Path(__file__).parents[2] / "keeper").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.TryStar)
        for handler in node.handlers
        for raised in ast.walk(handler)
        if isinstance(raised, ast.Raise) and raised.exc is not None
    ]
    assert not raising


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
@pytest.mark.parametrize(
    "module", [name if name in QUICKLY else pytest.param(name, marks=pytest.mark.long) for name in STARTING]
)
def test_a_signal_during_the_start_ends_the_keeper_with_0(module: str, number: signal.Signals, tmp_path: Path) -> None:
    """Python itself says how far the start is: it names each module that it has imported."""
    key = tmp_path / "key.json"
    key.touch(mode=0o600)
    key.write_text(str(list(bytes(Keypair()))))
    run = [sys.executable, "-X", "importtime", "-m", "keeper", "run", "--key", str(key)]
    with socket.create_server(("127.0.0.1", 0)) as silent:  # or it may have ended by itself before the signal comes
        env = {**_bare(), "KEEPER_RPC__URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        with subprocess.Popen(run, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=env) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.rpartition("|")[2].strip() == module:
                    break
            process.send_signal(number)
            rest = process.stderr.read()
    assert process.returncode == 0
    assert "Traceback" not in rest
    assert "keeper: " not in rest, "it was not waited for"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_before_it_is_ready_ends_the_keeper_with_0(
    number: signal.Signals, world: World, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it is connected to, and answers nothing
        config = KeeperConfig.beside(world, tmp_path, rpc={"url": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        keeper = await KeeperProcess.start(config)
        await until(config.journal.exists)
        keeper.process.send_signal(number)
        assert await keeper.wait() == 0
    assert "Traceback" not in config.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_a_ready_keeper_ends_it_with_0(number: signal.Signals, world: World, tmp_path: Path) -> None:
    config = KeeperConfig.beside(world, tmp_path)
    keeper = await KeeperProcess.start(config)
    await keeper.ready()
    keeper.process.send_signal(number)
    assert await keeper.wait() == 0
    assert "Traceback" not in config.log.read_text()


@pytest.mark.parametrize("module", ["typer", "keeper.cli", "http.client"])
def test_another_command_that_is_interrupted_ends_with_130(tmp_path: Path, module: str) -> None:
    """While it is imported, before it runs, and when it waits for an answer."""
    status = [sys.executable, "-X", "importtime", "-m", "keeper", "status"]
    with socket.create_server(("127.0.0.1", 0)) as silent:  # so that it can't end by itself before the signal comes
        port = {"KEEPER_HTTP__PORT": str(silent.getsockname()[1])}
        code, rest = interrupted(status, module, tmp_path, _bare() | port)
    assert code == 130
    assert "Traceback" not in rest


def interrupted(command: list[str], module: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run it until it has imported a module, and interrupt it; its exit code and what it said after that."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rpartition("|")[2].strip() == module:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    return process.returncode, rest


def test_a_journal_that_a_keeper_can_not_start_with_is_a_matter_of_configuration(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    subprocess.run([sys.executable, "-m", "keeper", "keygen", str(key)], check=True, capture_output=True, env=_bare())

    def started_with(journal: Path, *before: str) -> tuple[int, str]:
        run = [sys.executable, "-m", "keeper", "run", "--key", str(key), "--journal", str(journal), "--port", "0"]
        done = subprocess.run([*before, *run], capture_output=True, text=True, check=False, env=_bare())
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.returncode, done.stderr

    damaged = tmp_path / "damaged.sqlite"
    damaged.write_text("no database " * 100)
    code, said = started_with(damaged)
    assert code == 2
    assert "is damaged or no SQLite database" in said
    code, said = started_with(tmp_path / "missing" / "journal.sqlite")
    assert code == 2
    assert f"There is no folder {tmp_path / 'missing'} for the journal. Make it" in said
    busy = tmp_path / "busy.sqlite"
    with writer_lock(busy):
        code, said = started_with(busy)
    assert code == 2
    assert f"in use by the keeper with process id {os.getpid()}" in said
    code, said = started_with(tmp_path / "no-room.sqlite", "prlimit", "--fsize=0")
    assert code == 2
    assert "no-room.sqlite can't be written" in said


def _bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KEEPER_")}
