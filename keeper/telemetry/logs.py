"""structlog on standard error: JSON for journald, a readable console for a terminal, and no credential ever."""

from __future__ import annotations

import asyncio
import atexit
import datetime
import logging
import sys
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, Final, Literal, TextIO, cast

import msgspec
import structlog

from keeper.domain.secrets import host_only
from keeper.telemetry.repeats import LimitRepeats

_log = structlog.get_logger("keeper")
_plain_json: Callable[[str], object] | None = None
"""Where lines of JSON go; None while lines go to a console, or nothing is configured."""


class _Lines:
    """Standard error, with one write for all the lines of one turn of the event loop: a burst has thousands a second.

    A flush writes all lines that wait, in the order in which they came. Every logger flushes after each line, except
    `write` below. Outside of an event loop no line waits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._due_in: asyncio.AbstractEventLoop | None = None
        atexit.register(self.flush)

    def write(self, text: str) -> int:
        """Take a line; it is written at the event loop's next turn."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        with self._lock:
            self._waiting.append(text)
            due, self._due_in = self._due_in, loop
        if loop is None:
            self.flush()
        elif due is not loop:
            loop.call_soon(self.flush)
        return len(text)

    def flush(self) -> None:
        """Write the lines that wait."""
        with self._lock:
            waiting, self._waiting, self._due_in = self._waiting, [], None
            if waiting:
                sys.stderr.write("".join(waiting))
                sys.stderr.flush()


_lines: Final = _Lines()

_LEVELS: Final = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}
# Libraries that log whole URLs, keys included, at INFO or DEBUG.
_VERBOSE: Final = ("httpx", "httpcore", "websockets", "uvicorn", "asyncio", "apscheduler", "hpack")


def configure_logs(level: str, form: Literal["auto", "json", "console"]) -> None:
    """Set up structlog and the standard library's logging, once, at the start of a command."""
    set_level(level)
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
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    structlog.configure(
        processors=[_drop_quiet, LimitRepeats(), *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _lines)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_lines)
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[meta, renderer], foreign_pre_chain=shared))
    handler.addFilter(_threshold)
    handler.addFilter(_LibrariesRepeats())
    global _plain_json
    _plain_json = None if console else _lines.write
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """The least level that is written from now on. It may change while the keeper runs."""
    _threshold.number = logging.getLevelNamesMapping()[level.upper()]


def write(level: str, event: str, fields: dict[str, Any]) -> None:
    """One line, if its level is written: as structlog would make it, but without its processors when they have nothing
    to add, because some lines are written for every execution.
    """
    if not wants(level):
        return
    if _plain_json is None or structlog.contextvars.get_contextvars():
        getattr(_log, level)(event, **fields)
        return
    fields["event"] = event
    fields["level"] = level
    fields["timestamp"] = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    _plain_json(_json(scrub_urls(None, "", fields)) + "\n")


def wants(level: str) -> bool:
    """Whether a line of this level is written. Ask before making a line, which costs more."""
    return _LEVELS.get(level, logging.ERROR) >= _threshold.number


def _json(event: MutableMapping[str, Any], **_options: Any) -> str:
    # It takes a fifth of the time of the standard library's encoder; an execution writes about five lines.
    return msgspec.json.encode(event, enc_hook=str).decode()


class _Threshold(logging.Filter):
    number = logging.INFO

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self.number


_threshold: Final = _Threshold()


class _LibrariesRepeats(logging.Filter):
    """The same limit for what libraries log: whoever calls can make a server repeat itself."""

    def __init__(self) -> None:
        super().__init__()
        self._limit = LimitRepeats()

    def filter(self, record: logging.LogRecord) -> bool:
        fields: dict[str, Any] = {"event": record.msg}
        try:
            self._limit(None, record.levelname, fields)
        except structlog.DropEvent:
            return False
        if "suppressed" in fields:
            record.msg, record.args = f"{record.getMessage()} ({fields['suppressed']} such were not written)", ()
        return True


def _drop_quiet(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # structlog's own filter is baked into the logger's class, and loggers are cached when first used.
    if not wants(method):
        raise structlog.DropEvent
    return event


def scrub_urls(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Cut every URL in a log line down to its scheme and host: what follows may be a key."""
    for name, value in event.items():
        if isinstance(value, str) and "://" in value:
            event[name] = host_only(value)
    return event
