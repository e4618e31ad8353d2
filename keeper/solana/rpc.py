"""One JSON-RPC endpoint: requests out, answers or named errors back.

Why not solana-py's AsyncClient here: its request id is always 0 and replies are not matched, codes it does not
list come back as an int "result", solders panics on some error replies, and its timeout is per read, so that a
drip-fed reply can hold a call for ever. Here a call has one total deadline, replies are matched by id, and
whatever goes wrong is one of `keeper.domain.errors`, inside the call that it belongs to.

No URL leaves this module: an endpoint is named by its label, because URLs hold keys.
"""

from __future__ import annotations

import email.utils
import itertools
import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anyio
import msgspec

from keeper.domain.errors import BehindNode, ChainError, MalformedReply, NotServed, RateLimited, Rejected, Transient
from keeper.solana.account_stream import NOT_JSON, AccountSplitter, KeyedAccount
from keeper.solana.http1 import Begun, Response

# Agave refuses request bodies above 50 KiB by default; a batch is cut to stay under it.
MAX_BODY_BYTES: Final = 50 * 1024
_LONGEST_RETRY_AFTER_S: Final = 60.0

SENDING: Final = {
    "encoding": "base64",
    "skipPreflight": True,
    # The commitment of the blockhash, even when preflight is skipped (landing rules).
    "preflightCommitment": "confirmed",
    "maxRetries": 0,
}
"""How a signed transaction is handed to a node."""

# JSON-RPC error codes by what the caller does next. Unlisted codes are transient: for a send that means
# unknown, which is the safe reading.
_REJECTED_CODES: Final = frozenset({-32002, -32003, -32013, -32015, -32600, -32602})
_NOT_SERVED_CODES: Final = frozenset({-32601})
_NOT_SERVED_STATUSES: Final = frozenset({401, 402, 403, 404, 405, 410, 451})
_RATE_CODES: Final = frozenset({429, -32429})
_BEHIND_CODES: Final = frozenset({-32004, -32014, -32016})


@dataclass(frozen=True, slots=True)
class Call:
    """One JSON-RPC call: a method and its positional parameters."""

    method: str
    params: tuple[Any, ...] = ()


Reply = Any | ChainError
"""A call's result, or the error that it met: in a batch one call's error is not another's."""


class Transport(Protocol):
    """The way to post bytes; in a daemon `keeper.solana.http1`."""

    def begin(self, body: bytes) -> Begun | None:
        """Write a request now if a connection rests; what is given goes to `post` with the same body."""
        ...

    async def post(self, body: bytes, begun: Begun | None = None) -> tuple[int, dict[str, str], bytes]:
        """Post a JSON body: status, lower-case headers and the whole reply. OSError-like errors are Transient."""
        ...

    def stream(self, body: bytes) -> AsyncGenerator[Response | bytes]:
        """Post, and yield first the Response without a body, then the body in pieces as they arrive."""
        ...

    async def aclose(self) -> None:
        """Give the connections back."""
        ...


@dataclass(frozen=True, slots=True)
class BegunBatch:
    """A batch that is on the wire already: its calls' ids and bytes, the whole body, and its request."""

    chunk: Sequence[tuple[int, bytes]]
    body: bytes
    request: Begun


class Endpoint:
    """One RPC endpoint.

    `call` gives the result or raises; `batch` gives a reply per call, in the calls' order. Both have one
    total deadline in seconds, after which the outcome is unknown (Transient).
    """

    def __init__(self, label: str, transport: Transport) -> None:
        self.label = label
        self.transport = transport
        self._ids = itertools.count(1)

    def __repr__(self) -> str:
        return f"Endpoint({self.label})"

    async def aclose(self) -> None:
        """Close its connections."""
        await self.transport.aclose()

    async def call(self, method: str, *params: Any, deadline_s: float) -> Any:
        """One call's result. Raises a ChainError named by what to do next."""
        request_id = next(self._ids)
        body = _encode(request_id, Call(method, params))
        document = await self._exchange(body, deadline_s)
        if not isinstance(document, dict) or document.get("id") != request_id:
            # An error that the node could not match to a request has a null id.
            if isinstance(document, dict) and document.get("id") is None and "error" in document:
                raise _translate(document["error"], self.label)
            raise MalformedReply(f"{self.label}: the reply is not the one to {method}")
        reply = self._reply(document)
        if isinstance(reply, ChainError):
            raise reply
        return reply

    async def accounts(
        self, method: str, *params: Any, deadline_s: float
    ) -> AsyncGenerator[tuple[int, list[KeyedAccount]]]:
        """A call whose result is a context and a list of accounts, too long to be held whole: the context's slot
        with some of the accounts at a time, as they arrive; at least once. The deadline is the whole exchange's.

        A ChainError may come after part of the list was given.
        """
        request_id = next(self._ids)
        ends = time.monotonic() + deadline_s
        splitter = AccountSplitter(request_id)
        refused: Response | None = None
        refusal: list[bytes] = []
        async with aclosing(self.transport.stream(_encode(request_id, Call(method, params)))) as pieces:
            while True:
                with anyio.move_on_after(ends - time.monotonic()):
                    try:
                        piece = await anext(pieces)
                    except StopAsyncIteration:
                        break
                    if isinstance(piece, Response):
                        refused = None if piece.status == 200 else piece
                    elif refused is not None:
                        refusal.append(piece)
                    else:
                        some = splitter.feed(piece)
                        if some:
                            yield splitter.slot, some
                    continue
                raise Transient(f"{self.label}: no complete answer within {deadline_s:.1f} s")
        if refused is not None:
            self._check_status(refused.status, refused.headers, b"".join(refusal))
        document, rest = splitter.close()
        if document is None:
            yield splitter.slot, rest
            return
        if not isinstance(document, dict) or "error" not in document:
            raise MalformedReply(f"{self.label}: the reply is not the one to {method}")
        raise _translate(document["error"], self.label)

    async def batch(self, calls: Sequence[Call], *, deadline_s: float, begun: BegunBatch | None = None) -> list[Reply]:
        """The calls in as few requests as the body limit allows; one failed request fails only its calls."""
        if begun is not None:
            try:
                return await self._batch_one(begun.chunk, deadline_s, begun)
            except ChainError as e:
                return [e] * len(calls)
        replies: list[Reply] = []
        for chunk in self._chunks(calls):
            try:
                replies += await self._batch_one(chunk, deadline_s)
            except ChainError as e:
                replies += [e] * len(chunk)
        return replies

    def _chunks(self, calls: Sequence[Call]) -> list[list[tuple[int, bytes]]]:
        chunks: list[list[tuple[int, bytes]]] = []
        size = MAX_BODY_BYTES
        for call in calls:
            request_id = next(self._ids)
            encoded = _encode(request_id, call)
            if size + len(encoded) + 1 > MAX_BODY_BYTES - 2:
                chunks.append([])
                size = 0
            chunks[-1].append((request_id, encoded))
            size += len(encoded) + 1
        return chunks

    async def _batch_one(
        self, chunk: Sequence[tuple[int, bytes]], deadline_s: float, begun: BegunBatch | None = None
    ) -> list[Reply]:
        if begun is None:
            document = await self._exchange(_batch_body(chunk), deadline_s)
        else:
            document = await self._exchange(begun.body, deadline_s, begun.request)
        if isinstance(document, dict) and "error" in document:
            raise _translate(document["error"], self.label)
        if not isinstance(document, list):
            raise MalformedReply(f"{self.label}: the reply to a batch is not a list")
        by_id = {
            entry["id"]: entry for entry in document if isinstance(entry, dict) and isinstance(entry.get("id"), int)
        }
        return [
            self._reply(by_id[request_id])
            if request_id in by_id
            else MalformedReply(f"{self.label}: a batch lacks the reply {request_id}")
            for request_id, _ in chunk
        ]

    def _reply(self, document: dict[str, Any]) -> Reply:
        if document.get("error") is not None:
            return _translate(document["error"], self.label)
        if "result" not in document:
            return MalformedReply(f"{self.label}: a reply with neither result nor error")
        return document["result"]

    async def _exchange(self, body: bytes, deadline_s: float, begun: Begun | None = None) -> Any:
        started = time.monotonic()
        with anyio.move_on_after(deadline_s) as scope:
            status, headers, content = await self.transport.post(body, begun)
            self._check_status(status, headers, content)
            try:
                return msgspec.json.decode(content)
            except NOT_JSON:
                raise MalformedReply(f"{self.label}: HTTP {status} without JSON in it") from None
        assert scope.cancelled_caught
        raise Transient(f"{self.label}: no complete answer within {time.monotonic() - started:.1f} s")

    def _check_status(self, status: int, headers: dict[str, str], content: bytes) -> None:
        if status == 429:
            raise RateLimited(f"{self.label}: HTTP 429", retry_after_s=_retry_after(headers))
        if status >= 500:
            raise Transient(f"{self.label}: HTTP {status}")
        if status in _NOT_SERVED_STATUSES:
            raise NotServed(f"{self.label}: HTTP {status}: check the key and the path in its URL")
        if status >= 400 and not content.lstrip().startswith((b"{", b"[")):
            raise Rejected(f"{self.label}: HTTP {status}", code=status)


def _batch_body(chunk: Sequence[tuple[int, bytes]]) -> bytes:
    return b"[" + b",".join(encoded for _, encoded in chunk) + b"]"


def _encode(request_id: int, call: Call) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "method": call.method, "params": call.params})


def _retry_after(headers: dict[str, str]) -> float | None:
    """Seconds from a Retry-After header in either of its forms."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return _bounded(seconds)


def _bounded(seconds: float) -> float | None:
    """No endpoint can bench itself for ever."""
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S) if math.isfinite(seconds) else None


def _translate(error: Any, label: str) -> ChainError:
    """A JSON-RPC error object as one of ours. `data` may be missing or of any shape."""
    if not isinstance(error, dict):
        return MalformedReply(f"{label}: an error that is not an object")
    number = error.get("code")
    code = number if isinstance(number, int) else None
    message = str(error.get("message", ""))[:300]
    raw_data = error.get("data")
    data: dict[str, Any] = raw_data if isinstance(raw_data, dict) else {}
    text = f"{label}: {message} ({code})"
    if code in _RATE_CODES or (code == -32005 and "rate" in message.lower()):
        wait = data.get("retry_after", data.get("retryAfter"))
        return RateLimited(text, retry_after_s=_bounded(wait) if isinstance(wait, int | float) else None)
    if code in _BEHIND_CODES:
        return BehindNode(text)
    if code in _NOT_SERVED_CODES:
        return NotServed(text)
    if code in _REJECTED_CODES:
        logs = data.get("logs")
        return Rejected(
            text,
            code=code,
            err=data.get("err"),
            logs=tuple(str(line) for line in logs) if isinstance(logs, list) else (),
        )
    return Transient(text)
