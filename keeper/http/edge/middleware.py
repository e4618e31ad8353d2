"""Around every request: an id, the metrics, a few headers, and an answer even when our own code fails.

Pure ASGI, because Starlette's BaseHTTPMiddleware runs each request in a second task and breaks streams.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keeper.http.edge.clients import CLIENT, UNLIMITED, Admission, Hosts, Rates, Tokens, client_of
from keeper.http.edge.elsewhere import CHARGED, FORWARDED, REQUEST_ID, Seal, target_of
from keeper.http.edge.problems import Problem
from keeper.http.edge.server import MAX_HEAD_BYTES, ONLY_PROBES

_REQUEST_ID: Final = REQUEST_ID.lower().encode()
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_log: Any = structlog.get_logger("keeper.http")

_PROBES: Final = frozenset({"/livez", "/readyz", "/healthz"})
"""Never limited: a supervisor that is told to wait takes a working keeper for a dead one."""
_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


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
        self._forwarded = Counter(
            "keeper_http_forwarded",
            "Requests for the keeper of their order's market, by how it went: answered, lost (it may have been done), "
            "unreachable, busy, twice (it came forwarded, and is not this one's).",
            ("how",),
            registry=registry,
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def forwarded(self, how: str) -> None:
        """One request was for another keeper."""
        self._forwarded.labels(how).inc()


class EveryRequest:
    """The layer that refuses what no route has to see: too many requests of a client, too long heads, foreign hosts."""

    def __init__(
        self,
        app: ASGIApp,
        instruments: Instruments,
        rates: Rates,
        hosts: Hosts,
        tokens: Tokens,
        seal: Seal | None = None,
    ) -> None:
        self._app = app
        self._instruments = instruments
        self._rates = rates
        self._hosts = hosts
        self._tokens = tokens
        self._seal = seal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        request_id = _request_id(asked.get(REQUEST_ID))
        admission = self._admission(scope, asked, request_id)
        started = time.perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Nobody inside sets these, so they are put behind the others and not looked for among them.
                message["headers"] = [
                    *message["headers"],
                    (_REQUEST_ID, request_id.encode()),
                    _NOSNIFF,
                    *[(name.encode(), value.encode()) for name, value in admission.headers],
                ]
            await send(message)

        try:
            refused = _too_much(scope) or _too_many(scope) or self._misdirected(scope, asked) or admission.refused
            answer = self._app if refused is None else refused.response()
            await answer(scope, receive, sending)
        except BaseException as e:
            # A Rust panic is no Exception; interrupts and cancellation are not ours to answer.
            if not isinstance(e, Exception) and type(e).__module__ != "pyo3_runtime":
                raise
            _log.exception("http.failed", request_id=request_id, method=scope["method"], route=_route(scope))
            if status:
                raise  # The answer has begun: only the connection's end can say that it is broken.
            problem = Problem("internal_error", "Tell the operator the request id.", more={"request_id": request_id})
            await problem.response()(scope, receive, sending)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._instruments.answered(_route(scope), method, status, time.perf_counter() - started)

    def _admission(self, scope: Scope, asked: Headers, request_id: str) -> Admission:
        address, _ = scope.get("client") or ("", 0)
        client = client_of(address, self._tokens.name_of(asked.get("authorization")))
        state = scope.setdefault("state", {})
        state[REQUEST_ID] = request_id
        forwarded = self._forwarded_for(scope, asked, request_id)
        state[CHARGED] = forwarded is not None
        state[CLIENT] = client if forwarded is None else forwarded
        return UNLIMITED if state[CHARGED] or scope["path"] in _PROBES else self._rates.admit(client)

    def _forwarded_for(self, scope: Scope, asked: Headers, request_id: str) -> str | None:
        """The client for whom another keeper asks, if this is sure."""
        mark = asked.get(FORWARDED)
        if mark is None or self._seal is None:
            return None
        return self._seal.client(mark, scope["method"], target_of(scope), request_id)

    def _misdirected(self, scope: Scope, asked: Headers) -> Problem | None:
        # A keeper knows another by an address that no page has to know, and no page can make the seal.
        sure = scope["state"][CHARGED]
        if sure or scope["path"] in _PROBES or self._hosts.knows(asked.get("host", "")):
            return None
        return Problem("unknown_host", "Add the Host's name to http.hosts, or set http.public_url, if it is right.")


def _too_much(scope: Scope) -> Problem | None:
    """The protocol's own limit holds for what comes in several reads; a head that fits into one read passes it."""
    head = sum(len(name) + len(value) for name, value in scope["headers"])
    if head + len(scope.get("raw_path") or b"") + len(scope["query_string"]) <= MAX_HEAD_BYTES:
        return None
    return Problem("headers_too_large", f"A request's head may have {MAX_HEAD_BYTES} bytes.")


def _too_many(scope: Scope) -> Problem | None:
    if scope["path"] in _PROBES or not scope.get("state", {}).get(ONLY_PROBES):
        return None
    headers = {"Connection": "close"}
    return Problem("too_many_connections", "Every place is taken.", retry_after_s=5, headers=headers)


def _request_id(given: str | None) -> str:
    """The caller's own id if it is fit for a log, else a new one."""
    return given if given is not None and _ID.fullmatch(given) else secrets.token_hex(8)


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "none")
