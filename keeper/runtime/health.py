"""What the keeper says of itself to probes: each thing that readiness depends on, with a sentence."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from keeper.domain.health import Check, Health, RecorderShown, RecordingState
from keeper.execution.assembly import Execution
from keeper.journal import Holder, Journal, keeper_names, shares, unheld, working_lease
from keeper.runtime.surroundings import Surroundings
from keeper.runtime.watchdog import Watchdog

_NOT_OF_ALL: Final = frozenset({"prices", "feeds", "attempts", "consensus", "recording", "ways"})
"""Stale prices stop the orders of their market, an attempt that can't be recorded stops its own: not the keeper. But
while every price is stale and an order waits for one, the keeper executes nothing. A feed with a fault, nodes that
disagree on the consensus, a sender that fails, and a recording that ended, stop nothing.
"""


@dataclass(slots=True, kw_only=True, repr=False)
class HealthReport:
    """Answers at once, from what is known. `live` is False only when a restart could help. `recovered` is set when the
    open attempts of an earlier run have been looked up. `name` is this keeper's among several.
    """

    surroundings: Surroundings
    journal: Journal
    execution: Execution
    watchdog: Watchdog
    recorder: RecorderShown | None
    name: str = ""
    recovered: bool = False

    def report(self) -> Health:
        """The state of things now."""
        prices = self._prices()
        checks = (
            *self.surroundings.checks(),
            *self._ways(),
            prices,
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
            return shared_by(leases, self.name, [str(market.address) for market in self.execution.desk.markets()])
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

    def _ways(self) -> list[Check]:
        """What is wrong with the senders; nothing is said when there are none."""
        ways = self.execution.ways
        if ways is None:
            return []
        faults = [sender.fault or f"{sender.name} rests" for sender in ways.senders if sender.fault or sender.rests]
        return [Check("ways", not faults, "; ".join(faults))]

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

    def summary(self) -> str:
        """The keeper's state on one line, for a supervisor's status."""
        health = self.report()
        if health.ready:
            resting, flying = len(self.execution.decision.book), self.execution.flights.in_flight
            return f"ready; {resting} orders resting, {flying} attempts in flight"
        return "not ready: " + "; ".join(f"{check.name}: {check.detail}" for check in health.checks if not check.ok)


def shared_by(leases: Collection[Holder], me: str, markets: Collection[str]) -> str:
    """Who works on how many of the markets, for the keeper `me`; empty where the keepers don't share them."""
    counts = shares(leases)
    if not any(counts.values()):
        return ""
    free = len(unheld(leases, markets))
    mine = counts.pop(me, 0)
    others = [f"{name} on {n}" for name, n in sorted(counts.items())]
    rest = [", ".join(others)] if others else []
    rest += [f"nobody on {free}"] if free else []
    return "; ".join([f"works on {mine} of {mine + sum(counts.values()) + free} markets", *rest])
