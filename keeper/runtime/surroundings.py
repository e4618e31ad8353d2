"""How the chain's side of the keeper does, for probes: whether it works or stands by."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keeper.domain.errors import ChainError
from keeper.domain.health import Check, FeedShown
from keeper.execution.lookout import Lookout
from keeper.solana.client import ChainClient
from keeper.solana.clock import ClockWatch
from keeper.solana.transactions import Blockhashes
from keeper.solana.watch import ProgramWatch

_CLOCK_OLD_S: Final = 30.0


@dataclass(frozen=True, slots=True, repr=False)
class Surroundings:
    """Answers at once, from what is known."""

    client: ChainClient
    watches: Sequence[ProgramWatch]
    feeds: Sequence[FeedShown]
    clock: ClockWatch
    blockhashes: Blockhashes
    lookout: Lookout
    silence_s: float

    def hears(self) -> bool:
        """Whether the chain is heard of: who hears nothing leaves the work to one that does."""
        return self._watch().ok

    def checks(self) -> tuple[Check, ...]:
        """Each thing that the keeper needs of the chain."""
        return (
            self._watch(),
            self._endpoints(),
            self._blockhash(),
            self._chain_clock(),
            self._consensus(),
            *self._feeds(),
        )

    def _watch(self) -> Check:
        now = time.monotonic()
        heard = [w for w in self.watches if w.health.last_heard_at and now - w.health.last_heard_at <= self.silence_s]
        up = [w for w in self.watches if w.health.listed]
        if up and heard:
            lost = [w.health.last_error for w in self.watches if not w.health.connected and w.health.last_error]
            return Check("watch", True, "; ".join([f"slot {max(w.health.last_slot for w in up)}", *lost]))
        error = next((w.health.last_error for w in self.watches if w.health.last_error), "no list of orders yet")
        return Check("watch", False, f"no endpoint tells of changes: {error}")

    def _endpoints(self) -> Check:
        now = time.monotonic()
        known = self.client.pool.health
        benched = [f"{h.label}: {h.bench_reason}" for h in known if h.benched(now)]
        ok = len(benched) < len(known)
        return Check("rpc", ok, "; ".join(benched))

    def _blockhash(self) -> Check:
        try:
            self.blockhashes.current()
        except ChainError as e:
            return Check("blockhash", False, str(e))
        return Check("blockhash", True)

    def _chain_clock(self) -> Check:
        age_s = self.clock.age_s
        if age_s is None:
            return Check("clock", False, "the chain's clock was not read yet")
        late = age_s > _CLOCK_OLD_S
        return Check(
            "clock", not late, f"nothing newer was told of the chain's clock for {age_s:.0f} s" if late else ""
        )

    def _consensus(self) -> Check:
        """In dispute, what is final is judged as under TowerBFT: a little late, and never wrong."""
        consensus, pace = self.client.consensus, self.client.pool.pace
        slots = f"; {pace.slot_s:.3f} s a slot" if pace.measured else ""
        return Check("consensus", not consensus.dispute, f"{consensus}{slots}")

    def _feeds(self) -> list[Check]:
        """What is wrong with the feeds that markets name; nothing is said when none does."""
        now_s, limit_s = self.lookout.now_s(), self.lookout.decision.rules.max_price_age_s
        wrong = []
        for feed in self.feeds:
            age_s = None if feed.price is None else feed.price.age_s(now_s)
            old = f"its price is {age_s:.0f} s old" if age_s is not None and age_s > limit_s else ""
            if feed.sentence or old:
                wrong.append(f"{feed.market} ({feed.kind}): {feed.sentence or old}")
        return [Check("feeds", not wrong, "; ".join(wrong))] if self.feeds else []
