"""Logs and metrics. One frozen record (`keeper.domain.reports`) feeds both, in `Telemetry.report`."""

from keeper.telemetry.logs import configure_logs
from keeper.telemetry.metrics import Metrics
from keeper.telemetry.reporting import Telemetry

__all__ = ["Metrics", "Telemetry", "configure_logs"]
