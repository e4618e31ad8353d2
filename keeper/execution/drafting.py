"""From a decided action to a signed transaction, what it may use and pays, and the operation that has to be in the
journal before it is sent.

The fee is price x REQUESTED units, so a limit that is too high costs money and one that is too low costs the
fill: it is the most units seen for this kind of transaction plus a margin. The price rises on retries only, and both
are capped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.actions import ExecuteOrder, RatchetStop
from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.decimals import decimal
from keeper.domain.orders import Order, OrderState, OrderType
from keeper.domain.prices import Crank, Price
from keeper.execution.orders import Record
from keeper.journal.ops import Disarm, Intend, Launched, Op
from keeper.solana.client import Blockhash
from keeper.solana.transactions import MOST_UNITS, SIGNATURE_FEE_LAMPORTS, Budget, Signer, Tip
from keeper.venue.venue import Venue

MICRO: Final = 1_000_000

# Finding a program address takes 1,500 units for each bump that it tries, and a fill finds two. Which order needs many
# tries is chance: the most seen so far says little, so room for twenty more tries than any so far is always left.
# With room for ten, one fill in two thousand ran out of units.
_ADDRESS_SEARCH_UNITS: Final = 30_000

TIP_UNITS: Final = 500
"""Room for the transfer of a tip: the system program takes 150 units for it."""
CRANK_UNITS: Final = 10_000
"""Room for `update_oracle_price` beside an execution: the deployed program takes 4,400 units for it."""

_EXECUTE: Final = AttemptKind.EXECUTE
_RATCHET: Final = AttemptKind.RATCHET
_SIGNED: Final = AttemptState.SIGNED
_DRY_RUN: Final = AttemptState.DRY_RUN


@dataclass(frozen=True, slots=True)
class FeeRules:
    """`default_unit_limit` holds until a limit is learnt; `unit_margin` is the share on top of the most seen.
    Prices are micro-lamports a unit. `percentile` None means a fixed price; otherwise that percentile of the
    recent fees for the accounts that the transaction writes, at least the fixed one. `retry_factor` multiplies
    the price at each retry. `cap_lamports` is the most that one transaction's whole fee may be, tip included.
    `tip_lamports` is what a tipped execution pays, and `tip_from_attempt` the first to pay it, of those at an order
    that fail one after the other: 1 is the first of all.
    """

    default_unit_limit: int
    unit_margin: float
    unit_price_micro_lamports: int
    percentile: int | None
    retry_factor: float
    cap_lamports: int
    tip_lamports: int = 0
    tip_from_attempt: int = 1


class FeePolicy:
    """Budgets for transactions."""

    def __init__(self, rules: FeeRules) -> None:
        self.rules = rules
        self.learnt_units: dict[tuple[AttemptKind, OrderType], int] = {}
        """The most that each kind of transaction is known to have used."""
        self._recent_price = 0

    def __repr__(self) -> str:
        return f"FeePolicy(learnt {len(self.learnt_units)} limits)"

    def budget(
        self,
        kind: AttemptKind,
        order_type: OrderType,
        number: int,
        failed: int,
        more_units: int = 0,
        signatures: int = 1,
        tip_lamports: int = 0,
    ) -> Budget:
        """The budget of attempt `number` (1 is the first) at an order of this type, `failed` of which failed before:
        a trailing stop that was moved ten times has made ten attempts, and none of them is a reason to bid more.
        `more_units` is room for what it does beside that; `signatures` are those that it pays for, and `tip_lamports`
        what it pays a sender.

        The limit rises by one unit from attempt to attempt, so that no two attempts at an order can be the same
        transaction, whatever the caps do to the price.
        """
        learnt = self.learnt_units.get((kind, order_type))
        limit = self.rules.default_unit_limit if learnt is None else self.unit_limit(kind, order_type)
        if number > 1:
            # The limit that was learnt from other orders may be what this one failed by.
            limit = max(limit, self.rules.default_unit_limit) + number - 1
        limit = min(MOST_UNITS, limit + more_units)
        base = max(self.rules.unit_price_micro_lamports, self._recent_price)
        price = int(base * self.rules.retry_factor ** min(failed, 20))
        most = max(0, self.rules.cap_lamports - signatures * SIGNATURE_FEE_LAMPORTS - tip_lamports) * MICRO // limit
        return Budget(limit, min(price, most))

    def unit_limit(self, kind: AttemptKind, order_type: OrderType) -> int:
        """Compute units to request."""
        most = self.learnt_units.get((kind, order_type))
        if most is None:
            return self.rules.default_unit_limit
        return min(MOST_UNITS - 1_000, int(most * (1 + self.rules.unit_margin)) + _ADDRESS_SEARCH_UNITS)

    def learn_units(self, kind: AttemptKind, order_type: OrderType, units: int) -> None:
        """A transaction of this kind used `units`, in a simulation or on chain."""
        if units > 0:
            key = (kind, order_type)
            self.learnt_units[key] = max(units, self.learnt_units.get(key, 0))

    def learn_prices(self, recent: Sequence[int]) -> None:
        """Recent per-slot minimum prices for the accounts written; used when the policy is a percentile."""
        if self.rules.percentile is None or not recent:
            return
        ordered = sorted(recent)
        self._recent_price = ordered[min(len(ordered) - 1, len(ordered) * self.rules.percentile // 100)]


class Tips:
    """Who is paid for carrying an execution, and how much. `accounts` are those of each sender that wants a tip, in
    the settings' order: an order's first attempt pays one of the first sender's, its second one of the next one's, and
    so on. Bytes once signed keep theirs: a tipped attempt is an attempt like any other, and the order's only one.
    """

    def __init__(self, accounts: Sequence[Sequence[Pubkey]], fees: FeePolicy) -> None:
        self._accounts = accounts
        self._fees = fees

    def of(self, kind: AttemptKind, order: Order, number: int, failed: int) -> Tip | None:
        """What attempt `number` at this order pays, `failed` of which failed before; None: nothing."""
        rules = self._fees.rules
        if kind is not _EXECUTE or not rules.tip_lamports or failed + 1 < rules.tip_from_attempt:
            return None
        paid = self._accounts[(number - 1) % len(self._accounts)]
        # By the order: who writes one account waits for each other, so they are spread over all.
        return Tip(paid[(bytes(order.address)[0] + number) % len(paid)], rules.tip_lamports)


@dataclass(frozen=True, slots=True)
class Job:
    """A decided action, and the record of its order as it was then: `generation` is that order's. `crank` is what it
    posts first.
    """

    action: ExecuteOrder | RatchetStop
    record: Record
    generation: int
    order: Order
    price: Price
    triggered_at_ns: int
    executes: bool
    crank: Crank | None = None

    @property
    def overtaken(self) -> bool:
        """Whether something else speaks against acting on the order by now, or another one was made at its address."""
        return len(self.record.reasons) > 1 or self.record.generation != self.generation


@dataclass(frozen=True, slots=True)
class Draft:
    """A signed transaction that is not in the journal yet: nothing of it may leave before `op` is durable. `disarms`:
    the armed attempts at its order that the journal may hold, which go in the same transaction.
    """

    job: Job
    attempt: Attempt
    op: Intend
    disarms: tuple[Signature, ...] = ()

    @property
    def armable(self) -> bool:
        """Whether its bytes are those of an armed attempt: they execute the order, and do not depend on the price."""
        return self.job.executes and self.job.crank is None


def ops_of(drafts: Sequence[Draft]) -> list[Op]:
    """What has to be in the journal before they are sent. What they replace goes first, to make room."""
    ops: list[Op] = [Disarm(signature) for draft in drafts for signature in draft.disarms]
    ops += [draft.op for draft in drafts]
    return ops


class Drafting:
    """Builds and signs. Nothing leaves here. `authority` is the markets', whose key signs beside the keeper's where a
    price is posted.
    """

    def __init__(
        self,
        venue: Venue,
        signer: Signer,
        authority: Signer | None,
        fees: FeePolicy,
        *,
        tips: Tips | None = None,
        keeps_s: float,
        dry_run: bool = False,
    ) -> None:
        self._venue = venue
        self._signer = signer
        self._authority = authority
        self._fees = fees
        self._tips = tips
        self._keeps_s = keeps_s
        self._dry_run = dry_run

    def draft(self, job: Job, blockhash: Blockhash, disarms: tuple[Signature, ...] = ()) -> Draft:
        """The signed transaction for a job. Misconfigured when the program's IDL gives none."""
        order, tries = job.order, job.record.tries
        kind = _EXECUTE if job.executes else _RATCHET
        tries.made += 1
        tries.recent.append(time.monotonic())
        state = _DRY_RUN if self._dry_run else _SIGNED
        attempt = self._signed(kind, order, blockhash, state, tries.made, tries.failed, job.price, job.crank)
        not_after = attempt.signed_at + self._keeps_s
        if not job.executes:
            op = Intend(order, attempt, "", None, None, not_after)
        elif self._dry_run:
            reason = f"Dry run: it would have been executed at {decimal(job.price.price_1e6)}."
            op = Intend(order, attempt, reason, None, OrderState.OPEN, not_after)
        else:
            triggered_at = _triggered_at(job, attempt.signed_at)
            op = Intend(order, attempt, _on_its_way(attempt), triggered_at, OrderState.EXECUTING, not_after)
        return Draft(job, attempt, op, disarms)

    def arm(self, order: Order, number: int, blockhash: Blockhash) -> Attempt:
        """The signed execution of an order whose condition is not met yet. Misconfigured as `draft`."""
        return self._signed(_EXECUTE, order, blockhash, AttemptState.ARMED, number, 0, None)

    def launched(self, job: Job, attempt: Attempt) -> Launched:
        """What the journal is told of an armed attempt once it was sent."""
        triggered_at = _triggered_at(job, time.time())
        return Launched(job.order, attempt, _on_its_way(attempt), triggered_at, OrderState.EXECUTING)

    def _signed(
        self,
        kind: AttemptKind,
        order: Order,
        blockhash: Blockhash,
        state: AttemptState,
        number: int,
        failed: int,
        price: Price | None,
        crank: Crank | None = None,
    ) -> Attempt:
        tip = None if self._tips is None else self._tips.of(kind, order, number, failed)
        if crank is None and tip is None:
            budget = self._fees.budget(kind, order.order_type, number, failed)
            built = self._venue.message(kind, order, budget, blockhash)
        else:
            units = CRANK_UNITS * (crank is not None) + TIP_UNITS * (tip is not None)
            signatures, lamports = 1 + (crank is not None), 0 if tip is None else tip.lamports
            budget = self._fees.budget(kind, order.order_type, number, failed, units, signatures, lamports)
            built = self._venue.message(kind, order, budget, blockhash, crank, tip)
        if crank is None:
            signed = self._signer.sign_message(built.message, blockhash)
        else:
            assert self._authority is not None, "no price is posted without the key of the markets' authority"
            signed = self._signer.sign_with(self._authority, built.message, blockhash)
        return Attempt(
            signature=signed.signature,
            kind=kind,
            order=order.address,
            wire=signed.wire,
            blockhash=blockhash.value,
            last_valid_block_height=blockhash.last_valid_block_height,
            state=state,
            number=number,
            signed_at=time.time(),
            trigger_price_1e6=None if price is None else price.price_1e6,
            trigger_slot=None if price is None else price.slot,
            unit_limit=budget.unit_limit,
            unit_price_micro_lamports=budget.unit_price_micro_lamports,
            position=built.position,
            fate=Fate.DRY_RUN if state is _DRY_RUN else None,
            posted_from=None if crank is None else crank.feed,
            posted_published_at=None if crank is None else crank.price.updated_at_s,
            tip_lamports=None if tip is None else tip.lamports,
            tip_account=None if tip is None else tip.account,
        )


def _triggered_at(job: Job, now_s: float) -> float:
    """When the news arrived, not now: the time that the job queued and was signed in belongs to the latency."""
    return now_s - (time.monotonic_ns() - job.triggered_at_ns) / 1e9


def _on_its_way(attempt: Attempt) -> str:
    # Without the price, which is the attempt's own: what is not needed before the send waits until after it.
    return f"Its condition is met; attempt {attempt.number} is on its way."
