"""Which pages of other origins may call the API from a browser: what is public, by setting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_OWN: Final = re.compile("/v1/(admin/|wallets/[^/]*/orders)")
"""What takes an operator's or a wallet's token is for their own programs, not for pages."""
_TAKES: Final = ("Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "X-Request-Id")
_GIVES: Final = ("ETag", "Idempotency-Replayed", "Location", "RateLimit", "Retry-After", "X-Request-Id")


class PublicCors:
    """Lets pages of `origins` read what is public under /v1; "*" is any. Nothing there depends on who asks, and no
    cookie is looked at, so that a page learns no more than its own server could.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._shared = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=_TAKES,
            expose_headers=_GIVES,
            max_age=86_400,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope.get("path", "")
        shared = scope["type"] == "http" and path.startswith("/v1/") and not _OWN.match(path)
        await (self._shared if shared else self._app)(scope, receive, send)
