"""Calling a running keeper's own routes, with the operator's token. Plain standard library, one request, no retries."""

from __future__ import annotations

import http.client
import json
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from keeper.errors import KeeperError, Misconfigured

TOKEN_VARIABLE: Final = "QUANTDESK_ADMIN_TOKEN"  # noqa: S105 - a name, no token
_TIMEOUT_S: Final = 15.0


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


def call(url: str, method: str, path: str, token: str | None, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One call; the answer's JSON. KeeperError with the keeper's own words when it refuses or does not answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    headers = {"Connection": "close"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    content = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        content = json.dumps(body).encode()
    try:
        connection.request(method, path, body=content, headers=headers)
        answer = connection.getresponse()
        text = answer.read(1 << 20)
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise KeeperError(f"No keeper answers at {url} ({str(e) or type(e).__name__}).") from None
    finally:
        connection.close()
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise KeeperError(f"What answers at {url} is no keeper (status {answer.status}).")
    if answer.status == 404 and found.get("code") == "not_found":
        raise KeeperError("The keeper has no such route: it runs without http.admin_token_sha256.")
    if answer.status >= 400 and "code" in found:
        raise KeeperError(f"The keeper refuses: {found.get('detail', found['code'])}")
    return found
