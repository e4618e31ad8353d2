"""What can be broken, and who says so."""

from __future__ import annotations

import enum
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Kind(enum.StrEnum):
    """A way to break one HTTP request, one notification or one socket."""

    # Of a request: it is not forwarded.
    REQUEST_LOST = "request_lost"
    """Nobody ever answers."""
    REQUEST_RESET = "request_reset"
    HTTP_429 = "http_429"
    HTTP_429_RETRY_AFTER = "http_429_retry_after"
    JSON_429 = "json_429"
    """The limit as a JSON-RPC error, with HTTP 200."""
    HTTP_503 = "http_503"
    HTML = "html"
    """A gateway's page with HTTP 200."""

    # Of a request: it is forwarded, so that a transaction may land although its sender hears nothing good.
    REPLY_LOST = "reply_lost"
    REPLY_RESET = "reply_reset"
    REPLY_502 = "reply_502"
    REPLY_TRUNCATED = "reply_truncated"
    """Well-formed HTTP, half of the JSON."""
    REPLY_CUT_OFF = "reply_cut_off"
    """The connection ends in the middle of the body."""
    REPLY_DRIPPED = "reply_dripped"
    """One byte now and then: never silent for long, never done."""
    REPLY_DELAYED = "reply_delayed"
    REQUEST_DELAYED = "request_delayed"
    WRONG_ID = "wrong_id"
    SHUFFLED = "shuffled"
    """A batch's replies in another order."""
    REPLY_MISSING = "reply_missing"
    """A batch lacks one of its replies."""
    LAGGING = "lagging"
    """Answered as of the finalized slot, whatever commitment was asked for, by a node that is so far behind."""
    LYING = "lying"
    """No signature is known, not even one that landed."""

    # Of a notification.
    NEWS_DROPPED = "news_dropped"
    NEWS_DUPLICATED = "news_duplicated"
    NEWS_SWAPPED = "news_swapped"
    """It comes after the next one."""
    NEWS_DELAYED = "news_delayed"
    """It and all that follow come later."""
    NEWS_GARBAGE = "news_garbage"
    """A message that is no JSON comes before it."""

    # Of a socket, at a notification.
    SOCKET_SILENT = "socket_silent"
    """Open, and nothing comes."""
    SOCKET_CLOSED = "socket_closed"
    """A normal close."""
    SOCKET_ABORTED = "socket_aborted"
    # Of a socket, when it is opened.
    SOCKET_REFUSED = "socket_refused"


REQUEST_KINDS = tuple(k for k in Kind if not k.startswith(("news_", "socket_")))
_OF_BATCHES = frozenset({Kind.SHUFFLED, Kind.REPLY_MISSING})
_LOOK_UPS = frozenset({"getSignatureStatuses", "getTransaction"})
NEWS_KINDS = tuple(k for k in Kind if k.startswith(("news_", "socket_")) and k is not Kind.SOCKET_REFUSED)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `seconds` is how long the kinds that take time take, or the pause that a limit names."""

    kind: Kind
    seconds: float = 0.0


class Faults(Protocol):
    """Says what to break. Each call is one opportunity."""

    def request(self, methods: Sequence[str]) -> Fault | None:
        """An HTTP request with these JSON-RPC methods is about to be forwarded."""
        ...

    def news(self, kind: str) -> Fault | None:
        """A notification is about to be passed on; `kind` is its method, such as programNotification."""
        ...

    def connection(self) -> Fault | None:
        """A WebSocket is being opened."""
        ...


class Script:
    """Faults in the order in which a test gave them; nothing else breaks."""

    def __init__(self) -> None:
        self._requests: deque[tuple[str | None, Fault]] = deque()
        self._news: deque[tuple[str | None, Fault]] = deque()
        self._connections: deque[Fault] = deque()

    def break_request(self, fault: Fault, *, method: str | None = None, times: int = 1) -> None:
        """Break the next `times` requests that have `method` in them, or any."""
        self._requests.extend([(method, fault)] * times)

    def break_news(self, fault: Fault, *, kind: str | None = None, times: int = 1) -> None:
        """Break the next `times` notifications of that kind, or any."""
        self._news.extend([(kind, fault)] * times)

    def refuse_connections(self, times: int = 1) -> None:
        """Refuse the next WebSocket connections."""
        self._connections.extend([Fault(Kind.SOCKET_REFUSED)] * times)

    def stop(self) -> None:
        """Forget what was not used."""
        self._requests.clear()
        self._news.clear()
        self._connections.clear()

    def request(self, methods: Sequence[str]) -> Fault | None:
        """See Faults."""
        return _first_that_fits(self._requests, methods)

    def news(self, kind: str) -> Fault | None:
        """See Faults."""
        return _first_that_fits(self._news, (kind,))

    def connection(self) -> Fault | None:
        """See Faults."""
        return self._connections.popleft() if self._connections else None


def _first_that_fits(queue: deque[tuple[str | None, Fault]], names: Sequence[str]) -> Fault | None:
    for i, (wanted, fault) in enumerate(queue):
        if wanted is None or wanted in names:
            del queue[i]
            return fault
    return None


class Storm:
    """Faults by chance, for a bounded time. The same seed draws the same faults, in the order of the opportunities.

    `rates` is the chance of each kind at each opportunity; `until` is monotonic seconds; `longest_s` bounds every
    fault that takes time, so that the network is clean soon after `until`.
    """

    def __init__(self, seed: str, rates: Mapping[Kind, float], *, until: float, longest_s: float) -> None:
        self._random = random.Random(seed)
        self._rates = dict(rates)
        self._until = until
        self._longest_s = longest_s

    def __repr__(self) -> str:
        return f"Storm({', '.join(f'{kind} {rate:.0%}' for kind, rate in self._rates.items())})"

    def stop(self) -> None:
        """The weather clears now."""
        self._until = 0.0

    def request(self, methods: Sequence[str]) -> Fault | None:
        """See Faults."""
        fault = self._draw(REQUEST_KINDS)
        if fault is None or (fault.kind in _OF_BATCHES and len(methods) < 2):
            return None
        return None if fault.kind is Kind.LYING and _LOOK_UPS.isdisjoint(methods) else fault

    def news(self, kind: str) -> Fault | None:
        """See Faults."""
        return self._draw(NEWS_KINDS)

    def connection(self) -> Fault | None:
        """See Faults."""
        return self._draw((Kind.SOCKET_REFUSED,))

    def _draw(self, kinds: Sequence[Kind]) -> Fault | None:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            return None
        number = self._random.random()
        seconds = self._random.uniform(0.1, 1.0) * self._longest_s
        for kind in kinds:
            number -= self._rates.get(kind, 0.0)
            if number < 0:
                return Fault(kind, min(seconds, left_s))
        return None


class Calm:
    """Nothing breaks."""

    def request(self, methods: Sequence[str]) -> Fault | None:
        """See Faults."""
        return None

    def news(self, kind: str) -> Fault | None:
        """See Faults."""
        return None

    def connection(self) -> Fault | None:
        """See Faults."""
        return None
