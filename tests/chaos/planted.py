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
_EVERY_MARKET: Final = Fault(
    "every-market",
    "keeper.journal.postgres.store",
    "if (mine := self.working_on) is not None:",
    "if (mine := None) is not None:",
    "a keeper writes for its own markets: the commit does not ask whose an order's is, and the keeper works on all",
    also=(("keeper.app.work", "share=share,", "share=None,"),),
)
_NAME_ALONE: Final = Fault(
    "fence-by-name",
    "keeper.journal.postgres.store",
    "if fence.fetchone() != (self._leases.believed,):",
    "if fence.fetchone() == (None,):",
    "who may not commit can't send: the commit asks only whether the lease on the keeper's name runs",
    also=(
        (
            "keeper.journal.postgres.leases",
            "WHERE life = %s AND until > clock_timestamp() AND NOT starts_with(what, 'keeper:')",
            "WHERE life = %s AND until > clock_timestamp() AND starts_with(what, 'keeper:')",
        ),
    ),
)
# Here the keepers share a machine, so its fault brings the clocks that are wrong.
_OTHERS: Final = {
    "host-clock": _MINUTES_APART,
    "recovery-finds-nothing": OF_ALL["recovery-finds-nothing"],
    # Where the keepers share the markets.
    "every-market": _EVERY_MARKET,
    "fence-by-name": _NAME_ALONE,
}
NAMES: Final = tuple({**OF_LEASES, **_OTHERS})


def plant_by_name(name: str) -> None:
    """Plant it, before the keeper is imported. KeyError when there is none of that name."""
    plant(_OTHERS.get(name) or OF_LEASES[name][0])
