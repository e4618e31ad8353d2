"""Threads that take turns with the event loop: one runs at a time, and each switch is a step of the loop.

They are real threads, so that the keeper's code runs in them unchanged; but a thread goes on only when the loop hands
it the turn, and hands it back when it waits. So its steps lie in the seed's order, and a wait takes virtual time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from tests.simulate.loop import VirtualLoop

_local = threading.local()
_ALL = 1_000


class Killed(BaseException):
    """The process that this thread belongs to is no more."""


def current() -> TurnThread | None:
    """The thread that runs; None on the event loop's."""
    return getattr(_local, "thread", None)


class TurnThread:
    """One thread."""

    def __init__(self, threads: Threads, run: Callable[[], None], name: str) -> None:
        self._threads = threads
        self._run = run
        self._context = copy_context()  # whose thread it is
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self.ended = False
        self._over = TurnCondition(threads)
        self._rests = 0

    @property
    def threads(self) -> Threads:
        """Those of the same life."""
        return self._threads

    def start(self) -> None:
        self._threads.alive.append(self)
        self._thread.start()
        self._threads.loop.call_soon(self.turn)

    def is_alive(self) -> bool:
        """Whether it has begun, and not ended."""
        return not self.ended and self in self._threads.alive

    def join(self) -> None:
        """Whoever joins gives it its turns until it has ended; or waits, where joins are no step of the loop's."""
        if self._threads.joins_wait and current() is not None:
            with self._over:
                while not self.ended:
                    self._over.wait()
        while not self.ended:
            self.turn()

    def turn(self) -> None:
        """Let it run until it waits or ends. Called by whoever has the turn."""
        if self.ended:
            return
        self._go.release()
        self._back.acquire()

    def next_turn(self) -> Callable[[], None]:
        """What ends the rest that comes next, and no other."""
        rest = self._rests + 1

        def end() -> None:
            if self._rests == rest:
                self.turn()

        return end

    def rest(self) -> None:
        """Hand the turn back; returns when the next one comes. Called by the thread itself."""
        self._rests += 1
        self._back.release()
        self._go.acquire()
        self._rests += 1
        if self._threads.dead:
            raise Killed

    def _main(self) -> None:
        _local.thread = self
        self._go.acquire()
        try:
            if not self._threads.dead:
                self._context.run(self._run)
        except Killed:
            pass
        except BaseException as error:
            self._threads.errors.append(f"the thread {self._thread.name} died: {type(error).__name__}: {error}")
        finally:
            self.ended = True
            self._over.notify(_ALL)
            self._back.release()


class TurnCondition:
    """`threading.Condition` among threads that take turns: nobody can be in the way, so its lock is none."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._waiting: list[_Wait] = []

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *exc: Any) -> None:
        pass

    def wait(self, timeout: float | None = None) -> bool:
        thread = current()
        assert thread is not None, "the event loop would wait for ever"
        wait = _Wait(thread.next_turn(), copy_context())
        self._waiting.append(wait)
        timer = None
        if timeout is not None:
            timer = self._threads.loop.call_later(max(0.0, timeout), wait.end)
        try:
            thread.rest()
        finally:
            if timer is not None:
                timer.cancel()
            if wait in self._waiting:
                self._waiting.remove(wait)
        return wait.notified

    def notify(self, n: int = 1) -> None:
        for _ in range(min(n, len(self._waiting))):
            wait = self._waiting.pop(0)
            wait.notified = True
            self._threads.loop.call_soon(wait.end, context=wait.context)


@dataclass(slots=True, eq=False)
class _Wait:
    end: Callable[[], None]
    context: Context
    """Whose wait it is: who notifies may be another keeper."""
    notified: bool = False


class TurnEvent:
    """`threading.Event`, as far as leases use it."""

    def __init__(self, threads: Threads) -> None:
        self._condition = TurnCondition(threads)
        self._set = False

    def set(self) -> None:
        self._set = True
        self._condition.notify(_ALL)

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            self._condition.wait(timeout)
        return self._set


class TurnLock:
    """`threading.Lock`: who has it may rest, and others wait meanwhile."""

    def __init__(self, threads: Threads) -> None:
        self._condition = TurnCondition(threads)
        self._taken = False

    def __enter__(self) -> bool:
        while self._taken:
            self._condition.wait()
        self._taken = True
        return True

    def __exit__(self, *exc: Any) -> None:
        self._taken = False
        self._condition.notify()


class Threads:
    """The threads of one life of a keeper."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.joins_wait = False
        """Whether a thread that joins another lets the event loop go on meanwhile."""
        self.alive: list[TurnThread] = []
        self.dead = False
        self.errors: list[str] = []

    def condition(self) -> TurnCondition:
        return TurnCondition(self)

    def thread(self, run: Callable[[], None], name: str) -> TurnThread:
        return TurnThread(self, run, name)

    def sleep(self, seconds: float) -> None:
        """The thread that runs waits; on the event loop's thread everything does."""
        thread = current()
        if thread is None:
            self.loop.stall(seconds)
            return
        self.loop.call_later(seconds, thread.next_turn())
        thread.rest()

    def kill(self) -> None:
        """No step of any of them comes after this."""
        self.dead = True
        for thread in self.alive:
            thread.join()
