"""Asking a running keeper, over HTTP: whether it is ready, and what an operator wants of it.

Plain standard library, one request and no retries, because a container's health check runs this often.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from keeper.config import TOKEN_VARIABLE
from keeper.domain.errors import KeeperError, Misconfigured
from keeper.domain.urls import in_url

if TYPE_CHECKING:
    from keeper.config.settings import HttpSettings

_PROBE_TIMEOUT_S: Final = 2.0
_CALL_TIMEOUT_S: Final = 15.0
_MOST_BYTES: Final = 1 << 20


def url_of(settings: HttpSettings) -> str:
    """Where a keeper with these settings answers, seen from this machine. Misconfigured with a port that it picks."""
    if settings.port == 0:
        raise Misconfigured("With http.port 0 nobody knows where the keeper listens.", remedy="Set http.port.")
    # It may listen on every address; the loopback is one of them.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - no address to bind to
    return f"http://{in_url(host)}:{settings.port}"


def health_of(url: str, timeout_s: float = _CALL_TIMEOUT_S) -> dict[str, Any]:
    """What a keeper says of its health. KeeperError when none answers at `url`."""
    found = call(url, "GET", "/healthz", timeout_s=timeout_s)
    if not {"ready", "checks"} <= found.keys():
        raise KeeperError(f"What answers at {url} is no keeper.")
    return found


def not_ready(url: str) -> tuple[str, ...]:
    """Why the keeper at `url` is not ready, by what fails or because nobody answers; nothing when it is ready."""
    try:
        health = health_of(url, _PROBE_TIMEOUT_S)
    except KeeperError as e:
        return (str(e),)
    return () if health["ready"] else tuple(f"{c['name']}: {c['detail']}" for c in health["checks"] if not c["ok"])


def is_keeper(url: str) -> bool:
    """Whether a keeper, and not something else, answers at `url`."""
    with contextlib.suppress(KeeperError):
        return bool(health_of(url, _PROBE_TIMEOUT_S))
    return False


def operators_token(file: Path | None) -> str:
    """The token from the file, else from the environment. It is never a flag: other users can read those."""
    if file is not None:
        try:
            return file.read_text().strip()
        except (OSError, UnicodeDecodeError) as e:
            raise Misconfigured(f"The token file {file} can't be read: {e}.", remedy="Check --token-file.") from e
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise Misconfigured(
            "This needs the operator's token.",
            remedy=f"Give --token-file FILE, or set {TOKEN_VARIABLE}; `keeper admin-token` makes one.",
        )
    return token


def call(
    url: str,
    method: str,
    path: str,
    *,
    token: str | None = None,
    body: dict[str, Any] | None = None,
    timeout_s: float = _CALL_TIMEOUT_S,
) -> dict[str, Any]:
    """One call; the answer's JSON. KeeperError with the keeper's own words when it refuses or does not answer."""
    headers = {"Connection": "close", "Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        status, text = answer.status, answer.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise KeeperError(f"No keeper answers at {url} ({str(e) or type(e).__name__}).") from None
    finally:
        connection.close()
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise KeeperError(f"What answers at {url} is no keeper (status {status}).")
    if status == 404 and found.get("code") == "not_found":
        raise KeeperError("The keeper has no such route: it runs without http.admin_token_sha256.")
    if status >= 400 and "code" in found:
        raise KeeperError(f"The keeper refuses: {found.get('detail', found['code'])}")
    return found
