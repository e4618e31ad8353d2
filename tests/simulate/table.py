"""The counts of a campaign, for people."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tests.simulate.campaign import Totals

_PARTS: Final = (
    ("act ", "what happened to the chain, the machine and the keeper"),
    ("fault ", "what the network broke, and what nodes said wrongly"),
    ("life ", "how lives of keepers ended"),
    ("several ", "what happened to several keepers and their database"),
    ("order ", "orders by their state at the end"),
    ("attempt ", "attempts by kind and state"),
    ("error ", "errors of attempts"),
)


def table(totals: Totals) -> str:
    """Each event with how often it came."""
    lines = [f"{totals.seconds:.0f} s"]
    rest = Counter(totals.counts)
    for prefix, title in _PARTS:
        part = {name.removeprefix(prefix): n for name, n in totals.counts.items() if name.startswith(prefix)}
        for name in part:
            del rest[prefix + name]
        lines.append(f"{title}: " + ", ".join(f"{name} {n}" for name, n in sorted(part.items(), key=_most)))
    lines.append("all in all: " + ", ".join(f"{name} {n}" for name, n in sorted(rest.items(), key=_most)))
    return "\n".join(lines)


def _most(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
