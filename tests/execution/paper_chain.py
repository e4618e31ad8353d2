"""A chain of two order addresses on paper, and a keeper's router that lives on it: no socket, no disk, no real clock.

The router is the real one, with its real records, book, decision, settlement, endings, recovery, relay desk and
operator. On paper are the chain, the clock, the journal's rows (with the journal's own rules), and the hands: a job
is signed, a transaction lands and a status is asked for when the test says so.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import anyio
from anyio.abc import TaskStatus
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.errors import JournalError, MalformedAccount
from keeper.domain.events import AccountUnreadable, ChainTime, Event, OrderGone, OrderSeen
from keeper.domain.orders import Market, Order, OrderState
from keeper.domain.reports import Report
from keeper.execution.drafting import Job
from keeper.execution.endings import Endings
from keeper.execution.flights import Flight, Flights
from keeper.execution.gate import Gate
from keeper.execution.lander import Polled
from keeper.execution.lookout import Lookout
from keeper.execution.operator import Operator
from keeper.execution.orders import Orders, Reason
from keeper.execution.purse import Purse, PurseLimits
from keeper.execution.recovery import Recovery
from keeper.execution.relay import RelayDesk
from keeper.execution.router import Router
from keeper.execution.settlement import Settlement
from keeper.execution.tries import RetryLimits
from keeper.execution.verdicts import move_flight
from keeper.journal.applying import apply
from keeper.journal.ops import AddPrepared, Intend, Launched, NoteOrder, Op
from keeper.journal.records import OrderRow, PreparedKind, PreparedRow
from keeper.journal.rows import order_row, order_values
from keeper.journal.touched import Rows
from keeper.triggers.decision import Decision, Rules
from keeper.venue.program_errors import ProgramFailure
from tests.execution.paper_arming import PaperArming
from tests.triggers.order_making import SOL, key, market_seen

UNREADABLE = "a byte of it is wrong"
"""An account that is there and does not decode."""

Account = Order | str | None
Markets = Collection[Pubkey] | None
ADDRESSES = (key(1), key(2))
LIMITS = RetryLimits(budget=3, first_pause_s=1.0, longest_pause_s=8.0, attempts_per_hour=1_000)
_ENDS = (Fate.EXECUTED, Fate.NO_POSITION, Fate.EXPIRED_ORDER)


class Clock:
    """This machine's clocks, and the chain's: all in step."""

    def __init__(self) -> None:
        self.s = 1_000.0

    def monotonic(self) -> float:
        return self.s

    def monotonic_ns(self) -> int:
        return int(self.s * 1e9)

    perf_counter = monotonic

    def time(self) -> float:
        return 1_700_000_000 + self.s


class Unreadable(str):
    """An account that does not decode, as a node gives it: with its address."""

    address: Pubkey

    @classmethod
    def at(cls, address: Pubkey, account: Account) -> Account:
        """The account; with its address if it is such a one."""
        if not isinstance(account, str):
            return account
        account = cls(account)
        account.address = address
        return account


class Chain:
    """What each account was as of each slot, and what landed in which. Each write is a slot of its own; what a fork
    drops is what it was before from a later slot on.
    """

    def __init__(self) -> None:
        self.slot = self.confirmed = self.rooted = 100
        self.landed: dict[Signature, tuple[int, ProgramFailure | None]] = {}
        self.dead: set[Signature] = set()
        self._history: dict[Pubkey, list[tuple[int, Account]]] = {}

    def write(self, address: Pubkey, account: Account) -> int:
        self.slot += 1
        self._history.setdefault(address, []).append((self.slot, account))
        return self.slot

    def read(self, address: Pubkey, slot: int | None = None) -> Account:
        as_of = self.slot if slot is None else slot
        account: Account = None
        for written, it in self._history.get(address, []):
            if written <= as_of:
                account = it
        return account._replace(slot=as_of) if isinstance(account, Order) else account

    def confirm(self) -> None:
        self.confirmed = self.slot

    def root(self) -> None:
        self.confirmed = self.rooted = self.slot

    def fork(self, *, deep: bool) -> None:
        """Drop what is not confirmed; a `deep` one drops what is not rooted."""
        kept = self.rooted if deep else self.confirmed
        for address, account in [(address, self.read(address, kept)) for address in self._history]:
            if not _same(account, self.read(address)):
                self.write(address, account)
        self.slot += 1
        if deep:
            self.confirmed = self.slot
        self.landed = {signature: tx for signature, tx in self.landed.items() if tx[0] <= kept}


def _same(one: Account, other: Account) -> bool:
    return one == (other._replace(slot=one.slot) if isinstance(one, Order) and isinstance(other, Order) else other)


class Ledger:
    """The journal's rows, and what the journal would answer of them."""

    waiting_notes = waiting_callers = 0
    healthy = True

    def __init__(self, clock: Clock) -> None:
        self.rows = Rows()
        self.serials = itertools.count(1)
        self.clock = clock

    def post(self, op: Op) -> bool:
        try:
            apply(self.rows, [op], self.clock.time())
        except JournalError:
            return False
        return True

    async def commit(self, *ops: Op) -> None:
        apply(self.rows, ops, self.clock.time())

    async def write(self, *ops: Op) -> None:
        if not all(isinstance(op, Launched) for op in ops):
            await anyio.sleep_forever()  # what is noted at leisure is not noted here
        apply(self.rows, ops, self.clock.time())

    def row(self, address: Pubkey) -> OrderRow | None:
        stored = self.rows.orders.get(str(address))
        return None if stored is None else order_row(order_values(stored))

    async def order(self, address: Pubkey) -> OrderRow | None:
        return self.row(address)

    async def orders_at(self, addresses: Iterable[Pubkey]) -> dict[Pubkey, OrderRow]:
        return {address: row for address in addresses if (row := self.row(address)) is not None}

    def _in(self, states: Collection[OrderState], markets: Markets) -> list[OrderRow]:
        rows = [order_row(order_values(stored)) for stored in self.rows.orders.values()]
        return [row for row in rows if row.state in states and (markets is None or row.order.market in markets)]

    async def seen_orders(self, states: Collection[OrderState], *, markets: Markets) -> list[Pubkey]:
        return [row.address for row in self._in(states, markets)]

    async def expired_orders(self, since: float, *, markets: Markets) -> list[Pubkey]:
        expired = self._in([OrderState.EXPIRED], markets)
        return [row.address for row in expired if row.order.pending and row.updated_at > since]

    async def tried_orders(
        self, states: Collection[OrderState], *, markets: Markets, after: int = -1
    ) -> list[OrderRow]:
        rows = self._in(states, markets)
        tried = [row for row in rows if row.attempts_made or row.budget_used or row.state.value == "failed"]
        return sorted((row for row in tried if row.id > after), key=lambda row: row.id)

    async def open_attempts(self, *, markets: Markets) -> list[Attempt]:
        live = [attempt for attempt in self.rows.added.values() if attempt.state.live]
        known = {row.address for row in self._in(list(OrderState), markets)}
        return [attempt for attempt in live if attempt.order in known]

    async def tried_since(self, since: float, *, markets: Markets) -> list[tuple[Pubkey, float]]:
        return []

    async def prepared_of(self, address: Pubkey) -> list[PreparedRow]:
        known = [k for k in self.rows.prepared.values() if k.row is not None and k.row.order == address]
        return [
            k.row._replace(signature=Signature.from_string(k.signature))
            for k in known
            if k.row is not None and k.signature is not None
        ]

    async def explained(self, addresses: Sequence[Pubkey]) -> dict[Pubkey, Fate]:
        found: dict[Pubkey, Fate] = {}
        for attempt in self.rows.added.values():
            row = self.row(attempt.order)
            landed = attempt.state in (AttemptState.CONFIRMED, AttemptState.FINALIZED) and attempt.fate in _ENDS
            if attempt.order in addresses and landed and row is not None and attempt.signed_at >= row.first_seen_at:
                assert attempt.fate is not None
                found[attempt.order] = attempt.fate
        return found


class PaperVenue:
    """Accounts are on paper already; a failure is its own name."""

    def order(self, account: Account, slot: int) -> Order | None:
        if isinstance(account, str):
            raise MalformedAccount(account)
        return account

    def market(self, account: object, slot: int) -> Market | None:
        return None

    def user_account_of(self, order: Order) -> Pubkey:
        return order.user

    def failure(self, err: object, wire: bytes, logs: Sequence[str]) -> object:
        return err


class _Asked:
    """A loop of the router's that goes round when it is asked to."""

    def __init__(self) -> None:
        self.ask = asyncio.Event()

    async def pause(self) -> None:
        self.ask.clear()
        await self.ask.wait()


class AskedEndings(_Asked, Endings):
    def __init__(self, *parts: Any) -> None:
        _Asked.__init__(self)
        Endings.__init__(self, *parts)


class PaidIn(_Asked):
    """The orders whose users' accounts changed."""

    def __init__(self) -> None:
        super().__init__()
        self.freed: list[tuple[Pubkey, int]] = []

    async def look(self) -> list[tuple[Pubkey, int]]:
        freed, self.freed = self.freed, []
        return freed


class Hands:
    """In the executor's place and the lander's: what is decided waits here to be signed."""

    def __init__(self, flights: Flights) -> None:
        self.queue: deque[Job] = deque()
        self.taken: Callable[[Job], None] = lambda job: None
        self.leaves: Callable[[Job], bool] = lambda job: False
        self._flights = flights

    def submit(self, job: Job) -> None:
        self.taken(job)
        if not self.leaves(job):
            self.queue.append(job)

    def go(self) -> None:
        pass

    def drop_overtaken(self, chain_time_s: int) -> None:
        pass  # its gate is never closed

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await anyio.sleep_forever()

    def track(self, flight: Flight) -> None:
        self._flights.open[flight.signature] = flight

    def begin(self, flights: Sequence[Flight]) -> None:
        return None

    async def launch(self, flights: Sequence[Flight], sending: None) -> None:
        pass


class Life:
    """One life of a keeper, from its start to the moment at which it is killed; or, with the `lookout` of one that
    stood by, from when it takes over until it works no more.
    """

    def __init__(
        self,
        chain: Chain,
        clock: Clock,
        ledger: Ledger,
        on_read: Callable[[Pubkey, Account], None],
        lookout: Lookout | None = None,
        share: frozenset[Pubkey] | None = None,
    ) -> None:
        self.chain, self._clock, self.ledger, self._on_read = chain, clock, ledger, on_read
        self.share = share
        self.lookout = lookout or Lookout(Decision(Rules(breaker=None, max_actions=1)))
        self.decision = self.lookout.decision
        self.book = self.decision.book
        self.orders = Orders(self.book, LIMITS)
        self.flights = Flights()
        self.hands = Hands(self.flights)
        journal, venue, node, hands = cast(Any, ledger), cast(Any, PaperVenue()), cast(Any, self), cast(Any, self.hands)
        nothing = cast(Any, lambda *_: None)
        self.reports: list[Report] = []
        limits = PurseLimits(daily_cap_lamports=10**12, min_balance_lamports=0)
        purse = Purse(key(9), limits, rent_lamports=0, spent=("2026-01-31", 0), today=lambda: "2026-01-31")
        self.gate = gate = Gate(nothing)
        self.arms = PaperArming(self, gate, purse)
        armory, self.hands.leaves = self.arms.armory, self.arms.launch
        self.endings = AskedEndings(node, venue, journal, self.orders)
        self.paid_in = PaidIn()
        self.router = Router(
            lookout=self.lookout, orders=self.orders, journal=journal, flights=self.flights, gate=gate,
            purse=purse, executor=hands, lander=hands, endings=self.endings,
            accounts=cast(Any, self.paid_in),
            settlement=Settlement(node, venue, self.orders, purse, nothing, accept_fills_without_position=True),
            armory=armory, report=self.reports.append, share=share,
        )  # fmt: skip
        tasks = SimpleNamespace(start_soon=nothing, cancel_scope=SimpleNamespace(cancel_called=False))
        self.relay = RelayDesk(journal, hands, self.orders, cast(Any, tasks), nothing)
        self.operator = Operator(journal, cast(Any, None), self.router, nothing, share)
        self.recovery = Recovery(
            journal, hands, self.flights, armory, self.router, self.orders, purse, venue, nothing, share=share
        )

    async def begin(self) -> None:
        """Be handed what is known."""
        await self.lookout.hand_to(self.router, self.share)

    # -- the node, at confirmed

    async def accounts(self, addresses: Sequence[Pubkey], *, min_context_slot: int = 0) -> tuple[int, list[Account]]:
        slot = self.chain.confirmed
        for address in addresses:
            self._on_read(address, self.chain.read(address, slot))
        return slot, [Unreadable.at(address, self.chain.read(address, slot)) for address in addresses]

    @property
    def pool(self) -> Life:
        """There is one node: whoever asks it again of what is not there hears the same."""
        return self

    async def each(self, method: str, addresses: Sequence[str], config: Any, *, deadline_s: float) -> list[Any]:
        return [{"context": {"slot": config["minContextSlot"]}, "value": [None] * len(addresses)}]

    async def transactions(self, signatures: Sequence[Signature]) -> list[None]:
        return [None for _ in signatures]

    # -- what is told to the keeper

    def tell(self, address: Pubkey, slot: int) -> None:
        account = self.chain.read(address, slot)
        event: Event = OrderGone(address, slot)
        if isinstance(account, Order):
            event = OrderSeen(account)
        elif account is not None:
            event = AccountUnreadable(address, slot, account)
        self.lookout.on_event(event)

    def tell_price(self, price_1e6: int, market: Pubkey = SOL) -> None:
        at_s = int(self._clock.time())
        self.lookout.on_event(market_seen(price_1e6, self.chain.slot, updated_at_s=at_s, address=market))

    def tell_time(self) -> None:
        self.lookout.on_event(ChainTime(self.chain.slot, self._clock.time()))

    # -- the executor's and the lander's work, in small

    def signature(self) -> Signature:
        return Signature(next(self.ledger.serials).to_bytes(64, "big"))

    async def sign(self) -> None:
        """Sign the next job and journal it, or give it up, as the executor does."""
        job = self.hands.queue.popleft()
        address, record = job.order.address, job.record
        if len(record.reasons) > 1 or record.generation != job.generation:
            self.orders.attempt_over(address, None)
            return
        disarms = self.arms.withdrawn(job)
        if disarms is None or record.reasons.get(Reason.ATTEMPT) is not None:
            return
        record.tries.made += 1
        kind = AttemptKind.EXECUTE if job.executes else AttemptKind.RATCHET
        attempt = Attempt(
            self.signature(), kind, address, b"", "", 0, AttemptState.SIGNED, record.tries.made, self._clock.time()
        )
        state, reason = (OrderState.EXECUTING, "An attempt is on its way.") if job.executes else (None, "")
        await self.ledger.commit(*disarms, Intend(job.order, attempt, reason, None, state))
        self.arms.armory.replaced(address)
        record.reasons[Reason.ATTEMPT] = attempt.signature
        self.hands.track(Flight(attempt, job.order, job.generation, None, 0.0, 0.0, 0.0))

    async def relay_cancel(self, order: Order) -> None:
        signature = self.signature()
        prepared = PreparedRow(
            str(signature), PreparedKind.CANCEL, order.address, order.user, order.market, b"", "", 0, 0.0, {},
            cancels=(order.address,),
        )  # fmt: skip
        await self.ledger.commit(AddPrepared(prepared), NoteOrder(order))
        await self.relay.submit(prepared, b"\x01" + bytes(signature), None)

    async def poll(self, flight: Flight) -> None:
        """Ask what became of it, as the lander does, and settle that."""
        chain, state, polled = self.chain, flight.attempt.state, Polled()
        found = chain.landed.get(flight.signature)
        polled.seen = [flight] if found is not None and state is AttemptState.ARMED else []
        ratcheted = flight.attempt.kind is AttemptKind.RATCHET and state is AttemptState.CONFIRMED
        if found is None:
            if state in (AttemptState.SEEN, AttemptState.CONFIRMED) and not ratcheted:
                flight.read_back, flight.landed_slot = False, None
                await self.ledger.commit(move_flight(flight, AttemptState.SENT)[0])
                polled.dropped.append(flight)
            elif flight.signature in chain.dead and flight.attempt.state.undecided:
                polled.dead.flights, polled.dead.slot = [flight], chain.rooted
        elif found[0] > chain.confirmed:
            if state.undecided:
                await self.ledger.commit(move_flight(flight, AttemptState.SEEN, seen_slot=found[0])[0])
        elif found[1] is not None:
            chain.confirmed = max(chain.confirmed, min(chain.slot, found[0] + 1))
            polled.failed.flights, polled.failed.errs, polled.failed.slot = [flight], [found[1]], found[0]
        elif not flight.read_back:
            flight.landed_slot = polled.landed.slot = found[0]
            polled.landed.flights = [flight]
        elif found[0] <= chain.rooted:
            polled.final = [flight]
        await self.router.settle(polled)


class Loop:
    """An event loop that goes on only while it is told to."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None

    def do(self, work: Callable[[], Awaitable[None] | None]) -> None:
        """Do it, and let everything that follows from it happen."""

        async def go() -> None:
            pending = work()
            if pending is not None:
                await pending
            for _ in range(24):
                await asyncio.sleep(0)
            if self._task is not None and self._task.done():
                self._task.result()

        self._loop.run_until_complete(go())

    def start(self, life: Life) -> None:
        self._task = self._loop.create_task(life.router.run())

    def kill(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._loop.run_until_complete(asyncio.gather(self._task, return_exceptions=True))
        self._task = None

    def close(self) -> None:
        self.kill()
        self._loop.close()
