"""Armed attempts: signed and committed before the price comes, so that on a tick only the socket is left.

An armed attempt is its order's one live attempt. It leaves through one function alone, `Armory.launch`, which checks
and sends in one step of the event loop: that it still is armed, that the order is the one and reads as it did when the
bytes were built, that its blockhash has enough blocks left to land in, that the gate is open, and that its cost is set
aside. Whatever takes it out of the journal marks it in the same thread first (`ready`), so what was sent is never
disarmed, and what is being disarmed is never sent. What does not fit goes the way of any other attempt, in one
transaction with the end of the armed one.

After a restart every armed attempt of the journal may have been sent. Until it can no longer land, by the rule that
holds for all, only its own bytes may be sent for its order (`Armed.flight`). (docs/attempts.md)
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.domain.errors import JournalError, Transient
from keeper.domain.orders import Order, fields_of
from keeper.domain.reports import Note, Report
from keeper.execution.drafting import Draft, Drafting, FeePolicy, FeeRules, Job
from keeper.execution.flights import Flight, Flights, signed
from keeper.execution.gate import Gate
from keeper.execution.lander import Lander
from keeper.execution.limits import ArmingLimits, ExecutorLimits
from keeper.execution.orders import Orders, Reason
from keeper.execution.points import point, tried
from keeper.execution.purse import Purse
from keeper.execution.retries import Retries
from keeper.journal import AddAttempt, Journal, NoteOrder, Op
from keeper.journal.ops import Disarm
from keeper.solana.broadcast import Broadcast
from keeper.solana.transactions import Blockhashes

_ATTEMPT: Final = Reason.ATTEMPT
_EXECUTE: Final = AttemptKind.EXECUTE


def reading_of(order: Order) -> str:
    """An order's account as it was read, in short: any change of it but its slot makes another one."""
    return hashlib.blake2b(msgspec.msgpack.encode(fields_of(order)), digest_size=16).hexdigest()


def ops_at_once(drafts: Sequence[Draft]) -> list[Op]:
    """What has to be in the journal before these are sent, when one tick waits for it: of what could be armed the
    attempt alone, as armed. What it was sent for follows its send (`Armory.note`), so a third of the way to the disk is
    left out; after a crash in between it is what any armed one is then.
    """
    ops: list[Op] = [Disarm(signature) for draft in drafts for signature in draft.disarms]
    for draft in drafts:
        if draft.armable:
            order, reading = draft.job.order, reading_of(draft.job.order)
            ops.append(NoteOrder(order, at=draft.attempt.signed_at, to_arm=True))
            ops.append(AddAttempt(draft.attempt._replace(state=AttemptState.ARMED, built_from=reading)))
        else:
            ops.append(draft.op)
    return ops


@dataclass(slots=True, eq=False)
class Armed:
    """One armed attempt. `order` is the reading that its bytes were built from, and `generation` its record's, None
    when it had no record; `rules` are the fee's. `signatures` are those that the journal may hold for the order, which
    a disarming names: this one's last, and before it, until this is `committed`, the one's in whose place it comes.
    `withdrawn`: it is about to be taken out, and is not sent any more.

    Of one from before a restart `order` is None: it may have been sent, and `flight` follows it.
    """

    attempt: Attempt
    order: Order | None
    generation: int | None
    rules: FeeRules | None
    signatures: tuple[Signature, ...]
    since_s: float
    committed: bool = False
    withdrawn: bool = False
    flight: Flight | None = None

    @property
    def ready(self) -> bool:
        """Whether the journal holds it, and nothing is about to take it out."""
        return self.committed and not self.withdrawn

    def reads_as(self, order: Order) -> bool:
        """Whether its bytes were built from this order, as it reads now but for the slot."""
        return self.order is not None and self.order[:-1] == order[:-1]


class Armory:
    """The armed attempts by order, and the one way on which they leave."""

    def __init__(
        self,
        *,
        drafting: Drafting,
        fees: FeePolicy,
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
        arming: ArmingLimits,
    ) -> None:
        self._drafting = drafting
        self._fees = fees
        self._retries = retries
        self._blockhashes = blockhashes
        self._journal = journal
        self._lander = lander
        self._flights = flights
        self._orders = orders
        self._purse = purse
        self._gate = gate
        self._report = report
        self._limits = limits
        self._arming = arming
        self._armed: dict[Pubkey, Armed] = {}
        self._stirred: dict[Pubkey, None] = {}
        self._stir = asyncio.Event()

    def __repr__(self) -> str:
        return f"Armory({len(self._armed)} armed)"

    def __len__(self) -> int:
        return len(self._armed)

    def __iter__(self) -> Iterator[tuple[Pubkey, Armed]]:
        return iter(list(self._armed.items()))

    def __contains__(self, address: Pubkey) -> bool:
        return address in self._armed

    def get(self, address: Pubkey) -> Armed | None:
        """What is armed for the order, ready or not."""
        return self._armed.get(address)

    # -- in and out

    def put(self, address: Pubkey, armed: Armed) -> None:
        """It is about to be committed, or was in the journal before this start."""
        self._armed[address] = armed

    def remove(self, address: Pubkey, armed: Armed) -> None:
        """The journal does not hold it as armed any more."""
        if self._armed.get(address) is armed:
            del self._armed[address]

    def withdraw(self, job: Job, tasks: TaskGroup | None) -> tuple[Signature, ...] | None:
        """The order is acted on by another transaction: what the journal may hold as armed for it, to be disarmed
        together with that one's intent. None when it may have been sent: then no other may be signed, so it is sent
        itself if it can be, by `tasks`, and the order waits for its end.
        """
        armed = self._armed.get(job.order.address)
        if armed is None:
            return ()
        may_be_its_turn = armed.flight is not None and job.executes and job.crank is None
        if may_be_its_turn and tasks is not None and not self.launch([job], tasks):
            return None
        armed.withdrawn = True
        if armed.flight is None:
            return armed.signatures
        job.record.reasons[_ATTEMPT] = armed.flight.signature
        return None

    def replaced(self, address: Pubkey) -> None:
        """The intent that disarms it is in the journal."""
        self._armed.pop(address, None)

    def seen(self, flights: Sequence[Flight]) -> None:
        """The chain knows these from before the restart: they were sent, so they are followed like any other."""
        for flight in flights:
            if self.ended(flight):
                record = self._orders.record(flight.attempt.order)
                if record.reasons.get(_ATTEMPT) is None:
                    self._orders.block(record, _ATTEMPT, flight.signature)
                    record.executes = True

    def ended(self, flight: Flight) -> bool:
        """It is armed no more, if it is one from before the restart; whether it was."""
        armed = self._armed.get(flight.attempt.order)
        if armed is None or armed.flight is not flight:
            return False
        del self._armed[flight.attempt.order]
        return True

    # -- what is to be armed soon

    def stir(self, market: Pubkey) -> None:
        """Other orders of this market are its nearest ones by now: one was sent, or is free again."""
        self._stirred[market] = None
        self._stir.set()

    async def await_stir(self, within_s: float) -> bool:
        """Whether there is such a market, or comes to be within so many seconds."""
        with anyio.move_on_after(within_s):
            await self._stir.wait()
        return self._stir.is_set()

    def stirred(self) -> list[Pubkey]:
        """Take those of since the last time."""
        taken, self._stirred = list(self._stirred), {}
        self._stir.clear()
        return taken

    # -- the one way out

    def launch(self, jobs: Sequence[Job], tasks: TaskGroup) -> list[Job]:
        """Send the armed attempts at these jobs' orders, whose conditions are met; the jobs that it could not be done
        for.

        Nothing else happens between the checks and the send. What was sent is noted in the journal after it, which
        needs no fsync: until then it counts as sent after a crash.
        """
        try:
            newest = self._blockhashes.current().last_valid_block_height
        except Transient:
            return list(jobs)
        left: list[Job] = []
        gone: list[tuple[Job, Flight, float]] = []
        for job in jobs:
            armed = self._armed[job.order.address]
            if self._may_leave(armed, job, newest):
                gone.append((job, self._flown(armed, job), armed.since_s))
            else:
                left.append(job)
        for start in range(0, len(gone), self._limits.one_send):
            some = gone[start : start + self._limits.one_send]
            tasks.start_soon(self._follow, some, self._lander.begin([flight for _, flight, _ in some]), tasks)
        return left

    def _may_leave(self, armed: Armed, job: Job, newest: int) -> bool:
        attempt, record = armed.attempt, job.record
        blocks_old = newest - attempt.last_valid_block_height
        # Where nothing else may be signed before these bytes are dead, late is better than not at all.
        fresh = blocks_old <= self._arming.most_blocks_old
        lives = armed.flight is not None and blocks_old < self._arming.dead_blocks_old
        if not (
            armed.ready
            and (fresh or lives)
            and self._gate.is_open
            and self._journal.healthy
            and len(self._flights.open) < self._limits.max_in_flight
            and record.generation == job.generation
            and len(record.reasons) == 1
            and not record.tries.at_ceiling(self._orders.limits)
            and not self._retries.drains
        ):
            return False
        if armed.flight is not None:  # its cost is set aside, and its number taken, since the restart
            return armed.flight.attempt.state is AttemptState.ARMED and attempt.built_from == reading_of(job.order)
        if (
            not armed.reads_as(job.order)
            or armed.generation not in (None, job.generation)
            or armed.rules is not self._fees.rules
            or record.tries.failed
            or record.tries.made + 1 != attempt.number
        ):
            return False
        if not self._purse.reserve(attempt):
            self._purse.brake(self._gate)
            return False
        return True

    def _flown(self, armed: Armed, job: Job) -> Flight:
        """Its flight; from here on it is an attempt like any other."""
        now, price, tries = time.monotonic(), job.price, job.record.tries
        attempt = armed.attempt._replace(
            state=AttemptState.SIGNED, trigger_price_1e6=price.price_1e6, trigger_slot=price.slot
        )
        flight = Flight(attempt, job.order, job.generation, job.triggered_at_ns / 1e9, now, now + 0.05, now + 2.0)
        if armed.flight is not None:  # it is followed already
            flight = armed.flight
            flight.attempt, flight.order, flight.generation = attempt, job.order, job.generation
            flight.triggered_at_s, flight.born_at_s = job.triggered_at_ns / 1e9, now
        tries.made = attempt.number
        tries.recent.append(now)
        del self._armed[job.order.address]
        job.record.reasons[_ATTEMPT] = attempt.signature  # only its end lifts the reason from now on
        self._flights.open[attempt.signature] = flight
        return flight

    async def _follow(
        self, gone: Sequence[tuple[Job, Flight, float]], sending: Broadcast | None, tasks: TaskGroup
    ) -> None:
        """Note what was sent; and then as for any other."""
        flights = [flight for _, flight, _ in gone]
        for job, flight, since_s in gone:
            self._report(signed(flight, armed_for_s=flight.born_at_s - since_s))
            self.stir(job.order.market)
        await self.note([(job, flight) for job, flight, _ in gone])
        self._retries.learn_first(((_EXECUTE, job.order) for job, _, _ in gone), tasks)
        await self._lander.launch(flights, sending)

    async def note(self, gone: Sequence[tuple[Job, Flight]]) -> None:
        """Have the journal know of attempts that it holds as armed that they were sent, and for which prices."""
        if not gone:
            return
        if tried:
            point("launched")
        try:
            await self._journal.write(*[self._drafting.launched(job, flight.attempt) for job, flight in gone])
        except JournalError as e:
            self._report(Note("armory.launched", str(e), "error"))
