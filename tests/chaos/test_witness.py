"""The witness and the invariants say what they should of a keeper that does wrong: none of them is blind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.domain.orders import OrderState
from keeper.journal import NoteOrder
from keeper.solana.client import SignatureStatus
from tests.chaos.court import Court, standing
from tests.chaos.invariants import Findings
from tests.chaos.validator import LateWitness, Reached
from tests.chaos.witness import FirstSend

pytestmark = pytest.mark.anyio


@pytest.fixture
async def court(tmp_path: Path) -> AsyncIterator[Court]:
    async with standing(tmp_path) as court:
        yield court


class TestPromise1:
    async def test_a_send_before_the_journal_holds_it(self, court: Court) -> None:
        attempt = court.sign()
        court.send(attempt)
        assert "did not hold it (promise 1)" in court.witness.violations[0]

    async def test_a_send_after(self, court: Court) -> None:
        attempt = court.sign()
        await court.journaled(attempt)
        court.send(attempt)
        court.send(attempt)
        assert court.witness.violations == []

    async def test_other_bytes_under_the_same_signature(self, court: Court) -> None:
        attempt = court.sign()
        await court.journaled(attempt)
        court.send(attempt)
        court.send(attempt._replace(wire=attempt.wire[:-1] + b"?"))
        assert "again with other bytes" in court.witness.violations[0]

    async def test_a_life_that_the_journal_takes_for_shorter_than_it_is(self, court: Court) -> None:
        attempt = court.sign()._replace(last_valid_block_height=court.world.bank.chain.tip.height + 100)
        await court.journaled(attempt)
        court.send(attempt)
        assert "the chain takes it to" in court.witness.violations[0]


class TestPromise2:
    """A second signature is sent while the first one is in each of the states that it can be in."""

    async def second(self, court: Court, first: Attempt) -> list[str]:
        # The journal refuses two live attempts, so the first has to be called ended, rightly or not.
        await court.ended(first, AttemptState.EXPIRED)
        again = court.sign(2)
        await court.journaled(again)
        court.send(again)
        return court.witness.violations

    async def first(self, court: Court) -> Attempt:
        attempt = court.sign()
        await court.journaled(attempt)
        court.send(attempt)
        return attempt

    async def test_it_could_still_land(self, court: Court) -> None:
        assert "could still land" in (await self.second(court, await self.first(court)))[0]

    @pytest.mark.parametrize(("blocks", "allowed"), [(151 + 4, False), (152 + 4, True)])
    async def test_its_last_height(self, court: Court, blocks: int, allowed: bool) -> None:
        """It lands at its last valid height plus one: only when a later one is final is it dead (4 blocks on)."""
        attempt = await self.first(court)
        court.blocks(blocks)
        assert (await self.second(court, attempt) == []) is allowed

    @pytest.mark.parametrize(("blocks", "allowed"), [(1, False), (2, True)])
    async def test_it_failed_on_chain(self, court: Court, blocks: int, allowed: bool) -> None:
        attempt = await self.first(court)
        court.land(attempt)  # the price is not there: ConditionNotMet
        court.blocks(blocks)
        assert (await self.second(court, attempt) == []) is allowed

    async def test_it_succeeded(self, court: Court) -> None:
        attempt = await self.first(court)
        court.world.set_price(court.market, 97_000_000)
        court.land(attempt)
        court.blocks(6)
        assert "had succeeded" in (await self.second(court, attempt))[0]


class TestInvariants:
    async def test_a_fill_that_is_in_order(self, court: Court) -> None:
        attempt = court.sign()
        await court.journaled(attempt)
        court.world.set_price(court.market, 97_000_000)
        assert "its condition holds" in court.look().unsettled[0]
        court.land(attempt)
        assert "reads filled and the journal says executing" in court.look().unsettled[0]
        court.blocks(6)
        known = court.world.order(court.order)
        assert known is not None
        await court.journal.commit(NoteOrder(known, OrderState.FILLED, "Filled.", position=attempt.position))
        await court.ended(attempt, AttemptState.FINALIZED)
        assert court.look() == Findings()

    async def test_a_fill_without_its_position(self, court: Court) -> None:
        attempt = court.sign()
        await court.journaled(attempt)
        court.world.set_price(court.market, 97_000_000)
        court.land(attempt)
        assert attempt.position is not None
        court.world.bank.set_account(attempt.position, None)
        assert "1 fills and no position" in court.look().broken[0]

    async def test_an_execution_after_the_expiry_fills_nothing(self, court: Court) -> None:
        now = court.world.bank.chain.tip.time
        court.order = court.world.place(
            court.world.trader(), court.market, stop_price_1e6=98_000_000, expires_at=now + 10
        )
        attempt = court.sign()
        await court.journaled(attempt)
        court.world.bank.advance_clock(20)
        court.world.set_price(court.market, 97_000_000)
        court.land(attempt)
        findings = court.look()
        assert findings.broken == []
        assert "reads expired and the journal says executing" in findings.unsettled[0]

    async def test_a_verdict_that_the_chain_does_not_share(self, court: Court) -> None:
        attempt = court.sign()
        await court.journaled(attempt)
        court.land(attempt)
        court.blocks(6)
        await court.ended(attempt, AttemptState.EXPIRED)
        assert any("is called expired and landed" in sentence for sentence in court.look().broken)

    async def test_a_success_that_is_not_on_chain(self, court: Court) -> None:
        attempt = court.sign()
        await court.journaled(attempt)
        await court.ended(attempt, AttemptState.FINALIZED)
        assert any("is not on chain" in sentence for sentence in court.look().broken)

    async def test_an_order_that_the_journal_does_not_know(self, court: Court) -> None:
        assert "the journal does not know it" in court.look().unsettled[0]

    async def test_an_order_that_is_given_up(self, court: Court) -> None:
        known = court.world.order(court.order)
        assert known is not None
        await court.journal.commit(NoteOrder(known, OrderState.FAILED, "Its retry budget is used up."))
        assert "was given up, and its user can pay for it" in court.look().unsettled[0]
        assert court.look(may_fail=True) == Findings()

    async def test_an_attempt_that_is_forgotten(self, court: Court) -> None:
        attempt = court.sign()
        await court.journaled(attempt)
        assert any("is still signed" in sentence for sentence in court.look().unsettled)


class TestLateWitness:
    """On a real validator two signatures are judged later, by what the chain had at most reached at the second one."""

    KEPT = (Reached(10.0, 100, 95, 60), Reached(11.0, 105, 100, 65))

    def judged(
        self, landed: SignatureStatus | None, *, second_at: float = 10.5, kind: AttemptKind = AttemptKind.EXECUTE
    ) -> str | None:
        """The first one was valid to height 63; the poll after the second one said confirmed 100, finalized 65."""
        witness = LateWitness()
        witness.reached += self.KEPT
        first = FirstSend(Signature.default(), b"", Pubkey.default(), kind, 63, 9.0, 90)
        return witness.judge(first, replace(first, at=second_at), landed)

    def test_it_was_dead_for_good(self) -> None:
        assert self.judged(None) is None

    def test_it_could_still_land(self) -> None:
        assert "could still land: the finalized height was at most 60" in str(self.judged(None, second_at=9.9))

    def test_it_had_failed_and_was_confirmed(self) -> None:
        assert self.judged(SignatureStatus(100, "finalized", {"InstructionError": [2, {"Custom": 6013}]})) is None

    def test_it_had_not_been_confirmed(self) -> None:
        assert "had not been confirmed" in str(self.judged(SignatureStatus(101, "finalized", "any")))

    def test_it_had_succeeded(self) -> None:
        assert "had succeeded" in str(self.judged(SignatureStatus(90, "finalized", None)))
        assert self.judged(SignatureStatus(90, "finalized", None), kind=AttemptKind.RATCHET) is None

    def test_what_the_chain_had_reached_is_not_known(self) -> None:
        assert self.judged(None, second_at=12.0) is None
