"""A real pgbouncer in transaction mode, before the tests' own PostgreSQL server."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from keeper.demo.postgres import TIED, PostgresServer, not_root
from tests.support import postgres
from tests.support.waiting import BOUND_S

_BINARY: Final = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_PORT: Final = 6432
_SETTINGS: Final = """
[databases]
* = host={server} user=postgres
[pgbouncer]
unix_socket_dir = {folder}
listen_port = {port}
auth_type = any
pool_mode = {mode}
default_pool_size = 4
# The next transaction is in another session whenever there is one.
server_round_robin = 1
"""


def missing() -> str | None:
    """Why there can be no pooler here; None when there can."""
    if postgres.GIVEN is not None:
        return "the pooler stands before a server of the tests' own, and KEEPER_TEST_POSTGRES names another"
    return postgres.missing() or (None if _BINARY else "pgbouncer is not installed (Debian: pgbouncer)")


@contextlib.contextmanager
def pooling(server: PostgresServer, mode: str = "transaction") -> Iterator[Path]:
    """A pooler before a server; the folder of its socket."""
    assert _BINARY is not None
    folder = Path(tempfile.mkdtemp(prefix="keeper-pool-", dir="/tmp"))
    if os.geteuid() == 0:
        os.chown(folder, 65_534, 65_534)
    (folder / "pgbouncer.ini").write_text(_SETTINGS.format(server=server.folder, folder=folder, port=_PORT, mode=mode))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", TIED, "sh", _BINARY, str(folder / "pgbouncer.ini")],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **not_root(),
        )
    try:
        until_s = time.monotonic() + BOUND_S
        while not (folder / f".s.PGSQL.{_PORT}").exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until_s
            time.sleep(0.01)
        yield folder
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(BOUND_S)
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _folder() -> Path:
    """This process's pooler. It ends with the process, before the server does."""
    server = postgres.server()
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(pooling(server))


def url(database: str, folder: Path | None = None) -> str:
    """The URL of one of the server's databases, by way of the pooler."""
    return f"postgresql:///{database}?host={folder or _folder()}&port={_PORT}&user=postgres"


def pooled_database() -> str:
    """The URL of a new, empty database, by way of the pooler. Skips the test where there can be none."""
    if why := missing():
        pytest.skip(why)
    direct = postgres.fresh_database()
    return url(direct.partition("///")[2].partition("?")[0])
