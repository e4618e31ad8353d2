"""Threads that take turns with the event loop: one runs at a time, and each switch is a step of the loop.

They are real threads, so that the keeper's code runs in them unchanged; but a thread goes on only when the loop hands
it the turn, and hands it back when it waits. So its steps lie in the seed's order, and a wait takes virtual time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulate.loop import VirtualLoop

_local = threading.local()


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
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self.ended = False
        self._rests = 0

    def start(self) -> None:
        self._threads.alive.append(self)
        self._thread.start()
        self._threads.loop.call_soon(self.turn)

    def join(self) -> None:
        """Whoever joins gives it its turns until it has ended."""
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
                self._run()
        except Killed:
            pass
        except BaseException as error:
            self._threads.errors.append(f"the thread {self._thread.name} died: {type(error).__name__}: {error}")
        finally:
            self.ended = True
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
        wait = _Wait(thread.next_turn())
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
            self._threads.loop.call_soon(wait.end)


@dataclass(slots=True, eq=False)
class _Wait:
    end: Callable[[], None]
    notified: bool = False


class Threads:
    """The threads of one life of a keeper."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
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
