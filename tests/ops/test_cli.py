"""The command line itself: quick to start, and an error is one line and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from keeper.config.loading import load_settings
from keeper.config.settings import Settings
from tests.support.reference import sample_settings

HEAVY = (
    "anyio",
    "starlette",
    "httpx",
    "pydantic",
    "solders",
    "structlog",
    "keeper.app.wiring",
    "keeper.config.settings",
)


def test_explaining_an_order_waits_for_no_import_that_it_does_not_need() -> None:
    """These take longer than the whole story at a million executions (6 ms)."""
    script = "import json, sys; import keeper.commands.explaining; print(json.dumps(list(sys.modules)))"
    loaded = set(json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout))
    assert not loaded & {"anchorpy", "solana.rpc.async_api", "structlog", "httpx", "starlette"}


def test_the_help_waits_for_nothing_heavy() -> None:
    """A command imports what it needs when it runs."""
    script = "import json, sys; import keeper.cli; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(HEAVY) & set(json.loads(done.stdout)) == set()


def test_config_prints_a_settings_file_that_loads_as_the_defaults(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "keeper", "config"], capture_output=True, text=True, check=True)
    assert done.stdout == sample_settings()
    file = tmp_path / "keeper.toml"
    file.write_text(done.stdout)
    assert load_settings(file).model_dump() == Settings().model_dump()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["orders", "--journal", "none.sqlite"], 1, "There is no journal at"),
        (["orders", "--config", "none.toml"], 2, "can't be read: No such file"),
        (["run", "--log-level", "loud"], 2, "The setting log.level is wrong"),
    ],
)
def test_an_error_is_one_line_and_its_kind_is_the_exit_code(
    arguments: list[str], code: int, says: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "keeper", *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == code
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("keeper: ")
    assert says in done.stderr
