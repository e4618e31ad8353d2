"""What happens in an episode: drawn from its seed alone, before anything runs. Pure, and of parts that can be left out.

Seconds are virtual, from the keeper's first start on. Everything that is drawn while an episode runs (delays, which
request breaks, the order of the steps) comes from dice of its own that the seed sets: leaving out a part of the plan
leaves the rest of the plan as it is, so that a finding can be made shorter (`tests.simulate.shrinking`).
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from keeper.domain.orders import OrderType, Side
from tests.chaos.proxy.faults import NEWS_KINDS, REQUEST_KINDS, Kind
from tests.simulate.node import Lie

START_1E6: Final = 100_000_000
STORM_S: Final = (8.0, 22.0)
OLD_FOR_S: Final = 20.0
"""So long the oracle says nothing after the price was made old."""
TOLD_WITHIN_S: Final = 12.0
"""A clock that jumps is read every five seconds, and doubted until it has been told a few times: before that nobody can
know that a price is old by it.
"""
_FIRST_ORDER_S: Final = 1.0
_SEVERAL: Final = 0.2
"""So many of the episodes have several keepers."""
_SHARE: Final = 0.5
"""So many of those have keepers that share the markets."""
_ALWAYS_MET_PPM: Final = -100_000
_LIES: Final = tuple(lie for lie in Lie if lie is not Lie.NO_ACCOUNT)
"""What both nodes may tell. That an account is not there one of them says at most: two that agree are believed."""


class Purse(enum.StrEnum):
    """How a user is off."""

    RICH = "rich"
    POOR = "poor"
    """No collateral, ever."""
    LATER = "later"
    """No collateral until a deposit late in the episode."""
    NONE = "none"
    """No margin account."""


class Deed(enum.StrEnum):
    """What somebody does about an order once it is there."""

    NOTHING = "nothing"
    CANCEL = "cancel"
    """Its user, by his wallet."""
    CANCEL_BY_API = "cancel_by_api"
    """Its user, by a transaction that the keeper prepares and relays."""
    CLOSE_AND_PLACE = "close_and_place"
    """Its user cancels it, closes it, and places another at the same address."""
    RIVAL = "rival"
    """Another keeper executes it."""


class Act(enum.StrEnum):
    """What happens to the chain, the machine or the keeper."""

    PRICE = "price"
    """The oracle's price jumps; `amount` is where to, as a share of the start."""
    BLIP = "blip"
    """The same, and back a moment later."""
    SILENCE = "silence"
    """The oracle says nothing for `amount` seconds."""
    DEPOSIT = "deposit"
    """Who had no collateral gets some."""
    TOP_UP = "top_up"
    """Who has none gets a little, never enough, `amount` times."""
    NO_POSITION = "no_position"
    """The keeper's next fill has no position behind it, as with an earlier revision of the program."""
    UPGRADE = "upgrade"
    """The program is deployed anew, in other bytes that do the same."""
    OLD_PRICE = "old_price"
    """The chain's clock jumps so that the price is `amount` seconds old, and the oracle is silent for a while."""
    OPERATOR = "operator"
    """An operator pauses the keeper for `amount` seconds."""
    FORK = "fork"
    """The last `amount` blocks never were."""
    FORK_AFTER_FILL = "fork_after_fill"
    """The block of the keeper's next execution never was, found out `amount` blocks later."""
    LOSE = "lose"
    """The next `amount` transactions get their OK and never land."""
    HOLD = "hold"
    """Transactions get their OK and land `amount` seconds later."""
    LAST_MOMENT = "last_moment"
    """A transaction of the keeper's is held until it can just land, or `amount` blocks longer."""
    JUMP = "jump"
    """The chain runs ahead by `amount` blocks."""
    CLOCK = "clock"
    """The chain's clock runs ahead by `amount` seconds."""
    PAUSE = "pause"
    """No block for `amount` seconds."""
    STALL = "stall"
    """The keeper's machine stands still for `amount` seconds."""
    STEP_CLOCK = "step_clock"
    """This machine's time of day steps by `amount` seconds."""
    DISK = "disk"
    """The disk fails for `amount` seconds."""
    SLOW_DISK = "slow_disk"
    """A commit takes up to a second, for `amount` seconds."""
    KILL = "kill"
    """kill -9, at the loop's `amount`th step from here."""
    POWER = "power"
    """The power goes, at the loop's `amount`th step from here: what was not synced is lost."""
    TERM = "term"
    """The keeper is told to end, and is started again."""
    KILL_AT_COMMIT = "kill_at_commit"
    """kill -9 right before or after one of the next COMMITs."""
    POWER_AT_COMMIT = "power_at_commit"
    """The power goes right after one of the next COMMITs."""
    # -- where several keepers share a database
    STOP = "stop"
    """A keeper is sent SIGSTOP, and goes on `amount` seconds later."""
    STOP_AT_COMMIT = "stop_at_commit"
    """The same, right before or after one of its next COMMITs."""
    DRAIN = "drain"
    """An operator has the service handed over."""
    ROLL = "roll"
    """Each keeper is started again, one after the other."""
    CUT_DATABASE = "cut_database"
    """A keeper is cut off from the database for `amount` seconds."""
    TEAR_DATABASE = "tear_database"
    """A keeper's connection breaks in the middle of its `amount`th COMMIT from here."""
    CUT_CHAIN = "cut_chain"
    """A keeper is cut off from all nodes for `amount` seconds."""
    DATABASE_DOWN = "database_down"
    """The database answers nobody for `amount` seconds."""
    FAIL_OVER = "fail_over"
    """The same, and then another server has taken over: what was not durable is lost."""


OF_SEVERAL: Final = frozenset(
    {
        Act.STOP,
        Act.STOP_AT_COMMIT,
        Act.DRAIN,
        Act.ROLL,
        Act.CUT_DATABASE,
        Act.TEAR_DATABASE,
        Act.CUT_CHAIN,
        Act.DATABASE_DOWN,
        Act.FAIL_OVER,
    }
)


@dataclass(frozen=True, slots=True)
class OrderPlan:
    """An order. `below`: it fires at or below its trigger, which is `away_ppm` from the start's price."""

    at_s: float
    purse: Purse
    order_type: OrderType
    side: Side
    below: bool
    away_ppm: int
    by_api: bool
    expires_in_s: int
    deed: Deed
    deed_at_s: float


@dataclass(frozen=True, slots=True)
class Event:
    """An act at a time; `kind` is a further word of some acts (the disk's way to fail)."""

    at_s: float
    act: Act
    amount: float = 0.0
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Several:
    """So many keepers on one database. `share` says whether they share the markets; else one works."""

    keepers: int
    lease_s: float
    share: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """The plan of one episode. `storms` and `lies` are chances at each node; `slot_s` the length of a slot."""

    seed: str
    seconds: float
    slot_s: float
    orders: tuple[OrderPlan, ...]
    events: tuple[Event, ...]
    storms: tuple[Mapping[Kind, float], ...]
    lies: tuple[Mapping[Lie, float], ...]
    longest_fault_s: float
    slow_s: tuple[float, ...]
    final_price_1e6: int
    stranger: bool
    """Whether the second node is on another cluster."""
    cap_lamports: int
    """What may leave the keeper's key in a day; 0: the default, which is never reached."""
    sender_storms: tuple[Mapping[Kind, float], ...]
    """As `storms`, at each sender beside the nodes; empty: there are none. The second one wants a tip."""
    alpenglow_after: int | None
    """After so many blocks the chain turns to Alpenglow; None: it does not."""
    several: Several | None = None
    """Several keepers; None: one, whose journal is a file."""
    left_out: frozenset[int] = frozenset()
    """Orders that are not placed after all (`tests.simulate.shrinking`)."""

    def has(self, act: Act) -> bool:
        """Whether it is among what happens."""
        return any(event.act is act for event in self.events)


def draw(seed: int, episode: int, keepers: int | None = None) -> Scenario:
    """The scenario of an episode; with `keepers` it has so many. Whatever that says, the rest is the same."""
    name = f"{seed}/{episode}"
    dice = random.Random(name)
    seconds = dice.uniform(*STORM_S)
    orders = tuple(_order(dice, seconds) for _ in range(dice.randint(1, 5)))
    slot_s = dice.uniform(0.2, 0.4)
    events = _events(dice, seconds, orders)
    several = _several(name, keepers)
    return Scenario(
        seed=name,
        seconds=seconds,
        slot_s=slot_s,
        orders=orders + _met_by_an_old_price(name, seconds, events),
        events=events if several is None else _with_several(name, seconds, several, events),
        storms=tuple(_storm(dice) for _ in range(2)),
        lies=_denying(name, [_lies(dice) for _ in range(2)]),
        longest_fault_s=dice.choice((0.3, 1.0, 3.0, 6.0)),
        slow_s=(dice.choice((0.005, 0.03, 0.2)), dice.choice((0.005, 0.03, 0.4))),
        final_price_1e6=int(START_1E6 * dice.choice((1.0, 0.974, 1.026))),
        stranger=dice.random() < 0.06,
        cap_lamports=dice.choice((4_000_000, 9_000_000)) if dice.random() < 0.08 else 0,
        sender_storms=_senders(name),
        alpenglow_after=dice.choice((None, None, 0, dice.randrange(1, 80))),
        several=several,
    )


def _order(dice: random.Random, seconds: float) -> OrderPlan:
    kinds = (OrderType.STOP_LOSS, OrderType.TAKE_PROFIT, OrderType.STOP_LIMIT, OrderType.LIMIT, OrderType.TRAILING_STOP)
    order_type = dice.choice(kinds)
    below = dice.random() < 0.5
    fires_below_as_long = order_type is not OrderType.TAKE_PROFIT
    at_s = dice.choice((_FIRST_ORDER_S, dice.uniform(_FIRST_ORDER_S, seconds * 0.8)))
    deeds = list(Deed)
    return OrderPlan(
        at_s=at_s,
        purse=dice.choices(list(Purse), weights=[80, 7, 8, 5])[0],
        order_type=order_type,
        side=Side.LONG if below == fires_below_as_long else Side.SHORT,
        below=below,
        # Exactly at a price that comes, within reach, or out of it.
        away_ppm=dice.choice((20_000, 26_000, 20_000, 10_000, 65_000)),
        by_api=dice.random() < 0.15,
        expires_in_s=dice.choice((0, 0, 0, 0, 6, 12, 40)),
        deed=dice.choices(deeds, weights=[60, 9, 8, 14, 9])[0],
        deed_at_s=at_s + dice.uniform(0.3, 8.0),
    )


def _met_by_an_old_price(name: str, seconds: float, events: tuple[Event, ...]) -> tuple[OrderPlan, ...]:
    """An order that any price meets, placed while the price is old and the keeper has been told so."""
    dice = random.Random(f"{name}/old")
    old_at_s = next((event.at_s for event in events if event.act is Act.OLD_PRICE), None)
    if old_at_s is None:
        return ()
    at_s = old_at_s + dice.uniform(TOLD_WITHIN_S, OLD_FOR_S)
    if at_s > seconds:
        return ()
    plan = OrderPlan(
        at_s, Purse.RICH, OrderType.STOP_LOSS, Side.LONG, True, _ALWAYS_MET_PPM, False, 0, Deed.NOTHING, at_s
    )
    return (plan,)


def _events(dice: random.Random, seconds: float, orders: tuple[OrderPlan, ...]) -> tuple[Event, ...]:
    def moment() -> float:
        return dice.uniform(1.0, seconds)

    events = [
        Event(moment(), Act.PRICE, dice.choice((0.974, 1.026, 0.98, 1.02, 0.99, 1.0)))
        for _ in range(dice.randint(1, 4))
    ]
    events += [Event(moment(), Act.BLIP, dice.choice((0.974, 1.026, 0.98, 1.02))) for _ in range(dice.randint(0, 2))]
    if any(order.purse is Purse.LATER for order in orders):
        events.append(Event(dice.uniform(0.4, 0.95) * seconds, Act.DEPOSIT))
    if any(order.purse is Purse.POOR for order in orders) and dice.random() < 0.5:
        # Early, and more of them than the retry budget has room for.
        events.append(Event(1.0 + 0.2 * moment(), Act.TOP_UP, 12.0))

    def steps() -> float:
        return float(dice.choice((1, 3, 10, 30, 100, 300)))

    chances: tuple[tuple[Act, float, Callable[[], float]], ...] = (
        (Act.SILENCE, 0.15, lambda: dice.choice((5.0, 70.0))),
        (Act.OLD_PRICE, 0.12, lambda: dice.choice((70.0, 100.0, 200.0))),
        (Act.OPERATOR, 0.12, lambda: dice.uniform(1.0, 8.0)),
        (Act.UPGRADE, 0.05, lambda: 0.0),
        (Act.NO_POSITION, 0.04, lambda: 0.0),
        (Act.FORK, 0.3, lambda: float(dice.randint(1, 3))),
        (Act.FORK_AFTER_FILL, 0.3, lambda: float(dice.randint(0, 2))),
        (Act.LOSE, 0.25, lambda: float(dice.randint(1, 4))),
        (Act.HOLD, 0.2, lambda: dice.uniform(0.2, 4.0)),
        (Act.LAST_MOMENT, 0.12, lambda: float(dice.choice((0, 0, 1, 2, 5, 8, 12)))),
        (Act.JUMP, 0.08, lambda: float(dice.choice((20, 155, 170, 330)))),
        (Act.CLOCK, 0.12, lambda: dice.choice((5.0, 30.0))),
        (Act.PAUSE, 0.2, lambda: dice.uniform(0.5, 6.0)),
        (Act.STALL, 0.2, lambda: dice.choice((0.2, 1.0, 5.0))),
        (Act.STEP_CLOCK, 0.1, lambda: dice.choice((-90_000.0, -30.0, 30.0, 90_000.0))),
        (Act.DISK, 0.15, lambda: dice.uniform(0.2, 4.0)),
        (Act.SLOW_DISK, 0.12, lambda: dice.uniform(1.0, 6.0)),
        (Act.KILL, 0.3, steps),
        (Act.POWER, 0.2, steps),
        (Act.TERM, 0.1, lambda: 0.0),
        (Act.KILL_AT_COMMIT, 0.15, lambda: float(dice.randint(1, 6))),
        (Act.POWER_AT_COMMIT, 0.15, lambda: float(dice.randint(1, 6))),
    )
    for act, chance, amount in chances:
        if dice.random() < chance:
            kind = dice.choice(("full", "ioerr")) if act is Act.DISK else ""
            events.append(Event(moment(), act, amount(), kind))
    return tuple(sorted(events, key=lambda event: event.at_s))


def _several(name: str, keepers: int | None) -> Several | None:
    dice = random.Random(f"{name}/keepers")
    several, many = dice.random() < _SEVERAL, dice.choice((2, 2, 3))
    lease_s, share = dice.choice((1.0, 2.0, 3.0)), dice.random() < _SHARE
    if keepers is None:
        keepers = many if several else 1
    return None if keepers == 1 else Several(keepers, lease_s, share)


def _with_several(name: str, seconds: float, several: Several, events: tuple[Event, ...]) -> tuple[Event, ...]:
    dice = random.Random(f"{name}/several")
    lease_s = several.lease_s
    chances: tuple[tuple[Act, float, Callable[[], float]], ...] = (
        (Act.STOP, 0.35, lambda: lease_s * dice.uniform(0.2, 2.5)),
        (Act.STOP_AT_COMMIT, 0.3, lambda: dice.choice((lease_s * dice.uniform(0.5, 2.5), dice.uniform(2.0, 5.0)))),
        (Act.DRAIN, 0.25, lambda: 0.0),
        (Act.ROLL, 0.12, lambda: 0.0),
        (Act.CUT_DATABASE, 0.35, lambda: lease_s * dice.uniform(0.2, 3.0)),
        (Act.TEAR_DATABASE, 0.3, lambda: float(dice.randint(1, 5))),
        (Act.CUT_CHAIN, 0.2, lambda: lease_s * dice.uniform(0.5, 4.0)),
        (Act.DATABASE_DOWN, 0.2, lambda: lease_s * dice.uniform(0.2, 2.0)),
        (Act.FAIL_OVER, 0.15, lambda: lease_s * dice.uniform(0.2, 2.0)),
    )
    more = []
    for act, chance, amount in chances:
        more += [Event(dice.uniform(1.0, seconds), act, amount()) for _ in range(2) if dice.random() < chance]
    return tuple(sorted((*events, *more), key=lambda event: event.at_s))


def _storm(dice: random.Random) -> dict[Kind, float]:
    weather = dice.choices(("clear", "light", "heavy", "outage"), weights=[25, 40, 25, 10])[0]
    if weather == "clear":
        return {}
    if weather == "outage":
        kind = dice.choice((Kind.REQUEST_LOST, Kind.REQUEST_RESET, Kind.HTTP_503, Kind.HTTP_429, Kind.REPLY_LOST))
        return {kind: 0.95, Kind.SOCKET_ABORTED: 0.1, Kind.SOCKET_REFUSED: 0.9}
    few = weather == "light"
    requests = dice.sample(REQUEST_KINDS, dice.randrange(1, 4) if few else dice.randrange(4, 9))
    news = dice.sample(NEWS_KINDS, dice.randrange(0, 3) if few else dice.randrange(2, 6))
    rates = {kind: dice.uniform(0.02, 0.12) for kind in requests}
    for kind in news:
        rates[kind] = dice.uniform(0.005, 0.03) if kind.startswith("socket_") else dice.uniform(0.05, 0.3)
    if dice.random() < 0.3:
        rates[Kind.SOCKET_REFUSED] = 0.4
    return rates


def _senders(name: str) -> tuple[Mapping[Kind, float], ...]:
    dice = random.Random(f"{name}/senders")
    return tuple(_storm(dice) for _ in range(2)) if dice.random() < 0.15 else ()


def _denying(name: str, lies: list[dict[Lie, float]]) -> tuple[dict[Lie, float], ...]:
    dice = random.Random(f"{name}/denies")
    if dice.random() < 0.2:
        dice.choice(lies)[Lie.NO_ACCOUNT] = dice.uniform(0.02, 0.15)
    return tuple(lies)


def _lies(dice: random.Random) -> dict[Lie, float]:
    return {lie: dice.uniform(0.02, 0.15) for lie in _LIES if dice.random() < 0.2}
