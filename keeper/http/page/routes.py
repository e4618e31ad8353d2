"""The pages for people: the overview, a wallet's orders, and the API to try. They are files that ship with the package.

They load nothing from other hosts, and the policy that they are sent with lets them do nothing else.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from keeper.http.edge.openapi import hidden
from keeper.http.edge.problems import Problem

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def _read() -> dict[str, tuple[bytes, str, str]]:
    """Every file: its bytes, media type and ETag."""
    found = {}
    for file in resources.files("keeper.http.page").iterdir():
        media_type = _TYPES.get(file.name[file.name.rfind(".") :])
        if media_type is not None:
            content = file.read_bytes()
            found[file.name] = content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return found


_FILES: Final = _read()


@hidden
async def index(request: Request) -> Response:
    """The page."""
    return _file(request, "index.html")


@hidden
async def wallet(request: Request) -> Response:
    """A wallet's orders, and a form to place more with a browser wallet."""
    return _file(request, "wallet.html")


@hidden
async def docs(request: Request) -> Response:
    """The page to try the API."""
    return _file(request, "docs.html")


@hidden
async def asset(request: Request, name: str) -> Response:
    """What the pages are made of."""
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    if name not in _FILES:
        raise Problem("not_found", "The page has no such file.")
    content, media_type, tag = _FILES[name]
    headers = {
        "Content-Security-Policy": _POLICY,
        "Cache-Control": "no-cache",  # asked for again each time, and answered with 304
        "ETag": tag,
        "Referrer-Policy": "no-referrer",
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers={**headers, "Content-Type": media_type})
