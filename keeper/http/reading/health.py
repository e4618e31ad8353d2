"""Liveness, readiness and health, after Kubernetes' conventions, and the metrics."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from keeper.domain.health import Health
from keeper.http.edge.answers import answer
from keeper.http.edge.describe import described_by
from keeper.http.models import HealthView
from keeper.http.reading.views import health_view
from keeper.http.wiring import Ports

router = APIRouter(tags=["health"])
_PLAIN: Final = {"Cache-Control": "no-store"}
_TEXT: Final = ["text/plain"]
_METRICS: Final = ["text/plain", "application/openmetrics-text"]

Verbose = Annotated[str | None, Query(description="List every check, whatever its value.")]


@router.get(
    "/livez", summary="Would a restart not help?", **described_by({200: "Alive.", 503: "Restart it."}, plain=_TEXT)
)
async def livez(ports: Ports, verbose: Verbose = None) -> Response:
    """200 as long as the keeper does its work or knows why it can't."""
    health = ports.health.report()
    return _plain(health, ok=health.live, verbose=verbose is not None)


@router.get(
    "/readyz",
    summary="Are orders watched, executed and accepted?",
    **described_by({200: "Ready.", 503: "Not."}, plain=_TEXT),
)
async def readyz(ports: Ports, verbose: Verbose = None) -> Response:
    """503 with the reasons when not, one a line."""
    health = ports.health.report()
    return _plain(health, ok=health.ready, verbose=verbose is not None)


@router.get("/healthz", summary="The keeper's health as JSON", **described_by({200: HealthView, 503: HealthView}))
async def healthz(ports: Ports) -> Response:
    """Every check with its sentence; 503 when the keeper is not ready."""
    health = ports.health.report()
    return answer(health_view(health), 200 if health.ready and health.live else 503)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    **described_by({200: "In the format that was asked for."}, plain=_METRICS),
)
async def metrics(request: Request, ports: Ports) -> Response:
    """OpenMetrics when the scraper accepts it, else the older text format."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(ports.metrics), headers={"Content-Type": content_type, **_PLAIN})


def _plain(health: Health, *, ok: bool, verbose: bool) -> Response:
    if ok and not verbose:
        return PlainTextResponse("ok\n", headers=_PLAIN)
    checks = health.checks if verbose else [check for check in health.checks if not check.ok]
    lines = [f"[{'+' if c.ok else '-'}] {c.name}: {c.detail or ('ok' if c.ok else 'failed')}" for c in checks]
    text = "\n".join([*lines, "ok" if ok else "failed", ""])
    return PlainTextResponse(text, 200 if ok else 503, headers=_PLAIN)
