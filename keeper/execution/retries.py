"""Asking a node before an order that failed is tried again, so that one that can't be filled costs no fee each time.

What the node is asked about carries no signature (promise 1: it is not journaled yet), so nothing that could land has
left when it refuses. A node that does not answer is no reason to wait.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Final

import anyio

from keeper.domain.attempts import AttemptKind, Fate
from keeper.domain.errors import ChainError, JournalError
from keeper.domain.orders import OrderState
from keeper.execution.consequences import following, ops_of, take_effect
from keeper.execution.drafting import Draft, FeePolicy, Job
from keeper.execution.orders import Orders, Reason
from keeper.journal import Journal
from keeper.journal.ops import NoteOrder
from keeper.solana.client import ChainClient
from keeper.venue.rehearsal import Rehearsed, rehearse
from keeper.venue.venue import Venue

_WAIT_S: Final = 2.0
"""How long a retry waits for a simulation of it."""
_AT_ONCE: Final = 64
"""So many simulations are asked for at once."""


class Retries:
    """Rehearses what failed before; learns from rehearsals how many compute units a kind of transaction uses."""

    def __init__(self, client: ChainClient, venue: Venue, journal: Journal, orders: Orders, fees: FeePolicy) -> None:
        self._client = client
        self._venue = venue
        self._journal = journal
        self._orders = orders
        self._fees = fees

    def too_often(self, job: Job) -> bool:
        """Whether the order has had its attempts of the hour: then it rests until there is room for another."""
        now_s = time.monotonic()
        pause_s = job.record.tries.ceiling_pause_s(self._orders.limits, now_s)
        if pause_s <= 0:
            return False
        reason = f"It was tried too often within an hour; the next attempt is in {pause_s:.0f} s."
        self._journal.post(NoteOrder(job.order, OrderState.OPEN, reason))
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
        found: Rehearsed | None = None
        kind = AttemptKind.EXECUTE if job.executes else AttemptKind.RATCHET
        with anyio.move_on_after(_WAIT_S), contextlib.suppress(ChainError):
            found = await rehearse(self._client, self._venue, kind, job.order)
        if found is None:
            return True
        failure = found.failure
        if failure is None:
            self._fees.learn_units(kind, job.order.order_type, found.units)
            return True
        address = job.order.address
        now_s = time.monotonic()
        if failure.instruction is None or failure.fate is Fate.LOST_RACE:
            self._orders.pause(job.record, now_s + job.record.tries.pause_s(self._orders.limits))
            if failure.fate is Fate.LOST_RACE:
                # A node's word at processed, perhaps an old one: the account is read before anything is concluded.
                self._orders.block(job.record, Reason.ENDED, found.slot)
            reason = f"A node would not try it now ({failure.name}); it is tried again."
            self._journal.post(NoteOrder(job.order, OrderState.OPEN, reason))
        else:
            # Nothing left the process, so the order reads as it did. And the price that the node had may be older than
            # the one that decided: only one that is newer than both is news.
            slot = max(found.slot, job.price.slot)
            follows = following(
                self._orders, self._venue, address, job.generation, failure.fate, failure, job.order, slot
            )
            await self._journal.commit(*ops_of(follows))
            take_effect(follows, self._orders, now_s)
        self._orders.attempt_over(address, None)
        return False

    async def learn_units(self, draft: Draft) -> None:
        """How many units a kind of transaction uses, of which nothing is known: nothing waits for this."""
        kind, order = draft.attempt.kind, draft.job.order
        with contextlib.suppress(ChainError):
            found = await rehearse(self._client, self._venue, kind, order)
            if found.failure is None:
                self._fees.learn_units(kind, order.order_type, found.units)
