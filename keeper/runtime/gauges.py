"""What is known, copied into the gauges now and then, so that the hot path does not have to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter

from keeper.domain.health import RecordingState
from keeper.execution.assembly import Execution
from keeper.execution.orders import Reason
from keeper.journal import Holder, Journal, keeper_names, shares, unheld
from keeper.runtime.health import HealthReport
from keeper.runtime.lag import LoopLag
from keeper.runtime.surroundings import Surroundings
from keeper.telemetry.metrics import Metrics, ServiceMetrics


@dataclass(slots=True, repr=False)
class Gauges:
    """One round at each `update`. What is gone (an order type without orders, a reason that was lifted) is gone from
    the gauges too: a gauge that keeps its last value tells of the past.
    """

    metrics: Metrics
    execution: Execution
    surroundings: Surroundings
    journal: Journal
    health: HealthReport
    lag: LoopLag
    _counted: dict[tuple[Counter, str], int] = field(default_factory=dict, init=False)

    async def update(self) -> None:
        """One round. No await in it: a scrape sees all of a round or nothing of it."""
        self.metrics.loop_lag.set(self.lag.longest_s)
        self.metrics.loop_tasks.set(len(asyncio.all_tasks()))
        self._work()
        self._market_data()
        self._endpoints()
        self._state()
        self._recording()

    def _work(self) -> None:
        m = self.metrics
        m.in_flight.set(self.execution.flights.in_flight)
        m.unrecorded.set(len(self.execution.flights.unrecorded))
        m.armed.set(len(self.execution.armory))
        m.queued.set(self.execution.executor.queued)
        m.order_records.set(len(self.execution.orders))
        for reason in Reason:
            m.orders_blocked.labels(reason.name.lower()).set(len(self.execution.orders.blocked(reason)))
        markets = [str(market.address) for market in self.execution.desk.markets()]
        tell_leases(m, self.journal.leases, standing_by=False, me=self.health.name, markets=markets)
        m.journal_waiting.labels("commits").set(self.journal.waiting_callers)
        m.journal_waiting.labels("notes").set(self.journal.waiting_notes)

    def _market_data(self) -> None:
        m = self.metrics
        m.price_reads.set(self.execution.decision.prices.reads)
        symbols = {market.address: market.symbol for market in self.execution.desk.markets()}
        executable = self.execution.decision.rules.executable
        m.orders_resting.clear()
        m.orders_never_executed.clear()
        for (market, order_type), count in self.execution.decision.book.counts().items():
            gauge = m.orders_resting if order_type in executable else m.orders_never_executed
            gauge.labels(symbols.get(market, "unknown"), order_type.word).set(count)
        now = self.execution.desk.chain_time_s()
        m.price_age.clear()
        for address, symbol in symbols.items():
            price = self.execution.desk.price(address)
            if price is not None and now is not None:
                m.price_age.labels(symbol).set(price.age_s(now))
        for feed in self.surroundings.feeds:
            m.feed_ok.labels(feed.market).set(not feed.sentence)
            if feed.price is not None and now is not None:
                m.feed_age.labels(feed.market).set(feed.price.age_s(now))
        if self.execution.decision.cranks is not None:
            m.crank_refused.clear()
            for symbol, reason in self.execution.desk.unposted().items():
                m.crank_refused.labels(symbol, reason).set(1)

    def _recording(self) -> None:
        if (recorder := self.health.recorder) is not None:
            for state in RecordingState:
                self.metrics.recording.labels(state).set(state == recorder.state)
            self.metrics.recorded_bytes.set(recorder.written_bytes)
            self.metrics.recording_dropped.set(recorder.dropped)

    def _endpoints(self) -> None:
        m = self.metrics
        now = time.monotonic()
        if self.surroundings.client.pool.pace.measured:
            m.slot_seconds.set(self.surroundings.client.pool.pace.slot_s)
        m.consensus.clear()
        m.consensus.labels(self.surroundings.client.consensus.name).set(1)
        for health in self.surroundings.client.pool.health:
            m.benched.labels(health.label).set(health.benched(now))
            if health.slot_lag is not None:
                m.slot_lag.labels(health.label).set(health.slot_lag)
        for sender in () if self.execution.ways is None else self.execution.ways.senders:
            m.way_resting.labels(sender.name).set(sender.rests)
        for watch in self.surroundings.watches:
            label, known = watch.label, watch.health
            m.watch_slot.labels(label).set(known.last_slot)
            m.watch_connected.labels(label).set(known.connected)
            if known.last_snapshot_at is not None:
                m.watch_list_age.labels(label).set(now - known.last_snapshot_at)
            for counter, counted in (
                (m.watch_reconnects, known.reconnects),
                (m.watch_replays, known.replays),
                (m.watch_malformed, known.malformed),
            ):
                counter.labels(label).inc(counted - self._counted.get((counter, label), 0))
                self._counted[counter, label] = counted

    def _state(self) -> None:
        m = self.metrics
        health = self.health.report()
        m.ready.set(health.ready)
        for check in health.checks:
            m.check_ok.labels(check.name).set(check.ok)
        balance = self.execution.balance
        if balance.lamports is not None:
            m.balance.set(balance.lamports)
        purse = self.execution.purse
        m.balance_floor.set(purse.limits.min_balance_lamports)
        m.outflow_today.labels("spent").set(purse.spent_today_lamports)
        m.outflow_today.labels("reserved").set(purse.reserved_lamports)
        m.outflow_today.labels("cap").set(purse.limits.daily_cap_lamports)
        m.stopped.clear()
        for reason in self.execution.gate.reasons:
            m.stopped.labels(reason).set(1)


def tell_leases(
    metrics: ServiceMetrics,
    leases: Sequence[Holder],
    *,
    standing_by: bool,
    me: str = "",
    markets: Collection[str] = (),
) -> None:
    """Who holds what, as metrics; of the keeper `me`, where keepers share the `markets`."""
    work = [lease for lease in leases if not lease.on_name]
    counts = shares(leases)
    metrics.standing_by.set(standing_by)
    metrics.keepers.set(len(keeper_names(leases)))
    metrics.lease_left.set(min((lease.left_s for lease in work), default=0.0))
    if work:
        metrics.lease_term.set(sum(lease.term for lease in work))
    metrics.markets_held.set(counts.get(me, 0))
    # Where nobody has any, nobody works, which is told by what is left of the lease.
    metrics.markets_unheld.set(len(unheld(leases, markets)) if any(counts.values()) else 0)
