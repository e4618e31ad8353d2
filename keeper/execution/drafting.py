"""From a decided action to a signed transaction and the operation that has to be in the journal before it is sent."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from keeper.domain.actions import ExecuteOrder, RatchetStop
from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.decimals import decimal
from keeper.domain.orders import Order, OrderState
from keeper.domain.prices import Price
from keeper.execution.fees import FeePolicy
from keeper.execution.orders import Record
from keeper.journal.ops import Intend
from keeper.solana.client import Blockhash
from keeper.solana.transactions import Signer
from keeper.venue.venue import Venue

_EXECUTE: Final = AttemptKind.EXECUTE
_RATCHET: Final = AttemptKind.RATCHET


@dataclass(frozen=True, slots=True)
class Job:
    """A decided action, and the record of its order as it was then: `generation` is that order's."""

    action: ExecuteOrder | RatchetStop
    record: Record
    generation: int
    order: Order
    price: Price
    triggered_at_ns: int
    executes: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """A signed transaction that is not in the journal yet: nothing of it may leave before `op` is durable."""

    job: Job
    attempt: Attempt
    op: Intend


class Drafting:
    """Builds and signs. Nothing leaves here."""

    def __init__(self, venue: Venue, signer: Signer, fees: FeePolicy, *, dry_run: bool = False) -> None:
        self._venue = venue
        self._signer = signer
        self._fees = fees
        self._dry_run = dry_run

    def draft(self, job: Job, blockhash: Blockhash) -> Draft:
        """The signed transaction for a job. Misconfigured when the program's IDL gives none."""
        order, tries = job.order, job.record.tries
        kind = _EXECUTE if job.executes else _RATCHET
        tries.made += 1
        tries.recent.append(time.monotonic())
        number = tries.made
        budget = self._fees.budget(kind, order.order_type, number, tries.failed)
        built = self._venue.message(kind, order, budget, blockhash)
        signed = self._signer.sign_message(built.message, blockhash)
        now_s = time.time()
        attempt = Attempt(
            signature=signed.signature,
            kind=kind,
            order=order.address,
            wire=signed.wire,
            blockhash=blockhash.value,
            last_valid_block_height=blockhash.last_valid_block_height,
            state=AttemptState.DRY_RUN if self._dry_run else AttemptState.SIGNED,
            number=number,
            signed_at=now_s,
            trigger_price_1e6=job.price.price_1e6,
            trigger_slot=job.price.slot,
            unit_limit=budget.unit_limit,
            unit_price_micro_lamports=budget.unit_price_micro_lamports,
            position=built.position,
            fate=Fate.DRY_RUN if self._dry_run else None,
        )
        # When the news arrived, not now: the time that the job queued and was signed in belongs to the latency.
        triggered_at = now_s - (time.monotonic_ns() - job.triggered_at_ns) / 1e9
        if not job.executes:
            return Draft(job, attempt, Intend(order, attempt, "", None))
        price = decimal(job.price.price_1e6)
        if self._dry_run:
            reason = f"Dry run: it would have been executed at {price}."
            return Draft(job, attempt, Intend(order, attempt, reason, None, OrderState.OPEN))
        reason = f"The price {price} met its condition; attempt {number} is on its way."
        return Draft(job, attempt, Intend(order, attempt, reason, triggered_at, OrderState.EXECUTING))
