"""The watch: what the program's accounts say, by subscription plus snapshot, merged by slot.

Subscriptions have no replay, skip silently, and say nothing of a closed account. So each connection subscribes
first and takes a snapshot after, and the snapshot is repeated now and then: it finds what was missed and what
is gone. Every sighting carries the slot of its context; the readers keep the newest, so two watches on two
endpoints can feed the same reader, and the first news wins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from anyio.abc import TaskStatus
from solders.pubkey import Pubkey

from keeper.domain.errors import ChainError, KeeperError, MalformedAccount, MalformedReply, Transient
from keeper.domain.events import AccountUnreadable, MarketSeen, OrderGone, OrderSeen
from keeper.domain.intake import Intake, Load
from keeper.domain.orders import OnchainStatus, OrderFields, order_of
from keeper.domain.turns import Turns
from keeper.solana.account_stream import KeyedAccount
from keeper.solana.backoff import Backoff
from keeper.solana.client import AccountBytes, ChainClient, memcmp
from keeper.solana.reader import Reader
from keeper.solana.sources import Owned, Source, Stream, Wanted

ONE_ENDPOINT_SLOTS: Final = 1_000
"""An endpoint whose socket and RPC are further apart is no endpoint: they are on different chains."""
_MALFORMED_REMEMBERED: Final = 10_000
_STEP: Final = 256
"""So many orders are taken in before the event loop may do something else: 1 to 2 ms."""
_NEWS_STEP: Final = 32
"""So much news is taken in before the event loop may do something else: about 2 ms."""
MARKET: Final = "market"
_PENDING: Final = int(OnchainStatus.PENDING)
_SNAPSHOT_SHARE: Final = 0.025
"""Snapshots take no more of a core than this, as far as pauses of `_LONGEST_PAUSE` times the usual one achieve it."""
_LONGEST_PAUSE: Final = 5.0


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """Seconds. `silence_s`: no slot for this long means a dead socket. `snapshot_every_s`: how often everything
    is read again, unless that costs too much (`snapshot_pause_s`).
    """

    silence_s: float
    snapshot_every_s: float
    snapshot_deadline_s: float = 120.0

    def snapshot_pause_s(self, cpu_s: float) -> float:
        """Until the next snapshot, after one that took `cpu_s`: a large book's takes seconds, and is repeated less
        often for that.
        """
        return min(max(self.snapshot_every_s, cpu_s / _SNAPSHOT_SHARE), self.snapshot_every_s * _LONGEST_PAUSE)


@dataclass(slots=True)
class WatchHealth:
    """How the watch does, for health and metrics. Monotonic seconds; `last_slot` is the newest slot heard of.
    `listed`: a snapshot was merged since the socket opened, so that nothing can be missed that it has not told.
    `snapshot_cpu_s` is what the last snapshot took of the loop's thread, with what else ran meanwhile. `replays`: gaps
    of which the source told everything once more. `malformed` messages could not be read and were skipped.
    """

    label: str
    connected: bool = False
    listed: bool = False
    last_snapshot_at: float | None = None
    snapshot_cpu_s: float = 0.0
    last_heard_at: float | None = None
    last_slot: int = 0
    reconnects: int = 0
    replays: int = 0
    malformed: int = 0
    last_error: str = ""


@dataclass(slots=True)
class ProgramWatch:
    """Watches one program through one source of news, with lists of its accounts through the pool.

    Nothing of the source is read before it is known to be on the pool's chain. `snapshot_lock`, shared by watches with
    one intake, keeps their lists of orders from coming at once.
    `on_malformed` is told once of each account that does not decode; the watch goes on. `on_snapshot` is told of each
    merged list, `on_trouble` of each lost connection and `on_unlisted` of each list that failed, with the reason.
    """

    reader: Reader
    client: ChainClient
    source: Source
    intake: Intake[Any]
    on_malformed: Callable[[Pubkey, str], None]
    on_snapshot: Callable[[], None]
    on_trouble: Callable[[str], None]
    on_unlisted: Callable[[str], None]
    limits: WatchLimits
    snapshot_lock: anyio.Lock = field(default_factory=anyio.Lock, repr=False)
    health: WatchHealth = field(init=False)
    turns: Turns = field(init=False, repr=False)
    _bad: dict[Pubkey, None] = field(init=False, default_factory=dict, repr=False)

    _whole_until: int | None = field(init=False, default=None, repr=False)
    """All that was told up to this slot has been taken in."""

    def __post_init__(self) -> None:
        self.health = WatchHealth(self.label)
        self.turns = Turns(f"watch {self.label}")

    @property
    def label(self) -> str:
        """The source's."""
        return self.source.label

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled. Ready when the first snapshot has been merged."""
        ready, backoff = False, Backoff()

        def became_ready() -> None:
            nonlocal ready
            backoff.reset()
            if not ready:
                ready = True
                task_status.started()

        while True:
            await self.turns.turn()
            try:
                await self._one_connection(became_ready)
            except KeeperError as e:
                self.health.last_error = str(e)
            except ExceptionGroup as group:
                # The reader and the snapshots run beside each other: whichever failed first ended both.
                _, rest = group.split(ChainError)
                if rest is not None:
                    raise
                self.health.last_error = "; ".join(str(e) for e in _leaves(group))
            if self.health.listed:
                self._whole_until = self.health.last_slot
            self.health.connected = self.health.listed = False
            self.health.reconnects += 1
            self.on_trouble(self.health.last_error)
            await backoff.pause()

    async def _one_connection(self, became_ready: Callable[[], None]) -> None:
        async with self.source.open(self._wanted, self.limits.silence_s) as stream:
            slot = await self.source.identify(self.client.pool)
            self.health.connected = True
            self.health.last_heard_at = time.monotonic()  # the acknowledgements
            async with anyio.create_task_group() as tg:
                tg.start_soon(self._read, stream, slot)
                # Subscribed first, snapshot second: what changes in between arrives by the subscription.
                await self._list(became_ready)

    async def _list(self, became_ready: Callable[[], None]) -> None:
        """Take snapshots. One that fails is asked for again: nothing is wrong with the stream for that. After a gap of
        which the source tells everything once more, the first one is due when it would have been without the gap.
        """
        backoff = Backoff()
        if await self._replayed():
            self.health.listed = True
            became_ready()
            since_s = time.monotonic() - (self.health.last_snapshot_at or 0)
            await anyio.sleep(self.limits.snapshot_pause_s(self.health.snapshot_cpu_s) - since_s)
        while True:
            try:
                await self.snapshot()
            except ChainError as e:
                self.health.last_error = str(e)
                self.on_unlisted(str(e))
                await backoff.pause()
                continue
            backoff.reset()
            self.health.listed = True
            became_ready()
            await anyio.sleep(self.limits.snapshot_pause_s(self.health.snapshot_cpu_s))

    async def _replayed(self) -> bool:
        """Whether the source told again all that was missed; if not, everything has to be read."""
        if self._whole_until is None:
            return False
        replay = self.source.replay(self._wanted, self._whole_until, self.limits.silence_s)
        if replay is None:
            return False
        try:
            async with aclosing(replay) as told:
                async for news in told:
                    if news.slot > self.health.last_slot + ONE_ENDPOINT_SLOTS:
                        raise Transient(f"{self.label}: it told again of slot {news.slot}, which nobody has heard of")
                    self.turns.count += 1
                    if news.account is not None:
                        self._account_news(news.tag, news.slot, news.account)
                    if not self.turns.count % _NEWS_STEP:
                        await anyio.lowlevel.checkpoint()
        except ChainError as e:
            self.health.last_error = str(e)
            self.on_unlisted(str(e))
            return False
        self.health.replays += 1
        return True

    @property
    def _wanted(self) -> Sequence[Wanted]:
        return (
            # Each fill writes its market, changed or not: a node tells the same a thousand times in a burst.
            Owned(MARKET, self.reader.id, self.reader.market_discriminator, repeats=True),
            Owned("order", self.reader.id, self.reader.order_discriminator),
        )

    async def _read(self, stream: Stream, near: int | None) -> None:
        """Take in what the stream tells. `near` is about where the RPC stands, as far as that is known: a slot that is
        far from it is of another chain, and once believed it would never be undone by an older one.
        """
        malformed = self.health.malformed
        async for news in stream.notifications():
            if near is None:
                near = news.slot
            if abs(news.slot - near) > ONE_ENDPOINT_SLOTS:
                raise Transient(f"{self.label}: its stream is at slot {news.slot}, and its RPC at {near}")
            if Turns.at_turn is None:
                self.turns.count += 1
            else:
                await self.turns.turn()
            self.health.last_heard_at = time.monotonic()
            self.health.last_slot = max(self.health.last_slot, news.slot)
            if news.account is None:
                near = news.slot
                self.health.malformed = malformed + stream.malformed
            else:
                self._account_news(news.tag, news.slot, news.account)
            if not self.turns.count % _NEWS_STEP:
                await anyio.lowlevel.checkpoint()  # what has arrived already comes without a turn of the loop

    def _account_news(self, tag: str, slot: int, account: AccountBytes) -> None:
        received = time.monotonic_ns()
        if account.lamports == 0 or account.owner != self.reader.id:
            self.intake.on_event(OrderGone(account.address, slot))
        elif tag == MARKET:
            self._market(account, slot, received)
        else:
            self._order(account.address, account.data, slot)

    def _market(self, account: AccountBytes, slot: int, received_at_ns: int) -> None:
        try:
            market = self.reader.market(account, slot)
        except MalformedAccount as e:
            self._malformed(account.address, str(e))
            return
        if market is not None:
            self.intake.on_event(MarketSeen(market, received_at_ns))

    def _order(self, address: Pubkey, data: bytes, slot: int) -> None:
        fields = self._fields(address, data, slot)
        if fields is not None:
            self.intake.on_event(OrderSeen(order_of(address, fields, slot)))

    def _fields(self, address: Pubkey, data: bytes, slot: int) -> OrderFields | None:
        try:
            fields = self.reader.order_fields(address, data)
        except MalformedAccount as e:
            self._malformed(address, str(e))
            self.intake.on_event(AccountUnreadable(address, slot, str(e)))
            return None
        if self._bad:
            self._bad.pop(address, None)
        return fields

    def _malformed(self, address: Pubkey, reason: str) -> None:
        if address in self._bad:
            return
        if len(self._bad) >= _MALFORMED_REMEMBERED:
            self._bad.pop(next(iter(self._bad)))
        self._bad[address] = None
        self.on_malformed(address, reason)

    async def snapshot(self) -> None:
        """Read every market and order once and merge them; tell of the orders that are gone.

        Markets come first, so that an order that is already met by the present price acts at once.
        """
        deadline = self.limits.snapshot_deadline_s
        slot, markets = await self.client.program_accounts(
            self.reader.id, [memcmp(0, self.reader.market_discriminator)], deadline_s=deadline
        )
        for account in markets:
            self._market(account, slot, time.monotonic_ns())
        async with self.snapshot_lock:
            began = time.thread_time()
            slot, unread = await self._orders(deadline)
            await self._tell_of_the_gone(slot, unread)
            self.health.snapshot_cpu_s = time.thread_time() - began
        self.health.last_snapshot_at = time.monotonic()
        self.on_snapshot()

    async def _orders(self, deadline_s: float) -> tuple[int, set[Pubkey]]:
        """Part by part, because a million orders are half a gigabyte of JSON; and step by step, because they must not
        stop the reader beside us. Gives the snapshot's slot, and the accounts that are there and do not decode.
        """
        slot = 0
        unread: set[Pubkey] = set()
        owner = str(self.reader.id)
        load = self.intake.begin_load()
        # The pending ones alone: what ended stays on chain until its user closes it, and need not be read each time.
        filters = [memcmp(0, self.reader.order_discriminator), self.reader.pending_filter]
        calls = self.client.program_accounts_in_parts(self.reader.id, filters, deadline_s=deadline_s)
        try:
            async with aclosing(calls) as parts:
                async for slot, accounts in parts:
                    for start in range(0, len(accounts), _STEP):
                        some = [keyed for keyed in accounts[start : start + _STEP] if keyed.account.owner == owner]
                        self._take_in(some, slot, load, unread)
                        await anyio.lowlevel.checkpoint()
        finally:
            # Also when the list breaks off: what was given is true.
            if load is not None:
                await self.intake.end_load(load)
        return slot, unread

    def _take_in(self, accounts: Iterable[KeyedAccount], slot: int, load: Load | None, unread: set[Pubkey]) -> None:
        pending: list[tuple[bytes, OrderFields]] = []
        for keyed in accounts:
            address = _address(keyed.pubkey)
            fields = self._fields(address, keyed.account.data[0], slot)
            if fields is None:
                unread.add(address)
                continue
            if load is not None and fields[9] == _PENDING:
                pending.append((bytes(address), fields))
            elif not self.intake.unchanged(address, fields, slot):
                self.intake.on_event(OrderSeen(order_of(address, fields, slot)))
        if load is not None:
            load.add(pending, slot)

    async def _tell_of_the_gone(self, slot: int, unread: Collection[Pubkey]) -> None:
        """What the list lacks is not pending any more: nothing as new as it is known of these orders. An order that was
        placed after the list's slot, or that newer news confirmed, is not among them.
        """
        cursor: int | None = 0
        while cursor is not None:
            gone, cursor = self.intake.not_seen_since(slot, cursor)
            for address in gone:
                if address not in unread:
                    self.intake.on_event(OrderGone(address, slot))
            await anyio.lowlevel.checkpoint()


def _address(text: str) -> Pubkey:
    try:
        return Pubkey.from_string(text)
    except ValueError:
        raise MalformedReply("a list of accounts has an address that is none") from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for e in group.exceptions:
        if isinstance(e, BaseExceptionGroup):
            yield from _leaves(e)
        else:
            yield e
