"""The watch: what the program's accounts say, by subscription plus snapshot, merged by slot.

Subscriptions have no replay, skip silently, and say nothing of a closed account. So each connection subscribes
first and takes a snapshot after, and the snapshot is repeated now and then: it finds what was missed and what
is gone. Every sighting carries the slot of its context; the readers keep the newest, so two watches on two
endpoints can feed the same reader, and the first news wins.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import anyio
from anyio.abc import TaskGroup, TaskStatus
from solders.pubkey import Pubkey

from keeper.domain.events import ChainTime, Event, MarketSeen, OrderGone, OrderSeen
from keeper.domain.orders import OnchainStatus, Order, OrderFields, order_of
from keeper.errors import ChainError, KeeperError, MalformedAccount, MalformedReply
from keeper.solana.account_stream import KeyedAccount
from keeper.solana.client import PROCESSED, AccountBytes, ChainClient, memcmp_discriminator, parse_account
from keeper.solana.sockets import Notification, Subscribed, Subscription, subscribed
from keeper.telemetry.turns import Turns
from keeper.venue.layouts import MARKET_DISCRIMINATOR, ORDER_DISCRIMINATOR, decode_market, decode_order, order_fields
from keeper.venue.program import Program

_LONGEST_BACKOFF_S: Final = 15.0
_MALFORMED_REMEMBERED: Final = 10_000
_STEP: Final = 256
"""So many orders are taken in before the event loop may do something else: 1 to 2 ms."""
_NEWS_STEP: Final = 32
"""So much news is taken in before the event loop may do something else: about 2 ms."""
_PENDING: Final = int(OnchainStatus.PENDING)
_SNAPSHOT_SHARE: Final = 0.025
"""Snapshots take no more of a core than this, as far as pauses of `_LONGEST_PAUSE` times the usual one achieve it."""
_LONGEST_PAUSE: Final = 5.0


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """Seconds. `silence_s`: no slot for this long means a dead socket. `snapshot_every_s`: how often everything
    is read again, unless that costs too much (`snapshot_pause_s`). `clock_every_s`: how often the chain's clock is
    read.
    """

    silence_s: float = 10.0
    snapshot_every_s: float = 60.0
    clock_every_s: float = 5.0
    snapshot_deadline_s: float = 120.0

    def snapshot_pause_s(self, cpu_s: float) -> float:
        """Until the next snapshot, after one that took `cpu_s`: a large book's takes seconds, and is repeated less
        often for that.
        """
        return min(max(self.snapshot_every_s, cpu_s / _SNAPSHOT_SHARE), self.snapshot_every_s * _LONGEST_PAUSE)


@dataclass(slots=True)
class WatchHealth:
    """How the watch does, for health and metrics. Monotonic seconds; `last_slot` is the newest slot heard of.
    `snapshot_cpu_s` is what the last snapshot took of the loop's thread, with what else ran meanwhile.
    """

    label: str
    connected: bool = False
    snapshots: int = 0
    last_snapshot_at: float | None = None
    snapshot_cpu_s: float = 0.0
    last_heard_at: float | None = None
    last_slot: int = 0
    reconnects: int = 0
    malformed: int = 0
    last_error: str = ""


class Bulk(Protocol):
    """Takes in many orders, faster than one by one."""

    def add(self, orders: Iterable[tuple[bytes, OrderFields]], slot: int) -> None:
        """Pending orders, each its address and its fields."""
        ...

    def ended(self, order: Order) -> None:
        """One that is not pending."""
        ...


async def _nothing(_: object) -> None:
    pass


@dataclass(slots=True)
class ProgramWatch:
    """Watches one program through one endpoint's socket, with snapshots through the pool.

    `sink` is called for every event, on the event loop, in the order of arrival: it must not block.
    `not_seen_since(slot, cursor)` gives, in steps, the orders that the readers know nothing as new as `slot` of:
    after a snapshot of that slot they are the ones whose accounts are gone. It begins with cursor 0 and ends with None.
    `begin_load` gives a way to take in a first snapshot's pending orders in bulk, or None; `end_load` ends it.
    `unchanged` says whether the readers hold an order just so: then it is not reported again.
    `snapshot_lock`, shared by watches that feed the same readers, keeps their lists of orders from coming at once.
    `on_malformed` is told once of each account that does not decode; it is skipped, and the watch goes on.
    `on_snapshot` is told of each merged snapshot, `on_trouble` of each lost connection, with the reason.
    """

    program: Program
    client: ChainClient
    ws_url: str = field(repr=False)
    label: str
    sink: Callable[[Event], None]
    not_seen_since: Callable[[int, int], tuple[Sequence[Pubkey], int | None]]
    on_malformed: Callable[[Pubkey, str], None]
    on_snapshot: Callable[[], None]
    on_trouble: Callable[[str], None]
    begin_load: Callable[[], Bulk | None] = lambda: None
    end_load: Callable[[Any], Awaitable[None]] = _nothing
    unchanged: Callable[[Pubkey, OrderFields, int], bool] = lambda *_: False
    snapshot_lock: anyio.Lock = field(default_factory=anyio.Lock, repr=False)
    limits: WatchLimits = field(default_factory=WatchLimits)
    health: WatchHealth = field(init=False)
    turns: Turns = field(init=False, repr=False)
    _bad: dict[Pubkey, None] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.health = WatchHealth(self.label)
        self.turns = Turns(f"watch {self.label}")

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled. Ready when the first snapshot has been merged."""
        ready = False
        backoff = 0.25

        def became_ready() -> None:
            nonlocal ready, backoff
            backoff = 0.25
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
            self.health.connected = False
            self.health.reconnects += 1
            self.on_trouble(self.health.last_error)
            await anyio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            backoff = min(backoff * 2, _LONGEST_BACKOFF_S)

    async def _one_connection(self, became_ready: Callable[[], None]) -> None:
        async with subscribed(
            self.ws_url, self._subscriptions(), label=self.label, silence_s=self.limits.silence_s
        ) as socket:
            self.health.connected = True
            self.health.last_heard_at = time.monotonic()  # the acknowledgements
            async with anyio.create_task_group() as tg:
                tg.start_soon(self._read, socket, tg)
                # Subscribed first, snapshot second: what changes in between arrives by the subscription.
                await self.snapshot()
                became_ready()
                tg.start_soon(self._follow_clock)
                while True:
                    await anyio.sleep(self.limits.snapshot_pause_s(self.health.snapshot_cpu_s))
                    await self.snapshot()

    def _subscriptions(self) -> list[Subscription]:
        def of(discriminator: bytes) -> tuple[Any, ...]:
            config = {
                "encoding": "base64",
                "commitment": PROCESSED,
                "filters": [memcmp_discriminator(discriminator)],
            }
            return (str(self.program.id), config)

        return [
            Subscription("slot", "slotSubscribe"),
            # Each fill writes its market, changed or not: a node tells the same a thousand times in a burst.
            Subscription("market", "programSubscribe", of(MARKET_DISCRIMINATOR), repeats=True),
            Subscription("order", "programSubscribe", of(ORDER_DISCRIMINATOR)),
        ]

    async def _read(self, socket: Subscribed, tg: TaskGroup) -> None:
        async for news in socket.notifications():
            await self.turns.turn()
            self.health.last_heard_at = time.monotonic()
            self.health.malformed = max(self.health.malformed, socket.malformed)
            self.health.last_slot = max(self.health.last_slot, news.slot)
            if news.tag != "slot":
                self._account_news(news)
            if not self.turns.count % _NEWS_STEP:
                await anyio.lowlevel.checkpoint()  # what has arrived already comes without a turn of the loop

    def _account_news(self, news: Notification) -> None:
        try:
            account = parse_account(Pubkey.from_string(news.value["pubkey"]), news.value["account"])
        except (ChainError, KeyError, TypeError, ValueError):
            self.health.malformed += 1
            return
        if account.lamports == 0 or account.owner != self.program.id:
            self.sink(OrderGone(account.address, news.slot))
        elif news.tag == "market":
            self._market(account, news.slot)
        else:
            self._order(account.address, account.data, news.slot)

    def _market(self, account: AccountBytes, slot: int) -> None:
        received = time.monotonic_ns()
        try:
            market = decode_market(account.address, account.data, slot)
        except MalformedAccount as e:
            self._malformed(account.address, str(e))
            return
        self.sink(MarketSeen(market, received))

    def _order(self, address: Pubkey, data: bytes, slot: int) -> None:
        try:
            order = decode_order(address, data, slot)
        except MalformedAccount as e:
            self._malformed(address, str(e))
            return
        self.sink(OrderSeen(order))

    def _malformed(self, address: Pubkey, reason: str) -> None:
        self.health.malformed += 1
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
        await self._chain_time()
        deadline = self.limits.snapshot_deadline_s
        slot, markets = await self.client.program_accounts(self.program.id, MARKET_DISCRIMINATOR, deadline_s=deadline)
        for account in markets:
            self._market(account, slot)
        async with self.snapshot_lock:
            began = time.thread_time()
            slot = await self._orders(deadline)
            await self._tell_of_the_gone(slot)
            self.health.snapshot_cpu_s = time.thread_time() - began
        self.health.snapshots += 1
        self.health.last_snapshot_at = time.monotonic()
        self.on_snapshot()

    async def _orders(self, deadline_s: float) -> int:
        """Part by part, because a million orders are half a gigabyte of JSON; and step by step, because they must not
        stop the reader beside us. Gives the snapshot's slot.
        """
        slot = 0
        owner = str(self.program.id)
        bulk = self.begin_load()
        calls = self.client.program_accounts_in_parts(self.program.id, ORDER_DISCRIMINATOR, deadline_s=deadline_s)
        try:
            async with aclosing(calls) as parts:
                async for slot, accounts in parts:
                    for start in range(0, len(accounts), _STEP):
                        some = [keyed for keyed in accounts[start : start + _STEP] if keyed.account.owner == owner]
                        if bulk is None:
                            for keyed in some:
                                self._snapshot_order(_address(keyed.pubkey), keyed.account.data[0], slot)
                        else:
                            self._load(some, slot, bulk)
                        await anyio.lowlevel.checkpoint()
        finally:
            # Also when the list breaks off: what was given is true.
            if bulk is not None:
                await self.end_load(bulk)
        return slot

    def _load(self, accounts: Iterable[KeyedAccount], slot: int, bulk: Bulk) -> None:
        pending: list[tuple[bytes, OrderFields]] = []
        for keyed in accounts:
            address = _address(keyed.pubkey)
            try:
                fields = order_fields(address, keyed.account.data[0])
            except MalformedAccount as e:
                self._malformed(address, str(e))
                continue
            if fields[9] == _PENDING:
                pending.append((bytes(address), fields))
            else:
                bulk.ended(order_of(address, fields, slot))
        bulk.add(pending, slot)

    def _snapshot_order(self, address: Pubkey, data: bytes, slot: int) -> None:
        try:
            fields = order_fields(address, data)
        except MalformedAccount as e:
            self._malformed(address, str(e))
            return
        if not self.unchanged(address, fields, slot):
            self.sink(OrderSeen(order_of(address, fields, slot)))

    async def _tell_of_the_gone(self, slot: int) -> None:
        """What the snapshot lacks is gone: nothing as new as it is known of these orders. An order that was placed
        after the snapshot's slot, or that newer news confirmed, is not among them.
        """
        cursor: int | None = 0
        while cursor is not None:
            gone, cursor = self.not_seen_since(slot, cursor)
            for address in gone:
                if address not in self._bad:
                    self.sink(OrderGone(address, slot))
            await anyio.lowlevel.checkpoint()

    async def _follow_clock(self) -> None:
        while True:
            await anyio.sleep(self.limits.clock_every_s)
            await self._chain_time()

    async def _chain_time(self) -> None:
        slot, unix_time_s = await self.client.chain_time()
        self.sink(ChainTime(slot, unix_time_s))


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
