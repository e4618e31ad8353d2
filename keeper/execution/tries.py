"""How often an order was tried: its retry budget, its pauses, and a ceiling on attempts an hour.

The budget lives in the journal; this is its copy in memory for the hot path, for the orders that were ever
tried. The hourly ceiling holds whatever the errors are, so that no mistake in the error table can become a
storm of fees.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from solders.pubkey import Pubkey

HOUR_S: Final = 3600.0
"""The hour of the ceiling."""


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """`budget`: failed attempts that an order may cost. Pauses are seconds: `first_pause_s`, doubled each time
    up to `longest_pause_s`, with jitter. `attempts_per_hour` bounds all attempts at one order.
    """

    budget: int = 5
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    attempts_per_hour: int = 30


@dataclass(slots=True)
class _Tries:
    made: int = 0
    used: int = 0
    failed: int = 0
    recent: deque[float] = field(default_factory=deque)


class Tries:
    """Attempts made and budget used, by order. `clock` is monotonic seconds."""

    def __init__(self, limits: RetryLimits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._clock = clock
        self._tries: dict[Pubkey, _Tries] = {}

    def __repr__(self) -> str:
        return f"Tries({len(self._tries)} orders)"

    def load(self, order: Pubkey, made: int, used: int) -> None:
        """What the journal says of an order, at the start."""
        self._tries[order] = _Tries(made, used, failed=used)

    def load_recent(self, order: Pubkey, age_s: float) -> None:
        """An attempt from before the start, signed `age_s` ago by this machine's clock; the oldest ones first.

        The ceiling is on what an order costs an hour, so a keeper that is restarted in a loop must not forget it. An
        operator's `reset` is forgotten by a restart: the order then waits for the ceiling once more.
        """
        self._tries.setdefault(order, _Tries()).recent.append(self._clock() - max(0.0, age_s))

    def begin(self, order: Pubkey) -> int:
        """Count an attempt that is about to be signed; its number, 1 for the first."""
        tries = self._tries.setdefault(order, _Tries())
        tries.made += 1
        tries.recent.append(self._clock())
        return tries.made

    def undo(self, order: Pubkey) -> None:
        """The attempt was not made after all. Its number stays used: numbers never come twice."""
        tries = self._tries.get(order)
        if tries is not None and tries.recent:
            tries.recent.pop()

    def note_failure(self, order: Pubkey) -> None:
        """An attempt failed, whether it costs budget or not: the next one is simulated first, and bids more."""
        self._tries.setdefault(order, _Tries()).failed += 1

    def failed(self, order: Pubkey) -> int:
        """How many attempts at it failed."""
        tries = self._tries.get(order)
        return tries.failed if tries else 0

    def charge(self, order: Pubkey) -> int:
        """Take one from the budget; how many are left, 0 when it is used up."""
        tries = self._tries.setdefault(order, _Tries())
        tries.used += 1
        return max(0, self.limits.budget - tries.used)

    def left(self, order: Pubkey) -> int:
        """How much of the budget is left."""
        tries = self._tries.get(order)
        return max(0, self.limits.budget - (tries.used if tries else 0))

    def pause_s(self, order: Pubkey) -> float:
        """How long to wait before the next attempt, by the budget used so far; with jitter."""
        tries = self._tries.get(order)
        used = tries.used if tries else 0
        pause = min(self.limits.first_pause_s * 2.0 ** max(0, used - 1), self.limits.longest_pause_s)
        return pause * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret

    def ceiling_pause_s(self, order: Pubkey) -> float:
        """Seconds until the hourly ceiling allows another attempt; 0 when it does now."""
        tries = self._tries.get(order)
        if tries is None:
            return 0.0
        now = self._clock()
        while tries.recent and now - tries.recent[0] > HOUR_S:
            tries.recent.popleft()
        if len(tries.recent) < self.limits.attempts_per_hour:
            return 0.0
        return HOUR_S - (now - tries.recent[0])

    def reset(self, order: Pubkey) -> None:
        """Give the order its whole budget back. The count of attempts stays."""
        tries = self._tries.get(order)
        if tries is not None:
            tries.used = tries.failed = 0
            tries.recent.clear()

    def forget(self, order: Pubkey) -> None:
        """The order has ended."""
        self._tries.pop(order, None)
