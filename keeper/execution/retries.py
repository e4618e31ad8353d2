"""Asking a node before an order that failed is tried again, so that one that can't be filled costs no fee each time.

What the node is asked about carries no signature (promise 1: it is not journaled yet), so nothing that could land has
left when it refuses. Only the program's own refusal counts, as of the news that decided or later. A node that does not
answer, has not come so far, or fails for a reason of its own is no reason to wait: then the chain is asked, by sending.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import anyio
from anyio.abc import TaskGroup

from keeper.domain.attempts import AttemptKind, Fate
from keeper.domain.errors import BehindNode, ChainError, JournalError
from keeper.domain.orders import Order, OrderState, OrderType
from keeper.domain.prices import Crank
from keeper.domain.reports import Note, Report
from keeper.execution.consequences import following, ops_of, take_effect
from keeper.execution.drafting import FeePolicy, Job, Tips
from keeper.execution.orders import Orders, Reason
from keeper.journal import Journal
from keeper.journal.ops import NoteOrder
from keeper.solana.client import ChainClient
from keeper.solana.transactions import Tip
from keeper.venue.rehearsal import Rehearsed, rehearse
from keeper.venue.venue import Venue

_WAIT_S: Final = 2.0
"""How long a retry waits for a simulation of it."""
_FIRST_PAUSE_S: Final = 0.1
"""Before a node that is behind is asked again, doubled each time: five times within `_WAIT_S`."""
_AT_ONCE: Final = 64
"""So many simulations are asked for at once."""


class Retries:
    """Rehearses what failed before; learns from rehearsals how many compute units a kind of transaction uses.

    `rent_lamports` is a position's: what a fill may cost beside its fee and its `tips`.
    """

    def __init__(
        self,
        client: ChainClient,
        venue: Venue,
        journal: Journal,
        orders: Orders,
        fees: FeePolicy,
        tips: Tips | None,
        report: Callable[[Report], None],
        *,
        rent_lamports: int,
    ) -> None:
        self._client = client
        self._venue = venue
        self._journal = journal
        self._orders = orders
        self._fees = fees
        self._tips = tips
        self._report = report
        self._rent_lamports = rent_lamports
        self.drains: set[tuple[AttemptKind, OrderType]] = set()
        """The kinds that would take too much from the keeper's key, by their last rehearsal. While there is one,
        everything is rehearsed before it is sent.
        """

    def too_often(self, job: Job) -> bool:
        """Whether the order has had its attempts of the hour: then it rests until there is room for another."""
        now_s = time.monotonic()
        pause_s = job.record.tries.ceiling_pause_s(self._orders.limits, now_s)
        if pause_s <= 0:
            return False
        reason = f"It was tried too often within an hour; the next attempt is in {pause_s:.0f} s."
        self._journal.post(NoteOrder(job.order, OrderState.OPEN, reason, stands=True))
        self._orders.pause(job.record, now_s + pause_s)
        self._orders.attempt_over(job.order.address, None)
        return True

    async def worth_sending(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that a node says would succeed now, or says nothing of. Of the others the program's refusal is applied
        like one on chain. Raises JournalError when the journal did not take one of those: the others are given up on,
        and looked at again.
        """
        kept: list[Job] = []
        failed: list[JournalError] = []
        limit = anyio.Semaphore(_AT_ONCE)

        async def ask(job: Job) -> None:
            async with limit:
                try:
                    if await self._would_succeed(job):
                        kept.append(job)
                except JournalError as e:
                    self._orders.attempt_over(job.order.address, None)
                    failed.append(e)

        async with anyio.create_task_group() as asking:
            for job in jobs:
                asking.start_soon(ask, job)
        if failed:
            for job in kept:
                self._orders.attempt_over(job.order.address, None)
            raise failed[0]
        return kept

    async def _would_succeed(self, job: Job) -> bool:
        kind = AttemptKind.EXECUTE if job.executes else AttemptKind.RATCHET
        found = await self._rehearsed(kind, job)
        failure = None if found is None else found.failure
        self._look_for_drain(kind, job.order, found)
        if found is None or (failure is not None and not found.refused):
            return True
        if failure is None:
            if job.crank is None:
                self._fees.learn_units(kind, job.order.order_type, found.units)
            return True
        address = job.order.address
        now_s = time.monotonic()
        if failure.fate is Fate.LOST_RACE:
            # A node's word at processed, which a fork may drop: the account is read before anything is concluded.
            self._orders.pause(job.record, now_s + job.record.tries.pause_s(self._orders.limits))
            self._orders.block(job.record, Reason.ENDED, found.slot)
            reason = f"A node would not try it now ({failure.name}); it is tried again."
            self._journal.post(NoteOrder(job.order, OrderState.OPEN, reason, stands=True))
        else:
            # Nothing left the process, so the order reads as it did.
            follows = following(
                self._orders, self._venue, address, job.generation, failure.fate, failure, job.order, found.slot
            )
            await self._journal.commit(*ops_of(follows))
            take_effect(follows, self._orders, now_s)
        self._orders.attempt_over(address, None)
        return False

    async def _rehearsed(self, kind: AttemptKind, job: Job) -> Rehearsed | None:
        """What a node says of it now; None when none that has come so far answers in time."""
        as_of = max(job.price.slot, job.order.slot, job.record.tries.as_of)
        pause_s, tries = _FIRST_PAUSE_S, job.record.tries
        tip = None if self._tips is None else self._tips.of(kind, job.order, tries.made + 1, tries.failed)
        with anyio.move_on_after(_WAIT_S), contextlib.suppress(ChainError):
            while True:
                try:
                    return await self._rehearse(kind, job.order, as_of=as_of, crank=job.crank, tip=tip)
                except BehindNode:
                    await anyio.sleep(pause_s)
                    pause_s *= 2
        return None

    def learn_first(self, attempts: Iterable[tuple[AttemptKind, Order]], tasks: TaskGroup) -> None:
        """Learn how many units the first kind of these uses of which nothing is known, beside its own way out: the next
        ones profit.
        """
        for kind, order in attempts:
            if (kind, order.order_type) not in self._fees.learnt_units:
                tasks.start_soon(self._learn_units, kind, order)
                break

    async def _learn_units(self, kind: AttemptKind, order: Order) -> None:
        with contextlib.suppress(ChainError):
            found = await self._rehearse(kind, order)
            self._look_for_drain(kind, order, found)
            if found.failure is None:
                self._fees.learn_units(kind, order.order_type, found.units)

    async def _rehearse(
        self,
        kind: AttemptKind,
        order: Order,
        *,
        as_of: int | None = None,
        crank: Crank | None = None,
        tip: Tip | None = None,
    ) -> Rehearsed:
        rent = self._rent_lamports if kind is AttemptKind.EXECUTE else 0
        return await rehearse(
            self._client, self._venue, kind, order, as_of=as_of, crank=crank, tip=tip, may_cost_lamports=rent
        )

    def _look_for_drain(self, kind: AttemptKind, order: Order, found: Rehearsed | None) -> None:
        """Remember, and report, a kind that would drain the key, until one of it is found that would not."""
        if found is None or (found.failure is not None and found.failure.fate is not Fate.DRAINS_KEY):
            return
        which = kind, order.order_type
        if found.failure is None:
            self.drains.discard(which)
        elif which not in self.drains:
            self.drains.add(which)
            detail = f"{kind} of a {order.order_type.word} order: {found.failure.detail}"
            self._report(Note("rehearsal.drains_key", detail, level="error", order=order.address))
