"""What the keeper says of itself to probes: each thing that readiness depends on, with a sentence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keeper.domain.errors import ChainError
from keeper.domain.health import Check, FeedShown, Health, RecorderShown, RecordingState
from keeper.execution.assembly import Execution
from keeper.journal import Journal, keeper_names, working_lease
from keeper.runtime.watchdog import Watchdog
from keeper.solana.client import ChainClient
from keeper.solana.clock import ClockWatch
from keeper.solana.transactions import Blockhashes
from keeper.solana.watch import ProgramWatch

_NOT_OF_ALL: Final = frozenset({"prices", "feeds", "attempts", "consensus", "recording", "ways"})
"""Stale prices stop the orders of their market, an attempt that can't be recorded stops its own: not the keeper. But
while every price is stale and an order waits for one, the keeper executes nothing. A feed with a fault, nodes that
disagree on the consensus, a sender that fails, and a recording that ended, stop nothing.
"""
_CLOCK_OLD_S: Final = 30.0


@dataclass(slots=True, kw_only=True, repr=False)
class HealthReport:
    """Answers at once, from what is known. `live` is False only when a restart could help. `recovered` is set when the
    open attempts of an earlier run have been looked up.
    """

    client: ChainClient
    watches: Sequence[ProgramWatch]
    feeds: Sequence[FeedShown]
    clock: ClockWatch
    blockhashes: Blockhashes
    journal: Journal
    execution: Execution
    watchdog: Watchdog
    silence_s: float
    recorder: RecorderShown | None
    recovered: bool = False

    def report(self) -> Health:
        """The state of things now."""
        prices = self._prices()
        checks = (
            self._watch(),
            self._endpoints(),
            *self._ways(),
            self._blockhash(),
            self._chain_clock(),
            self._consensus(),
            prices,
            *self._feeds(),
            Check("journal", self.journal.healthy, self.journal.problem or self._keepers()),
            Check("sending", self.execution.gate.is_open, self._sending()),
            self._attempts(),
            Check("loops", not self.watchdog.stalled, self._stuck()),
            *self._recording(),
            Check("recovery", self.recovered, "" if self.recovered else "open attempts are being looked up"),
        )
        ready = all(check.ok for check in checks if check.name not in _NOT_OF_ALL)
        ready = ready and (prices.ok or not self.execution.desk.all_stale())
        return Health(live=not self.watchdog.stalled, ready=ready, checks=checks)

    def _stuck(self) -> str:
        stalled = self.watchdog.stalled
        return f"stuck, and only a restart helps: {', '.join(stalled)}" if stalled else ""

    def _keepers(self) -> str:
        leases = self.journal.leases
        held = working_lease(leases)
        if held is None:
            return ""
        others = [name for name in keeper_names(leases) if name != held.holder]
        return f"held by {held.holder} in term {held.term}; {', '.join(others) or 'nobody'} stands by"

    def _sending(self) -> str:
        reasons = list(self.execution.gate.reasons.values())
        if self.execution.dry_run:
            left = self.execution.flights.in_flight
            earlier = f"; {left} attempts of an earlier run could still land, and are only looked up" if left else ""
            reasons.append(f"dry run: nothing is sent{earlier}")
        return "; ".join(reasons)

    def _attempts(self) -> Check:
        unrecorded = self.execution.flights.unrecorded
        if not unrecorded:
            armed = f"{len(self.execution.armory)} armed, " if len(self.execution.armory) else ""
            return Check("attempts", True, f"{armed}{self.execution.flights.in_flight} in flight")
        first = unrecorded[0]
        return Check(
            "attempts",
            False,
            f"the journal refuses what became of {len(unrecorded)} attempts, whose orders wait; one is "
            f"{first.signature}: {first.unrecorded}",
        )

    def _recording(self) -> list[Check]:
        """One word; nothing is said when nothing is to be recorded."""
        r = self.recorder
        if r is None:
            return []
        return [Check("recording", r.state is RecordingState.RECORDING, r.state + f": {r.detail}" * bool(r.detail))]

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

    def _ways(self) -> list[Check]:
        """What is wrong with the senders; nothing is said when there are none."""
        ways = self.execution.ways
        if ways is None:
            return []
        faults = [sender.fault or f"{sender.name} rests" for sender in ways.senders if sender.fault or sender.rests]
        return [Check("ways", not faults, "; ".join(faults))]

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

    def _prices(self) -> Check:
        """Of the markets that an order waits in which the program executes: an old price holds up nothing else."""
        desk, executable = self.execution.desk, self.execution.decision.rules.executable
        waited_for = {market for market, order_type in desk.counts() if order_type in executable}
        stale = []
        for market in desk.markets():
            executing, why = desk.executing(market)
            if not executing and market.address in waited_for:
                stale.append(f"{market.symbol}: {why}")
        return Check("prices", not stale, "; ".join(stale))

    def _feeds(self) -> list[Check]:
        """What is wrong with the feeds that markets name; nothing is said when none does."""
        now_s, limit_s = self.execution.lookout.now_s(), self.execution.decision.rules.max_price_age_s
        wrong = []
        for feed in self.feeds:
            age_s = None if feed.price is None else feed.price.age_s(now_s)
            old = f"its price is {age_s:.0f} s old" if age_s is not None and age_s > limit_s else ""
            if feed.sentence or old:
                wrong.append(f"{feed.market} ({feed.kind}): {feed.sentence or old}")
        return [Check("feeds", not wrong, "; ".join(wrong))] if self.feeds else []

    def summary(self) -> str:
        """The keeper's state on one line, for a supervisor's status."""
        health = self.report()
        if health.ready:
            resting, flying = len(self.execution.decision.book), self.execution.flights.in_flight
            return f"ready; {resting} orders resting, {flying} attempts in flight"
        return "not ready: " + "; ".join(f"{check.name}: {check.detail}" for check in health.checks if not check.ok)
