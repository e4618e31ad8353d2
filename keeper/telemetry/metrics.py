"""The metric definitions. Labels are bounded: words of the domain, endpoint labels, never addresses or URLs."""

from __future__ import annotations

import platform
from functools import partial
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

# From a tick that is handled within a millisecond to an expiry 180 blocks later.
LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90)
ARMED_BUCKETS_S: Final = (0.5, 1, 2.5, 5, 10, 15, 20, 25, 30, 45, 60)
SLOT_BUCKETS: Final = (0, 1, 2, 3, 4, 6, 8, 12, 20, 40, 80, 160)


class ServiceMetrics:
    """What a keeper tells also while it stands by: what it is, and who works. A registry of its own."""

    def __init__(self, version: str) -> None:
        # The time at which each series was made: as many lines again as there are series, and nobody asks for it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        Info("keeper_build", "Version of the keeper and of Python.", registry=self.registry).info(
            {"version": version, "python": platform.python_version()}
        )
        self.standing_by = gauge("keeper_standing_by", "1 while this keeper waits to take over, 0 while it works.")
        self.keepers = gauge(
            "keeper_keepers", "Keepers that run on this journal, those that stand by included; 0 for a file."
        )
        self.lease_term = gauge(
            "keeper_lease_term",
            "The term of the lease that the working keeper holds: it rises with each takeover. Where keepers share the "
            "markets: the sum of all markets' terms.",
        )
        self.lease_left = gauge(
            "keeper_lease_left_seconds",
            "How long the lease still runs, when it was last looked at; of several the first to end. 0: nobody works.",
        )
        self.markets_held = gauge(
            "keeper_markets_held", "Markets that this keeper works on, where keepers share them; 0 where they don't."
        )
        self.markets_unheld = gauge(
            "keeper_markets_unheld", "Markets that no keeper works on, where keepers share them; 0 where they don't."
        )
        self.lease_late = Counter(
            "keeper_lease_late_total",
            "How often who stands by saw less than a third of the lease left: its holder renewed late, or went.",
            registry=self.registry,
        )


class Metrics(ServiceMetrics):
    """Every metric of the keeper that works."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        seconds = partial(Histogram, buckets=LATENCY_BUCKETS_S, registry=self.registry)
        self.orders_resting = gauge(
            "keeper_orders_resting", "Pending orders that the keeper watches and would execute.", ["market", "type"]
        )
        self.orders_never_executed = gauge(
            "keeper_orders_never_executed",
            "Pending orders of types that the program's revision does not execute.",
            ["market", "type"],
        )
        self.triggered = counter("keeper_orders_triggered_total", "Orders whose condition was met by a fresh price.")
        self.settled = counter(
            "keeper_attempts_settled_total", "Attempts that came to an end, by kind and fate.", ["kind", "fate"]
        )
        self.failures = counter("keeper_attempt_errors_total", "Attempts that failed, by the error's name.", ["error"])
        self.states = counter(
            "keeper_attempt_states_total", "Attempts that reached a state, by kind.", ["kind", "state"]
        )
        self.in_flight = gauge("keeper_attempts_in_flight", "Attempts that neither landed at confirmed nor died.")
        self.unrecorded = gauge(
            "keeper_attempts_unrecorded",
            "Attempts whose end the journal refuses; their orders wait. /healthz names one.",
        )
        self.queued = gauge("keeper_jobs_queued", "Triggered orders that wait to be signed.")
        self.order_records = gauge(
            "keeper_order_records", "Orders with a record beside their account: blocked for a reason, or tried before."
        )
        self.orders_blocked = gauge(
            "keeper_orders_blocked",
            "Orders that may not be acted on now, by reason; an order can have several.",
            ["reason"],
        )
        self.since_trigger = Histogram(
            "keeper_trigger_to_state_seconds",
            "From the arrival of the deciding news to a state of the attempt.",
            ["state"],
            buckets=(0.0001, 0.00025, 0.0005, *LATENCY_BUCKETS_S),
            registry=self.registry,
        )
        self.armed = gauge("keeper_armed", "Executions that are signed and journaled before the price comes.")
        self.armed_age = Histogram(
            "keeper_armed_age_seconds",
            "How long an execution that left armed had been so. Their count beside "
            'keeper_attempt_states_total{kind="execute",state="signed"} is the hit rate.',
            buckets=ARMED_BUCKETS_S,
            registry=self.registry,
        )
        self.armed_signatures = counter(
            "keeper_armed_signatures_total", "Signatures of arming: the first for an order, or again.", ["which"]
        )
        self.disarmed = counter("keeper_disarmed_total", "Executions that were armed, and are not without being sent.")
        self.arming_seconds = counter("keeper_arming_seconds_total", "Time of the event loop that arming took.")
        self.slots_since_trigger = Histogram(
            "keeper_trigger_to_landed_slots",
            "Slots between the deciding price and the landing.",
            buckets=SLOT_BUCKETS,
            registry=self.registry,
        )
        self.way_sends = counter(
            "keeper_way_sends_total",
            "Attempts handed to a way (an RPC endpoint or a sender), each time that they were.",
            ["way"],
        )
        self.way_answers = counter(
            "keeper_way_answers_total", "What a way said of the attempts that it was handed.", ["way", "answer"]
        )
        self.way_seconds = seconds("keeper_way_answer_seconds", "How long a way took to answer.", ["way"])
        self.way_landed = counter(
            "keeper_way_landed_total", "Attempts in a block that a way had carried, alone or beside others.", ["way"]
        )
        self.way_resting = gauge(
            "keeper_way_resting", "1 while a sender is sent nothing, because it failed or asked for a pause.", ["way"]
        )
        self.outflow = counter(
            "keeper_outflow_lamports_total",
            "What left the keeper's key: the fees of what landed, the tips for carrying it, and the rent of the "
            "positions that fills create.",
            ["what"],
        )
        self.outflow_today = gauge(
            "keeper_daily_outflow_lamports",
            "What left the key on this UTC day (spent), what is set aside for attempts in flight (reserved), and the "
            "most that may leave it on a day (cap: fees.daily_outflow_cap_lamports).",
            ["what"],
        )
        self.balance = gauge("keeper_balance_lamports", "Balance of the keeper's key.")
        self.balance_floor = gauge(
            "keeper_balance_floor_lamports",
            "What would take the balance below this is not sent (fees.min_balance_lamports).",
        )
        self.price_age = gauge(
            "keeper_price_age_seconds", "Age of a market's oracle price by the chain's clock.", ["market"]
        )
        self.feed_age = gauge(
            "keeper_feed_age_seconds", "Age of a market's feed's price by the chain's clock.", ["market"]
        )
        self.feed_ok = gauge(
            "keeper_feed_ok", "1 while a market's feed passes every check, 0 while it decides nothing.", ["market"]
        )
        self.cranks = counter(
            "keeper_cranks_total", "Executions that were to post a feed's price to their market first."
        )
        self.crank_refused = gauge(
            "keeper_crank_refused",
            "1 while a market's own price is too old to decide and its feed's is not posted in its place, by reason.",
            ["market", "reason"],
        )
        self.feed_faults = counter(
            "keeper_feed_faults_total",
            "How often a fault of a feed began, by the check that failed.",
            ["market", "fault"],
        )
        self.price_reads = gauge("keeper_price_reads", "How often a price was read since the start.")
        self.oracle_asks = counter(
            "keeper_oracle_asks_total", "How often the chain was asked for a price, instead of it being pushed."
        )
        self.rpc_seconds = seconds("keeper_rpc_seconds", "RPC calls by endpoint and outcome.", ["endpoint", "outcome"])
        self.slot_seconds = gauge("keeper_chain_slot_seconds", "Seconds a slot of the chain takes, as measured.")
        self.consensus = gauge(
            "keeper_chain_consensus", "1 for how the chain agrees on blocks, as its nodes say.", ["consensus"]
        )
        self.slot_lag = gauge("keeper_endpoint_slot_lag", "Slots behind the best endpoint.", ["endpoint"])
        self.benched = gauge(
            "keeper_endpoint_benched", "1 while an endpoint is not asked, because it failed.", ["endpoint"]
        )
        self.watch_slot = gauge("keeper_watch_slot", "Newest slot heard of.", ["endpoint"])
        self.watch_connected = gauge("keeper_watch_connected", "1 while the stream is open.", ["endpoint"])
        self.watch_reconnects = counter(
            "keeper_watch_reconnects_total", "Streams that were lost and opened again.", ["endpoint"]
        )
        self.watch_replays = counter(
            "keeper_watch_replays_total",
            "Gaps of which a stream told everything again, so that no list had to be read.",
            ["endpoint"],
        )
        self.watch_malformed = counter(
            "keeper_watch_malformed_total", "Messages that could not be read and were skipped.", ["endpoint"]
        )
        self.watch_list_age = gauge(
            "keeper_watch_list_age_seconds",
            "Since all orders were last listed: what was missed is found then.",
            ["endpoint"],
        )
        self.clock_doubted = counter(
            "keeper_clock_doubted_total", "Readings of the chain's clock that did not fit, and were asked for again."
        )
        self.malformed = counter("keeper_malformed_accounts_total", "Accounts that did not decode and were skipped.")
        self.gate_open = gauge("keeper_gate_open", "1 while sending is allowed.")
        self.gate_open.set(1)
        self.alarms = counter("keeper_fills_without_position_total", "ALARM: orders that read Filled with no position.")
        self.off_condition = counter(
            "keeper_fills_off_condition_total",
            "Fills by others through another market's account, whose price met the order and its own did not.",
        )
        self.bare_fills = counter(
            "keeper_fills_accepted_without_position_total",
            "Fills of a revision that creates no position, accepted by program.accept_fills_without_position.",
        )
        self.journal_seconds = seconds("keeper_journal_commit_seconds", "One group commit, fsync included.")
        self.journal_inline_seconds = seconds(
            "keeper_journal_inline_commit_seconds",
            "Those of them that were made on the event loop's thread, which could do nothing else meanwhile.",
        )
        self.journal_waiting = gauge(
            "keeper_journal_waiting", "What waits to be written: commits that somebody waits for, and notes.", ["what"]
        )
        self.ready = gauge("keeper_ready", "1 while orders are watched, executed and accepted.")
        self.check_ok = gauge(
            "keeper_health_check", "1 while this part of readiness is well; /healthz says why not.", ["check"]
        )
        self.stopped = gauge(
            "keeper_sending_stopped",
            "1 for each reason why nothing is sent; no series while sending goes on.",
            ["reason"],
        )
        self.recording = gauge(
            "keeper_recording", "1 for how the recording is; no series when nothing is to be recorded.", ["state"]
        )
        self.recorded_bytes = gauge("keeper_recorded_bytes", "Bytes of recordings written since the start.")
        self.recording_dropped = gauge(
            "keeper_recording_dropped", "Notes since the start that are missing in the recording."
        )
        self.loop_still = gauge(
            "keeper_loop_still_seconds", "For how long a loop has not gone round although it should.", ["loop"]
        )
        self.loop_tasks = gauge("keeper_loop_tasks", "Tasks of the event loop: loops, sends, open requests.")
        self.loop_lag = gauge(
            "keeper_loop_lag_seconds", "The longest that the event loop was held up within the last minute."
        )
