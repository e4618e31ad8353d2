"""Which executions are armed, and when they are signed again or disarmed: in rounds, beside everything else.

The orders nearest to their triggers are signed and committed before a price comes, so many of each market and
direction. A round costs what it changes: it signs for orders that came near, signs again what gets old or whose order
changed, and disarms what is near no more. The old one goes in the transaction that brings the new one. Nothing is armed
while the gate is closed, for an order whose last attempt failed, or while decided orders wait to be signed: those go
first. A market of which an armed one was sent, or an order became free, has a round of its own soon: prices come more
often than the rounds of all markets.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import anyio.lowlevel
from solders.pubkey import Pubkey

from keeper.domain.attempts import Attempt
from keeper.domain.errors import DuplicateAttempt, JournalError, Misconfigured, Transient
from keeper.domain.orders import Order
from keeper.domain.reports import ArmingDone, Note, Report
from keeper.execution.armory import Armed, Armory, reading_of
from keeper.execution.drafting import Drafting, FeePolicy
from keeper.execution.gate import Gate
from keeper.execution.limits import ArmingLimits
from keeper.execution.orders import Orders
from keeper.execution.points import point
from keeper.journal import AddAttempt, Journal, NoteOrder, Op
from keeper.journal.ops import Disarm
from keeper.solana.client import Blockhash
from keeper.solana.transactions import Blockhashes
from keeper.triggers.decision import Decision

_EVERY_S: Final = 0.5
_SOON_S: Final = 0.05
"""Not at once: the same tick may have news of other markets, and their orders go first."""
_MARKETS_AT_ONCE: Final = 16
"""Before the event loop may do something else."""


@dataclass(slots=True)
class _Signing:
    """An order that is to be armed, in the place of `old` if it is that already."""

    order: Order
    old: Armed | None
    attempt: Attempt | None = None


@dataclass(slots=True)
class _Change:
    """What is armed of an order, or is no more, and what the journal has to hold of that."""

    address: Pubkey
    armed: Armed
    ops: list[Op] = field(default_factory=list)
    comes: bool = False


class Arming:
    """Its rounds alone put attempts into the armory and take them out unsent."""

    def __init__(
        self,
        *,
        armory: Armory,
        decision: Decision,
        drafting: Drafting,
        fees: FeePolicy,
        blockhashes: Blockhashes,
        journal: Journal,
        orders: Orders,
        gate: Gate,
        busy: Callable[[], bool],
        report: Callable[[Report], None],
        limits: ArmingLimits,
        off: bool,
        share: frozenset[Pubkey] | None = None,
    ) -> None:
        self._armory = armory
        self._decision = decision
        self._drafting = drafting
        self._fees = fees
        self._blockhashes = blockhashes
        self._journal = journal
        self._orders = orders
        self._gate = gate
        self._busy = busy
        self._report = report
        self._limits = limits
        self._off = off
        self._share = share
        self._allowance = limits.signatures_per_s
        self._allowed_at_s = time.monotonic()

    def __repr__(self) -> str:
        return f"Arming({self._armory!r}, {self._limits})"

    async def run(self) -> None:
        """Rounds of all markets, and soon ones of those that need it, until cancelled."""
        while True:
            due_s = time.monotonic() + _EVERY_S
            self._armory.stirred()
            await self._tried(None)
            while (rest_s := due_s - time.monotonic()) > 0 and await self._armory.await_stir(rest_s):
                await anyio.sleep(_SOON_S)
                await self._tried(self._armory.stirred())

    async def _tried(self, markets: Sequence[Pubkey] | None) -> None:
        with contextlib.suppress(JournalError):  # told where it happened; health shows what lasts
            await self.look(markets)

    async def look(self, markets: Sequence[Pubkey] | None = None) -> None:
        """One round, of these markets or of all of the share. A JournalError leaves what it was about for the next."""
        if self._limits.a_side and not self._off and not self._busy() and self._journal.healthy:
            some, share = self._decision.markets() if markets is None else markets, self._share
            await self._round(some if share is None else [market for market in some if market in share])

    async def close(self) -> None:
        """Disarm what was not sent, so that the next start has nothing to look up. Nothing is sent any more by now."""
        with anyio.CancelScope(shield=True), contextlib.suppress(JournalError):
            await self._commit([], [each for each in self._armory if each[1].flight is None], 0.0)

    async def _round(self, markets: Sequence[Pubkey]) -> None:
        try:
            blockhash = self._blockhashes.current()
        except Transient:
            return
        near, seconds = await self._near(markets) if self._gate.is_open else ({}, 0.0)
        began_s, looked_at = time.perf_counter(), set(markets)
        gone = [
            (address, armed)
            for address, armed in self._armory
            if armed.order is not None and armed.order.market in looked_at and (address not in near or not armed.ready)
        ]
        todo = self._due(near, blockhash)
        seconds += time.perf_counter() - began_s
        for start in range(0, len(todo), self._limits.step):
            await anyio.lowlevel.checkpoint()
            began_s = time.perf_counter()
            self._sign(todo[start : start + self._limits.step], blockhash)
            seconds += time.perf_counter() - began_s
        await self._commit([one for one in todo if one.attempt is not None], gone, seconds)

    # -- what is to be done

    async def _near(self, markets: Sequence[Pubkey]) -> tuple[dict[Pubkey, Order], float]:
        """The orders of these markets that are to be armed, the nearest of all first; and the seconds that it took."""
        book, a_side = self._decision.book, self._limits.a_side
        ranked: list[tuple[int, Order]] = []
        seconds = 0.0
        for start in range(0, len(markets), _MARKETS_AT_ONCE):
            await anyio.lowlevel.checkpoint()
            began_s = time.perf_counter()
            for market in markets[start : start + _MARKETS_AT_ONCE]:
                # A falling price's come before a rising one's, each from its nearest on.
                ranked += [(i % a_side, order) for i, order in enumerate(book.nearest(market, a_side))]
            seconds += time.perf_counter() - began_s
        ranked.sort(key=lambda each: each[0])
        return {order.address: order for _, order in ranked if self._may_be_armed(order)}, seconds

    def _may_be_armed(self, order: Order) -> bool:
        record = self._orders.get(order.address)
        if record is None:
            return True
        tries = record.tries
        return not (record.reasons or tries.failed or tries.at_ceiling(self._orders.limits))

    def _due(self, near: dict[Pubkey, Order], blockhash: Blockhash) -> list[_Signing]:
        """Whom to sign for now, within the allowance: what came near, and then what is to be signed again, oldest
        first.
        """
        now_s, rate = time.monotonic(), self._limits.signatures_per_s
        self._allowance = min(rate, self._allowance + rate * (now_s - self._allowed_at_s))
        self._allowed_at_s = now_s
        renewed_from = blockhash.last_valid_block_height - self._limits.renew_blocks_old
        new: list[_Signing] = []
        again: list[tuple[int, _Signing]] = []
        for address, order in near.items():
            old = self._armory.get(address)
            if old is None:
                new.append(_Signing(order, None))
            elif old.flight is None and old.ready and not self._keeps(old, order, renewed_from):
                again.append((old.attempt.last_valid_block_height, _Signing(order, old)))
        again.sort(key=lambda each: each[0])
        due = [*new, *(one for _, one in again)][: int(self._allowance)]
        self._allowance -= len(due)
        return due

    def _keeps(self, armed: Armed, order: Order, renewed_from: int) -> bool:
        return (
            armed.reads_as(order)
            and armed.attempt.last_valid_block_height >= renewed_from
            and armed.attempt.number == self._number(order)
            and armed.rules is self._fees.rules
        )

    def _number(self, order: Order) -> int:
        record = self._orders.get(order.address)
        return 1 if record is None else record.tries.made + 1

    # -- doing it

    def _sign(self, some: Sequence[_Signing], blockhash: Blockhash) -> None:
        for one in some:
            with contextlib.suppress(Misconfigured):  # an attempt at it says so
                attempt = self._drafting.arm(one.order, self._number(one.order), blockhash)
                one.attempt = attempt._replace(built_from=reading_of(one.order))

    async def _commit(self, signed: Sequence[_Signing], gone: Sequence[tuple[Pubkey, Armed]], seconds: float) -> None:
        """Have the journal hold what was signed, and let go of what is armed no more. From the first step on nothing
        that goes is sent; what comes may be from when this returns.
        """
        began_s = time.perf_counter()
        # Others went on while these were signed: they may have been sent, or their orders be acted on.
        coming = [
            self._put(one)
            for one in signed
            if self._armory.get(one.order.address) is one.old and self._may_be_armed(one.order)
        ]
        going = [_Change(address, old) for address, old in gone if self._armory.get(address) is old]
        for change in going:
            change.armed.withdrawn = True
            change.ops += [Disarm(signature) for signature in change.armed.signatures]
        seconds += time.perf_counter() - began_s
        if not coming and not going:
            return
        again = sum(1 for change in coming if len(change.armed.signatures) > 1)
        for change in await self._kept([*coming, *going]):
            armed = change.armed
            if change.comes:
                armed.committed, armed.signatures = True, (armed.attempt.signature,)
            else:
                self._armory.remove(change.address, armed)
        point("armed")
        self._report(ArmingDone(len(self._armory), len(coming) - again, again, len(going), seconds))

    def _put(self, one: _Signing) -> _Change:
        """Into the armory, in the old one's place, and not to be sent yet."""
        assert one.attempt is not None
        order, old, attempt = one.order, one.old, one.attempt
        record = self._orders.get(order.address)
        generation = None if record is None else record.generation
        armed = Armed(attempt, order, generation, self._fees.rules, (attempt.signature,), time.monotonic())
        ops: list[Op] = []
        if old is None or not old.reads_as(order):
            # An attempt's order is in the journal: after a restart it says whether it is still the same one.
            ops.append(NoteOrder(order, at=attempt.signed_at, to_arm=True))
        if old is not None:
            old.withdrawn = True
            armed.signatures = (*old.signatures, attempt.signature)
            ops += [Disarm(signature) for signature in old.signatures]
        self._armory.put(order.address, armed)
        return _Change(order.address, armed, [*ops, AddAttempt(attempt)], comes=True)

    async def _kept(self, changes: Sequence[_Change]) -> Sequence[_Change]:
        """Those that the journal took. One of which it holds a live attempt already is left out alone, and disarmed."""
        try:
            await self._journal.commit(*(op for change in changes for op in change.ops))
        except DuplicateAttempt:
            kept: list[_Change] = []
            for change in changes:
                try:
                    await self._journal.commit(*change.ops)
                    kept.append(change)
                except DuplicateAttempt as e:
                    self._report(Note("arming.duplicate", str(e), "warning", change.address))
            return kept
        return changes
