"""From a report to its log line and its metric."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import structlog

from keeper.domain.attempts import AttemptKind, AttemptState
from keeper.domain.reports import (
    AttemptMoved,
    FillWithoutPosition,
    GateChanged,
    Note,
    OrderSettled,
    OrderTriggered,
    Report,
)
from keeper.telemetry.metrics import Metrics

_log = structlog.get_logger("keeper")


class Telemetry:
    """Takes reports. `report` is called on the event loop and does not wait."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def report(self, report: Report) -> None:
        """Count it and write it down."""
        m = self.metrics
        match report:
            case AttemptMoved():
                m.states.labels(report.kind, report.state).inc()
                if report.since_trigger_s is not None and report.kind is AttemptKind.EXECUTE:
                    m.since_trigger.labels(report.state).observe(report.since_trigger_s)
                if report.slots_since_trigger is not None and report.state is AttemptState.CONFIRMED:
                    m.slots_since_trigger.observe(report.slots_since_trigger)
                event = f"attempt.{report.state}"
                level = "warning" if report.state in (AttemptState.FAILED, AttemptState.EXPIRED) else "info"
                # The steps between are for whoever follows one order; what ended or landed is for everybody.
                quiet = (AttemptState.SIGNED, AttemptState.SENT, AttemptState.SEEN)
                _write("debug" if report.state in quiet else level, event, _fields(report, skip=frozenset({"state"})))
            case OrderTriggered():
                m.triggered.inc()
                _write("info", report.event, _fields(report))
            case OrderSettled():
                m.settled.labels(report.kind, report.fate).inc()
                m.fees.inc(report.fee_lamports)
                if report.error_name is not None:
                    m.failures.labels(report.error_name).inc()
                _write("info", report.event, _fields(report))
            case FillWithoutPosition():
                m.alarms.inc()
                _write("error", report.event, _fields(report))
            case GateChanged():
                m.gate_open.set(1 if report.open else 0)
                _write("info" if report.open else "warning", report.event, _fields(report))
            case Note():
                _write(report.level, report.event, _fields(report, skip=frozenset({"level"})))


def _write(level: str, event: str, fields: dict[str, Any]) -> None:
    getattr(_log, level)(event, **fields)


def _fields(report: Report, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
    fields = {}
    for field in dataclasses.fields(report):
        value = getattr(report, field.name)
        if value is None or field.name in skip or field.name == "event":
            continue
        if isinstance(value, enum.Enum):
            value = value.value
        elif isinstance(value, float):
            value = round(value, 6)
        elif not isinstance(value, str | int | bool):
            value = str(value)
        fields[field.name] = value
    return fields
