"""How often the lander asks for its attempts: a node that counts calls must have some left for the sends.

The lander is the real one. On paper are the clock and the node: what it knows of an attempt changes with the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.domain.errors import JournalError, RateLimited
from keeper.execution import lander, verdicts
from keeper.execution.flights import Flight, Flights
from keeper.execution.lander import Lander
from keeper.execution.limits import LandingLimits
from keeper.execution.verdicts import Recorder, Verdict
from keeper.solana.client import SignatureStatus
from tests.execution.paper_chain import Clock

pytestmark = pytest.mark.anyio
LIMITS = LandingLimits(final_poll_s=2.0, resend_every_s=2.0, height_every_s=2.0, send_deadline_s=5.0)
STEP_S = 0.01
CONFIRMED_AFTER_S, FINAL_AFTER_S = 0.6, 12.4


class Node:
    """A client and its pool. It knows an attempt as processed at once, and as final in the end."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sent: dict[Signature, float] = {}
        self.asked: list[int] = []
        self.rests = False
        self.slot, self.knows = 1, True
        self.reply: object = "a signature"
        self.pool = self.pace = self
        self.slot_s = 0.4
        self.consensus = SimpleNamespace(is_final=lambda confirmation, slot: confirmation == "finalized")

    def awake(self) -> list[str]:
        return [] if self.rests else ["the node"]

    async def block_height_and_slot(self) -> tuple[int, int]:
        return 1, 1

    async def statuses(self, signatures: Sequence[Signature]) -> tuple[int, list[SignatureStatus] | list[None]]:
        self.asked.append(len(signatures))
        if not self.knows:
            return self.slot, [None for _ in signatures]
        return 1, [SignatureStatus(1, self._confirmation(self.clock.s - self.sent[each]), None) for each in signatures]

    @staticmethod
    def _confirmation(age_s: float) -> Any:
        if age_s < CONFIRMED_AFTER_S:
            return "processed"
        return "confirmed" if age_s < FINAL_AFTER_S else "finalized"

    def send(self, wires: Sequence[bytes], *, deadline_s: float) -> Node:
        return self

    async def replies(self) -> list[object]:
        return [self.reply]


class Journal:
    """Takes everything, or nothing."""

    full = False
    healthy = True

    def lapsed(self) -> bool:
        return False

    async def commit(self, *ops: object) -> None:
        if self.full:
            raise JournalError("no room")


class Stand:
    """A lander whose clock the test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.flights, self.journal = Clock(), Flights(), Journal()
        self.node = Node(self.clock)
        for room in (lander, verdicts):
            monkeypatch.setattr(room, "time", self.clock)
        self.lander = Lander(
            cast(Any, self.node), cast(Any, self.journal), self.flights, LIMITS, cast(Any, lambda report: None)
        )

    def send(self) -> Flight:
        attempt = Attempt(
            signature=Keypair().sign_message(b""),
            kind=AttemptKind.EXECUTE,
            order=Pubkey.default(),
            wire=b"\x01",
            blockhash="h",
            last_valid_block_height=100,
            state=AttemptState.SENT,
            number=1,
            signed_at=0.0,
        )
        now = self.clock.s
        flight = Flight(attempt, None, 1, None, born_at_s=now, next_poll_s=now, next_send_s=now)
        self.node.sent[attempt.signature] = now
        self.lander.track(flight)
        return flight

    async def pass_time(self, seconds: float) -> None:
        """Each step asks for what is due. What the settlement would do is done: a success is read back and closed."""
        for _ in range(round(seconds / STEP_S)):
            self.clock.s += STEP_S
            for group in self.lander.due():
                polled = await self.lander.poll(group)
                for flight in polled.landed.flights:
                    flight.read_back = True
                for flight in polled.final:
                    self.flights.remove(flight)


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    return Stand(monkeypatch)


async def test_many_attempts_are_asked_for_in_few_calls(stand: Stand) -> None:
    """Seven executions a second took 30 calls a second and more, of which a node may answer 50."""
    for _ in range(7 * 30):
        stand.send()
        await stand.pass_time(1 / 7)
    assert sum(stand.node.asked) >= 3 * 7 * 20, "each is asked for until it is confirmed, and until it is final"
    assert len(stand.node.asked) <= 12 * 30


async def test_a_lone_attempt_is_asked_for_as_soon_as_the_chain_can_have_news(stand: Stand) -> None:
    flight = stand.send()
    await stand.pass_time(CONFIRMED_AFTER_S + 0.35)
    assert flight.read_back
    assert len(stand.node.asked) <= 6


async def test_while_every_node_rests_their_calls_are_left_for_the_sends(stand: Stand) -> None:
    stand.node.rests = True
    for _ in range(7 * 10):
        stand.send()
        await stand.pass_time(1 / 7)
    asked_a_second_without = len(stand.node.asked) / 10
    assert asked_a_second_without <= 8, "a new one is asked for once, and the others come along"


async def test_what_a_node_had_no_room_for_is_sent_again_when_it_has(stand: Stand) -> None:
    flight = stand.send()
    stand.node.reply = RateLimited("HTTP 429", retry_after_s=0.5)
    await stand.lander.launch([flight])
    assert flight.next_send_s == stand.clock.s + 0.5
    stand.node.reply = RateLimited("HTTP 429", retry_after_s=60.0)
    await stand.lander.launch([flight])
    assert flight.next_send_s == stand.clock.s + LIMITS.resend_every_s


async def test_what_the_journal_refuses_does_not_come_along_either(stand: Stand) -> None:
    flight = stand.send()
    await stand.pass_time(2 * STEP_S)
    stand.journal.full = True
    verdict = Verdict.of(flight)
    await Recorder(cast(Any, stand.journal), cast(Any, lambda report: None)).record([verdict], "seen_journaled")
    assert flight.unrecorded
    stand.journal.full = False
    stand.node.asked.clear()
    stand.send()
    await stand.pass_time(0.5)
    assert set(stand.node.asked) == {1}, "it rests for a second at least"


@pytest.mark.parametrize("state", [AttemptState.SEEN, AttemptState.CONFIRMED])
async def test_what_a_fork_dropped_is_as_it_was_before_it_landed_and_goes_out_at_once(
    stand: Stand, state: AttemptState
) -> None:
    """A node that has not come to the slot in which it was seen says nothing of it."""
    flight = stand.send()
    flight.attempt = flight.attempt._replace(state=state, seen_slot=10)
    flight.read_back, flight.landed_slot = state is AttemptState.CONFIRMED, 10
    stand.node.knows = False
    flight.next_send_s = stand.clock.s + 2.0
    stand.node.slot = 9
    assert not (await stand.lander.poll([flight])).dropped
    assert (flight.attempt.state, flight.next_send_s) == (state, stand.clock.s + 2.0)
    stand.node.slot = 10
    assert (await stand.lander.poll([flight])).dropped == [flight]
    again: tuple[object, ...] = (flight.attempt.state, flight.read_back, flight.landed_slot)
    assert again == (AttemptState.SENT, False, None)
    assert flight.next_send_s <= stand.clock.s
