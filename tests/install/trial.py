"""What has to hold once docs/install.md was followed: the service runs, comes back from a kill, and no stall lasts."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from solders.pubkey import Pubkey

from tests.install.document import DOCUMENT, SERVICE, blocks, filled, with_setting
from tests.install.machine import Machine, Shell
from tests.install.market import Market
from tests.support import World

UNIT = "keeper.service"
WATCHDOG_S = 30.0
"""WatchdogSec of the unit: for a process that says nothing at all."""
STALLED_AFTER_S = 60.0
"""health.stalled_after_s: for one loop that is stuck while the others go on."""
LATER_S = 15.0
"""What may pass on top: the next look at the loops, RestartSec, and a start."""
_LAMPORTS = 5_000_000_000
"""What the key gets: the fees and the rent of the positions of this trial."""
MANY = 100
"""Orders that are triggered together, for a kill amid them."""
_ADDRESS = re.compile(r"\b[1-9A-HJ-NP-Za-km-z]{43,44}\b")
_DIGEST = re.compile(r'admin_token_sha256 = "([0-9a-f]{64})"')


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say what is done, and then how long it took."""
    print(what, end="", flush=True)
    began = time.monotonic()
    yield
    print(f"  [{time.monotonic() - began:.1f} s]", flush=True)


async def install(machine: Machine, world: World, *, loud: bool) -> None:
    """Follow the document. What it says in words (send SOL, set this and that) is done after the block before it."""
    settings = machine.root / "etc/keeper/keeper.toml"

    def set_(name: str, value: str) -> None:
        settings.write_text(with_setting(settings.read_text(), name, value))

    async def after(block: str, said: str) -> None:
        if "keygen" in block:
            address = _ADDRESS.search(said)
            assert address, said
            world.bank.airdrop(Pubkey.from_string(address[0]), _LAMPORTS)
        if "keeper.toml" in block and "install" in block:
            set_("rpc.genesis", str(world.bank.chain.genesis_hash))
            set_("program.id", str(world.program.id))
        if "admin-token" in block:
            digest = _DIGEST.search(said)
            assert digest, said
            set_("http.admin_token_sha256", digest[1])

    blanks = {"REPOSITORY": "/srv/repository", "https://rpc.example/?api-key=...": world.net.rpc_url}
    async with machine.shell() as shell:
        for block in filled(blocks(DOCUMENT, SERVICE), blanks):
            said = await typed(shell, block, loud=loud)
            await after(block, said)


async def typed(shell: Shell, block: str, *, loud: bool) -> str:
    """Type a block of a document, and show it; what its commands print."""
    print("".join(f"    # {line}\n" for line in block.splitlines()), end="")
    with told("   "):
        said = await shell.type(block)
    if loud:
        print("".join(f"      {line}\n" for line in said.splitlines()[-25:]), end="")
    return said


class Service:
    """A unit in the machine, seen through systemctl."""

    def __init__(self, machine: Machine, unit: str = UNIT) -> None:
        self._machine = machine
        self.unit = unit

    def __repr__(self) -> str:
        return f"<Service {self.unit}>"

    async def shows(self, *names: str) -> dict[str, str]:
        """Properties of the unit."""
        said = await self._machine.run(f"systemctl show {self.unit} --property={','.join(names)}")
        return dict(line.split("=", 1) for line in said.splitlines())

    async def main_pid(self) -> int:
        return int((await self.shows("MainPID"))["MainPID"])

    async def is_back(self, after: int, *, within_s: float) -> float:
        """Seconds until it is active with another process than `after`; active means that it said READY."""
        began = time.monotonic()
        with anyio.fail_after(within_s):
            while True:
                now = await self.shows("ActiveState", "MainPID")
                if now["ActiveState"] == "active" and int(now["MainPID"]) not in (0, after):
                    return time.monotonic() - began
                await anyio.sleep(0.1)

    async def signal(self, name: str) -> None:
        await self._machine.run(f"systemctl kill --kill-whom=main --signal={name} {self.unit}")

    async def has_ended_well(self) -> None:
        """It has ended, by itself, after it was told to."""
        shown = await self.shows("ActiveState", "Result", "ExecMainStatus")
        assert shown == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}, (self.unit, shown)

    async def says(self, text: str, *, within_s: float = 15.0) -> None:
        """Wait until its status has this."""
        with anyio.fail_after(within_s):
            while text not in (await self.shows("StatusText"))["StatusText"]:  # noqa: ASYNC110 - it is in the machine
                await anyio.sleep(0.2)

    async def logs(self, text: str, *, since: float, within_s: float = 10.0) -> None:
        """Wait until it, or systemd about it, has written this since a time (seconds since 1970)."""
        with anyio.fail_after(within_s):
            command = f"journalctl --unit={self.unit} --since=@{int(since)} --output=cat"
            while text not in await self._machine.run(command):  # noqa: ASYNC110 - it is in the machine
                await anyio.sleep(0.2)


async def rest(market: Market, count: int, service: Service) -> list[Pubkey]:
    """Place orders that the next fall triggers, and wait until the keeper knows them."""
    placed = market.place(count)
    await service.says(f"; {count} orders resting")
    return placed


async def works(machine: Machine, market: Market) -> None:
    """It is what the unit says, and it executes."""
    service = Service(machine)
    shown = await service.shows("Type", "ActiveState", "WatchdogUSec", "NRestarts", "MainPID", "StatusText")
    assert (shown["Type"], shown["ActiveState"], shown["NRestarts"]) == ("notify", "active", "0"), shown
    assert shown["WatchdogUSec"] == f"{WATCHDOG_S:.0f}s", shown
    assert shown["StatusText"].startswith("ready; "), shown
    user = int(await machine.run(f"stat --format=%u /proc/{shown['MainPID']}"))
    assert user >= 61_184, f"it runs as user {user}, which is none that systemd made for it"
    print(f"systemd says {shown['StatusText']!r}; it runs as user {user}, which is nobody else's.")
    orders = await rest(market, 10, service)
    market.fall()
    with told("Ten orders trigger and are executed."):
        await market.filled(orders)


async def a_second_one_is_refused(machine: Machine, market: Market) -> None:
    """In one line that says why, and with the exit code of what is misconfigured, by the Python of this Debian."""
    variables = "set -a; . /etc/keeper/keeper.env; KEEPER_JOURNAL__PATH=/tmp/second.sqlite"
    arguments = "--config /etc/keeper/keeper.toml --key /etc/keeper/key.json"
    said = await machine.run(f"{variables}; /opt/keeper/bin/keeper run {arguments} 2>&1; echo $?")
    *_, line, code = said.splitlines()
    assert (line.startswith("keeper: Port 8080 "), code) == (True, "2"), said
    print(f"A second one on its port ends with {code}: {line}")


async def reloads(machine: Machine, market: Market) -> None:
    """SIGHUP, as the unit sends it."""
    service, since = Service(machine), time.time()
    pid = await service.main_pid()
    with told("systemctl reload."):
        await machine.run(f"systemctl reload {UNIT}")
        await service.logs("settings.reloaded", since=since)
    assert await service.main_pid() == pid


async def recovers_from_a_kill(machine: Machine, market: Market) -> None:
    """SIGKILL while executions are under way."""
    service = Service(machine)
    pid = await service.main_pid()
    orders = await rest(market, MANY, service)
    await market.fall_amid(orders)
    await service.signal("KILL")
    executed = MANY - market.left(orders)
    with told(f"SIGKILL after {executed} of {MANY} triggered orders were executed. It is ready again."):
        await service.is_back(pid, within_s=LATER_S)
    market.arrive()
    with told("Every one is executed."):
        await market.filled(orders)


async def a_stuck_loop_is_caught(machine: Machine, market: Market) -> None:
    """The executor really stands still, and nothing else of the process does."""
    service = Service(machine)
    # The next process only: what replaces it is well.
    await machine.run(
        f"d=/run/systemd/system/{UNIT}.d; mkdir $d && "
        "printf '[Service]\\nEnvironment=QUANTDESK_STALL_AT=executor:1\\n' > $d/stall.conf && "
        f"systemctl daemon-reload && systemctl restart {UNIT} && rm -r $d && systemctl daemon-reload"
    )
    pid, since = await service.main_pid(), time.time()
    orders = await rest(market, 3, service)
    market.fall()
    began = time.monotonic()
    with told(f"The executor is stuck; health.stalled_after_s is {STALLED_AFTER_S:.0f}. It is ready again."):
        await service.is_back(pid, within_s=STALLED_AFTER_S + LATER_S)
    assert time.monotonic() - began > STALLED_AFTER_S, "something else than the watchdog ended it"
    await service.logs("Main process exited, code=killed, status=6/ABRT", since=since)
    await service.logs("Watchdog request", since=since)
    with told("The three orders that waited are executed."):
        await market.filled(orders)


async def a_silent_process_is_caught(machine: Machine, market: Market) -> None:
    """Stopped by a signal, it neither works nor says anything."""
    service, since = Service(machine), time.time()
    pid = await service.main_pid()
    orders = await rest(market, 3, service)
    await service.signal("STOP")
    market.fall()
    with told(f"The process stands still; WatchdogSec is {WATCHDOG_S:.0f}. It is ready again."):
        await service.is_back(pid, within_s=WATCHDOG_S + LATER_S)
    await service.logs("Watchdog timeout", since=since)
    with told("The three orders that waited are executed."):
        await market.filled(orders)


async def nothing_is_lost(machine: Machine, market: Market) -> None:
    """The journal is sound, and has for each order of the trial the one execution that made its position."""
    await sound(machine, market, "export KEEPER_JOURNAL__PATH=/var/lib/keeper/journal.sqlite")


async def sound(machine: Machine, market: Market, where: str) -> None:
    """See nothing_is_lost; `where` is what tells a shell's commands where the journal is."""
    keeper = f"{where}; /opt/keeper/bin/keeper"
    print("keeper journal verify: " + (await machine.run(f"{keeper} journal verify")).strip())
    listed = (await machine.run(f"{keeper} orders --limit 1000 --json")).splitlines()
    states = Counter(json.loads(order)["state"] for order in listed)
    assert states == {"filled": len(market.orders)}, states
    again = [order for order in market.orders if market.made(order) != 1]
    assert not again, f"not executed once: {again}"
    print(f"keeper orders: {dict(states)}, and each has its position on chain, by one transaction.")


async def stops(machine: Machine, market: Market) -> None:
    """In order, and soon."""
    with told("systemctl stop."):
        await machine.run(f"systemctl stop {UNIT}")
    await Service(machine).has_ended_well()


TRIALS = (
    works,
    a_second_one_is_refused,
    reloads,
    recovers_from_a_kill,
    a_stuck_loop_is_caught,
    a_silent_process_is_caught,
    nothing_is_lost,
    stops,
)
"""In this order, on one machine."""
