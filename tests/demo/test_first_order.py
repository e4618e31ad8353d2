"""The README's way to a first order, typed as it stands there, in a folder that has nothing but what a clone has."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from keeper.config.loading import load_settings
from tests.support import BOUND_S

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
HEADING = "A first order on a chain of your own"
PORTS = (8899, 8900, 8080)
"""Those of the README: the defaults."""


def section(heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## )", README, re.M | re.S)
    assert found is not None, f"the README has no section {heading!r}"
    return found[1]


def a_clone(folder: Path) -> None:
    """A folder whose .venv is this test's own environment, with the keeper under test."""
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name, command in (("python", []), ("keeper", ["-m", "keeper"])):
        script = binaries / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *command])} "$@"\n')
        script.chmod(0o755)
    shutil.copytree(ROOT / "examples", folder / "examples")


def typed(script: str, folder: Path, alone: Sequence[str], *, within_s: float) -> str:
    """What a script says that is typed in a clone, in the network that `alone` gives a command."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEEPER_")}
    with subprocess.Popen(
        [*alone, "bash", "-c", script],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            said, _ = run.communicate(timeout=within_s)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    return said


def network() -> list[str]:
    """What gives a command the README's ports for itself: a network of its own, or else this machine's, if free."""
    alone = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if shutil.which("unshare") and shutil.which("ip") and not subprocess.run([*alone, "true"], check=False).returncode:
        return alone
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"needs a network of its own (unshare, ip), or port {port} free")
    return []


SCRIPT = """
set -e
wait_for() { for _ in $(seq 600); do if sh -c "$1" > /dev/null 2>&1; then return; fi; sleep 0.1; done; exit 9; }
(%(chain)s) > chain.log 2>&1 & chain=$!
trap 'kill -TERM 0' EXIT
wait_for 'grep "keeper faucet KEYFILE" chain.log'
%(before)s
(%(keeper)s) > keeper.log 2>&1 & keeper=$!
wait_for '.venv/bin/keeper check --ready'
%(order)s
"""


def test_the_readmes_first_order_is_filled(tmp_path: Path) -> None:
    a_clone(tmp_path)
    first, second, third = re.findall(r"```sh\n(.*?)```", section(HEADING), re.S)
    setup, chain = first.strip().splitlines()
    assert setup.split("#")[0].strip() == "make setup"
    *before, keeper = second.strip().splitlines()
    script = SCRIPT % {"chain": chain, "before": "\n".join(before), "keeper": keeper.split("#")[0], "order": third}
    said = typed(script, tmp_path, network(), within_s=3 * BOUND_S)
    logs = "".join((tmp_path / name).read_text()[-2_000:] for name in ("chain.log", "keeper.log"))
    assert "has SOL and collateral" in said, said + logs
    assert re.search(r"^filled +Filled by this keeper, with its position\.$", said, re.M), said + logs
    # The lists: the order as filled, and the attempt that filled it; a row each.
    assert re.search(r"trailing_stop .* filled ", said), said
    assert re.search(r" execute .* executed ", said), said
    for address in re.findall(r"http://127\.0\.0\.1:\d+(?:/\w*)?", section(HEADING)):
        assert address in ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/docs")


def test_the_readmes_settings_are_settings(tmp_path: Path) -> None:
    text = re.search(r"```toml\n(.*?)```", section("Run it against your own RPC"), re.S)
    assert text is not None
    (tmp_path / "keeper.toml").write_text(text[1])
    settings = load_settings(tmp_path / "keeper.toml")
    assert Pubkey.from_string(str(settings.program.id)) != Pubkey.default()
