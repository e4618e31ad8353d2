"""An event loop in virtual time. Its seed says in which order the steps that are ready are taken.

No step waits for anything real. When nothing is ready, the clock goes to the next timer. As in Trio, the steps that
became ready in one turn are taken in an order drawn for that turn, so that no step can count on another's place; what
is no task's step (a timer's callback, news from a socket) keeps its place among its like, as asyncio promises.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, Final

from anyio._backends._asyncio import CancelScope

from tests.simulate.dice import Clock

_MOST_TURNS_AT_ONCE: Final = 20_000
"""So many turns without a timer's end is a keeper that spins."""


owner: Final[ContextVar[object]] = ContextVar("owner", default=None)
"""The life of a keeper to which a step belongs, in an episode with several of them."""


class Spinning(AssertionError):
    """Something is ready again and again, and no time passes by waiting."""


class NumberedTask(asyncio.Task[Any]):
    """A task that hashes by the order of its making, so that a set of tasks is gone through in the same order wherever
    the memory happens to lie.
    """

    _numbers = itertools.count(1)

    def __init__(self, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self.number = next(self._numbers)
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number


_scope_init = CancelScope.__init__


class _InOrder(dict[Any, None]):
    """A set that is gone through in the order in which it was filled."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)

    remove = dict.__delitem__


def scopes_in_order() -> None:
    """anyio keeps a scope's children in a set, by where they lie in memory: let that be the order of their making."""

    def make(self: Any, *args: Any, **options: Any) -> None:
        _scope_init(self, *args, **options)
        self._child_scopes = _InOrder()

    CancelScope.__init__ = make  # type: ignore[method-assign]


class _NothingToSelect:
    """In the selector's place: there are no sockets."""

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """`between` is called before each step: a kill that is due happens there."""

    def __init__(self, clock: Clock, seed: str) -> None:
        super().__init__()
        self._selector = _NothingToSelect()
        self._virtual = clock
        self._dice = random.Random(seed)
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timer_numbers = itertools.count()
        self.between: Callable[[], None] | None = None
        self.steps = 0
        self._stopped: dict[object, list[Any]] = {}
        """The steps of each owner that stands still, until it goes on."""
        self._turns_at_once = 0
        self.errors: list[str] = []
        self.set_task_factory(_numbered)  # type: ignore[arg-type]
        self.set_exception_handler(self._note_error)

    def time(self) -> float:
        return self._virtual.monotonic()

    def stall(self, seconds: float) -> None:
        """Everything stands still for so long, as when the machine takes the processor away."""
        self._virtual.passed_s += seconds

    def stop_steps(self, of: object) -> None:
        """From now on no step of this owner is taken: it was sent SIGSTOP."""
        self._stopped.setdefault(of, [])

    def go_on(self, of: object) -> None:
        """Its steps are taken again, those that were due meanwhile first."""
        self._ready.extend(self._stopped.pop(of, ()))  # type: ignore[attr-defined]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        # asyncio's own heap compares handles by a call for each; and of two at one time the first made comes first.
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._timer_numbers), timer))
        return timer

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        timers: Any = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        now = self.time()
        if ready:
            self._turns_at_once += 1
            if self._turns_at_once > _MOST_TURNS_AT_ONCE:
                raise Spinning(f"{_MOST_TURNS_AT_ONCE} turns without a wait; ready now: {list(ready)[:3]}")
            # A turn costs something: so what is due next comes between two of them, too.
            self._virtual.passed_s += 0.00002
        elif timers:
            self._turns_at_once = 0
            if timers[0][0] > now:
                self._virtual.passed_s += timers[0][0] - now
        elif not self._stopping:  # type: ignore[attr-defined]
            raise Spinning("nothing is ready, and nothing ever will be")
        now = self.time() + 1e-9
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled:
                ready.append(handle)
        count = len(ready)
        if count == 1:
            self._step(ready.popleft())
            return
        batch = [ready.popleft() for _ in range(count)]
        places = [i for i, handle in enumerate(batch) if _is_step(handle)]
        if len(places) > 1:
            mixed = [batch[i] for i in places]
            self._dice.shuffle(mixed)
            for i, handle in zip(places, mixed, strict=True):
                batch[i] = handle
        for handle in batch:
            self._step(handle)

    def _step(self, handle: Any) -> None:
        if handle._cancelled:
            return
        if self._stopped and (whose := handle._context.get(owner)) in self._stopped:
            self._stopped[whose].append(handle)
            return
        self.steps += 1
        if self.between is not None:
            self.between()
        handle._run()

    def _note_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {type(error).__name__}: {error}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # they are left out when their time comes

    def _write_to_self(self) -> None:
        pass  # nobody sleeps in a selector

    def _process_events(self, event_list: object) -> None:
        pass


def _is_step(handle: Any) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)


def _numbered(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], context: Context | None = None, **options: Any
) -> asyncio.Task[Any]:
    return NumberedTask(coro, loop=loop, context=context, **options)
