"""Preparing a transaction: the checks, the order's address, the journal, the answer."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import Final

import anyio
from solders.pubkey import Pubkey

from keeper.domain.orders import OnchainStatus, Order, OrderState
from keeper.errors import MalformedAccount
from keeper.http.edge.chain_problems import translated
from keeper.http.edge.keyed_lock import KeyedLock
from keeper.http.edge.problems import Problem
from keeper.http.models import CancelOrder, OrderSummary, PlaceOrder, PreparedTransaction
from keeper.http.orders.fresh import Fresh
from keeper.http.orders.idempotency import fingerprint
from keeper.http.orders.terms import Conditions, order_id, terms_of
from keeper.http.ports import ApiPorts
from keeper.http.reading.markets import watched_market
from keeper.http.reading.views import summary_of
from keeper.journal.ops import AddPrepared, NoteOrder
from keeper.journal.records import OrderRow, PreparedKind, PreparedRow, Source
from keeper.solana.client import AccountBytes, Blockhash
from keeper.venue.layouts import decode_order
from keeper.venue.placing import OrderTerms, Unsigned, cancel, new_order_id, place, unsigned_base64

_BLOCKHASH_LIFE_S: Final = 60
"""150 blocks at 400 ms; only for people, who can't read block heights."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The answer, and whether an earlier request with the same key had it already."""

    answer: PreparedTransaction
    replayed: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """A free place for an order: its id (None in revision 0.1) and what the journal knows of its address."""

    order_id: int | None
    row: OrderRow | None


@dataclass(frozen=True, slots=True)
class _Found:
    """What is at an address: the account as of `slot`, and the journal's row."""

    account: AccountBytes | None
    slot: int
    row: OrderRow | None


class Preparing:
    """Hands out unsigned transactions, and keeps each in the journal before it leaves."""

    def __init__(self, ports: ApiPorts, fresh: Fresh) -> None:
        self._ports = ports
        self._fresh = fresh
        self._keys = KeyedLock()

    async def place(self, body: PlaceOrder, key: str | None) -> Prepared:
        """Prepare `place_order`. The same key and body get the same answer; two at once get one order."""
        body_hash = fingerprint("place", body)
        if key is None:
            return Prepared(await self._place(body, None, body_hash), replayed=False)
        async with self._keys.hold(key):
            earlier = await self._earlier(key, body_hash)
            return earlier or Prepared(await self._place(body, key, body_hash), replayed=False)

    async def cancel(self, order: Pubkey, key: str | None) -> Prepared:
        """Prepare `cancel_order` for a pending order, for its own user."""
        body_hash = fingerprint(f"cancel {order}", CancelOrder())
        if key is None:
            return Prepared(await self._cancel(order, None, body_hash), replayed=False)
        async with self._keys.hold(key):
            earlier = await self._earlier(key, body_hash)
            return earlier or Prepared(await self._cancel(order, key, body_hash), replayed=False)

    async def _earlier(self, key: str, body_hash: str) -> Prepared | None:
        with translated():
            row = await self._ports.journal.prepared_by_key(key)
        if row is None:
            return None
        if row.body_hash != body_hash:
            raise Problem("idempotency_key_reused", "This key was sent with another request; use a new one.")
        return Prepared(_answer(row), replayed=True)

    # --- placing

    async def _place(self, body: PlaceOrder, key: str | None, body_hash: str) -> PreparedTransaction:
        self._refuse_unless_ready()
        terms = terms_of(body, self._conditions(body))
        if terms.user == self._ports.keeper_pubkey:
            raise Problem("invalid_field", "The user can't be the keeper's own wallet.", field="user")
        free = await self._free_place(terms.user, self._asked_id(body))
        unsigned = place(self._ports.program, terms, free.order_id, self._blockhash(), self._ports.limits.budget)
        order = _order_of(terms, free.order_id, unsigned.order)
        summary = summary_of(order, body.market, body.client_order_id)
        row = self._row(PreparedKind.PLACE, unsigned, order, summary, key, body_hash)
        note = NoteOrder(
            order,
            OrderState.PREPARED,
            "Waiting for its user's signature.",
            Source.API,
            client_order_id=body.client_order_id,
            # An address whose earlier transaction never landed begins anew.
            reopen=free.row is not None,
        )
        with translated():
            await self._ports.journal.commit(AddPrepared(row), note)
        self._fresh.add(row)
        return _answer(row)

    def _conditions(self, body: PlaceOrder) -> Conditions:
        desk = self._ports.desk
        market = watched_market(body.market, desk)
        chain_time = desk.chain_time_s()
        return Conditions(
            market=market,
            price=desk.price(market.address),
            chain_time_s=self._ports.now() if chain_time is None else chain_time,
            executable=self._ports.program.executable,
            stale_price_s=self._ports.limits.stale_price_s,
        )

    def _asked_id(self, body: PlaceOrder) -> int | None:
        if body.order_id is not None and not self._ports.program.has_order_ids:
            raise Problem(
                "order_id_not_supported",
                "The deployed program knows one order a wallet, without an id.",
                field="order_id",
            )
        return order_id(body.order_id)

    def _refuse_unless_ready(self) -> None:
        """Nobody would watch or execute the order: its user has to know before, not after the price crossed it.
        Cancels, and orders that are signed already, are taken as long as they can be journaled and sent.
        """
        health = self._ports.health.report()
        if not health.ready:
            failing = ", ".join(check.name for check in health.checks if not check.ok)
            raise Problem("not_ready", f"The keeper takes no new orders now: {failing}.", retry_after_s=5)

    async def _free_place(self, user: Pubkey, asked: int | None) -> _Place:
        """An address that no order has.

        An id that was drawn is not looked up: one of 2**63 is taken hardly ever, and then the simulation before the
        relay says so. That saves each order a round trip to the node.
        """
        program = self._ports.program
        if asked is None and program.has_order_ids:
            return _Place(new_order_id(), None)
        found = await self._look_up(program.order_address(user, asked))
        if found.account is None and (found.row is None or _never_landed(found.row)):
            return _Place(asked, found.row)
        raise Problem(
            "order_exists",
            "This wallet has an order with this id already."
            if program.has_order_ids
            else "This wallet has its order already: the deployed program knows one order a wallet, ever.",
            field="order_id" if asked is not None else "user",
        )

    async def _look_up(self, address: Pubkey) -> _Found:
        """Ask the chain and the journal at once: neither waits for the other."""
        account: AccountBytes | None = None
        slot = 0
        row: OrderRow | None = None

        async def look_at_chain() -> None:
            nonlocal account, slot
            slot, (found,) = await self._ports.client.accounts([address])
            # A closed account may still come back with nothing in it.
            account = found if found is not None and found.lamports else None

        async def look_at_journal() -> None:
            nonlocal row
            row = await self._ports.journal.order(address)

        with translated():
            try:
                async with anyio.create_task_group() as tg:
                    tg.start_soon(look_at_chain)
                    tg.start_soon(look_at_journal)
            except ExceptionGroup as group:
                # The first says it: the others were cancelled by it, or failed for the same reason.
                raise group.exceptions[0] from None
        return _Found(account, slot, row)

    def _blockhash(self) -> Blockhash:
        with translated():
            return self._ports.blockhashes.current()

    # --- cancelling

    async def _cancel(self, address: Pubkey, key: str | None, body_hash: str) -> PreparedTransaction:
        found = await self._look_up(address)
        order, row = self._order_to_cancel(address, found), found.row
        unsigned = cancel(self._ports.program, address, order.user, self._blockhash(), self._ports.limits.budget)
        market = self._ports.desk.market(order.market)
        client_order_id = row.client_order_id if row is not None else None
        summary = summary_of(order, None if market is None else market.symbol, client_order_id)
        prepared = self._row(PreparedKind.CANCEL, unsigned, order, summary, key, body_hash)
        # With the order's facts, so that a cancel of an order that was never seen before has something to belong to.
        note = NoteOrder(order, reason="" if row is None else row.reason)
        with translated():
            await self._ports.journal.commit(AddPrepared(prepared), note)
        self._fresh.add(prepared)
        return _answer(prepared)

    def _order_to_cancel(self, address: Pubkey, found: _Found) -> Order:
        """The order as the chain has it now: what the keeper remembers may be older than the user's last act."""
        order = None
        if found.account is not None and found.account.owner == self._ports.program.id:
            with contextlib.suppress(MalformedAccount):
                # At the slot of the account's own answer, so that the note can't overwrite newer news.
                order = decode_order(address, found.account.data, found.slot)
        if order is None:
            # Seen at processed and not confirmed yet: its cancel can be signed now and lands after it.
            order = self._ports.desk.order(address)
        if order is None:
            if found.row is None:
                raise Problem("order_not_found", f"There is no order at {address}.")
            raise Problem("order_not_pending", f"The order is {found.row.state.value} and not on chain.")
        if not order.pending:
            raise Problem("order_not_pending", f"The order is {order.status.word} and can't be cancelled.")
        return order

    def _row(
        self,
        kind: PreparedKind,
        unsigned: Unsigned,
        order: Order,
        summary: OrderSummary,
        key: str | None,
        body_hash: str,
    ) -> PreparedRow:
        return PreparedRow(
            id=secrets.token_urlsafe(16),
            kind=kind,
            order=unsigned.order,
            user=order.user,
            market=order.market,
            message=unsigned.message,
            blockhash=unsigned.blockhash,
            last_valid_block_height=unsigned.last_valid_block_height,
            created_at=self._ports.now(),
            arguments={name: getattr(summary, name) for name in summary.__struct_fields__},
            idempotency_key=key,
            body_hash=body_hash,
            client_order_id=summary.client_order_id,
        )


def _never_landed(row: OrderRow) -> bool:
    """Whether the journal's order was never on chain, nor can be any more by what it knows."""
    return row.order.slot == 0 and (row.state is OrderState.PREPARED or row.state.terminal)


def _order_of(terms: OrderTerms, number: int | None, address: Pubkey) -> Order:
    """The order that is going to be, as its user asked for it: slot 0 says that no chain has it yet."""
    return Order(
        address=address,
        user=terms.user,
        market=terms.market,
        order_type=terms.order_type,
        side=terms.side,
        size_1e6=terms.size_1e6,
        price_1e6=terms.price_1e6,
        stop_price_1e6=terms.stop_price_1e6,
        trailing_distance_ppm=terms.trailing_distance_ppm,
        leverage=terms.leverage,
        status=OnchainStatus.PENDING,
        created_at=0,
        expires_at=terms.expires_at,
        filled_size_1e6=0,
        order_id=number,
        slot=0,
    )


def _answer(row: PreparedRow) -> PreparedTransaction:
    """From the journal's row alone, so that a repetition gets the very same."""
    summary = OrderSummary(**row.arguments)
    return PreparedTransaction(
        id=row.id,
        kind=row.kind,
        order=str(row.order),
        order_id=summary.order_id,
        transaction=unsigned_base64(row.message),
        blockhash=row.blockhash,
        last_valid_block_height=row.last_valid_block_height,
        sign_before=int(row.created_at) + _BLOCKHASH_LIFE_S,
        summary=summary,
    )
