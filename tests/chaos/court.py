"""A keeper whose every move is a test's, before the witness and the invariants."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from solders.compute_budget import set_compute_unit_price
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.orders import OrderState
from keeper.journal import AddAttempt, Journal, MoveAttempt, NoteOrder, Queries
from keeper.journal.sqlite.files import open_reader
from tests.chaos.invariants import Findings, check
from tests.chaos.witness import Witness
from tests.support import World


@dataclass
class Court:
    """A chain with an order on it, a journal, a witness, and a keeper whose every move is the test's."""

    world: World
    journal: Journal
    queries: Queries
    witness: Witness
    keeper: Keypair
    market: Pubkey
    order: Pubkey

    def blocks(self, count: int) -> None:
        for _ in range(count):
            self.world.bank.advance()

    def sign(self, number: int = 1) -> Attempt:
        """An execution of the order, as the keeper would sign it now."""
        tip = self.world.bank.chain.tip
        known = self.world.order(self.order)
        assert known is not None
        instructions = [set_compute_unit_price(number), self.world.program.execute(known, self.keeper.pubkey())]
        message = Message.new_with_blockhash(instructions, self.keeper.pubkey(), tip.blockhash)
        transaction = VersionedTransaction(message, [self.keeper])
        return Attempt(
            signature=transaction.signatures[0],
            kind=AttemptKind.EXECUTE,
            order=self.order,
            wire=bytes(transaction),
            blockhash=str(tip.blockhash),
            last_valid_block_height=tip.height + 150,
            state=AttemptState.SIGNED,
            number=number,
            signed_at=time.time(),
            position=self.world.program.position_of(known, self.keeper.pubkey()),
        )

    async def journaled(self, attempt: Attempt) -> None:
        known = self.world.order(self.order)
        assert known is not None
        await self.journal.commit(NoteOrder(known, OrderState.EXECUTING, "On its way."), AddAttempt(attempt))

    async def ended(self, attempt: Attempt, state: AttemptState) -> None:
        await self.journal.commit(MoveAttempt(attempt.signature, state, fate=Fate.EXECUTED))

    def send(self, attempt: Attempt) -> None:
        """It passes the witness; whether it lands is another matter."""
        call = {"method": "sendTransaction", "params": [base64.b64encode(attempt.wire).decode(), {}]}
        self.witness.on_calls("a proxy", [call])

    def land(self, attempt: Attempt) -> None:
        self.world.bank.land(VersionedTransaction.from_bytes(attempt.wire))

    def look(self, *, may_fail: bool = False) -> Findings:
        forgiven = [self.order] if may_fail else []
        return check(self.world, self.queries, self.keeper.pubkey(), [self.order], [], forgiven)


@asynccontextmanager
async def standing(folder: Path) -> AsyncIterator[Court]:
    """One with an order, in a folder for its journal."""
    path = folder / "journal.sqlite"
    async with World.open(slot_ms=0, confirmed_slots=2, finalized_slots=4) as world, Journal.open(path) as journal:
        world.bank.advance()
        market = world.market()
        order = world.place(world.trader(), market, stop_price_1e6=98_000_000)
        queries = Queries(open_reader(path))
        witness = Witness(world.bank)
        witness.journal = queries
        court = Court(world, journal, queries, witness, world.wallet(), market, order)
        court.blocks(6)
        yield court
        queries.close()
