"""Judges what leaves the keeper, at the moment at which it leaves, beside the campaign's witness: what a send says of
cancels, of an operator's pause, of old prices, and of what is not synced.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.domain.orders import OrderState
from keeper.execution.armory import reading_of
from keeper.journal import Queries
from keeper.journal.records import PreparedKind
from keeper.solana.client import BLOCKHASH_BLOCKS
from tests.chaos.witness import FirstSend, Witness
from tests.simulate.database.server import Server
from tests.simulate.dice import clock
from tests.simulate.disk import Disk
from tests.simulate.scenario import TOLD_WITHIN_S
from tests.support.world import World

if TYPE_CHECKING:
    from tests.simulate.network import Link
    from tests.simulate.sharer import Sharer

MAX_PRICE_AGE_S: Final = 60
_SLACK_S: Final = 15
"""A price may have grown older between the decision and its arrival, with a slow disk and a slow node in between."""


_LATE_S: Final = 0.5
"""A keeper looks at its lease and then sends. In between it may have been stopped."""


def hold_to_leases(
    judge: Judge, calls: Sequence[dict[str, Any]], journal: Queries, life: Sharer, server: Server
) -> None:
    """What this keeper sends is of markets that no other has the right to work on."""
    for call in calls:
        if call.get("method") != "sendTransaction":
            continue
        signature = Signature.from_bytes(base64.b64decode(call["params"][0])[1:65])
        attempt = journal.attempt(signature)
        row = None if attempt is None else journal.order(attempt.order)
        held = None if row is None else server.holder(str(row.order.market))
        if held is None or held[0] is life.client:
            continue
        late_s = clock.real() - max(held[1], life.free_since)
        server.counts["sends after a takeover"] += 1
        if late_s > _LATE_S:
            judge.violations.append(
                f"{life.client.name} sent {signature} {late_s:.1f} s after {held[0].name} had taken over: two send"
            )


class Judge(Witness):
    """`paused_since` is when an operator's pause was answered, by this machine's clock; None while none holds.
    `clock_steps` says that this machine's time of day stepped: then times of different steps are not compared.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world.bank)
        self._world = world
        self.paused_since: float | None = None
        self.pause_within_s = 0.0
        """So long other keepers may not know of a pause."""
        self.clock_steps = False
        self._jumps: list[tuple[float, float]] = []
        self._newest_told: dict[Link | None, int] = {}
        self._sender: Link | None = None
        self.last_sent: dict[str, float] = {}
        """By signature, when it left the last time, by the loop's time."""

    def clock_jumped(self, seconds: float) -> None:
        """The chain's clock runs ahead by so much, from now on."""
        self._jumps.append((anyio.current_time(), seconds))

    def blockhash_told(self, last_valid_block_height: int, whom: Link | None = None) -> None:
        """A keeper was given a blockhash that is good until then: by it, it knows which ones are dead."""
        self._newest_told[whom] = max(self._newest_told.get(whom, 0), last_valid_block_height)

    def sent(
        self,
        label: str,
        calls: Sequence[dict[str, Any]],
        journal: Queries,
        disk: Disk | Server,
        sender: Link | None = None,
    ) -> None:
        """A request with transactions in it leaves; `sender` says which of several keepers it leaves."""
        self.journal, self._sender = journal, sender
        before, told = self.newest, len(self.sends)
        self.on_calls(label, calls)
        for send in self.sends[told:]:
            self.last_sent[send["signature"]] = anyio.current_time()
        first = self.newest
        if first is None or first is before:
            return
        # A commit without an fsync came last: is what is sent among what would outlive a power cut?
        if disk.unsynced and not disk.holds(first.signature):
            self.violations.append(f"{first.signature} was sent, and no fsync has it (promise 1)")
        attempt = journal.attempt(first.signature)
        if attempt is not None and first.kind is not AttemptKind.RELAY:
            self._judge(first, attempt, journal)

    def _judge(self, first: FirstSend, attempt: Attempt, journal: Queries) -> None:
        if attempt.state is AttemptState.ARMED:
            # Signed long before it was decided: what was true when it left counts.
            attempt = attempt._replace(signed_at=first.at)
            self._judge_armed(first, attempt, journal)
        order = self._world.order(first.order)
        if not self.clock_steps:
            if self.paused_since is not None and attempt.signed_at > self.paused_since + self.pause_within_s:
                self.violations.append(f"{first.signature} was signed while an operator had paused the keeper")
            for prepared in journal.prepared_of(first.order):
                if prepared.kind is PreparedKind.CANCEL and prepared.signature is not None:
                    self._against_cancel(first, attempt, journal.attempt(prepared.signature))
        row = journal.order(first.order)
        if row is not None and row.state is OrderState.FAILED and first.kind is AttemptKind.EXECUTE:
            self.violations.append(f"{first.signature} was sent for order {first.order}, which had failed for good")
        if order is not None and first.kind is AttemptKind.EXECUTE:
            age_s: float = self._world.bank.chain.tip.time - self._world.market_state(order.market).last_oracle_update_s
            age_s -= sum(by_s for at_s, by_s in self._jumps if anyio.current_time() - at_s < TOLD_WITHIN_S)
            if age_s > MAX_PRICE_AGE_S + _SLACK_S:
                self.violations.append(f"{first.signature} was sent, and the newest price is {age_s} s old (promise 4)")

    def _judge_armed(self, first: FirstSend, attempt: Attempt, journal: Queries) -> None:
        row = journal.order(first.order)
        if self._newest_told.get(self._sender, 0) - BLOCKHASH_BLOCKS > attempt.last_valid_block_height:
            self.violations.append(f"{first.signature} was sent, and a node had told that its blockhash was dead")
        # What the journal has of the order the keeper knew.
        if row is not None and attempt.built_from != reading_of(row.order):
            self.violations.append(f"{first.signature} was sent for an order that had changed since it was armed")

    def _against_cancel(self, first: FirstSend, attempt: Attempt, cancel: Attempt | None) -> None:
        if cancel is None or cancel.signed_at >= attempt.signed_at:
            return
        if self._sender is not None and str(cancel.signature) not in self.last_sent:
            return  # the answer to its COMMIT was lost: its user was told that it may not be there
        over = cancel.ended_at or cancel.confirmed_at
        if over is None or over > attempt.signed_at:
            self.violations.append(
                f"{first.signature} was signed at order {first.order} while its user's cancel {cancel.signature} "
                "was being landed"
            )
