"""The way out: actions in, signed and journaled transactions on the wire.

The order of steps is the promise: build and sign; commit to the journal, fsynced, for the whole batch at once;
only then send. A brake, an unhealthy journal or a missing blockhash stops the loop before it signs, never
between journal and send.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import anyio
from anyio.abc import TaskGroup, TaskStatus
from solders.pubkey import Pubkey

from keeper.domain.actions import ExecuteOrder, RatchetStop
from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.orders import Order, OrderState
from keeper.domain.reports import AttemptMoved, Note, Report
from keeper.errors import ChainError, DuplicateAttempt, JournalError, KeeperError, Misconfigured, Transient
from keeper.execution.consequences import Consequence, Consequences
from keeper.execution.engine import RESTS
from keeper.execution.fates import fate_of
from keeper.execution.fees import DAILY_CAP, FeePolicy
from keeper.execution.flights import Flight, Flights
from keeper.execution.gate import Gate
from keeper.execution.lander import Lander
from keeper.execution.points import point
from keeper.execution.tries import Tries
from keeper.journal import Journal
from keeper.journal.ops import AddAttempt, NoteOrder, NoteState, Op
from keeper.solana.blockhashes import Blockhashes
from keeper.solana.client import Blockhash, ChainClient
from keeper.solana.pool import BegunBroadcast
from keeper.solana.transactions import Budget, SignedTransaction, Signer, without_signature
from keeper.telemetry.turns import Turns
from keeper.venue.program import EXECUTE, RATCHET, Program
from keeper.venue.program_errors import name_failure, programs_of
from keeper.venue.templates import Template

Job = ExecuteOrder | RatchetStop

_AT_ONCE: Final = 4
"""So many orders are signed, journaled and sent in one step of the event loop."""
_STEP: Final = 32
"""Transactions signed before the event loop may do something else: about 3 ms."""


@dataclass(frozen=True, slots=True)
class ExecutorLimits:
    """`first_batch`: how many are signed and journaled together at first, so that the first of a burst do not wait for
    the others; twice as many each time while more wait, up to `batch`, so that an fsync is shared by many.
    `one_send`: how many go to a node in one request, which must stay below its body limit. `max_in_flight`: how many
    attempts may be open before the loop waits; `concurrent_sends`: requests on the wire at once. `retry_blockhash_s`:
    the pause while there is no recent blockhash. `rehearsal_s`: how long a retry waits for a simulation of it.
    `journal_rest_s`: the pause after the journal has not taken something.
    """

    first_batch: int = 16
    batch: int = 256
    one_send: int = 64
    max_in_flight: int = 4_096
    concurrent_sends: int = 4
    retry_blockhash_s: float = 0.2
    rehearsal_s: float = 2.0
    journal_rest_s: float = 1.0


class Resting(Protocol):
    """What the executor tells of an order that it did not send for; the engine in life."""

    def release(self, address: Pubkey, *, after_price_slot: int | None = None, delay_s: float = 0.0) -> None:
        """It rests again."""
        ...


@dataclass(slots=True)
class _Draft:
    job: Job
    attempt: Attempt


class Executor:
    """Takes jobs from the decision, at most one an order at a time, and sends for them.

    `submit` never blocks; its queue is bounded by the number of orders, because an order that was acted on is
    suspended until its attempt ends.
    """

    def __init__(
        self,
        *,
        client: ChainClient,
        program: Program,
        signer: Signer,
        blockhashes: Blockhashes,
        journal: Journal,
        lander: Lander,
        flights: Flights,
        tries: Tries,
        consequences: Consequences,
        fees: FeePolicy,
        gate: Gate,
        resting: Resting,
        report: Callable[[Report], None],
        limits: ExecutorLimits,
        dry_run: bool = False,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._program = program
        self._signer = signer
        self._blockhashes = blockhashes
        self._journal = journal
        self._lander = lander
        self._flights = flights
        self._tries = tries
        self._consequences = consequences
        self._fees = fees
        self._gate = gate
        self._resting = resting
        self._report = report
        self._limits = limits
        self._dry_run = dry_run
        self._wall_time = wall_time
        self._templates: dict[AttemptKind, Template | None] = {}
        self._queue: deque[Job] = deque()
        self._ratchets: deque[Job] = deque()
        self._wake = anyio.Event()
        self._rest_until_s = 0.0
        self._sends = anyio.Semaphore(limits.concurrent_sends)
        self._idle: TaskGroup | None = None
        """The loop's own, while the loop waits for work."""
        self.turns = Turns("executor")

    def __repr__(self) -> str:
        return f"Executor({self.queued} queued, {self._flights!r}, {self._gate!r})"

    @property
    def queued(self) -> int:
        """Jobs that wait to be signed."""
        return len(self._queue) + len(self._ratchets)

    @property
    def has_work(self) -> bool:
        """Whether its loop has something to do now."""
        return self.queued > 0 and self._gate.is_open

    def submit(self, job: Job) -> None:
        """Take a job. Executions go before ratchets: a late fill costs its trader more than a late ratchet."""
        (self._queue if isinstance(job, ExecuteOrder) else self._ratchets).append(job)
        if not self._gate.is_open:
            self._say_stopped(job)

    def go(self) -> None:
        """What was submitted may leave: here and now when it is little and nothing is in its way, else by the loop."""
        if self.queued and not self._sent_at_once():
            self._wake.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Sign, journal and send until cancelled."""
        batch = self._limits.first_batch // 2
        async with anyio.create_task_group() as tg:
            task_status.started()
            while True:
                await self.turns.turn()
                while not self.queued:
                    self._wake = anyio.Event()
                    self._idle = tg
                    with self.turns.rest():
                        await self._wake.wait()
                    self._idle = None
                if not self._gate.is_open:
                    with self.turns.rest():
                        await self._gate.opened()
                    self._decide_again()
                    continue
                rest_s = self._rest_until_s - time.monotonic()
                if rest_s > 0:
                    await anyio.sleep(rest_s)
                    continue
                room = self._limits.max_in_flight - self._flights.in_flight
                if room <= 0:
                    await anyio.sleep(0.01)  # the lander makes room; it is bounded by its own rules
                    continue
                batch = batch * 2 if self.queued > self._limits.first_batch else self._limits.first_batch
                batch = min(batch, self._limits.batch)
                jobs = self._next(min(batch, room))
                try:
                    await self._take(jobs, tg)
                except JournalError as e:
                    self._not_taken(e)

    def _sent_at_once(self) -> bool:
        """The whole way in one step, for a few first attempts: every turn of the event loop between two steps costs a
        lone order more than the step. False when something is in the way: then nothing was done.

        The promise is the loop's: signed, then in the journal and fsynced, then sent.
        """
        tg = self._idle
        if tg is None or self.queued > _AT_ONCE or self._dry_run or not self._journal.quick:
            return False
        jobs = [*self._queue, *self._ratchets]
        if self._flights.in_flight + len(jobs) > self._limits.max_in_flight or not self._gate.is_open:
            return False
        if any(self._tries.failed(j.order.address) or self._tries.ceiling_pause_s(j.order.address) for j in jobs):
            return False
        try:
            blockhash = self._blockhashes.current()
        except Transient:
            return False
        self._next(len(jobs))
        point("decided")
        drafts = self._allowed([draft for job in jobs if (draft := self._draft(job, blockhash, 0)) is not None])
        if not drafts:
            return True
        self._learn_one(drafts, tg)
        point("signed")
        try:
            committed = self._journal.commit_now(*(op for draft in drafts for op in self._ops(draft)))
        except DuplicateAttempt:
            committed = False  # one at a time, the loop's way: only those that have a live attempt are left out
        except JournalError as e:
            self._undo(drafts)
            self._report(Note("executor.journal", str(e), level="error"))
            return True
        if not committed:
            for draft in drafts:
                self._fees.release(draft.attempt.signature)  # asked for anew, on the long way
            tg.start_soon(self._away_beside, drafts, tg)
            return True
        point("journaled")
        flights = self._flown(drafts)
        try:
            self._sends.acquire_nowait()
        except anyio.WouldBlock:
            tg.start_soon(self._launch_when_free, flights)
        else:
            tg.start_soon(self._launch, flights, self._lander.begin(flights))
        asyncio.get_running_loop().call_soon(self._tell, flights)
        return True

    def _decide_again(self) -> None:
        """What was decided before a stop is not true after it: every waiting order meets the present price anew."""
        for job in self._next(self.queued):
            self._journal.post(NoteOrder(job.order, OrderState.OPEN, RESTS))
            self._resting.release(job.order.address)

    def _put_back(self, jobs: Sequence[Job]) -> None:
        """To the front again: nothing was signed for them."""
        for job in reversed(jobs):
            (self._queue if isinstance(job, ExecuteOrder) else self._ratchets).appendleft(job)
        self._wake.set()

    def _next(self, most: int) -> list[Job]:
        jobs: list[Job] = []
        for queue in (self._queue, self._ratchets):
            while queue and len(jobs) < most:
                jobs.append(queue.popleft())
        return jobs

    async def _take(self, jobs: Sequence[Job], tg: TaskGroup) -> None:
        point("decided")
        blockhash = await self._blockhash(jobs)
        if blockhash is None:
            return
        first: list[_Draft] = []
        again: list[_Draft] = []
        for i, job in enumerate(jobs):
            if i % _STEP == _STEP - 1:
                await anyio.lowlevel.checkpoint()  # others may go on meanwhile, and hear of the next tick
            pause = self._tries.ceiling_pause_s(job.order.address)
            if pause > 0:
                reason = f"It was tried too often within an hour; the next attempt is in {pause:.0f} s."
                self._journal.post(NoteOrder(job.order, OrderState.OPEN, reason))
                self._resting.release(job.order.address, delay_s=pause)
                continue
            failed = self._tries.failed(job.order.address)
            draft = self._draft(job, blockhash, failed)
            if draft is not None:
                (again if failed else first).append(draft)
        if again:
            # Beside the others: an order that never failed does not wait for what a node says of those that did.
            tg.start_soon(self._rehearse, again, tg)
        await self._away(first, tg)

    async def _rehearse(self, drafts: Sequence[_Draft], tg: TaskGroup) -> None:
        """Send for those that a node says would succeed now."""
        kept: list[_Draft] = []

        async def ask(draft: _Draft) -> None:
            try:
                if await self._would_succeed(draft):
                    kept.append(draft)
            except JournalError as e:
                self._undo([draft])
                self._not_taken(e)

        async with anyio.create_task_group() as asking:
            for draft in drafts:
                asking.start_soon(ask, draft)
        await self._away_beside(kept, tg)

    async def _away_beside(self, drafts: Sequence[_Draft], tg: TaskGroup) -> None:
        """`_away` beside the loop."""
        try:
            await self._away(drafts, tg)
        except JournalError as e:
            self._not_taken(e)

    def _not_taken(self, error: JournalError, draft: _Draft | None = None) -> None:
        """The journal did not take what was signed: it was undone, and waits. Not tried again at once, whoever met it:
        each try signs anew, and a retry asks a node first.
        """
        self._rest_until_s = time.monotonic() + self._limits.journal_rest_s
        order = None if draft is None else draft.attempt.order
        self._report(Note("executor.journal", str(error), level="error", order=order))

    async def _away(self, drafts: Sequence[_Draft], tg: TaskGroup) -> None:
        """Journal them, then send them. A JournalError leaves them in the queue; so does a gate that has closed."""
        if not drafts:
            return
        drafts = self._allowed(drafts)
        if not drafts:
            return
        self._learn_one(drafts, tg)
        point("signed")
        flights = await self._journaled(drafts)
        point("journaled")
        if self._dry_run:
            return
        for start in range(0, len(flights), self._limits.one_send):
            await self._sends.acquire()
            tg.start_soon(self._launch, flights[start : start + self._limits.one_send])
        for start in range(0, len(flights), _STEP):
            await anyio.lowlevel.checkpoint()  # the bytes go first, the log's lines after
            self._tell(flights[start : start + _STEP])

    def _tell(self, flights: Sequence[Flight]) -> None:
        """Report what was signed and journaled, as of then."""
        for flight in flights:
            attempt = flight.attempt
            since = None if flight.triggered_at_s is None else flight.born_at_s - flight.triggered_at_s
            state = AttemptState.DRY_RUN if self._dry_run else AttemptState.SIGNED
            self._report(
                AttemptMoved(
                    order=attempt.order,
                    attempt=attempt.signature,
                    kind=attempt.kind,
                    number=attempt.number,
                    state=state,
                    since_trigger_s=since,
                )
            )

    def _allowed(self, drafts: Sequence[_Draft]) -> Sequence[_Draft]:
        """Those that may go, their fees set aside; the others wait. Asked last before the journal: an operator may have
        paused, and the day's cap may be reached, meanwhile.
        """
        allowed = 0
        if self._gate.is_open and self._dry_run:
            allowed = len(drafts)
        elif self._gate.is_open:
            while allowed < len(drafts) and self._fees.reserve(drafts[allowed].attempt):
                allowed += 1
            if allowed < len(drafts):
                self._gate.close(DAILY_CAP, self._fees.cap_reached)
        if allowed < len(drafts):
            self._undo(drafts[allowed:])
            for draft in drafts[allowed:]:
                self._say_stopped(draft.job)
        return drafts[:allowed]

    def _say_stopped(self, job: Job) -> None:
        if isinstance(job, ExecuteOrder):
            why = "; ".join(self._gate.reasons.values())
            self._journal.post(NoteOrder(job.order, OrderState.TRIGGERED, f"Its condition is met, but {why}."))

    def _undo(self, drafts: Sequence[_Draft]) -> None:
        for draft in drafts:
            self._tries.undo(draft.attempt.order)
            self._fees.release(draft.attempt.signature)
        self._put_back([draft.job for draft in drafts])

    def _learn_one(self, drafts: Sequence[_Draft], tg: TaskGroup) -> None:
        for draft in drafts:
            if not self._fees.knows(draft.attempt.kind, draft.job.order.order_type):
                tg.start_soon(self._learn_units, draft)
                break

    async def _learn_units(self, draft: _Draft) -> None:
        """Simulate the first of its kind beside its own way out: it waits for nothing, the next ones profit."""
        try:
            result = await self._client.simulate(without_signature(draft.attempt.wire), sig_verify=False)
        except ChainError:
            return
        if result.err is None:
            self._fees.learn_units(draft.attempt.kind, draft.job.order.order_type, result.units)

    async def _launch_when_free(self, flights: Sequence[Flight]) -> None:
        await self._sends.acquire()
        await self._launch(flights)

    async def _launch(self, flights: Sequence[Flight], begun: BegunBroadcast | None = None) -> None:
        try:
            await self._lander.launch(flights, begun)
        except KeeperError as e:
            # They are journaled and tracked: the lander's own loop sends them again.
            self._report(Note("executor.launch", str(e), level="warning"))
        finally:
            self._sends.release()

    async def _blockhash(self, jobs: Sequence[Job]) -> Blockhash | None:
        """A recent one. When it has to be waited for the jobs go back, to be decided again: prices move meanwhile."""
        try:
            return self._blockhashes.current()
        except Transient as e:
            self._report(Note("executor.no_blockhash", str(e), level="warning"))
            self._put_back(jobs)
        while True:
            await self.turns.turn()
            await anyio.sleep(self._limits.retry_blockhash_s)
            try:
                self._blockhashes.current()
            except Transient:
                continue
            if self._gate.is_open:
                self._decide_again()
            return None

    def _draft(self, job: Job, blockhash: Blockhash, failed: int) -> _Draft | None:
        order = job.order
        kind = AttemptKind.EXECUTE if isinstance(job, ExecuteOrder) else AttemptKind.RATCHET
        number = self._tries.begin(order.address)
        budget = self._fees.budget(kind, order.order_type, number, failed)
        try:
            signed, position = self._sign(kind, order, budget, blockhash)
        except Misconfigured as e:
            self._journal.post(NoteOrder(order, OrderState.FAILED, str(e)))
            self._report(Note("executor.misconfigured", str(e), level="error", order=order.address))
            return None
        attempt = Attempt(
            signature=signed.signature,
            kind=kind,
            order=order.address,
            wire=signed.wire,
            blockhash=blockhash.value,
            last_valid_block_height=blockhash.last_valid_block_height,
            state=AttemptState.DRY_RUN if self._dry_run else AttemptState.SIGNED,
            number=number,
            signed_at=self._wall_time(),
            trigger_price_1e6=job.price.price_1e6,
            trigger_slot=job.price.slot,
            unit_limit=budget.unit_limit,
            unit_price_micro_lamports=budget.unit_price_micro_lamports,
            position=position,
            fate=Fate.DRY_RUN if self._dry_run else None,
        )
        return _Draft(job, attempt)

    def _sign(
        self, kind: AttemptKind, order: Order, budget: Budget, blockhash: Blockhash
    ) -> tuple[SignedTransaction, Pubkey | None]:
        """The signed transaction, and where its position will be; None for a ratchet, which makes none."""
        if kind not in self._templates:
            name = EXECUTE if kind is AttemptKind.EXECUTE else RATCHET
            self._templates[kind] = Template.of(self._program, name, self._signer.address)
        template = self._templates[kind]
        built = None if template is None else template.build(order, budget, blockhash)
        if built is not None:
            return self._signer.sign_message(built.message, blockhash), built.position
        if kind is AttemptKind.RATCHET:
            return self._signer.sign(self._program.ratchet(order, self._signer.address), budget, blockhash), None
        instruction = self._program.execute(order, self._signer.address)
        position = self._program.position_of(order, self._signer.address)
        return self._signer.sign(instruction, budget, blockhash), position

    async def _would_succeed(self, draft: _Draft) -> bool:
        """Before a retry, and only then, ask a node: an order that can't be filled must not cost a fee each time.

        What the node is asked about carries no signature (promise 1: it is not journaled yet), so nothing that could
        land has left when this refuses. A node that does not answer is no reason to wait.
        """
        order, attempt = draft.job.order, draft.attempt
        result = None
        with anyio.move_on_after(self._limits.rehearsal_s), contextlib.suppress(ChainError):
            result = await self._client.simulate(without_signature(attempt.wire), sig_verify=False)
        if result is None:
            return True
        if result.err is None:
            self._fees.learn_units(attempt.kind, order.order_type, result.units)
            return True
        failure = name_failure(result.err, programs_of(attempt.wire), self._program.id, self._program.idl, result.logs)
        # Nothing left the process, so the order reads as it did; the policy is the one for a failure on chain.
        fate = fate_of(failure.name, failure.program, self._program.id)
        ops: list[Op] = []
        after: list[Consequence] = []
        self._consequences.apply(attempt, fate, failure, order, result.slot, ops, after)
        await self._journal.commit(*ops)
        self._tries.undo(order.address)
        for consequence in after:
            consequence()
        return False

    async def _journaled(self, drafts: Sequence[_Draft]) -> list[Flight]:
        """Commit the batch. If an order turns out to have a live attempt, only that one is left out."""
        try:
            await self._journal.commit(*(op for draft in drafts for op in self._ops(draft)))
            kept = list(drafts)
        except DuplicateAttempt:
            kept = []
            for draft in drafts:
                try:
                    await self._journal.commit(*self._ops(draft))
                    kept.append(draft)
                except DuplicateAttempt as e:
                    self._tries.undo(draft.attempt.order)
                    self._fees.release(draft.attempt.signature)
                    self._report(
                        Note(
                            "executor.duplicate",
                            str(e),
                            level="error",
                            order=draft.attempt.order,
                            attempt=draft.attempt.signature,
                        )
                    )
                except JournalError as e:
                    # The others of the batch are journaled already and must be sent.
                    self._undo([draft])
                    self._not_taken(e, draft)
        except JournalError:
            self._undo(drafts)
            raise
        return self._flown(kept)

    def _flown(self, kept: Sequence[_Draft]) -> list[Flight]:
        """The flights of what the journal holds, tracked."""
        now = time.monotonic()
        flights: list[Flight] = []
        for draft in kept:
            flight = Flight(
                attempt=draft.attempt,
                order=draft.job.order,
                triggered_at_s=draft.job.triggered_at_ns / 1e9,
                born_at_s=now,
                next_poll_s=now + 0.05,
                next_send_s=now + 2.0,
            )
            if self._dry_run:
                # What would have been sent is recorded; the order rests until the price is news.
                self._tell([flight])
                self._resting.release(draft.attempt.order, after_price_slot=draft.job.price.slot)
                continue
            self._lander.track(flight)
            flights.append(flight)
        return flights

    def _ops(self, draft: _Draft) -> list[Op]:
        job = draft.job
        if isinstance(job, RatchetStop):
            return [NoteOrder(job.order), AddAttempt(draft.attempt)]
        price = f"{job.price.price_1e6 / 1e6:g}"
        # When the news arrived, not now: the time that the job queued and was signed in belongs to the latency.
        triggered_at = self._wall_time() - (time.monotonic_ns() - job.triggered_at_ns) / 1e9
        if self._dry_run:
            note = NoteOrder(job.order, OrderState.OPEN, f"Dry run: it would have been executed at {price}.")
            return [note, AddAttempt(draft.attempt)]
        # Two notes: the book's reading may be older than the journal's, and is then ignored; the state is not.
        executing = NoteState(
            job.order.address,
            OrderState.EXECUTING,
            f"The price {price} met its condition; attempt {draft.attempt.number} is on its way.",
            slot=job.order.slot,
            triggered_at=triggered_at,
            trigger_price_1e6=job.price.price_1e6,
            trigger_slot=job.price.slot,
        )
        return [NoteOrder(job.order), executing, AddAttempt(draft.attempt)]
