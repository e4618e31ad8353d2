"""The book against a plain scan of a dictionary, over random histories."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from solders.pubkey import Pubkey

from keeper.domain.orders import PPM, REVISION_0_1, REVISION_0_2, OnchainStatus, Order, OrderType, Side, fields_of
from keeper.domain.prices import Fires, Level
from keeper.triggers.book import Book, Change
from keeper.triggers.conditions import is_earlier_stop, is_met, ratcheted_stop, trigger_of
from keeper.triggers.watchlist import Watched
from tests.triggers.order_making import BTC, REPEATABLE, SOL, key, make_order

STEP_PPM = 10_000
MARKETS = [SOL, BTC]
ADDRESSES = [key(number) for number in range(1, 9)]
PRICES = st.integers(1, 60)


class PlainBook:
    """What the book promises, said with loops over all orders."""

    def __init__(self) -> None:
        self.orders: dict[Pubkey, Order] = {}
        self.watches: dict[Pubkey, Watched] = {}
        self.returns_at: dict[Pubkey, int] = {}

    def upsert(self, order: Order) -> Change:
        known = self.orders.get(order.address)
        if order.slot < (known.slot if known else self.returns_at.get(order.address, 0)):
            return Change.STALE
        if not order.pending:
            self.drop(order.address)
            self.returns_at[order.address] = max(self.returns_at.get(order.address, 0), order.slot + 1)
            return Change.GONE
        if known is not None and known.created_at != order.created_at:
            self.drop(order.address)
            known = None
            if order.slot < self.returns_at.get(order.address, 0):
                return Change.STALE
        if known is not None and known.slot == order.slot and is_earlier_stop(order, known.stop_price_1e6):
            return Change.STALE
        self.orders[order.address] = order
        if known is not None and known._replace(slot=order.slot) == order:
            return Change.SAME
        return Change.NEW if known is None else Change.CHANGED

    def remove(self, address: Pubkey, slot: int) -> bool:
        known = self.orders.get(address)
        if known is not None and slot <= known.slot:
            return False
        self.drop(address)
        self.returns_at[address] = max(self.returns_at.get(address, 0), slot)
        return known is not None

    def drop(self, address: Pubkey) -> None:
        self.orders.pop(address, None)

    def watch(self, address: Pubkey, watched: Watched) -> None:
        self.watches[address] = watched

    def watched(self, address: Pubkey) -> Watched:
        return self.watches.get(address, Watched.EVERYTHING)

    def armed(self, market: Pubkey) -> list[Order]:
        return [o for o in self.orders.values() if o.market == market and not self.watched(o.address)]

    def crossed(self, market: Pubkey, price: int) -> set[Order]:
        return {order for order in self.armed(market) if is_met(order, price)}

    def ratchets(self, market: Pubkey, price: int) -> set[tuple[Order, int]]:
        found = set()
        for order in self.armed(market):
            if order.order_type is OrderType.TRAILING_STOP:
                stop = ratcheted_stop(price, order.trailing_distance_ppm, order.side)
                gained = (stop - order.stop_price_1e6) * (1 if order.side is Side.LONG else -1)
                if gained >= 1 and gained * PPM >= order.stop_price_1e6 * STEP_PPM:
                    found.add((order, stop))
        return found

    def expired(self, now_s: float) -> set[Order]:
        return {
            order
            for order in self.orders.values()
            if self.watched(order.address) <= Watched.EXPIRY and order.expired_at(int(now_s))
        }


class BookHistory(RuleBasedStateMachine):
    """News in any order of slots, removals, suspensions and questions."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book(REVISION_0_2, STEP_PPM)
        self.plain = PlainBook()

    @initialize(
        readings=st.lists(
            st.tuples(
                st.integers(1, len(ADDRESSES)),
                PRICES,
                st.sampled_from([1, 100_000, 1_000_000]),
                st.sampled_from([0, 5, 7]),
                st.integers(1, 4),
            ),
            max_size=20,
        ),
        blocked=st.lists(st.tuples(st.integers(0, 20), st.sampled_from(ADDRESSES)), max_size=4),
        resumed=st.sampled_from([None, *ADDRESSES]),
    )
    def a_first_snapshot_is_loaded(
        self,
        readings: list[tuple[int, int, int, int, int]],
        blocked: list[tuple[int, Pubkey]],
        resumed: Pubkey | None,
    ) -> None:
        types = [*sorted(REVISION_0_2), OrderType.TWAP]
        loading = self.book.loading()
        for n, (number, price, distance, expires_at, slot) in enumerate(readings):
            self._block([address for at, address in blocked if at == n])
            order = make_order(
                number, order_type=types[number % 6], side=Side(number // 2 % 2), market=MARKETS[number % 2],
                price_1e6=price, stop_price_1e6=price + 1, trailing_distance_ppm=distance, expires_at=expires_at,
                slot=slot,
            )  # fmt: skip
            loading.add([(bytes(order.address), fields_of(order))], order.slot)
            self.plain.upsert(order)
        steps = loading.steps()
        next(steps, None)
        self._block([address for at, address in blocked if at >= len(readings)])
        if resumed is not None:
            self.book.watch(resumed, Watched.EVERYTHING)
            self.plain.watch(resumed, Watched.EVERYTHING)
        for _ in steps:
            pass

    def _block(self, addresses: list[Pubkey]) -> None:
        for address in addresses:
            self.book.watch(address, Watched.NOTHING)
            self.plain.watch(address, Watched.NOTHING)

    @rule(address=st.sampled_from(ADDRESSES), price=PRICES)
    def its_stop_is_ratcheted(self, address: Pubkey, price: int) -> None:
        known = self.plain.orders.get(address)
        if known is not None and known.order_type is OrderType.TRAILING_STOP:
            stop = ratcheted_stop(price, known.trailing_distance_ppm, known.side)
            news = known._replace(stop_price_1e6=max(stop, 0), slot=known.slot + 1)
            assert self.book.upsert(news) is self.plain.upsert(news)

    @rule(
        address=st.sampled_from(ADDRESSES),
        order_type=st.sampled_from([*sorted(REVISION_0_2), OrderType.TWAP]),
        side=st.sampled_from(Side),
        price=PRICES,
        distance=st.sampled_from([1, 100_000, 1_000_000]),
        expires_at=st.sampled_from([0, 5, 7]),
        status=st.sampled_from([OnchainStatus.PENDING] * 5 + [OnchainStatus.FILLED]),
        slot=st.integers(1, 12),
    )
    def an_account_is_read(
        self,
        address: Pubkey,
        order_type: OrderType,
        side: Side,
        price: int,
        distance: int,
        expires_at: int,
        status: OnchainStatus,
        slot: int,
    ) -> None:
        known = self.plain.orders.get(address)
        identity: dict[str, Any] = {"order_type": order_type, "side": side, "market": MARKETS[price % 2]}
        if known is not None:  # an account keeps these for life
            identity = {name: getattr(known, name) for name in identity}
        order = make_order(
            ADDRESSES.index(address) + 1,
            price_1e6=price,
            stop_price_1e6=price + 1,
            trailing_distance_ppm=distance,
            expires_at=expires_at,
            status=status,
            slot=slot,
            **identity,
        )
        assert self.book.upsert(order) is self.plain.upsert(order)

    @rule(address=st.sampled_from(ADDRESSES), slot=st.integers(1, 12))
    def it_is_read_again_unchanged(self, address: Pubkey, slot: int) -> None:
        known = self.plain.orders.get(address)
        if known is not None:
            news = known._replace(slot=slot)
            assert self.book.upsert(news) is self.plain.upsert(news)

    @rule(address=st.sampled_from(ADDRESSES), slot=st.integers(1, 12))
    def its_account_is_made_anew(self, address: Pubkey, slot: int) -> None:
        known = self.plain.orders.get(address)
        if known is not None:
            news = known._replace(slot=slot, created_at=known.created_at + 1, order_type=OrderType.TAKE_PROFIT)
            assert self.book.upsert(news) is self.plain.upsert(news)

    @rule(address=st.sampled_from(ADDRESSES), slot=st.integers(1, 14))
    def it_is_gone(self, address: Pubkey, slot: int) -> None:
        assert self.book.remove(address, slot) is self.plain.remove(address, slot)

    @rule(address=st.sampled_from(ADDRESSES), watched=st.sampled_from(Watched))
    def what_is_watched_changes(self, address: Pubkey, watched: Watched) -> None:
        self.book.watch(address, watched)
        self.plain.watch(address, watched)

    @rule(market=st.sampled_from(MARKETS), price=PRICES, n=st.integers(1, 10))
    def a_price_is_asked_about(self, market: Pubkey, price: int, n: int) -> None:
        crossed = self.book.crossed(market, price)
        assert len(crossed) == len(set(crossed))
        assert set(crossed) == self.plain.crossed(market, price)
        ratchets = self.book.ratchets(market, price)
        assert len(ratchets) == len(set(ratchets))
        assert set(ratchets) == self.plain.ratchets(market, price)
        assert self.book.crossed(market, price, limit=n) == crossed[:n]
        assert self.book.ratchets(market, price, limit=n) == ratchets[:n]

    @rule(now_s=st.sampled_from([4.0, 5.0, 5.9, 6.0, 7.5, 8.0]))
    def time_is_asked_about(self, now_s: float) -> None:
        expired = self.book.expired(now_s)
        assert set(expired) == self.plain.expired(now_s)
        assert len(expired) == len(set(expired))

    @rule(size=st.integers(1, 4))
    def all_pages_are_read(self, size: int) -> None:
        pages: list[Order] = []
        while page := self.book.orders(after=pages[-1].address if pages else None, limit=size):
            pages += page
        assert pages == sorted(self.plain.orders.values(), key=lambda order: bytes(order.address))

    @invariant()
    def it_knows_what_the_plain_one_knows(self) -> None:
        assert len(self.book) == len(self.plain.orders)
        for address in ADDRESSES:
            assert self.book.get(address) == self.plain.orders.get(address)
            assert self.book.watched(address) is self.plain.watched(address)
        assert self.book.counts() == Counter(
            (order.market, order.order_type)
            for order in self.plain.orders.values()
            if self.plain.watched(order.address) is not Watched.EXPIRED
        )
        for market in MARKETS:
            levels = Counter[tuple[Fires, int]]()
            for order in self.plain.armed(market):
                if (trigger := trigger_of(order)) is not None:
                    levels[trigger.fires, trigger.price_1e6] += 1
            assert {
                (x.fires, x.trigger_1e6): x.orders for fires in Fires for x in self.book.levels(market, fires)
            } == levels


TestBookHistory = BookHistory.TestCase
TestBookHistory.settings = settings(REPEATABLE, max_examples=60, stateful_step_count=40)


def test_a_removal_is_not_undone_by_older_news() -> None:
    book = Book()
    book.upsert(make_order(1, slot=10))
    assert book.remove(key(1), slot=20)
    assert book.upsert(make_order(1, slot=19)) is Change.STALE
    assert book.upsert(make_order(1, slot=20)) is Change.NEW


def test_a_fill_stands_against_pending_news_of_its_own_slot() -> None:
    book = Book()
    book.upsert(make_order(1, slot=10))
    assert book.upsert(make_order(1, slot=20, status=OnchainStatus.FILLED)) is Change.GONE
    assert book.upsert(make_order(1, slot=20)) is Change.STALE
    assert book.upsert(make_order(1, slot=21)) is Change.NEW, "a fork dropped the fill"


@pytest.mark.parametrize(("side", "better"), [(Side.LONG, 95), (Side.SHORT, 85)])
def test_a_trailing_stop_does_not_go_back_within_a_slot(side: Side, better: int) -> None:
    def reading(slot: int, stop: int) -> Order:
        return make_order(
            1, side=side, order_type=OrderType.TRAILING_STOP, trailing_distance_ppm=1, slot=slot, stop_price_1e6=stop
        )

    book = Book()
    book.upsert(reading(10, 90))
    assert book.upsert(reading(10, better)) is Change.CHANGED
    assert book.upsert(reading(10, 90)) is Change.STALE
    assert book.upsert(reading(11, 90)) is Change.CHANGED, "a fork dropped the ratchet"


def test_an_absence_does_not_outweigh_news_of_its_own_slot() -> None:
    book = Book()
    book.upsert(make_order(1, slot=20))
    assert not book.remove(key(1), slot=20)
    assert book.get(key(1)) is not None


def test_a_suspension_outlives_the_order_and_comes_before_it() -> None:
    book = Book()
    book.watch(key(1), Watched.NOTHING)
    book.upsert(make_order(1, slot=10))
    assert book.crossed(SOL, 80_000_000) == []
    book.upsert(make_order(1, slot=20, status=OnchainStatus.FILLED))
    book.upsert(make_order(1, slot=21))
    assert book.crossed(SOL, 80_000_000) == []
    book.watch(key(1), Watched.EVERYTHING)
    assert [order.slot for order in book.crossed(SOL, 80_000_000)] == [21]


def test_an_update_of_a_blocked_order_counts_when_it_is_released() -> None:
    book = Book()
    book.upsert(make_order(1, slot=10))
    book.watch(key(1), Watched.NOTHING)
    assert book.upsert(make_order(1, slot=11, stop_price_1e6=95_000_000)) is Change.CHANGED
    book.watch(key(1), Watched.EVERYTHING)
    assert len(book.crossed(SOL, 94_000_000)) == 1


def test_tombstones_are_bounded() -> None:
    book = Book(tombstones=100)
    for number in range(1, 1_000):
        book.upsert(make_order(number, slot=10))
        book.remove(key(number), slot=11)
    assert len(book) == 0
    assert 50 <= len(book._tombstones) <= 100
    assert book.upsert(make_order(999, slot=10)) is Change.STALE


def test_rows_of_removed_orders_are_used_again() -> None:
    book = Book()
    for number in range(1, 20_000):
        book.upsert(make_order(number, slot=10))
        book.remove(key(number), slot=11)
    assert len(book._records._pages) == 1


def test_two_orders_may_share_the_start_of_their_address() -> None:
    book = Book()
    twins = [make_order(n, address=Pubkey(b"\x07" * 31 + bytes([n]))) for n in (1, 2, 3)]
    for twin in twins:
        assert book.upsert(twin) is Change.NEW
    assert [book.get(twin.address) for twin in twins] == twins
    assert book.remove(twins[1].address, slot=11)
    assert book.get(twins[1].address) is None
    assert set(book.crossed(SOL, 1)) == {twins[0], twins[2]}


def test_a_threshold_beyond_every_price_is_not_watched() -> None:
    book = Book()
    order = make_order(1, order_type=OrderType.TRAILING_STOP, stop_price_1e6=2**63, trailing_distance_ppm=999_999)
    assert book.upsert(order) is Change.NEW
    assert book.ratchets(SOL, 2**64 - 1) == []


def test_every_field_survives_the_packing() -> None:
    book = Book()
    order = make_order(
        7, side=Side.SHORT, size_1e6=2**64 - 1, price_1e6=2**64 - 2, stop_price_1e6=2**64 - 3,
        trailing_distance_ppm=2**64 - 4, leverage=255, created_at=-1, expires_at=2**63 - 1,
        filled_size_1e6=2**64 - 5, order_id=None, slot=2**64 - 6,
    )  # fmt: skip
    book.upsert(order)
    assert book.get(order.address) == order
    assert book.get(key(8)) is None


def test_the_first_to_fire_comes_first() -> None:
    book = Book()
    for number, stop in enumerate([70, 90, 80], start=1):
        book.upsert(make_order(number, stop_price_1e6=stop))
        book.upsert(make_order(10 + number, side=Side.SHORT, stop_price_1e6=stop))
    assert [order.stop_price_1e6 for order in book.crossed(SOL, 75) if order.side is Side.LONG] == [90, 80]
    assert [order.stop_price_1e6 for order in book.crossed(SOL, 85) if order.side is Side.SHORT] == [70, 80]


def test_depth_adds_up_the_orders_of_a_level() -> None:
    book = Book()
    for number in (1, 2):
        book.upsert(make_order(number, stop_price_1e6=90, size_1e6=number))
    book.upsert(make_order(3, side=Side.SHORT, stop_price_1e6=110))
    assert [level for fires in Fires for level in book.levels(SOL, fires)] == [
        Level(Fires.AT_OR_BELOW, 90, 2, 3),
        Level(Fires.AT_OR_ABOVE, 110, 1, 1_000_000),
    ]
    assert list(book.levels(BTC, Fires.AT_OR_BELOW)) == []


def test_an_unexecutable_type_is_known_and_never_fires() -> None:
    book = Book(REVISION_0_1)
    assert book.upsert(make_order(1, order_type=OrderType.LIMIT)) is Change.NEW
    trailing = make_order(2, order_type=OrderType.TRAILING_STOP, trailing_distance_ppm=1)
    assert book.upsert(trailing) is Change.NEW
    assert book.crossed(SOL, 1) == book.crossed(SOL, 2**60) == []
    assert book.ratchets(SOL, 2**60) == []
    assert book.ratchet(trailing, 2**60) is None
    assert book.counts() == {(SOL, OrderType.LIMIT): 1, (SOL, OrderType.TRAILING_STOP): 1}


@pytest.mark.parametrize("known_before", [0, 5])
@pytest.mark.parametrize("orders", [0, 1, 500])
def test_a_load_is_many_upserts(orders: int, known_before: int) -> None:
    book, other = Book(), Book()
    many = [
        make_order(n, order_type=sorted(REVISION_0_2)[n % 5], stop_price_1e6=80 + n % 40, price_1e6=90,
                   trailing_distance_ppm=10_000, expires_at=n % 4, market=MARKETS[n % 2])
        for n in range(1, orders + 1)
    ]  # fmt: skip
    many += [make_order(n, address=Pubkey(b"\x07" * 31 + bytes([n]))) for n in range(1, 4) if orders]
    newer = [order._replace(slot=11, size_1e6=5) for order in many[::7]]
    for order in many[:: orders // known_before] if known_before and orders > known_before else []:
        book.upsert(order._replace(slot=12))
        other.upsert(order._replace(slot=12))
    for some in (book, other):
        some.watch(many[-1].address if many else SOL, Watched.NOTHING)
    loading = book.loading()
    for order in [*many, *newer]:
        loading.add([(bytes(order.address), fields_of(order))], order.slot)
    for _ in loading.steps():
        pass
    assert len(book) == len(many)
    for order in [*many, *newer]:
        other.upsert(order)
    for price in range(60, 140):
        for market in MARKETS:
            assert set(book.crossed(market, price)) == set(other.crossed(market, price))
            assert set(book.ratchets(market, price)) == set(other.ratchets(market, price))
    assert set(book.expired(100)) == set(other.expired(100))
    assert book.counts() == other.counts()
    assert book.orders(limit=1_000) == other.orders(limit=1_000)
    assert "orders=" in repr(book)


def test_nothing_of_a_load_shows_before_its_end() -> None:
    book, orders = Book(), [make_order(number) for number in range(1, 2_000)]
    loading = book.loading()
    loading.add([(bytes(order.address), fields_of(order)) for order in orders], slot=10)
    for _ in loading.steps():
        assert book.crossed(SOL, 1) == []
        assert book.orders() == []
        assert book.counts() == {}
    assert len(book.crossed(SOL, 1)) == len(orders)


def test_an_expired_order_is_counted_out_once() -> None:
    book = Book()
    book.upsert(make_order(1, slot=10, expires_at=5))
    book.upsert(make_order(2, slot=10))
    book.watch(key(1), Watched.EXPIRED)
    book.watch(key(1), Watched.EXPIRED)
    assert book.counts() == {(SOL, OrderType.STOP_LOSS): 1}
    assert len(book) == 2
    book.remove(key(1), slot=11)
    assert book.counts() == {(SOL, OrderType.STOP_LOSS): 1}
    assert book.watched(key(1)) is Watched.EXPIRED, "it is the record's to say, not the book's"


@pytest.mark.parametrize("scan", [1, 3, 100])
def test_what_a_snapshot_lacks_is_found_in_steps(scan: int) -> None:
    book = Book()
    orders = [make_order(number, slot=10) for number in range(1, 41)]
    for order in orders:
        book.upsert(order)
    for order in orders[::2]:
        book.upsert(order._replace(slot=20))
    found: list[Pubkey] = []
    cursor: int | None = 0
    while cursor is not None:
        step, cursor = book.older_than(20, start=cursor, scan=scan)
        found += step
    assert sorted(map(bytes, found)) == sorted(bytes(order.address) for order in orders[1::2])
    assert book.older_than(10) == ([], None)
