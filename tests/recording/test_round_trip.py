"""Whatever a decision is told, its recording decides the same; and what of a file is whole is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from keeper.domain.events import ChainTime, OrderGone, OrderSeen
from keeper.domain.orders import OnchainStatus, Order, OrderType, Side, fields_of
from keeper.recording.blocks import HEAD, Reading, blocks
from keeper.recording.entries import Entry
from keeper.recording.recorder import begin_entry
from keeper.recording.replay import Replay
from keeper.recording.tape import Tape, TapedBook, TapedDecision
from keeper.recording.trial import Listing, Trial
from keeper.triggers.book import Book
from keeper.triggers.cranks import CrankRules
from keeper.triggers.decision import Decision, Rules
from keeper.triggers.prices import Breaker, BreakerRules
from tests.triggers.desk import Desk
from tests.triggers.order_making import BTC, SOL, make_order, make_price, market_seen

FEW = settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
RULES = [
    Rules(breaker=None, max_actions=1),
    Rules(breaker=BreakerRules(trip_ppm=300_000, settle_ppm=200_000, settle_updates=2)),
    Rules(breaker=None, max_deviation_ppm=200_000, max_actions=3),
    Rules(breaker=None, max_deviation_ppm=10_000, crank=CrankRules(((bytes(SOL), bytes(32)),), 300_000, 40.0, 10_000)),
]


class Life:
    """A desk whose decision leaves entries, and what happens to it."""

    def __init__(self, rules: Rules) -> None:
        self.tape = Tape()
        self.decision = TapedDecision(rules, self.tape)
        self.tape.begin(begin_entry(rules, Pubkey.default(), 10**18, "start"))
        self.desk = Desk(rules, self.decision)
        self.now_s = 1_000.0
        self.slot = 10
        self.decided = 0

    def step(self, data: st.DataObject) -> None:
        draw = data.draw
        self.now_s += draw(st.sampled_from([0.0, 0.4, 30.0]))
        self.slot += draw(st.integers(0, 2))
        late = self.slot - draw(st.integers(0, 4))
        market = draw(st.sampled_from([SOL, BTC]))
        price = draw(st.integers(60, 140)) * 1_000_000
        at_ns = int(self.now_s * 1e9)
        match draw(st.integers(0, 9)):
            case 0 | 1 | 2:
                seen = market_seen(price, late, address=market, updated_at_s=int(self.now_s), received_at_ns=at_ns)
                self.decided += len(self.desk.on_market(seen, self.now_s))
            case 3 | 4:
                self.decided += len(self.desk.on_order(OrderSeen(self.order(draw, market, late)), self.now_s, at_ns))
            case 5:
                self.desk.on_gone(OrderGone(make_order(draw(st.integers(1, 4))).address, late))
            case 6:
                self.decided += len(self.desk.on_time(ChainTime(self.slot, int(self.now_s))))
            case 7:
                known = self.desk.book.get(make_order(draw(st.integers(1, 4))).address)
                if known is not None:  # what a list says of an order that has not changed
                    self.desk.book.still(known.address, fields_of(known), self.slot)
            case 8:
                address = make_order(draw(st.integers(1, 4))).address
                after = draw(st.sampled_from([None, late]))
                self.decided += len(self.desk.release(address, after_price_slot=after, now_s=self.now_s, at_ns=at_ns))
            case 9:
                news = None if draw(st.booleans()) else make_price(price, late, int(self.now_s), market)
                if self.decision.on_feed(market, news):
                    self.decided += len(self.desk.review(market, self.now_s, at_ns))

    def order(self, draw: Any, market: Pubkey, slot: int) -> Order:
        trailing = draw(st.booleans())
        return make_order(
            draw(st.integers(1, 4)),
            market=market,
            slot=slot,
            side=draw(st.sampled_from(Side)),
            order_type=OrderType.TRAILING_STOP if trailing else OrderType.STOP_LOSS,
            trailing_distance_ppm=100_000 if trailing else 0,
            stop_price_1e6=draw(st.sampled_from([90, 100])) * 1_000_000,
            expires_at=draw(st.sampled_from([0, 1_010, 1_200])),
            created_at=draw(st.sampled_from([1, 2])),
            status=draw(st.sampled_from([OnchainStatus.PENDING] * 4 + [OnchainStatus.FILLED])),
        )

    def pending(self, number: int, **fields: Any) -> None:
        """An order whose stop is at 90."""
        order = make_order(number, slot=20, **fields)
        self.decided += len(self.desk.on_order(OrderSeen(order), self.now_s, 5))

    def price(self, price: int, **fields: Any) -> None:
        """Of the market SOL, in another slot."""
        self.slot += 1
        seen = market_seen(price * 1_000_000, **{"slot": self.slot, "received_at_ns": self.slot, **fields})
        self.decided += len(self.desk.on_market(seen, self.now_s))

    def load(self) -> None:
        """A first list, of orders that share their triggers."""
        self.desk.load(make_order(n, market=SOL, slot=5, stop_price_1e6=90_000_000) for n in range(1, 5))

    def checkpoint(self) -> None:
        """As at the beginning of another file."""
        begin = begin_entry(self.decision.rules, Pubkey.default(), 10**18, "day")
        self.tape.begin(begin, *self.tape.state(self.decision))


def written(path: Path, entries: list[Entry]) -> Path:
    path.write_bytes(HEAD + b"".join(blocks(entries)))
    return path


def read(path: Path) -> Iterator[Entry]:
    for some in Reading(path).entries():
        yield from some


@FEW
@given(data=st.data(), rules=st.sampled_from(RULES), loaded=st.booleans(), steps=st.integers(9, 40))
def test_a_replay_decides_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, rules: Rules, loaded: bool, steps: int
) -> None:
    life = Life(rules)
    if loaded:
        life.load()
    parts = (steps // 3, 2 * steps // 3)
    files: list[list[Entry]] = []
    for step in range(steps):
        if step in parts:
            files.append(life.tape.take())
            life.checkpoint()
        life.step(data)
    files.append(life.tape.take())
    path = tmp_path_factory.mktemp("replay")
    recorded = [written(path / f"{n}.rec", some) for n, some in enumerate(files)]

    whole, decisions = Replay(), 0
    for file in recorded:
        alone = Replay()  # a file is replayed without the one before it
        alone.play(read(file))
        decisions += alone.told.decisions
        whole.play(read(file))
    assert decisions == whole.told.decisions == life.decided
    assert whole.decision.book.counts() == life.decision.book.counts()
    listing, trial = Listing(), Trial(rules)
    for file in recorded:
        listing.play(read(file))
        trial.play(read(file))
    assert listing.told.triggers == trial.told.triggers == whole.told.triggers


def rows_are_free(life: Life) -> None:
    life.load()
    for n in (2, 3):
        life.desk.forget(make_order(n).address, 11)


def orders_come_in_their_place(life: Life) -> None:
    for n in (5, 6):
        life.pending(n)
    life.price(90)
    assert life.decided == 1


def its_price_jumps(life: Life) -> None:
    life.pending(1)
    life.price(140)
    life.price(95)


def its_price_stays(life: Life) -> None:
    life.price(90)
    assert life.decided == 0


def its_feed_says_otherwise(life: Life) -> None:
    life.pending(1)
    life.price(100)
    life.decision.on_feed(SOL, make_price(140_000_000, 12, 1_000))


def it_ends(life: Life) -> None:
    life.desk.on_order(OrderSeen(make_order(1, slot=30, status=OnchainStatus.FILLED)), 1_000.0, 5)


def late_news_of_it_comes(life: Life) -> None:
    life.pending(1)
    life.price(90)
    assert life.decided == 0


def an_attempt_begins(life: Life) -> None:
    life.pending(1)
    life.desk.block(make_order(1).address)


def it_is_late(life: Life) -> None:
    life.desk.on_time(ChainTime(30, 1_500))


def one_comes_that_is_expired(life: Life) -> None:
    life.pending(1, expires_at=1_200)
    assert life.decided == 1


def its_market_closes(life: Life) -> None:
    life.price(90, is_active=False)


def one_comes_that_is_not_acted_on(life: Life) -> None:
    life.pending(1)
    assert life.decided == 0


def its_price_is_of_a_later_slot(life: Life) -> None:
    life.pending(1)
    life.price(100, slot=50)


def an_older_price_comes(life: Life) -> None:
    life.price(90, slot=49)
    assert life.decided == 0


def its_market_has_a_price(life: Life) -> None:
    life.price(90)


def one_comes_that_is_met(life: Life) -> None:
    life.pending(1)
    assert life.decided == 1


@pytest.mark.parametrize(
    ("rules", "before", "after"),
    [
        (RULES[0], rows_are_free, orders_come_in_their_place),
        (RULES[1], its_price_jumps, its_price_stays),
        (RULES[2], its_feed_says_otherwise, its_price_stays),
        (RULES[0], it_ends, late_news_of_it_comes),
        (RULES[0], an_attempt_begins, its_price_stays),
        (RULES[0], it_is_late, one_comes_that_is_expired),
        (RULES[0], its_market_closes, one_comes_that_is_not_acted_on),
        (RULES[0], its_price_is_of_a_later_slot, an_older_price_comes),
        (RULES[0], its_market_has_a_price, one_comes_that_is_met),
    ],
)
def test_another_file_begins_with_all_that_is_known(
    tmp_path: Path, rules: Rules, before: Callable[[Life], None], after: Callable[[Life], None]
) -> None:
    life = Life(rules)
    before(life)
    life.tape.take()
    life.decided = 0
    life.checkpoint()
    after(life)
    replay = Replay()
    replay.play(read(written(tmp_path / "second.rec", life.tape.take())))
    assert replay.told.decisions == life.decided


def test_news_that_a_list_has_made_late_is_late_in_the_replay(tmp_path: Path) -> None:
    """What the list said again of the order has no entry of its own."""
    life = Life(RULES[0])
    life.pending(1)
    known = make_order(1, slot=20)
    assert life.desk.book.still(known.address, fields_of(known), 40)
    life.desk.on_order(OrderSeen(make_order(1, slot=30, stop_price_1e6=80_000_000)), life.now_s, 5)
    life.desk.on_gone(OrderGone(known.address, 35))
    life.price(90)
    assert life.decided == 1
    replay = Replay()
    replay.play(read(written(tmp_path / "some.rec", life.tape.take())))
    assert replay.told.decisions == 1


def test_whatever_changes_a_decision_leaves_an_entry_and_is_in_a_files_beginning() -> None:
    """Whoever adds a method or a part of the state is told here what else to do: docs/decisions/0018-record.md."""
    ask = {"counts", "crossed", "executes", "expired", "get", "levels", "meets", "nearest", "older_than", "orders"}
    ask |= {"ratchet", "ratchets", "returns_at", "slot", "watched", "held", "markets", "why", "crank"}
    noted_elsewhere = {"still"}  # the slot known before, in the next entry of the order
    taped = vars(TapedBook).keys() | vars(TapedDecision).keys()
    methods = {name for kind in (Book, Decision) for name, what in vars(kind).items() if callable(what)}
    assert {name for name in methods if not name.startswith("_")} - taped == ask | noted_elsewhere

    decision = Decision(RULES[2])
    parts: list[Any] = [decision, decision.book, decision.prices, decision.feeds, Breaker(BreakerRules())]
    state = {f"{type(part).__name__}.{name}" for part in parts for name in _fields(part)}
    assert state == {
        *("Decision._chain_time_s", "Decision._inactive", "Decision._market_slots", "Decision.book"),
        *("Decision.breaker", "Decision.cranks", "Decision.feeds", "Decision.prices", "Decision.rules"),
        *("Book._addresses", "Book._by_address", "Book._markets", "Book._numbers", "Book._records", "Book._step_ppm"),
        *("Book._tombstones", "Book._watch", "Book._watched", "PriceCache._latest", "PriceCache.offers"),
        *("PriceCache.reads", "Feeds._deviations_ppm", "Feeds._latest", "Feeds._max_age_s", "Feeds._max_deviation_ppm"),
        *("Breaker._markets", "Breaker._rules", "Breaker.trips"),
    }


def _fields(part: Any) -> list[str]:
    return list(vars(part)) if hasattr(part, "__dict__") else list(part.__slots__)
