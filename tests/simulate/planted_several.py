"""The faults of `planted` that only several keepers on one database can show."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tests.journal.lease_faults import BY_NAME as OF_LEASES
from tests.simulate.planting import Fault


def _of_leases(name: str, here: str | None = None) -> Fault:
    """One of those that the tests of the leases have, which a simulation finds by what comes of it."""
    fault, _, _ = OF_LEASES[name]
    return replace(fault, name=here or name, keepers=2)


OF_SEVERAL: Final = (
    _of_leases("no-fence"),
    _of_leases("kept-after-a-failed-renewal", "lease-kept-after-a-failed-renewal"),
    _of_leases("host-clock", "lease-by-the-hosts-clock"),
    Fault(
        "takeover-signs-anew",
        "keeper.execution.recovery",
        "attempts = await self._journal.open_attempts(markets=self._share)\n        rows =",
        "attempts = (await self._journal.open_attempts(markets=self._share))[:0]\n        rows =",
        "who takes over sends the same bytes again: what is open is forgotten, and signed anew",
        also=(
            (
                "keeper.journal.applying",
                "            if live is not None:\n                raise DuplicateAttempt(",
                "            if False:\n                raise DuplicateAttempt(",
            ),
            ("keeper.journal.sqlite.schema", "CREATE UNIQUE INDEX one_live_attempt", "CREATE INDEX one_live_attempt"),
        ),
        keepers=2,
    ),
    Fault(
        "works-on-anothers-market",
        "keeper.app.work",
        "share = None if journal.markets is None else frozenset(map(Pubkey.from_string, journal.markets))",
        "share = None",
        "who shares the markets works on its own alone: it takes all of them for its own",
        also=(  # the store refuses what is about another's order
            (
                "keeper.journal.postgres.store",
                "        if (mine := self.working_on) is not None:\n",
                "        if (mine := self.working_on) is ...:\n",
            ),
        ),
        keepers=2,
    ),
    Fault(
        "share-not-given-back",
        "keeper.journal.postgres.leases",
        "if comes or (goes and steady):",
        "if comes:",
        "who has more than its share gives it to who lacks it",
        keepers=2,
    ),
)
