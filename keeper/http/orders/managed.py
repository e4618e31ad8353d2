"""Managed wallets: the keeper holds the key and places orders with it, within what the operator allows. Custodial.

Off unless configured. A wallet's orders go the same way as anybody's: prepared, signed, checked and simulated before
they are relayed; only that the signature is made here.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.decimals import decimal, parse_1e6
from keeper.domain.errors import ChainError, JournalError
from keeper.http.edge.answering import OrderPath, part
from keeper.http.edge.clients import Tokens
from keeper.http.edge.costs import WRITE, charge
from keeper.http.edge.forwarding import Forwarding
from keeper.http.edge.idempotency import KEY_HEADER, key_of
from keeper.http.edge.openapi import described
from keeper.http.edge.problems import LANDING_PROBLEMS, TERMS_PROBLEMS, Problem
from keeper.http.models import (
    EXAMPLE_TERMS,
    CancelOrder,
    ExecuteOrder,
    ManagedOrder,
    PlaceOrder,
    PreparedTransaction,
    SubmittedTransaction,
)
from keeper.http.orders.changing import Changing
from keeper.http.orders.preparing import Preparing
from keeper.http.orders.relaying import Relaying
from keeper.http.orders.routes import LOCATION, accepted
from keeper.http.ports import ApiPorts
from keeper.journal.ops import CountOfDay, JournalConflict, LimitReached, MovePrepared
from keeper.journal.records import PreparedStatus
from keeper.solana.transactions import Signer

_DAY_S: Final = 86_400
_KEY: Final = ("invalid_idempotency_key",)
_PLACE_AGAIN: Final = (
    "Look at the wallet's orders before you send it again: that places another one, because it has no Idempotency-Key."
)
_AGAIN_WITH_KEY: Final = "Send it again with the same Idempotency-Key: that is one order."
_CANCEL_AGAIN: Final = "Send it again: an order is cancelled once."
_CANCEL: Final = ("order_not_found", "order_not_pending", "unauthorized_user", "simulation_failed")
WalletPath = Annotated[str, Meta(max_length=32, description="The wallet's name in the keeper's settings.")]


@dataclass(frozen=True, slots=True)
class ManagedWallet:
    """A wallet whose key the operator gave to the keeper, and what may be done with it."""

    name: str
    signer: Signer
    markets: frozenset[str]
    max_size_1e6: int
    orders_per_day: int
    tokens: Tokens


class Managed:
    """Places and cancels orders of managed wallets."""

    def __init__(
        self,
        ports: ApiPorts,
        wallets: Sequence[ManagedWallet],
        preparing: Preparing,
        changing: Changing,
        relaying: Relaying,
    ) -> None:
        self._ports = ports
        self._wallets = {wallet.name: wallet for wallet in wallets}
        self._preparing = preparing
        self._changing = changing
        self._relaying = relaying

    def __repr__(self) -> str:
        return f"Managed({sorted(self._wallets)})"

    def wallet(self, name: str, authorization: str | None) -> ManagedWallet:
        """The wallet, for one who may use it. A wallet that there is not is refused like one that is not theirs."""
        if not self._wallets:
            raise Problem("not_found", "There is nothing at this path.")
        wallet = self._wallets.get(name)
        if wallet is None or wallet.tokens.name_of(authorization) is None:
            raise Problem("unauthorized", "Send a bearer token that may use this wallet.")
        return wallet

    async def place(self, wallet: ManagedWallet, body: ManagedOrder, key: str | None) -> SubmittedTransaction:
        """Prepare, sign and relay an order. The same key and body again get the same order."""
        order = PlaceOrder(user=str(wallet.signer.address), **msgspec.structs.asdict(body))
        _check_allowed(wallet, order)
        try:
            prepared = await self._preparing.place(order, _own_key(wallet, key), self._counted(wallet, 1))
        except LimitReached as e:
            raise Problem(
                "daily_limit",
                f"This wallet may place {wallet.orders_per_day} orders a day (UTC).",
                retry_after_s=max(1, _DAY_S - int(self._ports.now()) % _DAY_S),
            ) from e
        try:
            return await self._relay(wallet, prepared.answer)
        except (Problem, ChainError, JournalError):
            await self._give_back(wallet, prepared.answer.id)
            raise

    async def cancel(self, wallet: ManagedWallet, order: Pubkey, key: str | None) -> SubmittedTransaction:
        """Prepare, sign and relay the cancel of one of the wallet's own orders."""
        prepared = (await self._changing.cancel(order, CancelOrder(), _own_key(wallet, key))).answer
        if prepared.summary.user != str(wallet.signer.address):
            raise Problem("unauthorized_user", "The order is not this wallet's.", field="order")
        return await self._relay(wallet, prepared)

    async def _relay(self, wallet: ManagedWallet, prepared: PreparedTransaction) -> SubmittedTransaction:
        message = VersionedTransaction.from_bytes(base64.b64decode(prepared.transaction)).message
        wire = wallet.signer.sign_prepared(message)
        return await self._relaying.execute(
            ExecuteOrder(id=prepared.id, signed_transaction=base64.b64encode(wire).decode())
        )

    async def _give_back(self, wallet: ManagedWallet, prepared_id: str) -> None:
        """An order that was not relayed does not count. It can't be relayed later either: the same request again
        prepares another one, and counts that.
        """
        never = MovePrepared(prepared_id, PreparedStatus.EXPIRED, expected=PreparedStatus.PREPARED)
        self._preparing.forget(prepared_id)
        with contextlib.suppress(JournalConflict):  # it was relayed, or given back before: nothing to give back
            await self._ports.journal.commit(never, self._counted(wallet, -1))

    def _counted(self, wallet: ManagedWallet, n: int) -> CountOfDay:
        """So many orders more today, to be kept in the same commit as the order: what is not counted is not kept, and
        can't be relayed. The journal says whether that is too many, because other keepers count there, too.
        """
        return CountOfDay(_counter(wallet), self._today(), n, wallet.orders_per_day if n > 0 else None)

    def _today(self) -> str:
        return dt.datetime.fromtimestamp(self._ports.now(), dt.UTC).date().isoformat()


def _check_allowed(wallet: ManagedWallet, order: PlaceOrder) -> None:
    if order.market not in wallet.markets:
        raise Problem("not_allowed", f"This wallet may trade {', '.join(sorted(wallet.markets))}.", field="market")
    try:
        size_1e6 = parse_1e6(order.size)
    except ValueError:
        return  # which `terms` says better
    if size_1e6 > wallet.max_size_1e6:
        raise Problem("not_allowed", f"This wallet's orders have at most {decimal(wallet.max_size_1e6)}.", field="size")


def _own_key(wallet: ManagedWallet, key: str | None) -> str | None:
    """Apart from everybody else's keys, which have no spaces."""
    return None if key is None else f"wallet {wallet.name} {key}"


def _counter(wallet: ManagedWallet) -> str:
    return f"managed_orders {wallet.name}"


def _allowed(request: Request) -> ManagedWallet:
    """The wallet of the path, for one who may use it."""
    return part(request, Managed).wallet(request.path_params["wallet"], request.headers.get("authorization"))


def _guard(request: Request) -> None:
    _allowed(request)
    charge(request, WRITE)


@described(
    "Place an order with a managed wallet",
    {202: SubmittedTransaction},
    example=EXAMPLE_TERMS,
    problems=[*_KEY, "not_allowed", "daily_limit", *TERMS_PROBLEMS, "order_exists", *LANDING_PROBLEMS],
    headers=KEY_HEADER,
    answer_headers=LOCATION,
    guard=_guard,
)
async def place_wallet_order(request: Request, wallet: WalletPath, body: ManagedOrder) -> Response:
    """The keeper signs with the wallet's key, which its operator gave it, and relays the order."""
    managed, allowed, key = part(request, Managed), _allowed(request), key_of(request)
    again = _PLACE_AGAIN if key is None else _AGAIN_WITH_KEY

    async def markets() -> list[Pubkey]:
        market = part(request, ApiPorts).desk.market(body.market)
        return [] if market is None else [market.address]

    elsewhere = await part(request, Forwarding).answer(request, markets, again)
    return elsewhere or accepted(await managed.place(allowed, body, key))


@described(
    "Cancel an order of a managed wallet",
    {202: SubmittedTransaction},
    problems=[*_KEY, *_CANCEL, *LANDING_PROBLEMS],
    headers=KEY_HEADER,
    answer_headers=LOCATION,
    guard=_guard,
)
async def cancel_wallet_order(request: Request, order: OrderPath, wallet: WalletPath) -> Response:
    """The keeper signs the cancel with the wallet's key and relays it."""
    managed, allowed, key = part(request, Managed), _allowed(request), key_of(request)

    async def markets() -> list[Pubkey]:
        found, _ = await part(request, Changing).known(order)
        return [found.market]

    elsewhere = await part(request, Forwarding).answer(request, markets, _CANCEL_AGAIN)
    return elsewhere or accepted(await managed.cancel(allowed, order, key))
