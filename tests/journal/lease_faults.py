"""Faults of what keeps two keepers apart, each with the test that is about it and what that test says then."""

from __future__ import annotations

from typing import Final

from tests.simulate.planting import Fault

_LEASES: Final = "tests/journal/test_leases.py::test_"
FAULTS: Final = (
    (
        Fault(
            "no-fence",
            "keeper.journal.postgres.store",
            "if fence.fetchone() != (self._leases.believed,):",
            "if fence.fetchone() is ...:",
            "who may not commit can't send: the commit does not ask whether the lease runs",
        ),
        f"{_LEASES}a_holder_that_was_not_heard_of_can_write_nothing_more",
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
        f"{_LEASES}the_clocks_of_the_keepers_machines_do_not_matter",
        "4 failed",
    ),
    (
        Fault(
            "kept-after-a-failed-renewal",
            "keeper.journal.postgres.leases",
            "return self.lost is not None or _now_s() > self._good_until_s",
            "return self.lost is not None",
            "a holder that could not renew stops by itself: it goes on until it is told",
        ),
        f"{_LEASES}a_holder_that_was_not_heard_of_can_write_nothing_more",
        "by its own clock",
    ),
)
BY_NAME: Final = {fault.name: (fault, test, sign) for fault, test, sign in FAULTS}
