"""`python -m tests.install`: a fresh Debian, docs/install.md to the letter, and then what must hold of the service; and
the same with several keepers as services, by docs/scale.md.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import anyio

from tests.install import several
from tests.install.machine import Failed, Impossible, Machine, make
from tests.install.market import Market
from tests.install.trial import TRIALS, install, told
from tests.support import World

REPOSITORY = Path(__file__).parents[2]
PORTS = (8080, 8081, 5432)
"""What the documents' commands have the keepers and PostgreSQL listen on: the machine has the network of this one."""
NOT_HERE = 77
"""The exit code when this machine can't make another, as automake's tests have it for one that was skipped."""


def main() -> int:
    """Exit codes: 0 all of it held, 1 something did not, 77 it can't be tried on this machine."""
    parser = argparse.ArgumentParser(prog="python -m tests.install", description=__doc__)
    parser.add_argument("--suite", default="bookworm", help="the Debian to install (default bookworm)")
    parser.add_argument("--debian", type=Path, help="a folder with a Debian to copy, rather than to make one")
    parser.add_argument("--loud", action="store_true", help="show what the document's commands print")
    given = parser.parse_args()
    code = 0
    with tempfile.TemporaryDirectory(prefix="keeper-install-") as folder:
        root = Path(folder) / "debian"
        try:
            _see_that_the_ports_are_free()
            with told(f"A fresh Debian ({given.suite})."):
                if given.debian is None:
                    make(root, given.suite)
                else:
                    subprocess.run(["cp", "--archive", str(given.debian), str(root)], check=True)
            # A copy that owes nothing to how this one was made, or to whose it is. Only what is committed is in it.
            repository = Path(folder) / "repository"
            subprocess.run(["git", "clone", "--quiet", "--bare", "--no-hardlinks", REPOSITORY, repository], check=True)
            anyio.run(_try, root, repository, given.loud)
        except* Impossible as group:
            print(f"\nNot tried: {group.exceptions[0]}", file=sys.stderr)
            code = NOT_HERE
        except* (Failed, AssertionError, LookupError, TimeoutError) as group:
            traceback.print_exception(group)
            print("\nIt does not hold.", file=sys.stderr)
            code = 1
    if code == 0:
        print("All of it held.")
    return code


def _see_that_the_ports_are_free() -> None:
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise Impossible(f"something listens on port {port} of this machine.")


async def _try(root: Path, repository: Path, loud: bool) -> None:
    async with (
        World.open(slot_ms=400) as world,
        Machine.booted(root, repository) as machine,
        anyio.create_task_group() as tg,
    ):
        print("It has booted: " + (await machine.run("systemctl --version")).splitlines()[0])
        await install(machine, world, loud=loud)
        market = Market(world)
        tg.start_soon(market.publish)
        try:
            for trial in TRIALS:
                await trial(machine, market)
            async with several.installed(machine, loud=loud) as keepers:
                for trial_of_several in several.TRIALS:
                    await trial_of_several(keepers, market)
        except BaseException:
            logs = "journalctl --unit='keeper*' --unit='postgresql*' --no-pager | tail --lines=60"
            with anyio.CancelScope(shield=True):
                print("\n" + await machine.run(logs, check=False))
            raise
        tg.cancel_scope.cancel()


if __name__ == "__main__":
    sys.exit(main())
