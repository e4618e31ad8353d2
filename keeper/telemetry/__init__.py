"""Logs and metrics. One frozen record (`keeper.domain.reports`) feeds both, in `reporting.Telemetry.report`."""
