"""Faults planted in what keeps two keepers apart: each is found by the test that is about it.

`make simulate-faults` finds them as well, and with them a takeover that signs anew.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.journal.lease_faults import BY_NAME
from tests.simulate.planting import plant
from tests.support.postgres import missing

if why := missing():
    pytest.skip(why, allow_module_level=True)

ROOT: Final = Path(__file__).parents[2]


@pytest.mark.parametrize("name", BY_NAME)
def test_each_planted_fault_still_has_its_place(name: str) -> None:
    fault, _, _ = BY_NAME[name]
    compile(fault.changed(fault.module), fault.module, "exec")


@pytest.mark.long
@pytest.mark.parametrize("name", BY_NAME)
def test_each_planted_fault_is_found(name: str) -> None:
    run = subprocess.run([sys.executable, "-m", __name__, name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    assert BY_NAME[name][2] in run.stdout


if __name__ == "__main__":
    planted, found_by, _ = BY_NAME[sys.argv[1]]
    plant(planted)
    # What is imported by now has no assertions of its own that pytest would want to explain.
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    sys.exit(pytest.main(["-q", "-n0", "-p", "no:cacheprovider", *quiet, found_by]))
