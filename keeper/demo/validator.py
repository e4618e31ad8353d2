"""A real validator in place of the embedded chain: where its binary is, and how it is started."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
from solders.pubkey import Pubkey

from keeper.demo.errors import DemoFailed
from keeper.demo.processes import Child, stopped, tail

NAME: Final = "solana-test-validator"
VERSION: Final = "3.1.12"
"""What `make validator` builds."""

_START_S: Final = 120.0
_LOOK_EVERY_S: Final = 0.2
_PORT_TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class Validator:
    """A binary, and the program that its chain begins with."""

    binary: Path
    program_so: Path


def cache() -> Path:
    """Where `make validator` puts the binary: outside the tree, so that a fresh clone finds it."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "quantdesk-keeper" / f"{NAME}-{VERSION}" / NAME


def find() -> Path | None:
    """The validator on the PATH, or the one that `make validator` made; None when there is neither."""
    on_path = shutil.which(NAME)
    if on_path is not None:
        return Path(on_path)
    return cache() if cache().is_file() else None


@asynccontextmanager
async def started_validator(validator: Validator, program_id: Pubkey, folder: Path) -> AsyncIterator[Child]:
    """Run it on free ports until the end of the block, with a ledger in `folder` that starts fresh.

    DemoFailed, with its logs' last lines, when it ends, or is not healthy within two minutes.
    """
    port, faucet, gossip, log = _free_pair(), _free_pair(), _free_pair(), folder / "validator.log"
    command = [str(validator.binary), "--reset", "--quiet", "--ledger", str(folder / "ledger")]
    command += ["--rpc-port", str(port), "--faucet-port", str(faucet)]
    # Its default is one port, for every validator of a machine.
    command += ["--gossip-port", str(gossip)]
    # Its default, for tests, is 100: a burst of more notifications than that in a slot cuts the subscriber off. Nodes
    # that others use hold a million.
    command += ["--rpc-pubsub-queue-capacity-items", "1000000"]
    # Its default, 10,000 shreds, is some 40 slots on a busy machine: every 512 slots it forgets what is older, and the
    # ledger is read in the end.
    command += ["--limit-ledger-size", "1000000"]
    command += ["--bpf-program", str(program_id), str(validator.program_so)]
    with log.open("wb") as out:
        process = await anyio.open_process(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    ready = {
        "rpc_url": f"http://127.0.0.1:{port}",
        "ws_url": f"ws://127.0.0.1:{port + 1}",
        "program_id": str(program_id),
    }
    async with stopped(process):
        child = Child("validator", ready, log)
        await _healthy(child, process, folder / "ledger" / "validator.log")
        try:
            yield child
        finally:
            child.ended_with = process.returncode


async def _healthy(child: Child, process: anyio.abc.Process, ledger_log: Path) -> None:
    call: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "getHealth"}
    with anyio.move_on_after(_START_S):
        async with httpx.AsyncClient() as http:
            while process.returncode is None:
                try:
                    if (await http.post(child.ready["rpc_url"], json=call)).json().get("result") == "ok":
                        return
                except (httpx.HTTPError, ValueError):
                    pass  # it does not listen yet
                await anyio.sleep(_LOOK_EVERY_S)
    why = f"did not become healthy within {_START_S:.0f} s"
    if process.returncode is not None:
        why = f"ended with {process.returncode} before it was healthy"
    logs = "".join(tail(log) for log in (child.log, ledger_log) if log.is_file())
    raise DemoFailed(f"The validator {why}.{logs}")


def _free_pair() -> int:
    """A port that is free for TCP and UDP, and whose next one is, too."""
    for _ in range(_PORT_TRIES):
        with socket.create_server(("127.0.0.1", 0)) as first, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            port: int = first.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
                datagrams.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise DemoFailed("There are no two free ports in a row.")
