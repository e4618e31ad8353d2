"""The faults of `planted` that only several keepers on one database can show."""

from __future__ import annotations

from typing import Final

from tests.simulate.planting import Fault

OF_SEVERAL: Final = (
    Fault(
        "no-fence",
        "keeper.journal.postgres.store",
        "if fence.fetchone() != (self._leases.believed,):",
        "if fence.fetchone() is ...:",
        "who may not commit can't send: the commit does not ask whether the lease runs",
        keepers=2,
    ),
    Fault(
        "lease-kept-after-a-failed-renewal",
        "keeper.journal.postgres.leases",
        "return self.lost is not None or _now_s() > self._good_until_s",
        "return self.lost is not None",
        "a holder that could not renew stops by itself: it goes on until it is told",
        keepers=2,
    ),
    Fault(
        "lease-by-the-hosts-clock",
        "keeper.journal.postgres.leases",
        "self._db.run(_TAKE, {",
        'self._db.run(_TAKE.replace("clock_timestamp()", f"to_timestamp({time.time()})"), {',
        "the database's clock says when a lease is over: a keeper's own does",
        keepers=2,
    ),
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
