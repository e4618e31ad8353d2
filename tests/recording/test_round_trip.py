"""Whatever a decision is told, its recording decides the same; and what of a file is whole is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from keeper.domain.events import ChainTime, OrderGone, OrderSeen
from keeper.domain.orders import OnchainStatus, Order, OrderType, Side, fields_of
from keeper.recording.blocks import HEAD, Reading, blocks
from keeper.recording.entries import Entry
from keeper.recording.recorder import begin_entry
from keeper.recording.replay import Replay
from keeper.recording.tape import Tape, TapedDecision
from keeper.recording.trial import Listing, Trial
from keeper.triggers.decision import Rules
from keeper.triggers.prices import BreakerRules
from tests.triggers.desk import Desk
from tests.triggers.order_making import BTC, SOL, make_order, make_price, market_seen

FEW = settings(derandomize=True, deadline=None, max_examples=60)
RULES = [
    Rules(breaker=None, max_actions=1),
    Rules(breaker=BreakerRules(trip_ppm=300_000, settle_ppm=200_000, settle_updates=2)),
    Rules(breaker=None, max_deviation_ppm=200_000, max_actions=3),
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
@given(data=st.data(), rules=st.sampled_from(RULES), loaded=st.booleans(), steps=st.integers(1, 40))
def test_a_replay_decides_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, rules: Rules, loaded: bool, steps: int
) -> None:
    life = Life(rules)
    if loaded:
        life.load()
    parts = [data.draw(st.integers(1, 40)) for _ in range(2)]
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
