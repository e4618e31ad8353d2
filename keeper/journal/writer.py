"""The one thread that writes: group commit, over whichever store.

Everything that waits is taken at once, done in one transaction, made durable by one fsync, and only then are its
callers woken. While that fsync runs the next group gathers, so the cost of an fsync is shared by as many as came
meanwhile, and a lone caller waits for no more than his own.

Two ways to fail are told apart. An operation that is refused (a second live attempt, say) fails its own caller;
the others' commit. A failing store fails the whole group with nothing of it written, and the journal is unhealthy
until a write succeeds again; the writer keeps trying by itself.

A thread's wake-ups cost more than a quick disk's fsync. So a caller in a hurry may commit on its own thread, the event
loop's, while the writer rests and the disk is quick (`Writer.commit_now`): the same code, the same connection, the
same fsync. `_writing` says who has the store: it is changed under the condition's lock only.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from keeper.domain.errors import JournalAway, JournalError
from keeper.domain.reports import GroupDone
from keeper.journal.machine import REAL, Machine
from keeper.journal.ops import Note, Op
from keeper.journal.queue import Bag, Caller, Group, Queue, Upkeep, Waiting, Work
from keeper.journal.store import Rights, Store, StoreBusy

_NOTE_DELAY_S: Final = 0.05
_RETRY_FIRST_S: Final = 0.1
_RETRY_LAST_S: Final = 5.0
_REMEMBERED: Final = 5
"""So many commits tell how quick the disk is."""


class Writer:
    """The writing thread and its queue. Its methods are called from the event loop's thread."""

    def __init__(
        self,
        open_store: Callable[[Callable[[], None]], Store],
        *,
        loop: asyncio.AbstractEventLoop,
        max_notes: int,
        on_group: Callable[[GroupDone, int], None],
        inline_below_s: float = 0.0,
        machine: Machine = REAL,
    ) -> None:
        self._loop = loop
        self._max_notes = max_notes
        self._on_group = on_group
        self._cond = machine.condition()
        self._queue = Queue()
        self._closing = False
        self._opened = False
        self._inline_below_s = inline_below_s
        self._commits_s: collections.deque[float] = collections.deque(maxlen=_REMEMBERED)
        """How long the last small commits took, fsync included."""
        self._writing = False
        """Whether somebody writes, or has taken a group that he is about to write."""
        self._retry_s = 0.0
        self._tried_last = False
        self._problem: str | None = None
        self.failures = 0
        """Groups that the store failed. What it says of such a group is not believed: the file may hold it."""
        self._thread = machine.thread(self._run, "journal-writer")
        # The last: what a store's own thread tells of it may be heard before this returns.
        self._store = open_store(self._store_news)
        self._opened = True

    # --- called from the loop's thread

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def submit(self, ops: Sequence[Op], *, durable: bool = True) -> asyncio.Future[object]:
        """Queue one caller's operations; the future is done when they are durable (or else written) or refused,
        and all that was posted before is.
        """
        caller = Caller(ops, self._loop.create_future(), durable=durable)
        self._push(caller)
        return caller.done

    def commit_now(self, *ops: Op) -> bool:
        """`Journal.commit` on this thread, for a few operations that are in a hurry: durable when it returns, one fsync
        later. False, and nothing done, while somebody writes or waits, another program has the file, or the disk was
        slow lately: then `commit`.

        Raises what `commit` raises. The one call that blocks the loop (docs/decisions/0010).
        """
        with self._cond:
            if self._closing:
                raise JournalError("The journal is closed.")
            if not self.quick:
                return False
            self._writing = True
            notes = self._queue.take_notes_on(ops) if self._queue.notes else []
        caller = Caller(ops, self._loop.create_future())
        done: GroupDone | None = None
        try:
            with contextlib.suppress(StoreBusy):
                done = self._write([*notes, caller], inline=True)
        finally:
            if done is None:
                with self._cond:
                    self._queue.put_back(notes)
            self._let_go()
        if done is None:
            return False
        self._loop.call_soon(self._after_inline, done, self._store.last_change_id)
        if caller.error is not None:
            raise caller.error
        return True

    @property
    def quick(self) -> bool:
        """Whether `commit_now` would do its work: nobody writes or waits, and the slowest of the last few commits was
        quick. The thread may take to writing a moment later.
        """
        if self._writing or self._queue.urgent or self._problem is not None or not self._commits_s:
            return False
        return 0.0 < self._inline_below_s >= max(self._commits_s)

    def _after_inline(self, done: GroupDone, last_change: int) -> None:
        self._on_group(done, last_change)
        with self._cond:
            if self._writing:
                return
            self._writing = True
        try:
            self._store.tidy(idle=False)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """The store is the thread's again, if it has anything to do."""
        with self._cond:
            self._writing = False
            if self._queue.items or self._problem is not None or self._closing:
                self._cond.notify()

    def upkeep(self, work: Work) -> asyncio.Future[object]:
        """Queue upkeep; the future has its result."""
        upkeep = Upkeep(work, self._loop.create_future())
        self._push(upkeep)
        return upkeep.done

    def _push(self, item: Waiting) -> None:
        with self._cond:
            if self._closing:
                raise JournalError("The journal is closed.")
            self._queue.push(item)
            self._cond.notify()

    def post(self, note: Note) -> bool:
        """Queue a note; False when there is no room for it."""
        with self._cond:
            if self._closing:
                raise JournalError("The journal is closed.")
            first = self._queue.post(note, self._max_notes)
            if first:
                self._cond.notify()
            return first is not None

    @property
    def problem(self) -> str | None:
        """Why the last write failed, or what else is not well with the store; None while the journal is healthy."""
        return self._problem or self._store.trouble

    @property
    def rights(self) -> Rights:
        """What the store says of the right to write."""
        return self._store

    @property
    def waiting_notes(self) -> int:
        """How many posted notes are not yet written."""
        return self._queue.notes

    @property
    def waiting_callers(self) -> int:
        """How many callers wait for the next group."""
        return self._queue.urgent

    def close(self) -> None:
        """Write everything that waits, and end the thread. Blocks; call it from a worker thread."""
        with self._cond:
            self._closing = True
            self._cond.notify()
        self._thread.join()

    # --- the thread

    def _run(self) -> None:
        try:
            while (taken := self._take()) is not None:
                try:
                    if isinstance(taken, Upkeep):
                        self._do_upkeep(taken)
                    elif taken:
                        done = self._write(taken)
                        self._tell([item for item in taken if isinstance(item, Caller)], done)
                        # The callers are awake by now: nobody waits for this.
                        self._store.tidy(idle=False)
                    else:
                        self._idle()
                finally:
                    with self._cond:
                        self._writing = False
        except BaseException as error:
            self._problem = f"The journal's writer stopped: {error!r}. Start the keeper again."
            raise
        finally:
            self._end()

    def _take(self) -> Group | Upkeep | None:
        """What to write next; an empty group when it is time to try a failing store, or to tidy; None when all is done.
        Unless it is None, this thread has the store.
        """
        with self._cond:
            while True:
                if self._writing:
                    self._cond.wait()
                    continue
                queue = self._queue
                due_s = queue.first_note_at + max(_NOTE_DELAY_S, self._retry_s) - time.perf_counter()
                if queue.items and (queue.urgent or self._closing or due_s <= 0):
                    if self._closing and self._problem is not None and self._last_try_failed():
                        return None
                    self._writing = True
                    return queue.pop()
                if self._closing:
                    return None
                if self._store.wants_turn and self._problem is None:
                    self._writing = True
                    return []
                if queue.items:
                    self._cond.wait(due_s)
                elif self._problem is not None:
                    if not self._cond.wait(self._retry_s) and not self._writing:
                        self._writing = True
                        return []
                else:
                    self._cond.wait()

    def _last_try_failed(self) -> bool:
        """While closing, notes get one more try on a failing disk, not endless ones."""
        failed, self._tried_last = self._tried_last, True
        return failed

    def _write(self, group: Group, *, inline: bool = False) -> GroupDone:
        """The group in one transaction, durable, its callers' errors set; or, when the store fails, nothing of it.
        `inline` waits for no other program: StoreBusy.
        """
        began = time.perf_counter()
        asked: list[Sequence[Op]] = []
        callers: list[Caller | None] = []
        waiting: list[Caller] = []
        durable, ops = False, 0
        for item in group:
            if isinstance(item, Bag):
                # Each note stands for itself. Notes wait for each other's fsync, but they do get one.
                asked += [(note,) for note in item.notes.values()]
                callers += [None] * len(item)
                durable = True
            else:
                asked.append(item.ops)
                callers.append(item)
                waiting.append(item)
                durable, ops = durable or item.durable, ops + len(item.ops)
        refused = 0
        try:
            errors = self._store.apply(asked, durable=durable, waits=not inline)
        except StoreBusy:
            raise
        except Exception as error:  # whatever it is: the thread lives on, and the callers hear of it
            refused = self._failed(group, error)
        else:
            self._problem, self._retry_s = None, 0.0
            for caller, refusal in zip(callers, errors, strict=True):
                if refusal is not None:
                    refused += 1
                    if caller is not None:
                        caller.error = refusal
            if durable and self._store.commit_s is not None:
                self._commits_s.append(self._store.commit_s)
        return GroupDone(
            callers=len(waiting),
            ops=ops,
            notes=len(callers) - len(waiting),
            refused=refused,
            seconds=time.perf_counter() - began,
            problem=self._problem or self._store.trouble,
            inline=inline,
        )

    def _failed(self, group: Group, error: Exception) -> int:
        """Nothing of the group was written: its callers fail, its notes wait for the next try."""
        self._problem = self._store.explain(error)
        self._retry_s = min(max(2 * self._retry_s, _RETRY_FIRST_S), _RETRY_LAST_S)
        with self._cond:
            self._queue.put_back([item for item in group if isinstance(item, Bag)])
        self.failures += bool(group)
        failed = [item for item in group if isinstance(item, Caller)]
        for caller in failed:
            caller.error = JournalAway(self._problem)
            caller.error.__cause__ = error
        return len(failed)

    def _do_upkeep(self, upkeep: Upkeep) -> None:
        try:
            upkeep.result = upkeep.work(self._store)
        except JournalError as error:
            upkeep.error = error
        except Exception as error:  # the same: the thread lives on
            upkeep.error = JournalError(self._store.explain(error))
            upkeep.error.__cause__ = error
        self._call_loop(_settle, upkeep)
        self._store.tidy(idle=False)

    def _idle(self) -> None:
        """Nobody waits: try whether a failing store works again, or let it tidy."""
        if self._problem is None:
            with contextlib.suppress(Exception):
                self._store.tidy(idle=True)
            return
        try:
            self._store.probe()
        except Exception as error:
            self._failed([], error)
        else:
            self._problem, self._retry_s = None, 0.0
        self._tell([], GroupDone(problem=self.problem))

    def _store_news(self) -> None:
        """The store's trouble, or its wish for a turn, may have changed. From any thread."""
        with self._cond:
            self._cond.notify()
        self._call_loop(self._tell_health)

    def _tell_health(self) -> None:
        if not self._opened:
            return  # whoever opens it looks for himself
        self._on_group(GroupDone(problem=self.problem), self._store.last_change_id)

    def _tell(self, waited: Sequence[Waiting], done: GroupDone) -> None:
        self._call_loop(_wake, waited, self._on_group, done, self._store.last_change_id)

    def _call_loop(self, function: Callable[..., None], *args: object) -> None:
        # A loop that is closed has nobody left to wake.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def _end(self) -> None:
        """Nobody is left waiting for a thread that has ended."""
        with self._cond:
            self._closing = True
            left = [item for item in self._queue.items if not isinstance(item, Bag)]
        for item in left:
            item.error = JournalError(self._problem or "The journal is closed.")
        self._tell(left, GroupDone(len(left), refused=len(left), problem=self._problem))
        self._store.close()


def _wake(
    waited: Sequence[Waiting], on_group: Callable[[GroupDone, int], None], done: GroupDone, last_change: int
) -> None:
    for item in waited:
        _settle(item)
    on_group(done, last_change)


def _settle(item: Waiting) -> None:
    # A cancelled caller's future is done already; what it asked for is in the journal all the same.
    if item.done.done():
        return
    if item.error is None:
        item.done.set_result(item.result)
    else:
        item.done.set_exception(item.error)
