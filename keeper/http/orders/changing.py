"""Changing what rests: cancel an order, all orders of a wallet, or put another in an order's place."""

from __future__ import annotations

from typing import Final

from solders.pubkey import Pubkey
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.orders import NOBODY, Order, OrderState
from keeper.http.edge.answering import OrderPath, address, answer, part, type_of
from keeper.http.edge.costs import WRITE, charge
from keeper.http.edge.idempotency import KEY_HEADER, REPLAYED_HEADER, fingerprint, key_of
from keeper.http.edge.openapi import described
from keeper.http.edge.problems import CHAIN_PROBLEMS, TERMS_PROBLEMS, Problem
from keeper.http.models import (
    EXAMPLE_WALLET,
    AmendOrder,
    CancelAll,
    CancelOrder,
    PreparedCancels,
    PreparedTransaction,
)
from keeper.http.orders.preparing import Asked, Prepared, Preparing, handed_out
from keeper.http.orders.terms import amended
from keeper.http.ports import ApiPorts
from keeper.http.reading.markets import market_filter
from keeper.journal.ops import NoteOrder
from keeper.journal.records import OrderRow, PreparedRow
from keeper.venue.placing import MOST_CANCELS, cancel

_MOST_AT_ONCE: Final = 128
_MOST_TRANSACTIONS: Final = 32
"""Half of what may wait for one wallet's signature."""
_LEFT_ALONE: Final = frozenset({OrderState.PREPARED, OrderState.SUBMITTED, OrderState.CANCELLING})
"""Not on chain yet, or about to be cancelled: a cancel of it would fail, and with it all that go together."""
_NOT_PENDING: Final = ("order_not_found", "order_not_pending", "unauthorized_user")


class Changing:
    """Prepares what cancels orders. The book and the journal say what they are: the chain is not asked, so that nobody
    can make it be.
    """

    def __init__(self, ports: ApiPorts, preparing: Preparing) -> None:
        self._ports = ports
        self._preparing = preparing

    async def cancel(self, order: Pubkey, body: CancelOrder, key: str | None) -> Prepared:
        """Prepare `cancel_order` for a pending order, for its own user."""
        found, row = await self.known(order)

        async def prepare(asked: Asked) -> PreparedTransaction:
            self._refuse_unless_pending(found, row)
            return await self._preparing.keep(self._cancelling([found], body, asked), asked, *self._noted(found, row))

        asked_for = fingerprint(f"cancel {order}", body)
        return await self._preparing.once(str(found.user), key, asked_for, prepare)

    async def amend(self, order: Pubkey, body: AmendOrder, key: str | None) -> Prepared:
        """Prepare a transaction that cancels a pending order and places another in its stead, for its own user."""
        found, row = await self.known(order)

        async def prepare(asked: Asked) -> PreparedTransaction:
            self._refuse_unless_pending(found, row)
            if not self._ports.program.has_order_ids:
                raise Problem(
                    "order_exists", "The deployed program knows one order a wallet, ever: none can follow it."
                )
            market = self._ports.desk.market(found.market)
            if market is None:
                raise Problem("unknown_market", "The keeper does not watch the order's market.")
            new = await self._preparing.placing(amended(found, body, market.symbol), asked, replaces=order)
            return await self._preparing.keep(new, asked, *self._noted(found, row))

        asked_for = fingerprint(f"amend {order}", body)
        return await self._preparing.once(str(found.user), key, asked_for, prepare)

    async def cancel_all(self, body: CancelAll) -> PreparedCancels:
        """Prepare the cancels of a wallet's resting orders, the newest of them when there are too many."""
        page = await self._ports.journal.orders(
            user=address(body.user, "user"),
            market=market_filter(body.market, self._ports.desk),
            order_type=type_of(body.order_type),
            states=frozenset(state for state in OrderState if not state.terminal) - _LEFT_ALONE,
            limit=_MOST_AT_ONCE,
        )
        together: dict[str, list[tuple[Order, OrderRow]]] = {}
        groups: list[list[tuple[Order, OrderRow]]] = []
        for row in page.items:
            order = self._ports.desk.order(row.address) or row.order
            if not order.pending:
                continue
            if row.state is OrderState.EXECUTING:
                groups.append([(order, row)])
            else:
                together.setdefault(self._holder(order.market), []).append((order, row))
        for of_one in together.values():
            groups += [of_one[i : i + MOST_CANCELS] for i in range(0, len(of_one), MOST_CANCELS)]
        more = page.cursor is not None or len(groups) > _MOST_TRANSACTIONS
        asked = Asked(None, fingerprint("cancel all", body))
        transactions = []
        for group in groups[:_MOST_TRANSACTIONS]:
            cancelling = self._cancelling([order for order, _ in group], body, asked)
            notes = [note for order, row in group for note in self._noted(order, row)]
            transactions.append(await self._preparing.keep(cancelling, asked, *notes))
        return PreparedCancels(user=body.user, transactions=transactions, more=more)

    async def known(self, order: Pubkey) -> tuple[Order, OrderRow | None]:
        """The order as it was heard of last, and the journal's row. Problem when there is none such."""
        row = await self._ports.journal.order(order)
        # On chain by what the keeper heard last; the cancel of what was seen at processed lands after it.
        found = self._ports.desk.order(order) or (None if row is None else row.order)
        if found is None:
            raise Problem("order_not_found", f"The keeper knows no order at {order}.")
        return found, row

    def _holder(self, market: Pubkey) -> str:
        """Whoever works on the market; empty for this keeper. One transaction is relayed by one keeper."""
        where = self._ports.holder_of(market)
        return "" if where is None else where.holder or str(market)

    def _noted(self, order: Order, row: OrderRow | None) -> list[NoteOrder]:
        """The order's facts, so that a cancel of an order whose note still waits has something to belong to. Another
        keeper's order is that one's to note: it does, before it relays (`Relaying`).
        """
        return [] if self._holder(order.market) else [NoteOrder(order, reason="" if row is None else row.reason)]

    def _refuse_unless_pending(self, order: Order, row: OrderRow | None) -> None:
        resting = self._ports.desk.order(order.address) is not None
        if not order.slot or (row is not None and row.state.terminal and not resting):
            state = "unknown" if row is None else row.state.value
            raise Problem("order_not_pending", f"The order is {state} and not on chain.")
        if order.user == NOBODY:
            raise Problem("unauthorized_user", "The order's account names no user, so nobody can sign its cancel.")
        if not order.pending:
            raise Problem("order_not_pending", f"The order is {order.status.word} and can't be cancelled.")

    def _cancelling(self, orders: list[Order], body: CancelOrder, asked: Asked) -> PreparedRow:
        first, addresses = orders[0], [order.address for order in orders]
        budget = self._preparing.budget(body.priority_fee_micro_lamports_per_unit)
        blockhash = self._ports.blockhashes.current()
        unsigned = cancel(self._ports.program, addresses, first.user, blockhash, budget)
        # Anybody may ask for a cancel, and what its user calls the order is not theirs to read.
        return self._preparing.row(unsigned, first, addresses, asked, None)


@described(
    "Prepare a cancel",
    {201: PreparedTransaction},
    problems=["invalid_idempotency_key", "priority_fee", *_NOT_PENDING, *CHAIN_PROBLEMS],
    headers=KEY_HEADER,
    answer_headers=REPLAYED_HEADER,
)
async def prepare_cancel(request: Request, order: OrderPath, body: CancelOrder | None = None) -> Response:
    """An unsigned `cancel_order` transaction. The keeper goes on executing the order until a validly signed one
    comes to `/v1/orders/execute`.
    """
    charge(request, WRITE)
    return handed_out(await part(request, Changing).cancel(order, body or CancelOrder(), key_of(request)))


@described(
    "Prepare an order in another's place",
    {201: PreparedTransaction},
    example={"trigger_price": "94.5"},
    problems=[*TERMS_PROBLEMS, "invalid_idempotency_key", *_NOT_PENDING, "order_exists", "not_ready", *CHAIN_PROBLEMS],
    headers=KEY_HEADER,
    answer_headers=REPLAYED_HEADER,
)
async def prepare_amend(request: Request, order: OrderPath, body: AmendOrder) -> Response:
    """An unsigned transaction that cancels the order and places a new one, with the terms that are to change: both or
    neither, so that the order stays as it is if it is being executed. The new order has an address of its own. The
    keeper goes on executing the old one until a validly signed one comes to `/v1/orders/execute`.
    """
    charge(request, WRITE)
    return handed_out(await part(request, Changing).amend(order, body, key_of(request)))


@described(
    "Prepare cancels of a wallet's orders",
    {201: PreparedCancels},
    example={"user": EXAMPLE_WALLET, "market": "SOL/USDC"},
    problems=["unknown_market", "priority_fee", *CHAIN_PROBLEMS],
)
async def prepare_cancel_all(request: Request, body: CancelAll) -> Response:
    """Unsigned transactions that cancel all of a wallet's resting orders, or those of one market or type: up to 16 in
    each, the newest 128 in all. Orders of which a cancel is on its way already are left out. Without any there are no
    transactions.
    """
    charge(request, WRITE)
    prepared = await part(request, Changing).cancel_all(body)
    charge(request, 1 + WRITE * max(0, len(prepared.transactions) - 1))
    return answer(prepared, 201)
