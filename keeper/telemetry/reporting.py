"""From a report to its log line and its metric."""

from __future__ import annotations

import dataclasses
import enum
import functools
import operator
from collections.abc import Callable
from typing import Any, Final, get_args

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import AttemptKind, AttemptState
from keeper.domain.base58 import base58
from keeper.domain.reports import (
    ArmingDone,
    AttemptMoved,
    FillAccepted,
    FillOffCondition,
    FillWithoutPosition,
    GateChanged,
    GroupDone,
    Note,
    OrderSettled,
    OrderTriggered,
    Report,
    WayAnswered,
    WayLanded,
    WaySent,
)
from keeper.telemetry.logs import wants, write
from keeper.telemetry.metrics import Metrics


class Telemetry:
    """Takes reports. `report` is called on the event loop and does not wait."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        # Found once: looking a labelled metric up takes longer than counting.
        self._states = {(k, s): metrics.states.labels(k, s) for k in AttemptKind for s in AttemptState}
        self._fees, self._rents, self._tips = (metrics.outflow.labels(what) for what in ("fee", "rent", "tip"))
        self._settled = functools.cache(metrics.settled.labels)
        self._since_trigger = {s: metrics.since_trigger.labels(s) for s in AttemptState}

    def rpc_call(self, endpoint: str, _method: str, seconds: float, outcome: str) -> None:
        """A call of an endpoint is over."""
        self.metrics.rpc_seconds.labels(endpoint, outcome).observe(seconds)

    def journal_group(self, group: GroupDone) -> None:
        """A group of operations is in the journal, or failed; by themselves those that the event loop waited for."""
        self.metrics.journal_seconds.observe(group.seconds)
        if group.inline:
            self.metrics.journal_inline_seconds.observe(group.seconds)

    def loop_still(self, loop: str, seconds: float) -> None:
        """For so long a loop has not gone round although it should."""
        self.metrics.loop_still.labels(loop).set(seconds)

    def malformed_account(self, address: Pubkey, reason: str) -> None:
        """An account does not decode."""
        self.metrics.malformed.inc()
        self.report(Note("watch.malformed_account", reason, level="warning", order=address))

    def reconnect(self, reason: str) -> None:
        """A socket was lost."""
        self.report(Note("watch.reconnect", reason, level="warning"))

    def unlisted(self, reason: str) -> None:
        """A list of the program's accounts could not be read."""
        self.report(Note("watch.unlisted", reason, level="warning"))

    def doubted_clock(self, reason: str) -> None:
        """A reading of the chain's clock was not believed at once."""
        self.metrics.clock_doubted.inc()
        self.report(Note("clock.doubted", reason, level="warning"))

    def feed_fault(self, market: str, fault: str, sentence: str) -> None:
        """A market's feed began to fail a check: it decides nothing until it passes them all again."""
        self.metrics.feed_faults.labels(market, fault).inc()
        self.report(Note("feed.fault", f"{market}: {sentence}", level="warning"))

    def report(self, report: Report) -> None:
        """Count it and write it down."""
        m = self.metrics
        match report:
            case AttemptMoved():
                self._states[report.kind, report.state].inc()
                if report.since_trigger_s is not None and report.kind is AttemptKind.EXECUTE:
                    self._since_trigger[report.state].observe(report.since_trigger_s)
                if report.armed_for_s is not None:
                    m.armed_age.observe(report.armed_for_s)
                if report.posted_from is not None:
                    m.cranks.inc()
                if report.slots_since_trigger is not None and report.state is AttemptState.CONFIRMED:
                    m.slots_since_trigger.observe(report.slots_since_trigger)
                event = f"attempt.{report.state}"
                level = "warning" if report.state in (AttemptState.FAILED, AttemptState.EXPIRED) else "info"
                # The steps between are for whoever follows one order; what ended or landed is for everybody.
                quiet = (AttemptState.SIGNED, AttemptState.SENT, AttemptState.SEEN)
                _write("debug" if report.state in quiet else level, event, report, skip="state")
            case ArmingDone():
                m.armed_signatures.labels("first").inc(report.signed)
                m.armed_signatures.labels("again").inc(report.again)
                m.disarmed.inc(report.disarmed)
                m.arming_seconds.inc(report.seconds)
                _write("debug", report.event, report)
            case OrderTriggered():
                m.triggered.inc()
                _write("info", report.event, report)
            case OrderSettled():
                self._settled(report.kind, report.fate).inc()
                self._fees.inc(report.fee_lamports)
                self._rents.inc(report.rent_lamports)
                self._tips.inc(report.tip_lamports or 0)
                if report.error_name is not None:
                    m.failures.labels(report.error_name).inc()
                _write("info", report.event, report)
            case FillWithoutPosition():
                m.alarms.inc()
                _write("error", report.event, report)
            case FillAccepted():
                m.bare_fills.inc()
                _write("warning", report.event, report)
            case FillOffCondition():
                m.off_condition.inc()
                _write("warning", report.event, report)
            case GateChanged():
                m.gate_open.set(1 if report.open else 0)
                _write("info" if report.open else "warning", report.event, report)
            case WaySent():
                m.way_sends.labels(report.way).inc(report.attempts)
            case WayAnswered():
                m.way_answers.labels(report.way, report.answer).inc(report.attempts)
                m.way_seconds.labels(report.way).observe(report.seconds)
                _write("debug", report.event, report)
            case WayLanded():
                m.way_landed.labels(report.way).inc()
                _write("debug", report.event, report)
            case Note():
                _write(report.level, report.event, report, skip="level")


def _write(level: str, event: str, report: Report, skip: str = "") -> None:
    if wants(level):
        write(level, event, _fields(report, skip))


def _fields(report: Report, skip: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    names, values = _FIELDS[type(report)]
    for name, value in zip(names, values(report), strict=True):
        if value is not None and name != skip:
            fields[name] = _AS.get(type(value), _other)(value)
    return fields


def _same(value: Any) -> Any:
    return value


def _other(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else str(value)


_AS: Final[dict[type, Callable[[Any], Any]]] = {
    str: _same,
    int: _same,
    bool: _same,
    float: lambda value: round(value, 6),
    Pubkey: base58,
    Signature: base58,
}


def _getter(report: type) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    names = tuple(field.name for field in dataclasses.fields(report) if field.name != "event")
    return names, operator.attrgetter(*names)


_FIELDS: Final = {report: _getter(report) for report in get_args(Report)}
"""By type of report, the names of its fields and what reads them all at once."""
