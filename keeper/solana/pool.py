"""Several endpoints as one: reads go to the healthiest, sends go to all of them.

An endpoint is benched when it asked for a pause (429), failed several times in a row, is on another genesis,
or is too many slots behind the best believed one; it comes back by itself when the pause is over, or once a probe finds
it on the genesis, or at a slot, that it should be: however late that probe is. Benching one never blocks another. When
all are benched, the one that comes back first is used anyway: a keeper that asks nobody is surely late. But one on
another genesis is never asked. Which slot is believed, so that a node that says too much benches nobody, is
`Agreement`'s to say.
"""

from __future__ import annotations

import base64
import itertools
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import msgspec
from anyio.abc import TaskStatus

from keeper.domain.errors import BehindNode, ChainError, Misconfigured, RateLimited, Rejected, Transient
from keeper.solana.account_stream import KeyedAccount
from keeper.solana.agreement import Agreement
from keeper.solana.broadcast import Broadcast
from keeper.solana.pace import Pace
from keeper.solana.rpc import MAX_BODY_BYTES, SENDING, BegunBatch, Call, Endpoint, Reply

_ERRORS_TO_BENCH: Final = 3
_LONGEST_BENCH_S: Final = 60.0
_RATE_LIMIT_BENCH_S: Final = 2.0
_FIRST_PROBE_S: Final = 2.0
_KNOWN_PROBE_S: Final = 1.0
_UNMEASURED_S: Final = 1.0
"""Between two probes while the pace of slots is not known."""


@dataclass(slots=True)
class EndpointHealth:
    """What is known of one endpoint. `slot_lag` is slots behind the best believed one at the last probe, None before
    the first. `behind`: that was too many. `known_genesis`: it has said which chain it is on, and that is the one.
    """

    label: str
    errors: int = 0
    consecutive_errors: int = 0
    slot: int | None = None
    slot_lag: int | None = None
    behind: bool = False
    wrong_genesis: bool = False
    known_genesis: bool = False
    benched_until: float = 0.0
    bench_reason: str = ""

    def benched(self, now: float) -> bool:
        """Whether it rests at monotonic time `now`."""
        return self.behind or self.wrong_genesis or now < self.benched_until


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds of the pool. Seconds, slots. `deadline_s` is a call's total, over all endpoints that it tried.
    `straggler_s`: how long a broadcast that one endpoint has taken waits for the others.
    """

    deadline_s: float = 10.0
    probe_every_s: float = 5.0
    max_slot_lag: int = 50
    straggler_s: float = 0.5


@dataclass(slots=True)
class Seat:
    """An endpoint in a pool; `order` is its place in the settings."""

    endpoint: Endpoint
    health: EndpointHealth
    order: int = field(default=0)


class RpcPool:
    """Endpoints with health. The first one given is preferred among equals.

    `observe(label, method, seconds, outcome)` is told of every call, for the metrics.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        limits: PoolLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[str, str, float, str], None] | None = None,
    ) -> None:
        if not endpoints:
            raise Misconfigured("There is no RPC endpoint.", remedy="Set rpc.url, for example http://127.0.0.1:8899.")
        self._seats = [Seat(e, EndpointHealth(e.label), i) for i, e in enumerate(endpoints)]
        self.limits = limits
        self._clock = clock
        self._observe = observe
        self._genesis: str | None = None
        self.pace = Pace()
        self._agreement = Agreement(self.pace)
        self._ids = itertools.count(1)

    def now(self) -> float:
        """The pool's monotonic clock, in seconds."""
        return self._clock()

    def __repr__(self) -> str:
        now = self._clock()
        seats = (s.endpoint.label + (" benched" if s.health.benched(now) else "") for s in self._seats)
        return f"RpcPool({', '.join(seats)})"

    @property
    def health(self) -> list[EndpointHealth]:
        """Each endpoint's health, in the settings' order. Live objects: read, don't write."""
        return [seat.health for seat in self._seats]

    async def aclose(self) -> None:
        """Close every endpoint's connections."""
        for seat in self._seats:
            await seat.endpoint.aclose()

    async def call(self, method: str, *params: Any, deadline_s: float | None = None) -> Any:
        """One read. Transient failures move on to the next endpoint, each at most once, within the deadline.

        Rejected is final at once: another node would refuse the same request too.
        """
        last: ChainError | None = None
        for seat, left in self._in_turn(deadline_s):
            try:
                return await self._tried(seat, method, params, left)
            except Rejected:
                raise
            except ChainError as e:
                last = e
        raise last or self._unanswered(method)

    async def accounts(
        self, method: str, *params: Any, deadline_s: float | None = None
    ) -> AsyncGenerator[tuple[int, list[KeyedAccount]]]:
        """A read whose result is a long list of accounts, given in parts with the context's slot. Moves on to the
        next endpoint only while nothing was given: two halves from two nodes are no list.
        """
        last: ChainError | None = None
        for seat, left in self._in_turn(deadline_s):
            started = self._clock()
            given = False
            try:
                async with aclosing(seat.endpoint.accounts(method, *params, deadline_s=left)) as parts:
                    async for part in parts:
                        given = True
                        yield part
            except ChainError as e:
                self.note(seat.health, method, started, e)
                if given or isinstance(e, Rejected):
                    raise
                last = e
                continue
            self.note(seat.health, method, started, None)
            return
        raise last or self._unanswered(method)

    async def each(self, method: str, *params: Any, deadline_s: float) -> list[Reply]:
        """One read of every endpoint that is not benched, all at once: for what one node alone is not believed."""
        replies: list[Reply] = []

        async def ask(seat: Seat) -> None:
            try:
                replies.append(await self._tried(seat, method, params, deadline_s))
            except ChainError as e:
                replies.append(e)

        async with anyio.create_task_group() as tg:
            for seat in self._by_preference():
                tg.start_soon(ask, seat)
        return replies

    async def batch(self, calls: Sequence[Call], *, deadline_s: float | None = None) -> list[Reply]:
        """Reads in batches; the calls that failed transiently are asked again of the next endpoint."""
        replies: list[Reply] = [Transient("no endpoint was asked")] * len(calls)
        todo = list(range(len(calls)))
        for seat, left in self._in_turn(deadline_s):
            if not todo:
                break
            asked = [calls[i] for i in todo]
            answers = await self.tried_batch(seat, asked, left)
            for asked_at, answer in zip(todo, answers, strict=True):
                replies[asked_at] = answer
            todo = [i for i in todo if isinstance(replies[i], Transient)]
        return replies

    def send(self, wires: Sequence[bytes], *, deadline_s: float | None = None) -> Broadcast:
        """The same signed bytes to every endpoint that is not benched, at once: on the wire when this returns, before
        any other work of the event loop, wherever a connection rests. The others' are opened for `replies`.

        Without preflight and without the node's own retries: rebroadcasting is the keeper's. A reply is a signature,
        Rejected, or an error that means "unknown". An OK proves nothing but that a node took it.
        """
        calls = [Call("sendTransaction", (base64.b64encode(wire).decode(), SENDING)) for wire in wires]
        chunk: list[tuple[int, bytes]] = []
        for call in calls:
            request_id = next(self._ids)
            request = {"jsonrpc": "2.0", "id": request_id, "method": call.method, "params": call.params}
            chunk.append((request_id, msgspec.json.encode(request)))
        body = b"[" + b",".join([encoded for _, encoded in chunk]) + b"]"
        begun: list[tuple[Seat, BegunBatch | None]] = []
        for seat in self.awake():
            # What is too long for one request is cut, which a batch does.
            request_begun = seat.endpoint.transport.begin(body) if len(body) <= MAX_BODY_BYTES else None
            begun.append((seat, None if request_begun is None else BegunBatch(chunk, body, request_begun)))
        begun = begun or [(seat, None) for seat in self._by_preference()[:1]]
        return Broadcast(self, calls, deadline_s or self.limits.deadline_s, begun)

    async def probe_forever(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Ask every endpoint for its slot and genesis, now and then; bench and bring back by the answers."""
        await self.probe()
        task_status.started()
        while True:
            every_s = self.limits.probe_every_s
            await anyio.sleep(every_s if self.pace.measured else min(every_s, _UNMEASURED_S))
            await self.probe()

    async def probe(self, *, deadline_s: float | None = None) -> None:
        """One round of probes, all endpoints at once."""
        within_s = deadline_s or min(self.limits.deadline_s, self.limits.probe_every_s)
        async with anyio.create_task_group() as tg:
            for seat in self._seats:
                tg.start_soon(self._probe_one, seat, within_s)
        slots = [s.health.slot for s in self._seats if s.health.slot is not None and not s.health.wrong_genesis]
        top = self._agreement.top(slots, self._clock(), self.limits.max_slot_lag)
        for seat in self._seats:
            health = seat.health
            if health.slot is None:
                continue
            health.slot_lag = max(0, top - health.slot)
            health.behind = health.slot_lag > self.limits.max_slot_lag
            if health.behind:
                health.bench_reason = f"{health.slot_lag} slots behind"

    async def _probe_one(self, seat: Seat, within_s: float) -> None:
        health = seat.health
        calls = [Call("getSlot", ({"commitment": "processed"},)), Call("getGenesisHash")]
        slot, genesis = await self.tried_batch(seat, calls, within_s)
        health.slot = slot if isinstance(slot, int) else None
        if isinstance(genesis, str):
            self._genesis = self._genesis or genesis
            health.wrong_genesis = genesis != self._genesis
            health.known_genesis = not health.wrong_genesis
            if health.wrong_genesis:
                health.bench_reason = "another genesis hash"

    async def identify(self, label: str) -> int | None:
        """Ask this endpoint which chain it is on: its slot, None when it did not say that. Transient when it is on
        another chain, or does not answer and never said which one it is on.
        """
        seat = next(seat for seat in self._seats if seat.health.label == label)
        # One that has said it before is not waited for: a socket may be well when the calls beside it are not.
        longest_s = _KNOWN_PROBE_S if seat.health.known_genesis else self.limits.probe_every_s
        await self._probe_one(seat, min(self.limits.deadline_s, longest_s))
        if seat.health.wrong_genesis:
            raise Transient(
                f"{label}: it is on another chain: its genesis hash is not the one that the keeper is held to"
            )
        if not seat.health.known_genesis:
            raise Transient(f"{label}: it has not said which chain it is on")
        return seat.health.slot

    async def hold_to(self, genesis: str) -> None:
        """Hold every endpoint to this genesis hash (the journal's), rather than to the first one's answer.

        From now on one that has not said its own is asked for nothing else, unless there is no other: on another
        chain every open attempt would look as if it could no longer land. Asks all of them, for a moment.
        """
        self._genesis = genesis
        await self.probe(deadline_s=_FIRST_PROBE_S)

    def awake(self) -> list[Seat]:
        """The endpoints that may be asked: on the pool's chain, and not benched."""
        now = self._clock()
        return [seat for seat in self._trusted() if not seat.health.benched(now)]

    def _trusted(self) -> list[Seat]:
        ours = [seat for seat in self._seats if not seat.health.wrong_genesis]
        return [seat for seat in ours if seat.health.known_genesis] or ours

    def _by_preference(self) -> list[Seat]:
        awake = self.awake()
        if awake:
            return sorted(awake, key=lambda s: (s.health.consecutive_errors, s.order))
        return sorted(self._trusted(), key=lambda s: (s.health.behind, s.health.benched_until))[:1]

    def _unanswered(self, method: str) -> Transient:
        why = f"no endpoint answered {method} in time"
        return Transient(why if self._trusted() else "every endpoint is on another chain")

    def _in_turn(self, deadline_s: float | None) -> Iterator[tuple[Seat, float]]:
        """Who to ask, one after the other while time is left, each with the seconds that it may take: half of what is
        left while others could still be asked, so that one that hangs does not use up the time of all.
        """
        ends = self._clock() + (deadline_s or self.limits.deadline_s)
        seats = self._by_preference()
        for seat in seats:
            left = ends - self._clock()
            if left <= 0:
                return
            yield seat, left if seat is seats[-1] else left / 2

    async def _tried(self, seat: Seat, method: str, params: Sequence[Any], deadline_s: float) -> Any:
        started = self._clock()
        try:
            result = await seat.endpoint.call(method, *params, deadline_s=deadline_s)
        except ChainError as e:
            self.note(seat.health, method, started, e)
            raise
        self.note(seat.health, method, started, None)
        return result

    async def tried_batch(
        self, seat: Seat, calls: Sequence[Call], deadline_s: float, begun: BegunBatch | None = None
    ) -> list[Reply]:
        """A batch of one endpoint's, which counts for its health; `begun` is what of it is on the wire already."""
        started = self._clock()
        answers = await seat.endpoint.batch(calls, deadline_s=deadline_s, begun=begun)
        # One broken request breaks all of its calls alike: it counts as one error, not as hundreds.
        errors = [a for a in answers if isinstance(a, Transient)]
        self.note(seat.health, calls[0].method if calls else "batch", started, errors[0] if errors else None)
        return answers

    def note(self, health: EndpointHealth, method: str, started: float, error: ChainError | None) -> None:
        """Count a call that began at `started`, by `now`, for an endpoint's health."""
        now = self._clock()
        if self._observe is not None:
            self._observe(health.label, method, now - started, type(error).__name__ if error else "ok")
        # A node that has not reached a slot yet, or refuses a request, has answered: nothing is wrong with it.
        if error is None or isinstance(error, Rejected | BehindNode):
            health.consecutive_errors = 0
            return
        health.errors += 1
        health.consecutive_errors += 1
        if isinstance(error, RateLimited):
            # Jitter upwards only: coming back before the node said is rude, and all at once is a storm.
            wait = error.retry_after_s if error.retry_after_s is not None else _RATE_LIMIT_BENCH_S
            self._bench(health, wait * random.uniform(1.0, 1.3), "rate limited")  # noqa: S311 - jitter, not a secret
        elif health.consecutive_errors >= _ERRORS_TO_BENCH:
            over = health.consecutive_errors - _ERRORS_TO_BENCH
            wait = min(_LONGEST_BENCH_S, 0.5 * 2.0**over) * random.uniform(0.8, 1.2)  # noqa: S311
            self._bench(health, wait, f"{health.consecutive_errors} errors in a row ({type(error).__name__})")

    def _bench(self, health: EndpointHealth, seconds: float, reason: str) -> None:
        health.benched_until = max(health.benched_until, self._clock() + seconds)
        health.bench_reason = reason
