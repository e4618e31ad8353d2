"""Preparing a transaction: the checks, the order's address, the journal, the answer."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Final

import anyio
import msgspec
from solders.pubkey import Pubkey

from keeper.domain.errors import MalformedAccount
from keeper.domain.orders import OnchainStatus, Order, OrderState
from keeper.http.edge.idempotency import KeyedLock, fingerprint
from keeper.http.edge.problems import Problem
from keeper.http.models import CancelOrder, OrderSummary, PlaceOrder, PreparedTransaction
from keeper.http.orders.relaying import RecentlyPrepared
from keeper.http.orders.terms import order_id, terms_of
from keeper.http.ports import ApiPorts
from keeper.http.reading.views import summary_of
from keeper.journal.ops import AddPrepared, NoteOrder
from keeper.journal.records import OrderRow, PreparedKind, PreparedRow, Source
from keeper.solana.client import AccountBytes
from keeper.venue.placing import OrderTerms, Unsigned, cancel, new_order_id, place, unsigned_base64
from keeper.venue.venue import decode_order

_BLOCKHASH_LIFE_S: Final = 60
"""150 blocks at 400 ms; only for people, who can't read block heights."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The answer, and whether an earlier request with the same key had it already."""

    answer: PreparedTransaction
    replayed: bool


class Preparing:
    """Hands out unsigned transactions, and keeps each in the journal before it leaves."""

    def __init__(self, ports: ApiPorts, recent: RecentlyPrepared) -> None:
        self._ports = ports
        self._recent = recent
        self._keys = KeyedLock()

    async def place(self, body: PlaceOrder, key: str | None) -> Prepared:
        """Prepare `place_order`. The same key and body get the same answer; two at once get one order."""
        body_hash = fingerprint("place", body)
        return await self._once(key, body_hash, lambda: self._place(body, key, body_hash))

    async def cancel(self, order: Pubkey, key: str | None) -> Prepared:
        """Prepare `cancel_order` for a pending order, for its own user."""
        body_hash = fingerprint(f"cancel {order}", CancelOrder())
        return await self._once(key, body_hash, lambda: self._cancel(order, key, body_hash))

    async def _once(
        self, key: str | None, body_hash: str, prepare: Callable[[], Awaitable[PreparedTransaction]]
    ) -> Prepared:
        """Prepare, or answer again what the journal has for the key; two with one key come one after the other."""
        if key is None:
            return Prepared(await prepare(), replayed=False)
        async with self._keys.of(key):
            row = await self._ports.journal.prepared_by_key(key)
            if row is None:
                return Prepared(await prepare(), replayed=False)
        if row.body_hash != body_hash:
            raise Problem("idempotency_key_reused", "This key was sent with another request; use a new one.")
        return Prepared(_answer(row), replayed=True)

    # --- placing

    async def _place(self, body: PlaceOrder, key: str | None, body_hash: str) -> PreparedTransaction:
        self._refuse_unless_ready()
        terms = terms_of(body, self._ports)
        if terms.user == self._ports.keeper_pubkey:
            raise Problem("invalid_field", "The user can't be the keeper's own wallet.", field="user")
        number, earlier = await self._free_place(terms.user, order_id(body.order_id, self._ports.program))
        blockhash = self._ports.blockhashes.current()
        unsigned = place(self._ports.program, terms, number, blockhash, self._ports.limits.budget)
        order = _order_of(terms, number, unsigned.order)
        note = NoteOrder(
            order,
            OrderState.PREPARED,
            "Waiting for its user's signature.",
            Source.API,
            client_order_id=body.client_order_id,
            # An address whose earlier transaction never landed begins anew.
            reopen=earlier is not None,
        )
        return await self._keep(PreparedKind.PLACE, unsigned, note, body.client_order_id, key, body_hash)

    def _refuse_unless_ready(self) -> None:
        """Nobody would watch or execute the order: its user has to know before, not after the price crossed it.
        Cancels, and orders that are signed already, are taken as long as they can be journaled and sent.
        """
        health = self._ports.health.report()
        if not health.ready:
            failing = ", ".join(check.name for check in health.checks if not check.ok)
            raise Problem("not_ready", f"The keeper takes no new orders now: {failing}.", retry_after_s=5)

    async def _free_place(self, user: Pubkey, asked: int | None) -> tuple[int | None, OrderRow | None]:
        """An address that no order has: the order's id (None in revision 0.1), and what the journal knows of it.

        An id that was drawn is not looked up: one of 2**63 is taken hardly ever, and then the simulation before the
        relay says so. That saves each order a round trip to the node.
        """
        program = self._ports.program
        if asked is None and program.has_order_ids:
            return new_order_id(), None
        account, _, row = await self._look_up(program.order_address(user, asked))
        if account is None and (row is None or _never_landed(row)):
            return asked, row
        raise Problem(
            "order_exists",
            "This wallet has an order with this id already."
            if program.has_order_ids
            else "This wallet has its order already: the deployed program knows one order a wallet, ever.",
            field="order_id" if asked is not None else "user",
        )

    async def _look_up(self, address: Pubkey) -> tuple[AccountBytes | None, int, OrderRow | None]:
        """The account at an address, the slot that it was read at, and the journal's row, both asked for at once."""
        account: AccountBytes | None = None
        slot = 0

        async def look_at_chain() -> None:
            nonlocal account, slot
            slot, (found,) = await self._ports.client.accounts([address])
            # A closed account may still come back with nothing in it.
            account = found if found is not None and found.lamports else None

        try:
            async with anyio.create_task_group() as tg:
                tg.start_soon(look_at_chain)
                row = await self._ports.journal.order(address)
        except ExceptionGroup as group:
            # The first says it: the others were cancelled by it, or failed for the same reason.
            raise group.exceptions[0] from None
        return account, slot, row

    # --- cancelling

    async def _cancel(self, address: Pubkey, key: str | None, body_hash: str) -> PreparedTransaction:
        account, slot, row = await self._look_up(address)
        order = self._order_to_cancel(address, account, slot, row)
        blockhash = self._ports.blockhashes.current()
        unsigned = cancel(self._ports.program, address, order.user, blockhash, self._ports.limits.budget)
        # With the order's facts, so that a cancel of an order that was never seen before has something to belong to.
        note = NoteOrder(order, reason="" if row is None else row.reason)
        client_order_id = None if row is None else row.client_order_id
        return await self._keep(PreparedKind.CANCEL, unsigned, note, client_order_id, key, body_hash)

    def _order_to_cancel(self, address: Pubkey, account: AccountBytes | None, slot: int, row: OrderRow | None) -> Order:
        """The order as the chain has it now: what the keeper remembers may be older than the user's last act."""
        order = None
        if account is not None and account.owner == self._ports.program.id:
            with contextlib.suppress(MalformedAccount):
                # At the slot of the account's own answer, so that the note can't overwrite newer news.
                order = decode_order(address, account.data, slot)
        if order is None:
            # Seen at processed and not confirmed yet: its cancel can be signed now and lands after it.
            order = self._ports.desk.order(address)
        if order is None:
            if row is None:
                raise Problem("order_not_found", f"There is no order at {address}.")
            raise Problem("order_not_pending", f"The order is {row.state.value} and not on chain.")
        if not order.pending:
            raise Problem("order_not_pending", f"The order is {order.status.word} and can't be cancelled.")
        return order

    async def _keep(
        self,
        kind: PreparedKind,
        unsigned: Unsigned,
        note: NoteOrder,
        client_order_id: str | None,
        key: str | None,
        body_hash: str,
    ) -> PreparedTransaction:
        """Make the transaction durable together with what it says of its order, and answer with it."""
        order = note.order
        row = PreparedRow(
            id=secrets.token_urlsafe(16),
            kind=kind,
            order=unsigned.order,
            user=order.user,
            market=order.market,
            message=unsigned.message,
            blockhash=unsigned.blockhash,
            last_valid_block_height=unsigned.last_valid_block_height,
            created_at=self._ports.now(),
            arguments=msgspec.structs.asdict(summary_of(order, self._ports.desk, client_order_id)),
            idempotency_key=key,
            body_hash=body_hash,
            client_order_id=client_order_id,
        )
        await self._ports.journal.commit(AddPrepared(row), note)
        self._recent.add(row)
        return _answer(row)


def _never_landed(row: OrderRow) -> bool:
    """Whether the journal's order was never on chain, nor can be any more by what it knows."""
    return row.order.slot == 0 and (row.state is OrderState.PREPARED or row.state.terminal)


def _order_of(terms: OrderTerms, number: int | None, address: Pubkey) -> Order:
    """The order that is going to be, as its user asked for it: slot 0 says that no chain has it yet."""
    return Order(
        **{field.name: getattr(terms, field.name) for field in fields(terms)},
        address=address,
        status=OnchainStatus.PENDING,
        created_at=0,
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
