"""Preparing a transaction: the checks, the order's address, the journal, the answer. Whatever changes an order that
rests is in `changing`.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import anyio
import msgspec
from solders.pubkey import Pubkey
from starlette.responses import Response

from keeper.domain.orders import OnchainStatus, Order
from keeper.http.edge.answering import answer
from keeper.http.edge.idempotency import REPLAYED, KeyedLock, fingerprint
from keeper.http.edge.problems import Problem
from keeper.http.models import PlaceOrder, PreparedTransaction
from keeper.http.orders.terms import order_id, terms_of
from keeper.http.orders.waiting import SIGN_BEFORE, Waiting, can_land, summary_in
from keeper.http.ports import ApiPorts
from keeper.http.reading.views import summary_of
from keeper.journal.ops import AddPrepared, DropPrepared, JournalConflict, Op
from keeper.journal.records import OrderRow, PreparedKind, PreparedRow, PreparedStatus
from keeper.solana.allowance import ASKING
from keeper.solana.client import AccountBytes
from keeper.solana.transactions import Budget
from keeper.venue.placing import BUDGET, OrderTerms, Unsigned, new_order_id, place, unsigned_base64
from keeper.venue.program import Program

NO_POSITIONS: Final = (
    "A fill of this program revision creates no position: the order will read filled, and nothing stands behind it."
)
_CAME_TO_NOTHING: Final = frozenset({PreparedStatus.FAILED, PreparedStatus.EXPIRED})


@dataclass(frozen=True, slots=True)
class Prepared:
    """The answer, and whether an earlier request with the same key had it already."""

    answer: PreparedTransaction
    replayed: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What a prepared transaction is kept under: the key, by its user, and the hash of what was asked. It takes the
    place of `replaces`, an earlier one with the same key, which can't land any more.
    """

    key: str | None
    body_hash: str
    replaces: str | None = None


class Preparing:
    """Hands out unsigned transactions, and keeps each in the journal before it leaves."""

    def __init__(self, ports: ApiPorts, waiting: Waiting) -> None:
        self._ports = ports
        self._waiting = waiting
        self._keys = KeyedLock()

    async def place(self, body: PlaceOrder, key: str | None, *beside: Op) -> Prepared:
        """Prepare `place_order`. The same user, key and body get the same answer; two at once get one order. `beside`
        is in the journal with it or not at all, and may be what the journal refuses.
        """

        async def prepare(asked: Asked) -> PreparedTransaction:
            return await self.keep(await self.placing(body, asked), asked, *beside)

        return await self.once(body.user, key, fingerprint("place", body), prepare)

    async def once(
        self, user: str, key: str | None, body_hash: str, prepare: Callable[[Asked], Awaitable[PreparedTransaction]]
    ) -> Prepared:
        """Prepare, or answer again what the journal has for the key of this user's; two with one key come one after the
        other, or are told apart by the journal when another keeper has the other one. An answer of which nothing can
        come any more is not given again.
        """
        if key is None:
            return Prepared(await prepare(Asked(None, body_hash)), replayed=False)
        scoped = f"{user} {key}"
        async with self._keys.of(scoped):
            row = await self._ports.journal.prepared_by_key(scoped)
            if row is None:
                try:
                    return Prepared(await prepare(Asked(scoped, body_hash)), replayed=False)
                except JournalConflict:
                    if (row := await self._ports.journal.prepared_by_key(scoped)) is None:
                        raise
            if row.body_hash != body_hash:
                raise Problem("idempotency_key_reused", "This key was sent with another request; use a new one.")
            if await self._came_to_nothing(row):
                return Prepared(await prepare(Asked(scoped, body_hash, replaces=row.id)), replayed=False)
        return Prepared(_answer(row, self._ports.program), replayed=True)

    async def _came_to_nothing(self, row: PreparedRow) -> bool:
        if row.status in _CAME_TO_NOTHING:
            return True
        if row.status is not PreparedStatus.PREPARED or can_land(row, self._ports.blockhashes):
            return False
        if row.kind is PreparedKind.CANCEL or self._ports.desk.order(row.order) is not None:
            return row.kind is PreparedKind.CANCEL
        # Its wallet may have sent it by itself.
        known = await self._ports.journal.order(row.order)
        return known is None or not known.order.slot

    def forget(self, prepared_id: str) -> None:
        """It is not to be relayed."""
        self._waiting.drop(prepared_id)

    # --- placing

    async def placing(self, body: PlaceOrder, asked: Asked, replaces: Pubkey | None = None) -> PreparedRow:
        """The transaction that places an order, and cancels the one that it replaces."""
        self._refuse_unless_ready()
        budget = self.budget(body.priority_fee_micro_lamports_per_unit)
        terms = terms_of(body, self._ports)
        if terms.user == self._ports.keeper_pubkey:
            raise Problem("invalid_field", "The user can't be the keeper's own wallet.", field="user")
        self._refuse_unless_held(terms.market)
        number = await self._free_place(terms.user, order_id(body.order_id, self._ports.program))
        blockhash = self._ports.blockhashes.current()
        unsigned = place(self._ports.program, terms, number, blockhash, budget, replaces=replaces)
        order, cancels = _order_of(terms, number, unsigned.order), () if replaces is None else (replaces,)
        return self.row(unsigned, order, cancels, asked, body.client_order_id)

    def budget(self, unit_price_micro_lamports: int) -> Budget:
        """What the transaction may use, and bids."""
        most = self._ports.limits.most_unit_price_micro_lamports
        if unit_price_micro_lamports > most:
            detail = f"A prepared transaction bids at most {most} micro-lamports a compute unit."
            raise Problem("priority_fee", detail, field="priority_fee_micro_lamports_per_unit")
        return replace(BUDGET, unit_price_micro_lamports=unit_price_micro_lamports)

    def _refuse_unless_ready(self) -> None:
        """Nobody would watch or execute the order: its user has to know before, not after the price crossed it.
        Cancels, and orders that are signed already, are taken as long as they can be journaled and sent.
        """
        health = self._ports.health.report()
        if not health.ready:
            failing = ", ".join(check.name for check in health.checks if not check.ok)
            raise Problem("not_ready", f"The keeper takes no new orders now: {failing}.", retry_after_s=5)

    def _refuse_unless_held(self, market: Pubkey) -> None:
        """Somebody has to work on the market, whoever it is."""
        where = self._ports.holder_of(market)
        if where is not None and not where.holder:
            raise Problem("not_ready", "No keeper works on the market right now. Ask again.", retry_after_s=1)

    async def _free_place(self, user: Pubkey, asked: int | None) -> int | None:
        """An address that no order has, by its order's id (None in revision 0.1).

        An id that was drawn is not looked up: one of 2**63 is taken hardly ever, and then the simulation before the
        relay says so. That saves each order a round trip to the node.
        """
        program = self._ports.program
        if asked is None and program.has_order_ids:
            return new_order_id()
        account, row = await self._look_up(program.order_address(user, asked))
        if account is None and (row is None or _never_landed(row)):
            return asked
        raise Problem(
            "order_exists",
            "This wallet has an order with this id already."
            if program.has_order_ids
            else "This wallet has its order already: the deployed program knows one order a wallet, ever.",
            field="order_id" if asked is not None else "user",
        )

    async def _look_up(self, address: Pubkey) -> tuple[AccountBytes | None, OrderRow | None]:
        """The account at an address, and the journal's row, both asked for at once."""
        account: AccountBytes | None = None

        async def look_at_chain() -> None:
            nonlocal account
            _, (found,) = await self._ports.client.accounts([address])
            # A closed account may still come back with nothing in it.
            account = found if found is not None and found.lamports else None

        try:
            async with anyio.create_task_group() as tg:
                tg.start_soon(look_at_chain)
                row = await self._ports.journal.order(address)
        except ExceptionGroup as group:
            # The first says it: the others were cancelled by it, or failed for the same reason.
            raise group.exceptions[0] from None
        return account, row

    # --- keeping

    def row(
        self, unsigned: Unsigned, order: Order, cancels: Sequence[Pubkey], asked: Asked, client_order_id: str | None
    ) -> PreparedRow:
        """The transaction as the journal has it. `order` is the one that it places, else the first that it cancels."""
        kind = PreparedKind.PLACE if not cancels else PreparedKind.AMEND
        if order.address in cancels:
            kind = PreparedKind.CANCEL
        now_s = self._ports.now()
        # For people, who can't read block heights.
        until = int(now_s + self._ports.blockhashes.lives_s())
        return PreparedRow(
            id=secrets.token_urlsafe(16),
            kind=kind,
            order=unsigned.order,
            user=order.user,
            market=order.market,
            message=unsigned.message,
            blockhash=unsigned.blockhash,
            last_valid_block_height=unsigned.last_valid_block_height,
            created_at=now_s,
            arguments=msgspec.structs.asdict(summary_of(order, self._ports.desk, client_order_id))
            | {SIGN_BEFORE: until},
            idempotency_key=asked.key,
            body_hash=asked.body_hash,
            client_order_id=client_order_id,
            cancels=tuple(cancels),
        )

    async def keep(self, row: PreparedRow, asked: Asked, *beside: Op) -> PreparedTransaction:
        """Write the transaction down, with what is to be in the journal beside it, and answer with it."""
        client = ASKING.get()
        gone = [self._waiting.make_room(row.user, client), asked.replaces]
        dropped = [DropPrepared(prepared_id) for prepared_id in gone if prepared_id is not None]
        # Without an fsync, which executions might have to wait for. It survives a crash, and a power cut takes nothing
        # that was relayed, since the commit that relays makes it durable, too. What is lost is prepared again.
        await self._ports.journal.write(*dropped, AddPrepared(row), *beside)
        self._waiting.add(row, client)
        return _answer(row, self._ports.program)


def handed_out(prepared: Prepared) -> Response:
    """The answer to whoever asked for it."""
    return answer(prepared.answer, 201, {REPLAYED: "true"} if prepared.replayed else None)


def _never_landed(row: OrderRow) -> bool:
    """Whether the journal's order was never on chain, nor can be any more by what it knows."""
    return row.order.slot == 0 and row.state.terminal


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


def _answer(row: PreparedRow, program: Program) -> PreparedTransaction:
    """From the journal's row, so that a repetition gets the very same."""
    summary = summary_in(row)
    return PreparedTransaction(
        id=row.id,
        kind=row.kind,
        order=str(row.order),
        cancels=[str(order) for order in row.cancels],
        order_id=summary.order_id,
        transaction=unsigned_base64(row.message),
        blockhash=row.blockhash,
        last_valid_block_height=row.last_valid_block_height,
        sign_before=row.arguments.get(SIGN_BEFORE, int(row.created_at)),
        notice=NO_POSITIONS if row.kind is not PreparedKind.CANCEL and not program.creates_position else None,
        summary=summary,
    )
