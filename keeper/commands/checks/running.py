"""Asking a keeper that runs, by its API. Plain standard library: a container's health check calls this often."""

from __future__ import annotations

import http.client
import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from keeper.config.settings import HttpSettings
from keeper.errors import Misconfigured

_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What /readyz said: each reason why not, when it is not."""

    ready: bool
    reasons: tuple[str, ...]


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


def ask_ready(url: str) -> Answer:
    """Ask /readyz. Not ready when nobody answers: then that is the reason."""
    try:
        status, text = _get(url, "/readyz")
    except (OSError, http.client.HTTPException) as e:
        return Answer(False, (f"no keeper answers at {url} ({str(e) or type(e).__name__})",))
    if status == 200:
        return Answer(True, ())
    reasons = tuple(line.removeprefix("[-] ") for line in text.splitlines() if line.startswith("[-]"))
    return Answer(False, reasons or (f"{url}/readyz answered {status}",))


def answering(url: str) -> bool:
    """Whether a keeper, and not something else, answers at `url`."""
    try:
        status, text = _get(url, "/livez?verbose")
    except (OSError, http.client.HTTPException):
        return False
    return status in (200, 503) and "] recovery:" in text


def _get(url: str, path: str) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(65_536).decode("utf-8", "replace")
    finally:
        connection.close()
