"""structlog on standard error: JSON for journald, a readable console for a terminal, and no credential ever."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import structlog

_URL: Final = re.compile(r"\b(?P<scheme>https?|wss?)://(?P<rest>[^\s'\"<>]+)")
# Libraries that log whole URLs, keys included, at INFO or DEBUG.
_TALKATIVE: Final = ("httpx", "httpcore", "websockets", "uvicorn", "asyncio", "apscheduler", "hpack")


def configure_logs(level: str, form: Literal["auto", "json", "console"]) -> None:
    """Set structlog and the standard library's logging up, once, at the start of a command."""
    number = logging.getLevelNamesMapping()[level.upper()]
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        scrub_urls,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer(default=str)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processors=[_strip_meta, renderer], foreign_pre_chain=shared)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def scrub_urls(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Cut every URL in a log line down to its scheme and host: what follows may be a key."""
    for name, value in event.items():
        if isinstance(value, str) and "://" in value:
            event[name] = host_only(value)
    return event


def host_only(text: str) -> str:
    """The text with each URL in it cut down to scheme and host: what follows, or comes before an @, may be a key."""
    return _URL.sub(_cut, text)


def _cut(match: re.Match[str]) -> str:
    authority = re.split(r"[/?#]", match["rest"], maxsplit=1)
    host = authority[0].rpartition("@")[2]
    return f"{match['scheme']}://{host}" + ("/…" if len(authority) > 1 and authority[1] else "")


def _strip_meta(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event
