"""The API's own metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Instruments:
    """Requests by route, method and status, and how long they took. A route is its template, never a raw path."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "keeper_http_requests", "HTTP requests answered.", ("route", "method", "status"), registry=registry
        )
        self._seconds = Histogram(
            "keeper_http_request_seconds",
            "From the request's head to the answer's end.",
            ("route",),
            buckets=_BUCKETS_S,
            registry=registry,
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
