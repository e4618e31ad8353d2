"""Two sides' first triggers of each order, beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from solders.pubkey import Pubkey

from keeper.domain.decimals import decimal
from keeper.recording.replay import Told, Trigger, wall


@dataclass(frozen=True, slots=True)
class Side:
    """Who triggered: a recording or some rules, by `name`."""

    name: str
    told: Told
    triggers: Mapping[bytes, Trigger]


def compare(a: Side, b: Side) -> dict[str, Any]:
    """As JSON: how many orders both triggered, at one price of one slot or not, and each order with both sides, in the
    order of time. `delay_s` is how much later `b` was, below 0 for earlier.
    """
    rows = [_row(order, a, b) for order in {**a.triggers, **b.triggers}]
    rows.sort(key=lambda row: (min(side["at"] for side in (row["a"], row["b"]) if side), row["order"]))
    both = [row for row in rows if row["a"] and row["b"]]
    return {
        "a": a.name,
        "b": b.name,
        "same": sum(not row["differs"] for row in rows),
        "other_price": sum(row["differs"] for row in both),
        "only_a": sum(row["b"] is None for row in rows),
        "only_b": sum(row["a"] is None for row in rows),
        "orders": rows,
    }


def _row(order: bytes, a: Side, b: Side) -> dict[str, Any]:
    ours, theirs = a.triggers.get(order), b.triggers.get(order)
    market = next(t.market for t in (ours, theirs) if t is not None)
    differs = ours is None or theirs is None or (ours.price_1e6, ours.slot) != (theirs.price_1e6, theirs.slot)
    return {
        "order": str(Pubkey.from_bytes(order)),
        "market": (a if ours else b).told.market(market),
        "a": _shown(ours),
        "b": _shown(theirs),
        "delay_s": None if ours is None or theirs is None else round((theirs.wall_ns - ours.wall_ns) / 1e9, 6),
        "differs": differs,
    }


def _shown(trigger: Trigger | None) -> dict[str, Any] | None:
    if trigger is None:
        return None
    return {"at": wall(trigger.wall_ns), "price": decimal(trigger.price_1e6), "slot": trigger.slot}
