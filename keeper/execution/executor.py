"""The way out: decided actions in, signed and journaled transactions on the wire.

The order of steps is the promise: build and sign; commit to the journal, fsynced, for the whole batch at once;
only then send. A brake, an unhealthy journal or a missing blockhash stops the loop before it signs, never
between journal and send. What is given up on the way lifts its order's reason, and is looked at again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from keeper.domain.attempts import AttemptState
from keeper.domain.errors import DuplicateAttempt, JournalError, Misconfigured, Transient
from keeper.domain.orders import OrderState
from keeper.domain.reports import Note, Report
from keeper.domain.turns import Turns
from keeper.execution.armory import Armory, ops_at_once
from keeper.execution.drafting import Draft, Drafting, Job, ops_of
from keeper.execution.flights import Flight, Flights, signed
from keeper.execution.gate import Gate
from keeper.execution.jobs import Jobs
from keeper.execution.lander import Lander
from keeper.execution.limits import ExecutorLimits
from keeper.execution.orders import RESTS, Orders, Reason
from keeper.execution.points import point, tried
from keeper.execution.purse import Purse
from keeper.execution.retries import Retries
from keeper.journal import Journal
from keeper.journal.ops import NoteOrder, TooLate
from keeper.solana.broadcast import Broadcast
from keeper.solana.client import Blockhash
from keeper.solana.transactions import Blockhashes


class Executor:
    """Takes jobs from the router, at most one an order at a time, and sends for them.

    `submit` never blocks; its queue is bounded, because an order that was acted on is left alone till its attempt ends.
    """

    def __init__(
        self,
        *,
        drafting: Drafting,
        armory: Armory,
        retries: Retries,
        blockhashes: Blockhashes,
        journal: Journal,
        lander: Lander,
        flights: Flights,
        orders: Orders,
        purse: Purse,
        gate: Gate,
        report: Callable[[Report], None],
        limits: ExecutorLimits,
        dry_run: bool = False,
    ) -> None:
        self._drafting, self._armory = drafting, armory
        self._retries = retries
        self._blockhashes = blockhashes
        self._journal, self._writer = journal, journal.writer
        self._lander, self._flights = lander, flights
        self._orders, self._purse = orders, purse
        self._gate, self._limits = gate, limits
        self._report, self._dry_run, self._jobs = report, dry_run, Jobs()
        self._to_launch: list[Job] = []  # at orders of which an attempt is armed, until `go`
        self._wake = anyio.Event()
        self._rest_until_s: float | None = None  # what waits was decided before an outage: again after this time
        self._sends = anyio.Semaphore(limits.concurrent_sends)
        self._tasks: TaskGroup | None = None  # the loop's own
        self._idle: TaskGroup | None = None  # the same, while it waits for work
        self.turns = Turns("executor")

    def __repr__(self) -> str:
        return f"Executor({self.queued} queued, {self._flights!r}, {self._gate!r})"

    @property
    def queued(self) -> int:
        """Jobs that wait to be signed."""
        return len(self._jobs)

    @property
    def has_work(self) -> bool:
        """Whether its loop has something to do now."""
        return self.queued > 0 and self._gate.is_open

    def submit(self, job: Job) -> None:
        """Take a job. Nothing of it leaves before `go`."""
        if job.executes and job.order.address in self._armory and job.crank is None and not self._dry_run:
            self._to_launch.append(job)
        else:
            self._queue(job)

    def go(self) -> None:
        """What was submitted may leave: what is armed here and now; the rest too, when it is little and nothing is in
        its way, else by the loop.
        """
        if self._to_launch:
            jobs, self._to_launch = self._to_launch, []
            for job in jobs if self._tasks is None else self._armory.launch(jobs, self._tasks):
                self._queue(job)
        if self.queued and not self._sent_at_once():
            self._wake.set()

    def _queue(self, job: Job) -> None:
        if self._gate.is_open or job.executes:
            self._jobs.add(job)
        if not self._gate.is_open:
            self._stopped(job)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Sign, journal and send until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            try:
                await self._work(self._tasks)
            finally:
                self._tasks = self._idle = None  # what comes while all ends is decided again by the next start

    async def _work(self, tg: TaskGroup) -> None:
        first, batch = self._limits.first_batch, self._limits.first_batch // 2
        while True:
            await self.turns.turn()
            while not self.queued:
                self._wake, self._idle = anyio.Event(), tg
                with self.turns.rest():
                    await self._wake.wait()
                self._idle = None
            if not self._gate.is_open:
                for job in self._jobs.first():
                    self._stopped(job)
                self._jobs.drop_ratchets()
                with self.turns.rest():
                    await self._gate.opened()
                self._decide_again()
                continue
            if self._rest_until_s is not None:
                if (rest_s := max(self._rest_until_s - time.monotonic(), 0.0 if self._journal.healthy else 0.1)) > 0:
                    await anyio.sleep(rest_s)
                else:
                    self._rest_until_s = None
                    self._decide_again()
                continue
            if (room := self._limits.max_in_flight - self._flights.in_flight) <= 0:
                await anyio.sleep(0.01)  # the lander makes room; it is bounded by its own rules
                continue
            batch = min(batch * 2, self._limits.batch) if self.queued > first else first
            try:
                await self._take(self._jobs.take(min(batch, room)), tg)
            except JournalError as e:
                self._not_taken(e)

    def _sent_at_once(self) -> bool:
        """The whole way in one step, for a few first attempts: every turn of the event loop between two steps costs a
        lone order more than the step. False when something is in the way: then nothing was done.
        """
        tg, limits, jobs = self._idle, self._limits, self._jobs.first()
        if tg is None or len(jobs) > limits.at_once or self._dry_run or not self._gate.is_open:
            return False
        if len(jobs) > limits.max_in_flight - len(self._flights.open) or not (self._sends.value and self._writer.quick):
            return False
        for job in jobs:
            # One that failed is rehearsed first, and one that was tried much may have to wait.
            if job.record.tries.failed or self._retries.drains or job.record.tries.at_ceiling(self._orders.limits):
                return False
        try:
            blockhash = self._blockhashes.current()
        except Transient:
            return False
        self._jobs.take(len(jobs))
        if tried:
            point("decided")
        if not (drafts := self._allowed(self._drafts(jobs, blockhash))):
            return True
        self._retries.learn_first(((draft.attempt.kind, draft.job.order) for draft in drafts), tg)
        if tried:
            point("signed")
        try:
            committed = self._writer.commit_now(*ops_at_once(drafts))
        except DuplicateAttempt:
            committed = False  # one at a time, the loop's way: only those that have a live attempt are left out
        except JournalError as e:
            self._undo(drafts)
            self._not_taken(e)
            return True
        if not committed:
            for draft in drafts:
                self._purse.release(draft.attempt.signature)  # asked for anew, on the long way
            tg.start_soon(self._beside, self._send, drafts)
            return True
        if tried:
            point("journaled")
        flights = self._flown(drafts)
        self._sends.acquire_nowait()
        armed = [(draft.job, flight) for draft, flight in zip(drafts, flights, strict=True) if draft.armable]
        tg.start_soon(self._launch, flights, self._lander.begin(flights), armed)
        asyncio.get_running_loop().call_soon(self._tell, flights)
        return True

    def drop_overtaken(self, chain_time_s: int) -> None:
        """What waits behind a closed gate may end or expire there: the gate does not keep that from being told."""
        for job in () if self._gate.is_open else self._jobs.take(self.queued):
            if job.overtaken or job.order.expired_at(chain_time_s):
                self._orders.attempt_over(job.order.address, None)
            else:
                self._jobs.add(job)

    def _decide_again(self) -> None:
        """What was decided before a stop is not true after it: every waiting order meets the present price anew."""
        for job in self._jobs.take(self.queued):
            self._journal.post(NoteOrder(job.order, OrderState.OPEN, RESTS, stands=True))
            self._orders.attempt_over(job.order.address, None)

    async def _take(self, jobs: Sequence[Job], tg: TaskGroup) -> None:
        point("decided")
        blockhash = await self._blockhash(jobs)
        if blockhash is None:
            return
        jobs = [job for job in jobs if not self._retries.too_often(job)]
        first = [job for job in jobs if not (job.record.tries.failed or self._retries.drains)]
        if again := [job for job in jobs if job.record.tries.failed or self._retries.drains]:
            # Beside the others: an order that never failed does not wait for what a node says of those that did.
            tg.start_soon(self._beside, self._retry, again)
        drafts, step = list[Draft](), self._limits.step
        for start in range(0, len(first), step):
            if start:
                await anyio.lowlevel.checkpoint()  # others may go on meanwhile, and hear of the next tick
            drafts += self._drafts(first[start : start + step], blockhash)
        await self._send(drafts, tg)

    async def _retry(self, jobs: Sequence[Job], tg: TaskGroup) -> None:
        """Send for those that a node says would succeed now."""
        kept = await self._retries.worth_sending(jobs)
        blockhash = await self._blockhash(kept) if kept else None
        if blockhash is not None:
            await self._send(self._drafts(kept, blockhash), tg)

    async def _beside(self, way: Callable[[Any, TaskGroup], Awaitable[None]], some: Sequence[Job | Draft]) -> None:
        """A way out that the loop does not wait for, with a task group of its own."""
        async with anyio.create_task_group() as tg:
            try:
                await way(some, tg)
            except JournalError as e:
                self._not_taken(e)

    def _not_taken(self, error: JournalError, draft: Draft | None = None) -> None:
        """What was signed and not taken waits to be decided again. Not at once: each try signs anew, or asks a node."""
        self._rest_until_s = time.monotonic() + (0.0 if isinstance(error, TooLate) else self._limits.journal_rest_s)
        self._report(Note("executor.journal", str(error), "error", None if draft is None else draft.attempt.order))

    async def _send(self, drafts: Sequence[Draft], tg: TaskGroup) -> None:
        """Journal them, then send them. A JournalError leaves them in the queue; so does a gate that has closed."""
        if not (drafts := self._allowed(drafts)):
            return
        self._retries.learn_first(((draft.attempt.kind, draft.job.order) for draft in drafts), tg)
        point("signed")
        flights = await self._journaled(drafts)
        point("journaled")
        for start in range(0, len(flights), self._limits.one_send):
            some = flights[start : start + self._limits.one_send]
            if self._sends.value == 0:
                self._lander.wait(some)
            await self._sends.acquire()
            tg.start_soon(self._launch, some, self._lander.begin(some))
        for start in range(0, len(flights), self._limits.step):
            await anyio.lowlevel.checkpoint()  # the bytes go first, the log's lines after
            self._tell(flights[start : start + self._limits.step])

    async def _launch(
        self, flights: Sequence[Flight], sending: Broadcast | None, armed: Sequence[tuple[Job, Flight]] = ()
    ) -> None:
        try:
            await self._armory.note(armed)  # the journal holds them so: see `ops_at_once`
            await self._lander.launch(flights, sending)
        finally:
            self._sends.release()

    def _tell(self, flights: Sequence[Flight]) -> None:
        """Report what was signed and journaled, as of then."""
        for flight in flights:
            self._report(signed(flight, state=AttemptState.DRY_RUN if self._dry_run else AttemptState.SIGNED))

    def _drafts(self, jobs: Sequence[Job], blockhash: Blockhash) -> list[Draft]:
        """Signed, for those whose order still waits for nothing but this attempt."""
        drafts: list[Draft] = []
        for job in jobs:
            if job.overtaken:
                self._orders.attempt_over(job.order.address, None)
                continue
            disarms = self._armory.withdraw(job, self._tasks)
            if disarms is None or job.record.reasons.get(Reason.ATTEMPT) is not None:
                continue  # one that may have been sent before: its end frees the order
            try:
                drafts.append(self._drafting.draft(job, blockhash, disarms))
            except Misconfigured as e:
                self._journal.post(NoteOrder(job.order, OrderState.FAILED, str(e), stands=True))
                self._report(Note("executor.misconfigured", str(e), level="error", order=job.order.address))
                self._orders.block(job.record, Reason.FAILED)
                self._orders.attempt_over(job.order.address, None)
        return drafts

    def _allowed(self, drafts: Sequence[Draft]) -> Sequence[Draft]:
        """Those that may go, their cost set aside; the others wait. Asked last, as an operator may have paused."""
        allowed = 0
        if self._gate.is_open:
            while allowed < len(drafts) and (self._dry_run or self._purse.reserve(drafts[allowed].attempt)):
                allowed += 1
            if allowed < len(drafts):
                self._purse.brake(self._gate)
        if allowed < len(drafts):
            self._undo(drafts[allowed:])
        return drafts[:allowed]

    def _stopped(self, job: Job) -> None:
        """The gate is closed: an execution waits, and says so. No stop is moved: the next price may meet its order."""
        if job.executes:
            job.record.held = f"Its condition is met, but {'; '.join(self._gate.reasons.values())}."
            self._journal.post(NoteOrder(job.order, OrderState.TRIGGERED, job.record.held, stands=True))
        else:
            self._orders.await_price(job.record, job.order.market, job.price.slot)
            self._orders.attempt_over(job.order.address, None)

    def _undo(self, drafts: Sequence[Draft]) -> None:
        for draft in drafts:
            draft.job.record.tries.undo()
            self._purse.release(draft.attempt.signature)
        self._jobs.put_back([draft.job for draft in drafts])
        self._wake.set()

    async def _blockhash(self, jobs: Sequence[Job]) -> Blockhash | None:
        """A recent one. When it has to be waited for the jobs go back, to be decided again: prices move meanwhile."""
        try:
            return self._blockhashes.current()
        except Transient as e:
            self._report(Note("executor.no_blockhash", str(e), level="warning"))
            self._jobs.put_back(jobs)
        await self._blockhashes.wait(self.turns)
        if self._gate.is_open:
            self._decide_again()
        return None

    async def _journaled(self, drafts: Sequence[Draft]) -> list[Flight]:
        """Commit the batch. If an order turns out to have a live attempt, only that one is left out."""
        began_s = time.monotonic()
        try:
            await self._journal.commit(*ops_of(drafts))
        except DuplicateAttempt as e:
            if len(drafts) == 1:
                return self._duplicate(drafts[0], e)
        except JournalError:
            self._undo(drafts)
            raise
        else:
            if time.monotonic() - began_s > self._limits.keeps_s:
                self._rest_until_s = began_s  # the disk was slow: so long what is queued has waited, too
            return self._flown(drafts)
        flights: list[Flight] = []
        for draft in drafts:
            try:
                flights += await self._journaled([draft])
            except JournalError as e:  # the others of the batch are journaled already and must be sent
                self._not_taken(e, draft)
        return flights

    def _duplicate(self, draft: Draft, error: DuplicateAttempt) -> list[Flight]:
        """The journal has a live attempt at its address, or these very bytes: again later, under another number."""
        attempt = draft.attempt
        self._purse.release(attempt.signature)
        draft.job.record.tries.undo()
        self._report(Note("executor.duplicate", str(error), "error", attempt.order, attempt.signature))
        self._orders.pause(draft.job.record, time.monotonic() + self._orders.limits.first_pause_s)
        self._orders.attempt_over(attempt.order, None)
        return []

    def _flown(self, kept: Sequence[Draft]) -> list[Flight]:
        """The flights of what the journal holds, tracked."""
        now, flights = time.monotonic(), list[Flight]()
        for draft in kept:
            job, attempt = draft.job, draft.attempt
            if draft.disarms:
                self._armory.replaced(attempt.order)
            flight = Flight(attempt, job.order, job.generation, job.triggered_at_ns / 1e9, now, now + 0.05, now + 2.0)
            if self._dry_run:  # recorded, and no more: of an order one execution, and moves of its stop by later prices
                self._tell([flight])
                if job.executes:
                    self._orders.block(job.record, Reason.DRY_RUN)
                else:
                    self._orders.await_price(job.record, job.order.market, job.price.slot)
                self._orders.attempt_over(attempt.order, None)
                continue
            job.record.reasons[Reason.ATTEMPT] = attempt.signature  # only its end lifts the reason from now on
            self._flights.open[attempt.signature] = flight
            flights.append(flight)
        return flights
