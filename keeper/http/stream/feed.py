"""News of orders, read from the journal once for all who wait for it: streams and long polls.

One task follows the journal's changes. What it reads is rendered once and handed to every reader whose filter it
fits; a reader costs the keeper its own socket and nothing else. Rounds are spaced by how many readers the last one
woke, and both rendering and waking go in small steps that wait while orders are being executed: many readers get their
news later instead of taking the event loop from the execution of orders.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import structlog
from anyio.abc import TaskStatus
from solders.pubkey import Pubkey

from keeper.domain.errors import JournalError
from keeper.http.edge.problems import Problem
from keeper.journal import Followed, Queries
from keeper.journal.records import ChangeRow, OrderRow

MAX_WAITING_BYTES: Final = 512 * 1024
"""What may wait for one reader: twice what a round has for it at most. One who takes no more is cut off and can
resume, as often as it likes."""

_PAGE: Final = 300
_RENDERED_AT_ONCE: Final = 10
"""Changes made into events, and put into the queues of their readers, between two turns of the event loop."""
_SHORTEST_PAUSE_S: Final = 0.02
_PAUSE_PER_READER_S: Final = 0.001
_LONGEST_PAUSE_S: Final = 1.0
_SLICE: Final = 4
_BETWEEN_SLICES_S: Final = 0.004
"""So many readers are woken at once, half a millisecond of work, and then everybody else has the loop for a while."""
_BUSY_S: Final = 0.01
_LONGEST_WAIT_S: Final = 2.0
"""How long a round waits, altogether, for the execution of orders to leave the loop to it."""
_AFTER_TROUBLE_S: Final = 1.0

_log: Any = structlog.get_logger("keeper.http")

Render = Callable[[ChangeRow, OrderRow], bytes]


@dataclass(frozen=True, slots=True)
class Filter:
    """What a reader wants to hear of; None is everything."""

    user: Pubkey | None = None
    market: Pubkey | None = None
    order: Pubkey | None = None

    def fits(self, change: ChangeRow) -> bool:
        """Whether the change passes."""
        return (
            self.user in (None, change.user)
            and self.market in (None, change.market)
            and self.order in (None, change.order)
        )

    @property
    def key(self) -> Pubkey | None:
        """The part that fits least: readers are looked up by it, so that nobody is asked about what is not theirs."""
        return self.order or self.user or self.market


@dataclass(eq=False, slots=True)
class Reader:
    """One who waits for news. It gets each change after `after` that fits, in the order of their ids.

    `cut` is set, and `on_cut` called, when it did not keep up and when the API stops: nothing comes any more.
    """

    filter: Filter
    after: int
    cut: bool = False
    on_cut: Callable[[], None] | None = None
    opened: bool = False
    """It has what came before `after`, which is not moved by a snapshot any more."""
    _waiting: deque[tuple[int, bytes]] = field(default_factory=deque)
    _bytes: int = 0
    _news: anyio.Event = field(default_factory=anyio.Event)

    def offer(self, change_id: int, rendered: bytes) -> bool:
        """Put news into its queue; True when it has to be woken for it."""
        if self.cut or change_id <= self.after:
            return False
        self._waiting.append((change_id, rendered))
        self._bytes += len(rendered)
        if self._bytes > MAX_WAITING_BYTES:
            self.cut_off()
        return True

    def cut_off(self) -> None:
        """End it: what waits is dropped."""
        self.cut = True
        self._waiting.clear()
        self._news.set()
        if self.on_cut is not None:
            self.on_cut()

    @property
    def idle(self) -> bool:
        """Whether it has taken everything that came."""
        return not self._waiting

    def wake(self) -> None:
        """Let `news` return."""
        self._news.set()

    async def news(self) -> bytes:
        """What came since, rendered, as one piece; empty when it was cut off or woken for nothing."""
        self.opened = True
        await self._news.wait()
        if not self.cut:
            self._news = anyio.Event()
        # What a snapshot told already came before it: `after` was moved past it.
        taken = [rendered for change_id, rendered in self._waiting if change_id > self.after]
        if self._waiting:
            self.after = max(self.after, self._waiting[-1][0])
        self._waiting.clear()
        self._bytes = 0
        return b"".join(taken)


class Feed:
    """Follows the journal while there are readers. `render` makes of a change what its readers get; `busy` says
    whether something goes on that must not wait for readers.
    """

    def __init__(
        self,
        journal: Followed,
        render: Render,
        *,
        max_readers: int,
        max_per_client: int = 1_000,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._journal = journal
        self._render = render
        self._max_readers = max_readers
        self._max_per_client = max_per_client
        self._by_client: Counter[str] = Counter()
        self._busy = busy
        self._patience_s = 0.0
        self._groups: dict[Pubkey | None, set[Reader]] = {}
        self._readers = 0
        self._position = 0
        self._wanted = anyio.Event()
        self._ended = False

    def __repr__(self) -> str:
        return f"Feed({self._readers} readers, at change {self._position})"

    def __len__(self) -> int:
        return self._readers

    @property
    def position(self) -> int:
        """Every reader has, or has in its queue, what fits of the changes up to this id."""
        return self._position

    @contextlib.contextmanager
    def reading(self, wanted: Filter, client: str = "") -> Iterator[Reader]:
        """Hear of every change from now on. Problem 429 when the client, or all together, read too many already."""
        if self._by_client[client] >= self._max_per_client:
            detail = f"A client may have {self._max_per_client} streams and waits at once."
            raise Problem("too_many_streams", detail, retry_after_s=5)
        if self._readers >= self._max_readers:
            detail = f"At most {self._max_readers} streams and waits at once."
            raise Problem("too_many_streams", detail, retry_after_s=5)
        if self._ended:
            raise Problem("not_ready", "The keeper is stopping.", retry_after_s=5)
        if not self._readers:
            # Nobody was told of what came before, so nobody misses it.
            self._position = max(self._position, self._journal.last_change_id)
        reader = Reader(wanted, self._position)
        self._groups.setdefault(wanted.key, set()).add(reader)
        self._readers += 1
        self._by_client[client] += 1
        self._wanted.set()
        try:
            yield reader
        finally:
            group = self._groups[wanted.key]
            group.discard(reader)
            if not group:
                del self._groups[wanted.key]
            self._readers -= 1
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Follow the journal until cancelled; then every reader is cut off at once, so that no stream delays a stop."""
        task_status.started()
        try:
            while True:
                try:
                    await self._follow()
                except JournalError as e:
                    _log.warning("http.feed_waits", detail=str(e))
                except Exception:
                    # A mistake in showing orders must never end the keeper that executes them.
                    _log.exception("http.feed_failed")
                    self._cut_everybody()
                await anyio.sleep(_AFTER_TROUBLE_S)
        finally:
            self._ended = True
            self._cut_everybody()

    async def _follow(self) -> None:
        while True:
            if not self._readers:
                self._wanted = anyio.Event()
                await self._wanted.wait()
            await self._journal.changed(self._position)
            woken = await self._round()
            await anyio.sleep(min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, woken * _PAUSE_PER_READER_S)))

    async def _round(self) -> int:
        """Read what is new and hand it out; how many readers it was for."""
        after = self._position

        def read(queries: Queries) -> tuple[tuple[ChangeRow, ...], int, dict[Pubkey, OrderRow]]:
            page = queries.changes_after(after, limit=_PAGE)
            return page.changes, page.last_id, queries.orders_at(c.order for c in page.changes)

        changes, last_id, rows = await self._journal.read(read)
        self._patience_s = _LONGEST_WAIT_S
        to_wake: set[Reader] = set()
        for first in range(0, len(changes), _RENDERED_AT_ONCE):
            await self._let_others(0.0)
            step = [(change, rows.get(change.order)) for change in changes[first : first + _RENDERED_AT_ONCE]]
            # Nothing is awaited from here until the position has moved: who comes later begins behind this step.
            self._hand_out([(change, row) for change, row in step if row is not None], to_wake)
            self._position = max(self._position, step[-1][0].id)
        self._position = max(self._position, last_id)
        for n, reader in enumerate(to_wake, start=1):
            reader.wake()
            if n % _SLICE == 0:
                await self._let_others(_BETWEEN_SLICES_S)
        return len(to_wake)

    def _hand_out(self, step: list[tuple[ChangeRow, OrderRow]], to_wake: set[Reader]) -> None:
        """Put a few changes into the queues of those whom they concern."""
        everything = self._groups.get(None, set())
        rendered: list[tuple[int, bytes]] = []
        for change, row in step:
            readers = self._fitting(change)
            if not readers and not everything:
                continue
            piece = self._render(change, row)
            rendered.append((change.id, piece))
            to_wake.update(reader for reader in readers if reader.offer(change.id, piece))
        if not rendered or not everything:
            return
        # Those who read everything are many at times: they get the step as one piece, which they share.
        first, (last, _) = rendered[0][0], rendered[-1]
        joined = b"".join(piece for _, piece in rendered)
        for reader in everything:
            if reader.opened and reader.after < first:
                if reader.offer(last, joined):
                    to_wake.add(reader)
            else:
                # Its snapshot may hold a part of the step.
                to_wake.update({reader for change_id, piece in rendered if reader.offer(change_id, piece)})

    async def _let_others(self, at_least_s: float) -> None:
        """Give the loop away; for longer while orders are being executed, within the round's patience."""
        await anyio.sleep(at_least_s)
        while self._patience_s > 0 and self._busy():
            self._patience_s -= _BUSY_S
            await anyio.sleep(_BUSY_S)

    def _fitting(self, change: ChangeRow) -> list[Reader]:
        """The readers with a filter that the change fits."""
        keys = (change.order, change.user, change.market)
        return [reader for key in keys for reader in self._groups.get(key, ()) if reader.filter.fits(change)]

    def _cut_everybody(self) -> None:
        for group in self._groups.values():
            for reader in group:
                reader.cut_off()
