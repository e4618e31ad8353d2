"""Liveness, readiness and health, after Kubernetes' conventions, and the metrics."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from keeper.domain.health import Health
from keeper.http.edge.answering import answer, part
from keeper.http.edge.openapi import described
from keeper.http.models import Answer
from keeper.http.ports import ApiPorts

_PLAIN: Final = {"Cache-Control": "no-store"}
_METRICS: Final = ["text/plain", "application/openmetrics-text"]


class CheckView(Answer, frozen=True, kw_only=True):
    """One thing that readiness depends on."""

    name: str
    ok: bool
    detail: str


class HealthView(Answer, frozen=True, kw_only=True):
    """The keeper's health."""

    live: bool
    ready: bool
    checks: list[CheckView]
    standing_by: Annotated[
        str | None,
        Meta(description="Who works while this keeper stands by, empty when nobody does; null when it works itself."),
    ]


def health_view(health: Health) -> HealthView:
    """Health with its checks."""
    return msgspec.convert(health, HealthView, from_attributes=True)


Verbose = Annotated[str, Meta(description="List every check, whatever its value.")]


@described("Would a restart not help?", {200: "Alive.", 503: "Restart it."}, plain=["text/plain"])
async def livez(request: Request, verbose: Verbose | None = None) -> Response:
    """200 as long as the keeper does its work or knows why it can't."""
    health = part(request, ApiPorts).health.report()
    return _plain(health, ok=health.live, verbose=verbose is not None)


@described("Are orders watched, executed and accepted?", {200: "Ready.", 503: "Not."}, plain=["text/plain"])
async def readyz(request: Request, verbose: Verbose | None = None) -> Response:
    """503 with the reasons when not, one a line."""
    health = part(request, ApiPorts).health.report()
    return _plain(health, ok=health.ready, verbose=verbose is not None)


@described("The keeper's health as JSON", {200: HealthView, 503: HealthView})
async def healthz(request: Request) -> Response:
    """Every check with its sentence; 503 when the keeper is not ready."""
    health = part(request, ApiPorts).health.report()
    return answer(health_view(health), 200 if health.ready and health.live else 503)


@described("Metrics for Prometheus", {200: "In the format that was asked for."}, plain=_METRICS)
async def metrics(request: Request) -> Response:
    """OpenMetrics when the scraper accepts it, else the older text format."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(part(request, ApiPorts).metrics), headers={"Content-Type": content_type, **_PLAIN})


def _plain(health: Health, *, ok: bool, verbose: bool) -> Response:
    if ok and not verbose:
        return PlainTextResponse("ok\n", headers=_PLAIN)
    checks = health.checks if verbose else [check for check in health.checks if not check.ok]
    lines = [f"[{'+' if c.ok else '-'}] {c.name}: {c.detail or ('ok' if c.ok else 'failed')}" for c in checks]
    text = "\n".join([*lines, "ok" if ok else "failed", ""])
    return PlainTextResponse(text, 200 if ok else 503, headers=_PLAIN)
