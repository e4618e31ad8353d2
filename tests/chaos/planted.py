"""Faults for the campaign with several keepers: each is planted in all of them, and has to be found."""

from __future__ import annotations

from typing import Final

from tests.journal.lease_faults import BY_NAME as OF_LEASES
from tests.simulate.planted import BY_NAME as OF_ALL
from tests.simulate.planting import Fault, plant

_MINUTES_APART: Final = Fault(
    "host-clock",
    "keeper.journal.postgres.leases",
    "self._db.run(_TAKE, {",
    "self._db.run(_TAKE.replace('clock_timestamp()', "
    "f'to_timestamp({time.time() + __import__(\"os\").getpid() % 4 * 60})'), {",
    "the database's clock says when a lease is over: a keeper's own does, and they are minutes apart",
)
# Here the keepers share a machine, so its fault brings the clocks that are wrong.
_OTHERS: Final = {"host-clock": _MINUTES_APART, "recovery-finds-nothing": OF_ALL["recovery-finds-nothing"]}
NAMES: Final = tuple({**OF_LEASES, **_OTHERS})


def plant_by_name(name: str) -> None:
    """Plant it, before the keeper is imported. KeyError when there is none of that name."""
    plant(_OTHERS.get(name) or OF_LEASES[name][0])
