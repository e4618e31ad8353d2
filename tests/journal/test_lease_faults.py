"""Faults planted in what keeps two keepers apart: each is found by the test that is about it.

A takeover that signs anew is `recovery-finds-nothing` of `make simulate-faults`: a takeover is a restart.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.simulate.planting import Fault, plant
from tests.support.postgres import missing

if why := missing():
    pytest.skip(why, allow_module_level=True)

ROOT: Final = Path(__file__).parents[2]
LEASES: Final = "tests/journal/test_leases.py::test_"
FAULTS: Final = (
    (
        Fault(
            "no-fence",
            "keeper.journal.postgres.store",
            "if fence.fetchone() is None:",
            "if fence.fetchone() is ...:",
            "who may not commit can't send: the commit does not ask whether the lease runs",
        ),
        f"{LEASES}a_holder_that_was_not_heard_of_can_write_nothing_more",
        "DID NOT RAISE",
    ),
    (
        Fault(
            "host-clock",
            "keeper.journal.postgres.leases",
            "self._db.run(_TAKE, {",
            'self._db.run(_TAKE.replace("clock_timestamp()", f"to_timestamp({time.time()})"), {',
            "the database's clock says when a lease is over: a keeper's own does",
        ),
        f"{LEASES}the_clocks_of_the_keepers_machines_do_not_matter",
        "2 failed",
    ),
    (
        Fault(
            "kept-after-a-failed-renewal",
            "keeper.journal.postgres.leases",
            "return self.lost is not None or _now_s() > self._good_until_s",
            "return self.lost is not None",
            "a holder that could not renew stops by itself: it goes on until it is told",
        ),
        f"{LEASES}a_holder_that_was_not_heard_of_can_write_nothing_more",
        "by its own clock",
    ),
)
BY_NAME: Final = {fault.name: (fault, test, sign) for fault, test, sign in FAULTS}


@pytest.mark.parametrize("name", BY_NAME)
def test_each_planted_fault_still_has_its_place(name: str) -> None:
    fault, _, _ = BY_NAME[name]
    compile(fault.changed(fault.path.read_text()), str(fault.path), "exec")


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
