"""A request that only the keeper of its order's market can carry out is handed to that one, and its answer passed on.

It goes whole, once at most, and with none of the headers that are not meant for the other keeper. Each bound ends in a
problem that says whether anything may have been done.
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

import anyio
import anyio.to_thread
import httpx
import structlog
from solders.pubkey import Pubkey
from starlette.requests import Request
from starlette.responses import Response

from keeper.http.edge.answering import client
from keeper.http.edge.clients import ApiLimits
from keeper.http.edge.elsewhere import FORWARDED, REQUEST_ID, UNSEALED, Elsewhere, Seal, WhereElse, target_of
from keeper.http.edge.problems import MEDIA_TYPE, Problem

BODY: Final = "body"
"""In a request's state: the body as it came, once it was read."""

_GO_WITH_IT: Final = ("Content-Type", "Authorization", "Idempotency-Key")
_COME_BACK: Final = ("Content-Type", "Retry-After", "WWW-Authenticate", "Cache-Control", "Idempotency-Replayed")
_ANSWERS: Final = ("application/json", MEDIA_TYPE)
_CONNECT_S: Final = 2.0
_IDLE_S: Final = 2.0
"""Shorter than a keeper keeps a silent connection, which must not be closed while a request is on its way."""
_MOST_BYTES: Final = 1 << 20

_log: Any = structlog.get_logger("keeper.http")


class Forwarding:
    """Hands requests to other keepers. `where` says who works on a market; None where one keeper works on all.
    `counted` is told how each went, in a word.
    """

    def __init__(
        self, where: WhereElse | None, seal: Seal | None, limits: ApiLimits, counted: Callable[[str], None]
    ) -> None:
        self._where = where
        self._limits = limits
        self._seal = seal
        self._counted = counted
        self._under_way: Counter[str] = Counter()
        self._making = anyio.Lock()
        self._transport: httpx.AsyncHTTPTransport | None = None

    def __repr__(self) -> str:
        return f"Forwarding({self._under_way.total()} under way)"

    async def aclose(self) -> None:
        """Let go of the connections."""
        if self._transport is not None:
            await self._transport.aclose()

    async def answer(
        self,
        request: Request,
        markets: Callable[[], Awaitable[Collection[Pubkey]]],
        again: str,
        *,
        wait_s: float = 0.0,
    ) -> Response | None:
        """The answer of the keeper that works on the request's `markets`; None when that is this one.

        `again` says what happens when the same is asked again, for whoever does not hear what became of it. `wait_s`
        is how long the other may take beyond what it needs. Raises Problem: `several_holders`, or `not_holder` when
        the request has been forwarded before, nobody works on the market, or who does can't be asked.
        """
        if self._where is None:
            return None
        found = dict.fromkeys(self._where(market) for market in await markets())
        if len(found) > 1:
            raise _several(found)
        where = next(iter(found), None)
        if where is None:
            return None
        if not where.holder:
            raise _not_holder(where, "No keeper works on the order's market right now. Ask again.")
        if request.headers.get(FORWARDED) is not None:
            self._counted("twice")
            raise _not_holder(where, f"{where.holder} works on the order's market, and not this keeper. Ask again.")
        if not where.url:
            detail = f"{where.holder} works on the order's market, and where its API is is not known. Ask that one."
            raise _not_holder(where, detail)
        if self._under_way[where.url] >= self._limits.forwards:
            # Counted by keeper: one that says nothing must not take the places of requests to the others.
            self._counted("busy")
            detail = f"{where.holder} works on the order's market, and too many wait for its answers. Ask again."
            raise _not_holder(where, detail)
        self._under_way[where.url] += 1
        try:
            return await self._handed_to(where, request, again, wait_s)
        finally:
            self._under_way[where.url] -= 1
            if not self._under_way[where.url]:
                del self._under_way[where.url]

    async def _handed_to(self, where: Elsewhere, request: Request, again: str, wait_s: float) -> Response:
        try:
            with anyio.fail_after(_CONNECT_S + self._limits.forward_s + wait_s):
                answer = await self._asked(self._made(where, request, wait_s))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as e:
            self._told("unreachable", where, e)
            detail = f"{where.holder} works on the order's market, and can't be reached. Nothing was done: ask again."
            raise _not_holder(where, detail) from e
        except (httpx.HTTPError, TimeoutError, OSError) as e:
            self._told("lost", where, e)
            raise _not_holder(
                where,
                f"{where.holder} works on the order's market. It was asked, and did not answer: it may have done it. "
                f"{again}",
                perhaps=True,
            ) from e
        if answer is None:
            self._told("lost", where, "what answers is no keeper")
            raise _not_holder(
                where,
                f"{where.holder} works on the order's market, and what answers where its API should be is no keeper: "
                "look at its cluster.url.",
                perhaps=True,
            )
        self._counted("answered")
        return answer

    def _made(self, where: Elsewhere, request: Request, wait_s: float) -> httpx.Request:
        state, target = request.scope["state"], target_of(request.scope)
        request_id = state[REQUEST_ID]
        mark = UNSEALED if self._seal is None else self._seal.mark(client(request), request.method, target, request_id)
        headers = [(name, value) for name in _GO_WITH_IT for value in request.headers.getlist(name)]
        headers += [(REQUEST_ID, request_id), (FORWARDED, mark), ("Accept-Encoding", "identity")]
        timeout = httpx.Timeout(self._limits.forward_s + wait_s, connect=_CONNECT_S, write=_CONNECT_S)
        return httpx.Request(
            request.method,
            where.url,
            headers=headers,
            content=state.get(BODY, b""),
            extensions={"timeout": timeout.as_dict(), "target": target},  # byte for byte: the seal is of it
        )

    async def _asked(self, request: httpx.Request) -> Response | None:
        """What the other keeper answers; None when that is no answer of a keeper's.

        The transport alone: a client would follow redirects, keep cookies, and ask the environment for proxies.
        """
        async with self._making:
            if self._transport is None:
                # In a thread: it reads every certificate that the system trusts, and executions wait for the loop.
                trusted = await anyio.to_thread.run_sync(ssl.create_default_context)
                limits = httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=_IDLE_S)
                self._transport = httpx.AsyncHTTPTransport(verify=trusted, trust_env=False, limits=limits)
        response = await self._transport.handle_async_request(request)
        try:
            media_type = response.headers.get("content-type", "").partition(";")[0]
            if response.status_code < 200 or 300 <= response.status_code < 400 or media_type not in _ANSWERS:
                return None
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > _MOST_BYTES:
                    return None
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()
        headers = {name: response.headers[name] for name in _COME_BACK if name in response.headers}
        location = response.headers.get("location", "")
        if location.startswith("/") and not location.startswith("//"):
            headers["Location"] = location
        return Response(bytes(content), response.status_code, headers)

    def _told(self, how: str, where: Elsewhere, error: Exception | str) -> None:
        self._counted(how)
        detail = str(error) or type(error).__name__
        _log.warning("http.not_forwarded", holder=where.holder, url=where.url, how=how, detail=detail)


def _not_holder(where: Elsewhere, detail: str, *, perhaps: bool = False) -> Problem:
    more = {"holder": where.holder or None, "url": where.url or None, "may_be_done": perhaps}
    return Problem("not_holder", detail, retry_after_s=1, more=more)


def _several(found: Collection[Elsewhere | None]) -> Problem:
    names = sorted("this keeper" if where is None else where.holder or "nobody" for where in found)
    return Problem(
        "several_holders",
        f"The transaction cancels orders on markets of several keepers ({', '.join(names)}). Prepare a cancel for each "
        "order, and send each by itself.",
    )
