"""A client of the keeper's HTTP API, as a trader would write one: prepare, sign at home, hand in, look."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import anyio
import httpx
from solders.keypair import Keypair
from solders.message import to_bytes_versioned
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.demo.errors import DemoFailed
from keeper.demo.options import PATIENCE_S
from keeper.domain.decimals import decimal
from keeper.domain.orders import OrderType

_TIMEOUT_S: Final = 20.0
_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Terms:
    """An order to place. Numbers x 1e6; `trailing_ppm` is set for a trailing stop only."""

    market: str
    order_type: OrderType
    side: str
    size_1e6: int
    trigger_1e6: int | None
    limit_1e6: int | None
    trailing_ppm: int | None
    leverage: int


class KeeperApi:
    """The keeper over HTTP; `where` tells the address of the one that works. DemoFailed when it answers with a problem,
    or, unless this is `patient`, not at all.
    """

    def __init__(self, where: Callable[[], str], *, patient: bool = False) -> None:
        self._where = where
        self._patience_s = PATIENCE_S if patient else 0.0
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    async def place(self, trader: Keypair, terms: Terms) -> Pubkey:
        """Prepare an order, sign it with the trader's key, hand it in; gives the order's address.

        When it returns the transaction is journaled and being landed; it may not be on chain yet.
        """
        body = {
            "user": str(trader.pubkey()),
            "market": terms.market,
            "order_type": terms.order_type.word,
            "side": terms.side,
            "size": decimal(terms.size_1e6),
            "trigger_price": _maybe(terms.trigger_1e6),
            "limit_price": _maybe(terms.limit_1e6),
            "trailing_distance": _maybe(terms.trailing_ppm),
            "leverage": terms.leverage,
        }
        prepared = await self._ask("POST", "/v1/orders", body)
        await self._hand_in(trader, prepared)
        return Pubkey.from_string(prepared["order"])

    async def cancel(self, trader: Keypair, order: Pubkey) -> None:
        """Prepare the order's cancel, sign it and hand it in."""
        await self._hand_in(trader, await self._ask("POST", f"/v1/orders/{order}/cancel"))

    async def _hand_in(self, trader: Keypair, prepared: Mapping[str, Any]) -> None:
        message = VersionedTransaction.from_bytes(base64.b64decode(prepared["transaction"])).message
        signature = trader.sign_message(to_bytes_versioned(message))
        signed = bytes(VersionedTransaction.populate(message, [signature]))
        body = {"id": prepared["id"], "signed_transaction": base64.b64encode(signed).decode()}
        await self._ask("POST", "/v1/orders/execute", body)

    async def markets(self) -> list[dict[str, Any]]:
        """Every market that the keeper watches."""
        found: list[dict[str, Any]] = (await self._ask("GET", "/v1/markets"))["markets"]
        return found

    async def orders(self) -> list[dict[str, Any]]:
        """Every order that the keeper knows, newest first."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            query = {"limit": _PAGE} if cursor is None else {"limit": _PAGE, "cursor": cursor}
            page = await self._ask("GET", "/v1/orders", query=query)
            found += page["orders"]
            cursor = page["cursor"]
            if cursor is None:
                return found

    async def order(self, address: str) -> dict[str, Any]:
        """One order with its attempts."""
        return await self._ask("GET", f"/v1/orders/{address}")

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, query: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            response = await self._answer(method, path, body, query)
        except httpx.HTTPError as e:
            raise DemoFailed(f"The keeper does not answer {method} {path}: {type(e).__name__}.") from e
        if response.is_error:
            raise DemoFailed(f"The keeper refuses {method} {path}: HTTP {response.status_code} {response.text[:300]}")
        answer: dict[str, Any] = response.json()
        return answer

    async def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, Any] | None
    ) -> httpx.Response:
        """While one keeper takes over from another, a question is asked again."""
        until_s = anyio.current_time() + self._patience_s
        while True:
            try:
                return await self._http.request(method, self._where() + path, json=body, params=query)
            except httpx.TransportError:
                if method != "GET" or anyio.current_time() > until_s:
                    raise
            await anyio.sleep(0.1)


def _maybe(value_1e6: int | None) -> str | None:
    return None if value_1e6 is None else decimal(value_1e6)
