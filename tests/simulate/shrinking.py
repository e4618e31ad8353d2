"""Making a finding shorter: leaving out parts of its scenario as long as the same thing goes wrong.

A part is an order, what is done about it, an event, or one kind of fault at one node; each has a name, and a scenario
is played with any of them left out (`--parts`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from tests.simulate.dice import real_perf_counter
from tests.simulate.scenario import Deed, OrderPlan, Scenario

_WITHIN_S: Final = 120.0
"""Real seconds after which the shortest that was found is taken."""
_NAMES: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32,}|\d+(\.\d+)?")


def parts_of(scenario: Scenario) -> list[str]:
    """The names of its parts."""
    names = [f"order.{i}" for i in range(len(scenario.orders))]
    for i, order in enumerate(scenario.orders):
        names += [f"deed.{i}"] if order.deed is not Deed.NOTHING else []
        names += [f"expiry.{i}"] if order.expires_in_s else []
        names += [f"api.{i}"] if order.by_api else []
    names += [f"event.{i}" for i in range(len(scenario.events))]
    names += [f"storm.{i}.{kind}" for i, storm in enumerate(scenario.storms) for kind in storm]
    names += [f"lie.{i}.{lie}" for i, lies in enumerate(scenario.lies) for lie in lies]
    names += ["senders"] if scenario.sender_storms else []
    return names + (["stranger"] if scenario.stranger else [])


def only(scenario: Scenario, parts: Sequence[str]) -> Scenario:
    """The scenario with these parts alone. What is left keeps its number, and with it its name and its dice."""
    kept = frozenset(parts)
    return replace(
        scenario,
        orders=tuple(_order(i, order, kept) for i, order in enumerate(scenario.orders)),
        left_out=frozenset(i for i in range(len(scenario.orders)) if f"order.{i}" not in kept),
        events=tuple(event for i, event in enumerate(scenario.events) if f"event.{i}" in kept),
        storms=tuple(
            {kind: rate for kind, rate in storm.items() if f"storm.{i}.{kind}" in kept}
            for i, storm in enumerate(scenario.storms)
        ),
        lies=tuple(
            {lie: rate for lie, rate in lies.items() if f"lie.{i}.{lie}" in kept}
            for i, lies in enumerate(scenario.lies)
        ),
        sender_storms=scenario.sender_storms if "senders" in kept else (),
        stranger=scenario.stranger and "stranger" in kept,
    )


def _order(i: int, order: OrderPlan, kept: frozenset[str]) -> OrderPlan:
    return replace(
        order,
        deed=order.deed if f"deed.{i}" in kept else Deed.NOTHING,
        expires_in_s=order.expires_in_s if f"expiry.{i}" in kept else 0,
        by_api=order.by_api and f"api.{i}" in kept,
    )


def sort_of(violation: str) -> str:
    """What went wrong, without whose it was and when."""
    return _NAMES.sub("_", violation)[:60]


def shrink(scenario: Scenario, violation: str, play: Callable[[Scenario], Sequence[str]]) -> list[str]:
    """The parts of the shortest scenario that was found in which the same sort of thing goes wrong."""
    wanted = sort_of(violation)
    ends = real_perf_counter() + _WITHIN_S

    def still(parts: Sequence[str]) -> bool:
        return any(sort_of(text) == wanted for text in play(only(scenario, parts)))

    parts = parts_of(scenario)
    size = max(1, len(parts) // 2)
    while True:
        smaller = False
        for start in range(0, len(parts), size):
            if real_perf_counter() > ends:
                return parts
            rest = parts[:start] + parts[start + size :]
            if len(rest) < len(parts) and still(rest):
                parts, smaller = rest, True
                break
        if not smaller and size == 1:
            return parts
        if not smaller:
            size = max(1, size // 2)
