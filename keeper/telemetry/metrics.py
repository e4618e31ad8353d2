"""The metric definitions. Labels are bounded: words of the domain, endpoint labels, never addresses or URLs."""

from __future__ import annotations

import platform
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

# From a tick that is handled within a millisecond to an expiry a minute and a half later.
LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90)
SLOT_BUCKETS: Final = (0, 1, 2, 3, 4, 6, 8, 12, 20, 40, 80, 160)


class Metrics:
    """Every metric of the keeper, in a registry of its own."""

    def __init__(self, version: str) -> None:
        self.registry = r = CollectorRegistry()
        Info("keeper_build", "Version of the keeper and of Python.", registry=r).info(
            {"version": version, "python": platform.python_version()}
        )
        self.orders_resting = Gauge(
            "keeper_orders_resting", "Pending orders that the keeper watches.", ["market", "type"], registry=r
        )
        self.triggered = Counter(
            "keeper_orders_triggered_total", "Orders whose condition was met by a fresh price.", registry=r
        )
        self.settled = Counter(
            "keeper_attempts_settled_total",
            "Attempts that came to an end, by kind and fate.",
            ["kind", "fate"],
            registry=r,
        )
        self.failures = Counter(
            "keeper_attempt_errors_total", "Attempts that failed, by the error's name.", ["error"], registry=r
        )
        self.states = Counter(
            "keeper_attempt_states_total", "Attempts that reached a state, by kind.", ["kind", "state"], registry=r
        )
        self.in_flight = Gauge(
            "keeper_attempts_in_flight", "Attempts that neither landed at confirmed nor died.", registry=r
        )
        self.unrecorded = Gauge(
            "keeper_attempts_unrecorded",
            "Attempts whose end the journal refuses; their orders wait. /healthz names one.",
            registry=r,
        )
        self.queued = Gauge("keeper_jobs_queued", "Triggered orders that wait to be signed.", registry=r)
        self.order_records = Gauge(
            "keeper_order_records",
            "Orders with a record beside their account: blocked for a reason, or tried before.",
            registry=r,
        )
        self.orders_blocked = Gauge(
            "keeper_orders_blocked",
            "Orders that may not be acted on now, by reason; an order can have several.",
            ["reason"],
            registry=r,
        )
        self.since_trigger = Histogram(
            "keeper_trigger_to_state_seconds",
            "From the arrival of the deciding news to a state of the attempt.",
            ["state"],
            buckets=LATENCY_BUCKETS_S,
            registry=r,
        )
        self.slots_since_trigger = Histogram(
            "keeper_trigger_to_landed_slots",
            "Slots between the deciding price and the landing.",
            buckets=SLOT_BUCKETS,
            registry=r,
        )
        self.fees = Counter("keeper_fees_lamports_total", "What landed attempts cost the keeper.", registry=r)
        self.balance = Gauge("keeper_balance_lamports", "Balance of the keeper's key.", registry=r)
        self.balance_floor = Gauge(
            "keeper_balance_floor_lamports",
            "Below this balance nothing is sent (fees.min_balance_lamports).",
            registry=r,
        )
        self.price_age = Gauge(
            "keeper_price_age_seconds", "Age of a market's oracle price by the chain's clock.", ["market"], registry=r
        )
        self.price_reads = Gauge("keeper_price_reads", "How often a price was read since the start.", registry=r)
        self.oracle_asks = Counter(
            "keeper_oracle_asks_total",
            "How often the chain was asked for a price, instead of it being pushed.",
            registry=r,
        )
        self.rpc_seconds = Histogram(
            "keeper_rpc_seconds",
            "RPC calls by endpoint and outcome.",
            ["endpoint", "outcome"],
            buckets=LATENCY_BUCKETS_S,
            registry=r,
        )
        self.slot_lag = Gauge("keeper_endpoint_slot_lag", "Slots behind the best endpoint.", ["endpoint"], registry=r)
        self.benched = Gauge(
            "keeper_endpoint_benched", "1 while an endpoint is not asked, because it failed.", ["endpoint"], registry=r
        )
        self.watch_slot = Gauge("keeper_watch_slot", "Newest slot heard of.", ["endpoint"], registry=r)
        self.watch_connected = Gauge("keeper_watch_connected", "1 while the socket is open.", ["endpoint"], registry=r)
        self.watch_reconnects = Counter(
            "keeper_watch_reconnects_total", "Sockets that were lost and opened again.", ["endpoint"], registry=r
        )
        self.malformed = Counter(
            "keeper_malformed_accounts_total", "Accounts that did not decode and were skipped.", registry=r
        )
        self.gate_open = Gauge("keeper_gate_open", "1 while sending is allowed.", registry=r)
        self.gate_open.set(1)
        self.alarms = Counter(
            "keeper_fills_without_position_total", "ALARM: orders that read Filled with no position.", registry=r
        )
        self.journal_seconds = Histogram(
            "keeper_journal_commit_seconds", "One group commit, fsync included.", buckets=LATENCY_BUCKETS_S, registry=r
        )
        self.journal_inline_seconds = Histogram(
            "keeper_journal_inline_commit_seconds",
            "Those of them that were made on the event loop's thread, which could do nothing else meanwhile.",
            buckets=LATENCY_BUCKETS_S,
            registry=r,
        )
        self.journal_waiting = Gauge(
            "keeper_journal_waiting",
            "What waits to be written: commits that somebody waits for, and notes.",
            ["what"],
            registry=r,
        )
        self.ready = Gauge("keeper_ready", "1 while orders are watched, executed and accepted.", registry=r)
        self.check_ok = Gauge(
            "keeper_health_check",
            "1 while this part of readiness is well; /healthz says why not.",
            ["check"],
            registry=r,
        )
        self.stopped = Gauge(
            "keeper_sending_stopped",
            "1 for each reason why nothing is sent; no series while sending goes on.",
            ["reason"],
            registry=r,
        )
        self.loop_still = Gauge(
            "keeper_loop_still_seconds",
            "For how long a loop has not gone round although it should.",
            ["loop"],
            registry=r,
        )
        self.loop_tasks = Gauge(
            "keeper_loop_tasks",
            "Tasks of the event loop: loops, sends, open requests.",
            registry=r,
        )
        self.loop_lag = Gauge(
            "keeper_loop_lag_seconds", "The longest that the event loop was held up within the last minute.", registry=r
        )
