"""Asking a running keeper, over HTTP: whether it is ready, and what an operator wants of it.

Plain standard library, one request and no retries, because a container's health check runs this often.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from keeper.commands import options
from keeper.domain.errors import KeeperError, Misconfigured

if TYPE_CHECKING:
    from keeper.config.settings import HttpSettings

TOKEN_VARIABLE: Final = "QUANTDESK_ADMIN_TOKEN"  # noqa: S105 - a name, no token
_PROBE_TIMEOUT_S: Final = 2.0
_CALL_TIMEOUT_S: Final = 15.0
_MOST_BYTES: Final = 1 << 20


def url_of(settings: HttpSettings) -> str:
    """Where a keeper with these settings answers, seen from this machine. Misconfigured with a port that it picks."""
    if settings.port == 0:
        raise Misconfigured("With http.port 0 nobody knows where the keeper listens.", remedy="Set http.port.")
    host = settings.host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{settings.port}"
    if address.is_unspecified:  # it listens on every address; the loopback is one of them
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{address}:{settings.port}" if address.version == 4 else f"http://[{address}]:{settings.port}"


def url_from(config: Path | None, host: str | None, port: int | None) -> str:
    """Where the keeper of these flags and settings answers."""
    return url_of(options.settings_from(config, http={"host": host, "port": port}).http)


def not_ready(url: str) -> tuple[str, ...]:
    """Why the keeper at `url` is not ready, by its /readyz or because nobody answers; nothing when it is ready."""
    try:
        status, body = _request(url, "GET", "/readyz", _PROBE_TIMEOUT_S)
    except ConnectionError as e:
        return (f"no keeper answers at {url} ({e})",)
    if status == 200:
        return ()
    lines = body.decode("utf-8", "replace").splitlines()
    reasons = tuple(line.removeprefix("[-] ") for line in lines if line.startswith("[-]"))
    return reasons or (f"{url}/readyz answered {status}",)


def is_keeper(url: str) -> bool:
    """Whether a keeper, and not something else, answers at `url`."""
    try:
        status, body = _request(url, "GET", "/livez?verbose", _PROBE_TIMEOUT_S)
    except ConnectionError:
        return False
    return status in (200, 503) and b"] recovery:" in body


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
    url: str, method: str, path: str, *, token: str | None = None, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One call; the answer's JSON. KeeperError with the keeper's own words when it refuses or does not answer."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    content = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        content = json.dumps(body).encode()
    try:
        status, text = _request(url, method, path, _CALL_TIMEOUT_S, headers, content)
    except ConnectionError as e:
        raise KeeperError(f"No keeper answers at {url} ({e}).") from None
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


def _request(
    url: str,
    method: str,
    path: str,
    timeout_s: float,
    headers: dict[str, str] | None = None,
    content: bytes | None = None,
) -> tuple[int, bytes]:
    """The status and the body. ConnectionError says why when nobody answers with HTTP."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request(method, path, content, {"Connection": "close", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise ConnectionError(str(e) or type(e).__name__) from e
    finally:
        connection.close()
