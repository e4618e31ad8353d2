"""Relaying a user's signed transaction: is it the prepared one, would it succeed, and then it is the relay's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.errors import DryRun, DuplicateAttempt
from keeper.domain.orders import OrderState
from keeper.http.edge.chain_problems import problem_of_failure
from keeper.http.edge.idempotency import KeyedLock
from keeper.http.edge.problems import Problem
from keeper.http.models import ExecuteOrder, SubmittedTransaction
from keeper.http.orders.waiting import Waiting, confirmed_height, order_of
from keeper.http.ports import ApiPorts
from keeper.journal.ops import JournalConflict, NoteOrder
from keeper.journal.records import PreparedKind, PreparedRow, PreparedStatus
from keeper.venue.program_errors import name_failure, programs_of
from keeper.venue.relay_checks import MAX_WIRE_BYTES, RelayRefused, check_relayed

_FIELD: Final = "signed_transaction"


class Relaying:
    """Checks and hands over signed transactions; the same bytes twice get the same answer."""

    def __init__(self, ports: ApiPorts, waiting: Waiting) -> None:
        self._ports = ports
        self._waiting = waiting
        self._ids = KeyedLock()

    async def markets_of(self, prepared_id: str) -> set[Pubkey]:
        """The markets of the orders that a prepared transaction places or cancels. Problem when there is none such."""
        prepared = self._waiting.get(prepared_id) or await self._in_journal(prepared_id)
        markets = {prepared.market}
        if len(prepared.cancels) > 1:
            unknown = []
            for address in prepared.cancels:
                order = self._ports.desk.order(address)
                if order is None:
                    unknown.append(address)
                else:
                    markets.add(order.market)
            if unknown:
                markets.update(row.order.market for row in (await self._ports.journal.orders_at(unknown)).values())
        return markets

    async def execute(self, body: ExecuteOrder) -> SubmittedTransaction:
        """Relay a prepared transaction. When it answers, the journal has it and its first send is on its way."""
        wire = _wire(body.signed_transaction)
        # One at a time for an id: of two requests with different signatures, the second has to see the first.
        async with self._ids.of(body.id):
            prepared = self._waiting.get(body.id) or await self._in_journal(body.id)
            signature = self._checked(wire, prepared)
            if prepared.status is PreparedStatus.PREPARED:
                await self._simulate(wire, prepared)
                await self._submit(wire, prepared, signature)
            else:
                _same(prepared, signature)
        return SubmittedTransaction(
            id=prepared.id,
            kind=prepared.kind,
            order=str(prepared.order),
            signature=str(signature),
            status=OrderState.CANCELLING if prepared.kind is PreparedKind.CANCEL else OrderState.SUBMITTED,
            status_reason="Its user's signed transaction is being landed.",
        )

    async def _in_journal(self, prepared_id: str) -> PreparedRow:
        row = await self._ports.journal.prepared(prepared_id)
        if row is None:
            raise Problem("prepared_not_found", "Nothing was prepared under this id; prepare the order first.")
        return row

    def _checked(self, wire: bytes, prepared: PreparedRow) -> Signature:
        try:
            return check_relayed(
                wire,
                prepared=prepared.message,
                user=prepared.user,
                program_id=self._ports.program.id,
                keeper=self._ports.keeper_pubkey,
                limits=self._ports.limits.relay,
            )
        except RelayRefused as e:
            raise Problem(e.code, str(e), field=_FIELD) from e

    async def _simulate(self, wire: bytes, prepared: PreparedRow) -> None:
        """With the signature verified and the blockhash as it is: replacing it would hide that it expired."""
        simulation = await self._ports.client.simulate(wire, sig_verify=True)
        if simulation.err is None:
            return
        program = self._ports.program
        failure = name_failure(simulation.err, programs_of(wire), program.id, program.idl, simulation.logs)
        match failure.name:
            case "AlreadyProcessed":
                return  # The wallet sent it by itself. The relay finds out what became of it.
            case "BlockhashNotFound":
                raise self._blockhash_gone(prepared)
            case _:
                raise problem_of_failure(failure)

    def _blockhash_gone(self, prepared: PreparedRow) -> Problem:
        height = confirmed_height(self._ports.blockhashes)
        # A transaction can land one block after its last valid height.
        if height is not None and height > prepared.last_valid_block_height + 1:
            return _expired()
        return Problem(
            "chain_unavailable",
            "The node does not know the transaction's blockhash yet; send the same again.",
            retry_after_s=1,
        )

    async def _submit(self, wire: bytes, prepared: PreparedRow, signature: Signature) -> None:
        try:
            placed = None if prepared.kind is PreparedKind.CANCEL else order_of(prepared)
            if self._ports.elsewhere is not None and prepared.cancels:
                await self._note(prepared.cancels)
            await self._ports.relay.submit(prepared, wire, placed)
        except (JournalConflict, DuplicateAttempt):  # these very bytes, by another keeper, or another signature
            _same(await self._in_journal(prepared.id), signature)
        except DryRun as e:
            raise Problem("not_ready", str(e)) from e
        finally:
            self._waiting.drop(prepared.id)

    async def _note(self, addresses: Sequence[Pubkey]) -> None:
        """What another keeper prepared it could not note, and the orders' own notes may wait still."""
        known = await self._ports.journal.orders_at(addresses)
        orders = [self._ports.desk.order(address) for address in addresses if address not in known]
        if notes := [NoteOrder(order) for order in orders if order is not None]:
            await self._ports.journal.write(*notes)


def _same(prepared: PreparedRow, signature: Signature) -> None:
    """A row that is no longer waiting: fine when it is this very transaction's."""
    if prepared.signature == signature:
        return
    if prepared.signature is None:
        raise _expired()
    raise Problem(
        "already_submitted",
        f"The transaction was submitted with the signature {prepared.signature}, which could still land.",
        field=_FIELD,
    )


def _expired() -> Problem:
    return Problem(
        "blockhash_expired",
        "The transaction waited too long for its signature and can no longer land; prepare the order again.",
    )


def _wire(text: str) -> bytes:
    try:
        wire = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise Problem("not_base64", "The signed transaction has to be in standard base64.", field=_FIELD) from None
    if len(wire) > MAX_WIRE_BYTES:
        raise Problem("too_large", f"A transaction has at most {MAX_WIRE_BYTES} bytes.", field=_FIELD)
    return wire
