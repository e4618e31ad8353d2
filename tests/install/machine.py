"""A fresh Debian with systemd as its process 1, in a container of systemd-nspawn.

It has the network of the machine that it is on, and nothing else of it. Root is needed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

INCLUDED = "systemd,systemd-sysv,dbus,ca-certificates"
"""What a Debian that somebody installed has beyond the least that debootstrap makes."""
_CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
_PASSED = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_BOOTED_WITHIN_S = 90.0
_STOPPED_WITHIN_S = 30.0


class Impossible(Exception):
    """This machine can't make or boot another; the message says why. Nothing was found out about the document."""


class Failed(Exception):
    """A command in the machine failed; the message is its output's end."""


def make(root: Path, suite: str) -> None:
    """Install a Debian into the folder `root`, from the mirror that MIRROR names or debootstrap's own."""
    missing = [name for name in ("debootstrap", "systemd-nspawn", "nsenter") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        raise Impossible(f"it needs {' and '.join(['root', *missing])} (Debian: debootstrap, systemd-container)")
    mirror = [os.environ["MIRROR"]] if "MIRROR" in os.environ else []
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", suite, str(root), *mirror],
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Impossible(f"debootstrap ended with {done.returncode}:\n{done.stdout[-2_000:]}")


def _environment(root: Path) -> dict[str, str]:
    """How this machine reaches the registries, for the other. Names and certificates of its own go into `root`."""
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    proxies = (*_PROXIES, *(name.upper() for name in _PROXIES))
    environment |= {name: os.environ[name] for name in (*_PASSED, *proxies) if name in os.environ}
    for name in ("hosts", "resolv.conf"):
        (root / "etc" / name).unlink(missing_ok=True)
        shutil.copyfile(Path("/etc") / name, root / "etc" / name)
    for name in _CERTIFICATES:
        if (file := os.environ.get(name)) and Path(file).is_file():
            shutil.copyfile(file, root / "srv" / f"{name}.pem")
            environment[name] = f"/srv/{name}.pem"
    return environment


class Machine:
    """A machine that has booted. `root` is its file system, seen from here."""

    def __init__(self, root: Path, process_1: int, environment: dict[str, str]) -> None:
        self.root = root
        self._process_1 = process_1
        self._environment = environment

    def __repr__(self) -> str:
        return f"<Machine {self.root}>"

    @classmethod
    @asynccontextmanager
    async def booted(cls, root: Path, repository: Path) -> AsyncIterator[Machine]:
        """Boot the Debian in `root`, which has `repository` at /srv/repository, read-only. Raises Impossible."""
        environment = _environment(root)
        arguments = [
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--resolv-conf=off",
            f"--bind-ro={repository}:/srv/repository",
        ]
        console = root.with_suffix(".console")
        with console.open("wb") as output:
            nspawn = await anyio.open_process(
                ["systemd-nspawn", *arguments, f"--directory={root}", "--boot"],
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                start_new_session=True,
            )
        try:
            try:
                with anyio.fail_after(_BOOTED_WITHIN_S):
                    machine = cls(root, await _process_1_of(nspawn), environment)
                    await machine._running()
            except TimeoutError:
                said = console.read_text(errors="replace")[-2_000:]
                raise Impossible(f"systemd does not come up in systemd-nspawn here:\n{said}") from None
            yield machine
        finally:
            with anyio.CancelScope(shield=True):
                await _end(nspawn)

    async def _running(self) -> None:
        up = ("running", "degraded")
        while (await self.run("systemctl is-system-running", check=False)).strip() not in up:  # noqa: ASYNC110
            await anyio.sleep(0.2)

    def _entering(self) -> list[str]:
        return ["nsenter", f"--target={self._process_1}", "--all"]

    async def run(self, command: str, *, check: bool = True) -> str:
        """Run a command line of sh; its output. Failed when it ends with another code than 0, unless told otherwise."""
        done = await anyio.run_process(
            [*self._entering(), "sh", "-c", command],
            stdin=DEVNULL,
            stderr=STDOUT,
            check=False,
            env=self._environment,
        )
        said = done.stdout.decode(errors="replace")
        if check and done.returncode != 0:
            raise Failed(f"{command}: ended with {done.returncode}:\n{said[-3_000:]}")
        return said

    @asynccontextmanager
    async def shell(self) -> AsyncIterator[Shell]:
        """A login of root's, which keeps its folder and its variables from command to command."""
        process = await anyio.open_process(
            [*self._entering(), "bash", "-e"], stdin=PIPE, stdout=PIPE, stderr=STDOUT, env=self._environment
        )
        try:
            yield Shell(self, process)
        finally:
            with anyio.CancelScope(shield=True):
                await process.aclose()  # which ends its input, and so the shell; otherwise it is killed


class Shell:
    """One shell, and what somebody types into it."""

    def __init__(self, machine: Machine, process: Process) -> None:
        assert process.stdout is not None
        self._machine = machine
        self._process = process
        self._output = BufferedByteReceiveStream(process.stdout)
        self._typed = 0

    async def type(self, commands: str, *, within_s: float = 900.0) -> str:
        """Run them, one after the other; what they print. The first that fails ends the shell, and Failed is raised."""
        assert self._process.stdin is not None
        self._typed += 1
        # From a file, or the commands would read those that come after them as their input.
        file, end = f"/srv/typed-{self._typed}", f"-- done {self._typed} --\n".encode()
        (self._machine.root / file[1:]).write_text(commands)
        await self._process.stdin.send(f". {file} < /dev/null\necho '{end.decode().strip()}'\n".encode())
        said = b""
        with anyio.fail_after(within_s):
            while not said.endswith(end):
                try:
                    said += await self._output.receive_until(b"\n", 1 << 20) + b"\n"
                except (anyio.EndOfStream, anyio.IncompleteRead):
                    said += self._output.buffer
                    code = await self._process.wait()
                    raise Failed(f"{commands}ended with {code}:\n{said.decode(errors='replace')[-3_000:]}") from None
        return said.removesuffix(end).decode(errors="replace")


async def _process_1_of(nspawn: Process) -> int:
    """The process id, out here, of what is process 1 in there. Impossible when nspawn ends first."""
    while nspawn.returncode is None:
        if (found := _child_with_id_1(nspawn.pid)) is not None:
            return found
        await anyio.sleep(0.1)
    raise Impossible(f"systemd-nspawn ended with {nspawn.returncode}")


def _child_with_id_1(parent: int) -> int | None:
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines())
        if status["NSpid"].split()[-1] == "1" and status["Name"] == "systemd":
            return int(child)
    return None


async def _end(nspawn: Process) -> None:
    """Shut it down in order, as SIGTERM to nspawn does; by force when that takes too long."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if nspawn.returncode is None:
            nspawn.send_signal(number)
        with anyio.move_on_after(_STOPPED_WITHIN_S):
            await nspawn.wait()
            break
    await nspawn.aclose()
