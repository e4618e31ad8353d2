"""What happens in an episode: drawn from its seed alone, before anything runs. Pure.

The seed fixes the plan: the orders, the prices, the faults' kinds and chances, the kills and their moments. It does
not fix how the operating system interleaves the processes; so a plan is repeated exactly, its outcome nearly.
"""

from __future__ import annotations

import dataclasses
import enum
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from keeper.domain.orders import OrderType, Side
from keeper.execution.points import POINTS
from tests.chaos.proxy.faults import NEWS_KINDS, REQUEST_KINDS, Kind

START_1E6: Final = 100_000_000
DOWN_1E6: Final = 97_400_000
UP_1E6: Final = 102_600_000
_FIRST_S: Final = 0.08
_EPISODES_OF_A_KIND: Final = 8
_LEAVES_OPEN: Final = ("journaled", "sent", "sent_journaled")
"""Points at which a kill leaves an attempt that could still land."""


class Ending(enum.StrEnum):
    """What is to become of an order, faults aside."""

    CROSSED = "crossed"
    """The price crosses its trigger and stays."""
    RESTING = "resting"
    """The price never comes near."""
    BRIEF = "brief"
    """The price crosses and is back before the keeper's transaction lands."""
    RIVAL = "rival"
    """Another keeper executes it at about the same time."""
    CANCELLED = "cancelled"
    """Its user cancels at about the same time."""
    POOR = "poor"
    """Its user has no collateral."""
    POOR_THEN_RICH = "poor_then_rich"
    """Its user deposits some later."""
    NO_ACCOUNT = "no_account"
    """Its user never made a margin account."""
    EXPIRING = "expiring"
    """It expires while the price is away."""


class Act(enum.StrEnum):
    """What the stage does to the chain, the network or the keeper."""

    PRICE = "price"
    BLIP = "blip"
    """The price moves beyond the triggers of the brief orders, and back a moment later."""
    FORK = "fork"
    """The last blocks never were."""
    FORK_AFTER_FILL = "fork_after_fill"
    """The block with the keeper's next execution never was."""
    LOSE = "lose"
    """The next transactions get their OK and never land."""
    HOLD = "hold"
    """Transactions get their OK and land later."""
    LAST_MOMENT = "last_moment"
    """The chain stands still around the last height where a transaction can land, and it may land at last."""
    JUMP = "jump"
    """The chain runs ahead by more blocks than a blockhash lives."""
    CLOCK = "clock"
    """The chain's clock runs ahead, past the expiry of orders."""
    KILL = "kill"
    # With several keepers; the amount is how long it lasts, in seconds.
    STOP = "stop"
    """The keeper that works gets SIGSTOP, and SIGCONT later."""
    CUT_DATABASE = "cut_database"
    """Nothing passes between it and the database; what it sent arrives late."""
    TEAR_DATABASE = "tear_database"
    """Its connections to the database are reset."""
    CUT_CHAIN = "cut_chain"
    """It does not reach the chain any more, and is told nothing."""
    DATABASE_DOWN = "database_down"
    """The database server is killed, and recovers later."""
    FAIL_OVER = "fail_over"
    """The database server is killed for good, and its synchronous standby is promoted so much later."""
    DRAIN = "drain"
    """It is asked to hand the service over."""
    ROLL = "roll"
    """Each keeper is stopped with SIGTERM and started again, the one that works last."""
    MARKET = "market"
    """Where the keepers share the markets, there is one more."""


@dataclass(frozen=True, slots=True)
class OrderPlan:
    """An order. `below`: it fires at or below its trigger. `by_api`: placed through the keeper's API. `market` is which
    of the episode's markets it is in.
    """

    at_s: float
    order_type: OrderType
    side: Side
    below: bool
    ending: Ending
    act_s: float
    by_api: bool = False
    market: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """An act at a time; `amount` is its size (a price, a number of blocks or transactions, seconds)."""

    at_s: float
    act: Act
    amount: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """The plan of one episode. `storms` are the chances of the faults at each endpoint."""

    seed: str
    seconds: float
    orders: tuple[OrderPlan, ...]
    events: tuple[Event, ...]
    storms: tuple[Mapping[Kind, float], ...]
    longest_fault_s: float
    final_price_1e6: int
    graceful: bool
    """Whether the keeper before this episode's is ended by SIGTERM, when there has to be another."""
    crash_at: str | None
    crash_again: str | None
    markets: int = 1
    """On so many its orders are. More than one: the keepers share them."""
    forgotten: bool = False
    """Whether the first keeper was not told to share them, so that it works on all of them or none."""


class Sharing(enum.StrEnum):
    """Whether several keepers share the markets, or one of them works on all."""

    DRAWN = "drawn"
    """As the seed says, for some episodes in a row."""
    ALWAYS = "always"
    NEVER = "never"


def draw(
    seed: int, episode: int, *, keepers: int = 1, lease_s: float = 0.0, sharing: Sharing = Sharing.DRAWN
) -> Scenario:
    """The scenario of an episode. Crash points take turns, so that each gets its share of any campaign. The leases of
    several keepers run for `lease_s`.
    """
    plan = _draw(seed, episode, endpoints=2 * keepers)
    if keepers == 1:
        return plan
    # The same for some episodes in a row.
    rng = random.Random(f"{seed}/sharing/{episode // _EPISODES_OF_A_KIND}")
    shared, count, forgotten = rng.random() < 0.5, max(4, keepers) + rng.randrange(4), rng.random() < 0.2
    shared = sharing is Sharing.ALWAYS or (sharing is Sharing.DRAWN and shared)
    plan = _with_several(plan, lease_s, count if shared else 1)
    return dataclasses.replace(plan, forgotten=shared and forgotten)


def _with_several(plan: Scenario, lease_s: float, markets: int) -> Scenario:
    """What can befall several keepers beside; every second point stops a keeper instead of killing it. At the one
    where it recovers the database is killed meanwhile.
    """
    rng = random.Random(f"{plan.seed}/several")
    events = []
    for act, chance, shortest_s, longest_s in (
        (Act.STOP, 0.3, 0.5 * lease_s, 2.5 * lease_s),
        (Act.CUT_DATABASE, 0.25, 0.5 * lease_s, 3.0 * lease_s),
        (Act.TEAR_DATABASE, 0.15, 0.1 * lease_s, 2.0 * lease_s),
        (Act.CUT_CHAIN, 0.15, 0.5 * lease_s, 1.5 * lease_s),
        (Act.DATABASE_DOWN, 0.12, 0.0, 1.5 * lease_s),
        (Act.FAIL_OVER, 0.12, 0.0, 1.5 * lease_s),
        (Act.DRAIN, 0.15, 0.0, 0.0),
        (Act.ROLL, 0.08, 0.0, 0.0),
    ):
        if rng.random() < chance:
            event = Event(rng.uniform(0.0, plan.seconds), act, rng.uniform(shortest_s, longest_s))
            events.append(event)
            if act is Act.CUT_DATABASE and rng.random() < 0.7:
                # What it has sent does not land, so that it has something to send again.
                events.append(Event(max(0.0, event.at_s - 0.1), Act.LOSE, 200))
    crash_at, crash_again = (
        point if point is None or rng.random() < 0.5 else f"{point}:stop" for point in (plan.crash_at, plan.crash_again)
    )
    if crash_again is not None:
        # Who takes over recovers only when it finds something open.
        crash_at = plan.crash_at or f"{rng.choice(_LEAVES_OPEN)}:1"
    orders = plan.orders
    if markets > 1:
        order_of_markets = rng.sample(range(markets), markets)
        orders = tuple(
            dataclasses.replace(order, market=order_of_markets[i % markets]) for i, order in enumerate(orders)
        )
        if rng.random() < 0.15:
            events.append(Event(rng.uniform(0.0, plan.seconds), Act.MARKET))
    together = tuple(sorted((*plan.events, *events), key=lambda event: event.at_s))
    return dataclasses.replace(
        plan, orders=orders, events=together, crash_at=crash_at, crash_again=crash_again, markets=markets
    )


def _draw(seed: int, episode: int, *, endpoints: int) -> Scenario:
    rng = random.Random(f"{seed}/{episode}")
    seconds = rng.uniform(0.4, 0.7)
    point = POINTS[episode // 2 % len(POINTS)] if episode % 2 == 0 else None
    goes_down = rng.random() < 0.5
    orders = _orders(rng, seconds, goes_down, point)
    return Scenario(
        seed=f"{seed}/{episode}",
        seconds=seconds,
        orders=orders,
        events=_events(rng, seconds, goes_down, orders, point),
        storms=tuple(_storm(rng) for _ in range(endpoints)),
        longest_fault_s=rng.uniform(0.1, 0.7),
        final_price_1e6=rng.choice((START_1E6, DOWN_1E6, UP_1E6)),
        graceful=rng.random() < 0.5,
        crash_at=_crash(rng, point),
        crash_again="recovering:1" if point == "recovering" or rng.random() < 0.1 else None,
    )


def _crash(rng: random.Random, point: str | None) -> str | None:
    if point is None or point == "recovering":
        return None
    return f"{point}:{rng.choice((1, 1, 1, 2))}"


def _orders(rng: random.Random, seconds: float, goes_down: bool, point: str | None) -> tuple[OrderPlan, ...]:
    wanted = [Ending.CROSSED, Ending.CROSSED]
    wanted += rng.choices(list(Ending), weights=[30, 8, 14, 12, 10, 6, 6, 4, 6], k=rng.randrange(2, 6))
    if point in ("failed", "failed_journaled"):
        wanted += [Ending.BRIEF, Ending.POOR]
    plans = []
    for i, ending in enumerate(wanted):
        order_type = rng.choice(
            (OrderType.STOP_LOSS, OrderType.TAKE_PROFIT, OrderType.STOP_LIMIT, OrderType.LIMIT, OrderType.TRAILING_STOP)
        )
        below = goes_down if rng.random() < 0.8 else not goes_down
        fires_below_as_long = order_type is not OrderType.TAKE_PROFIT
        side = Side.LONG if below == fires_below_as_long else Side.SHORT
        plans.append(
            OrderPlan(
                at_s=0.0 if i == 0 or rng.random() < 0.6 else rng.uniform(0.0, seconds * 0.8),
                order_type=order_type,
                side=side,
                below=below,
                ending=ending,
                act_s=_FIRST_S + rng.uniform(-0.02, 0.08),
                by_api=(i == 0 and point == "relay_journaled") or (ending is Ending.CROSSED and rng.random() < 0.1),
            )
        )
    return tuple(plans)


def _events(
    rng: random.Random, seconds: float, goes_down: bool, orders: tuple[OrderPlan, ...], point: str | None
) -> tuple[Event, ...]:
    away, other = (DOWN_1E6, UP_1E6) if goes_down else (UP_1E6, DOWN_1E6)
    events = [Event(_FIRST_S, Act.PRICE, away), Event(rng.uniform(0.4, 0.9) * seconds, Act.PRICE, other)]
    endings = {order.ending for order in orders}
    if Ending.BRIEF in endings:
        events += [Event(rng.uniform(0.1, 0.9) * seconds, Act.BLIP, rng.uniform(0.0, 0.04)) for _ in range(2)]
    if Ending.EXPIRING in endings:
        events.append(Event(rng.uniform(0.5, 0.9) * seconds, Act.CLOCK, 30))
    for act, chance, amount in (
        (Act.FORK, 0.4, (1, 3)),
        (Act.FORK_AFTER_FILL, 0.35, (0, 2)),
        (Act.LOSE, 0.3, (1, 4)),
        (Act.HOLD, 0.2, (20, 200)),
        (Act.JUMP, 0.12, (155, 420)),
    ):
        if rng.random() < chance or (point == "expired" and act in (Act.LOSE, Act.JUMP)):
            events.append(Event(rng.uniform(0.1, 0.95) * seconds, act, rng.randint(*amount)))
    if rng.random() < 0.25:
        # Just before a price that the keeper acts on, so that there is something to hold.
        beyond = rng.choice((0, 0, rng.randint(1, 3), rng.randint(5, 8), rng.randint(5, 8), 10))
        events.append(Event(rng.choice([e.at_s for e in events if e.act is Act.PRICE]) - 0.01, Act.LAST_MOMENT, beyond))
    if point == "expired":
        # Everything that is sent in the first half is lost, then all of it expires.
        events += [Event(0.01, Act.LOSE, 40), Event(seconds * 0.6, Act.LOSE, 0), Event(seconds * 0.61, Act.JUMP, 170)]
    kills = 0 if point else rng.choices((0, 1, 2), weights=[45, 45, 10])[0]
    kills = 1 if point == "recovering" else kills
    events += [Event(rng.uniform(_FIRST_S, seconds), Act.KILL) for _ in range(kills)]
    return tuple(sorted(events, key=lambda event: event.at_s))


def _storm(rng: random.Random) -> dict[Kind, float]:
    weather = rng.choices(("clear", "light", "heavy", "outage"), weights=[15, 40, 35, 10])[0]
    if weather == "clear":
        return {}
    if weather == "outage":
        kind = rng.choice((Kind.REQUEST_LOST, Kind.REQUEST_RESET, Kind.HTTP_503, Kind.HTTP_429, Kind.REPLY_LOST))
        return {kind: 0.95, Kind.SOCKET_ABORTED: 0.1, Kind.SOCKET_REFUSED: 0.9}
    few = weather == "light"
    requests = rng.sample(REQUEST_KINDS, rng.randrange(1, 4) if few else rng.randrange(4, 9))
    news = rng.sample(NEWS_KINDS, rng.randrange(0, 3) if few else rng.randrange(2, 6))
    rates = {kind: rng.uniform(0.02, 0.12) for kind in requests}
    for kind in news:
        rates[kind] = rng.uniform(0.005, 0.03) if kind.startswith("socket_") else rng.uniform(0.05, 0.3)
    if rng.random() < 0.3:
        rates[Kind.SOCKET_REFUSED] = 0.4
    return rates
