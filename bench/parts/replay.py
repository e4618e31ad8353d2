"""A day, recorded and decided again: 86,400 seconds, 50 markets with a price every second, 100,000 orders.

A fifth of the orders are trailing stops. Prices walk; what they trigger is filled a second later, stops are moved, and
every eight seconds an order is cancelled and another one placed. The clock is the day's own: the day is made as fast as
the decision goes. `tape_us` is what recording adds on the event loop to one price that triggers nothing, from pairs of
rounds with and without; `write_us` what the writing thread then takes for it. Both are processor time.
"""

from __future__ import annotations

import datetime
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from solders.pubkey import Pubkey

from bench.figures import across
from keeper.domain.actions import ExecuteOrder, RatchetStop
from keeper.domain.events import ChainTime, MarketSeen
from keeper.domain.orders import Market, OnchainStatus, Order, OrderType, Side, fields_of
from keeper.recording import entries
from keeper.recording.blocks import Reading
from keeper.recording.folder import Bounds, Folder
from keeper.recording.recorder import begin_entry
from keeper.recording.replay import Replay
from keeper.recording.tape import Tape, TapedDecision
from keeper.triggers.decision import Decision, Rules
from keeper.triggers.watchlist import Watched

_MARKETS: Final = 50
_ORDERS: Final = 100_000
_DAY_S: Final = 86_400
_START_S: Final = 1_795_000_000
_PRICE_1E6: Final = 100_000_000
_DAY: Final = datetime.date(2026, 11, 27)


async def measure(quick: bool) -> dict[str, Any]:
    """`replay`; with `quick` a fiftieth of a day."""
    seconds, orders = (_DAY_S // 50, _ORDERS // 50) if quick else (_DAY_S, _ORDERS)
    with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
        path = Path(folder)
        made = _Day(seconds, orders).record(path)
        file = path / f"{_DAY.isoformat()}.rec"
        again = Replay()
        began, cpu_began = time.perf_counter(), time.process_time()
        for some in Reading(file).entries():
            again.play(some)
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        size = file.stat().st_size
    assert again.told.decisions == made["decisions"]
    return {
        "replay": made
        | _cost()
        | {
            "seconds": seconds,
            "markets": _MARKETS,
            "orders": orders,
            "replay_s": round(took_s, 1),
            "replay_cpu_s": round(cpu_s, 1),
            "mb_an_hour": round(size / 1e6 / seconds * 3600, 2),
            "bytes_an_entry": round(size / made["entries"], 1),
        }
    }


class _Day:
    """What a keeper is told in a day, and what it does about it, with all chances from one seed."""

    def __init__(self, seconds: int, orders: int) -> None:
        self._seconds = seconds
        self._chance = random.Random(20261127)
        self._tape = Tape()
        self._decision = TapedDecision(Rules(max_actions=256), self._tape)
        self._markets = [Pubkey(self._chance.randbytes(32)) for _ in range(_MARKETS)]
        self._prices = [float(_PRICE_1E6)] * _MARKETS
        self._orders = [self._order(0) for _ in range(orders)]
        self._decisions = 0
        self._slot = 400_000_000

    def _order(self, slot: int) -> Order:
        """Somewhere within 30 % of the price at which its market began, nearly all where the price does not come."""
        c = self._chance
        side = Side(c.randrange(2))
        trailing = c.randrange(5) == 0
        away = c.uniform(0.03, 0.3)
        stop = round(_PRICE_1E6 * (1 - away if side is Side.LONG else 1 + away))
        kind = OrderType.TRAILING_STOP if trailing else OrderType.STOP_LOSS
        address, user, market = Pubkey(c.randbytes(32)), Pubkey(c.randbytes(32)), c.choice(self._markets)
        distance_ppm = round(away * 1e6) if trailing else 0
        fields = (c.randrange(1, 10**9), 0, stop, distance_ppm, 5)
        return Order(address, user, market, kind, side, *fields, OnchainStatus.PENDING, _START_S, 0, 0, 1, slot)

    def record(self, path: Path) -> dict[str, Any]:
        """Write the day's file; how much was in it, and what making and writing it took."""
        tape, decision, folder = self._tape, self._decision, Folder(path, Bounds(7, 1 << 40))
        tape.begin(begin_entry(decision.rules, Pubkey.default(), _START_S * 10**9, "start"))
        load = decision.book.loading()
        load.add([(bytes(order.address), fields_of(order)) for order in self._orders], self._slot)
        load.finish()
        count, written_cpu_s, began = 0, 0.0, time.process_time()
        for second in range(self._seconds):
            self._second(second)
            if second % 2 == 0 or second == self._seconds - 1:
                taken = tape.take()
                count += len(taken)
                writing = time.process_time()
                folder.write(_DAY, taken)
                written_cpu_s += time.process_time() - writing
        folder.close()
        assert tape.dropped == 0
        made_s = time.process_time() - began - written_cpu_s
        return {
            "entries": count,
            "decisions": self._decisions,
            "made_cpu_s": round(made_s, 1),
            "write_us": round(1e6 * written_cpu_s / count, 2),
        }

    def _second(self, second: int) -> None:
        tape, decision, c = self._tape, self._decision, self._chance
        at_ns = 10**15 + second * 10**9
        self._slot += 2 if second % 2 else 3
        tape.source = "rpc"
        tape.keep(entries.SLOT, at_ns, "rpc", self._slot)
        for number, market in enumerate(self._markets):
            self._prices[number] *= 1 + c.gauss(0, 0.000_2)
            at_ns += c.randrange(1_000_000, 19_000_000)
            now_s = _START_S + second + c.random()
            seen = market_seen(
                market, f"M{number}/USDC", round(self._prices[number]), self._slot, _START_S + second, at_ns
            )
            if decision.on_market(seen):
                for action in decision.review(market, now_s, at_ns):
                    self._decisions += 1
                    self._act(action)
        if second % 5 == 0:
            decision.on_time(ChainTime(self._slot, _START_S + second))
        if second % 8 == 0:
            self._replace(now_s, at_ns)

    def _act(self, action: object) -> None:
        book, slot = self._decision.book, self._slot + 2
        if isinstance(action, ExecuteOrder):
            address = action.order.address
            book.watch(address, Watched.NOTHING)
            book.close(address, slot)
            book.watch(address, Watched.EVERYTHING)
        elif isinstance(action, RatchetStop):
            address = action.order.address
            book.watch(address, Watched.NOTHING)
            moved = action.order._replace(stop_price_1e6=action.new_stop_1e6, slot=slot)
            book.upsert(moved)
            book.watch(address, Watched.EVERYTHING)

    def _replace(self, now_s: float, at_ns: int) -> None:
        """One is cancelled and another one placed."""
        book = self._decision.book
        number = self._chance.randrange(len(self._orders))
        book.close(self._orders[number].address, self._slot)
        order = self._orders[number] = self._order(self._slot)
        book.upsert(order)
        if (action := self._decision.look_at(order, now_s, at_ns)) is not None:
            self._decisions += 1
            self._act(action)


def market_seen(market: Pubkey, symbol: str, price_1e6: int, slot: int, time_s: int, at_ns: int) -> MarketSeen:
    """News of a market's account."""
    base, _, quote = symbol.partition("/")
    return MarketSeen(Market(market, base, quote, market, 20, True, price_1e6, time_s, slot), at_ns)


def _cost() -> dict[str, Any]:
    """What recording adds to a price that triggers nothing, in pairs."""
    market, rounds, each = Pubkey(bytes(range(32))), 11, 5_000
    tape = Tape(most=each * rounds * 4)
    tape.begin()
    bare, taped = Decision(Rules()), TapedDecision(Rules(), tape)
    extra_us: list[float] = []
    for turn in range(rounds):
        news = list(_news(market, turn * each, each))
        bare_us, taped_us = _us_each(bare, news), _us_each(taped, news)
        tape.take()
        extra_us.append(taped_us - bare_us)
    return {"tape_us": across(extra_us, 2)}


def _news(market: Pubkey, first: int, count: int) -> Iterator[MarketSeen]:
    for n in range(first, first + count):
        yield market_seen(market, "SOL/USDC", _PRICE_1E6 + n % 7, n, _START_S + n, n)


def _us_each(decision: Decision, news: list[MarketSeen]) -> float:
    began = time.process_time()
    for seen in news:
        if decision.on_market(seen):
            decision.review(seen.market.address, seen.market.last_oracle_update_s + 0.5, seen.received_at_ns)
    return 1e6 * (time.process_time() - began) / len(news)
