"""How often one order was tried: its retry budget, its pauses, and a ceiling on attempts an hour.

The budget lives in the journal; this is its copy in memory, for the orders that were ever tried. The hourly ceiling
holds whatever the errors are, so that no mistake in the error table can become a storm of fees.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final

HOUR_S: Final = 3600.0
"""The hour of the ceiling."""


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """`budget`: failed attempts that an order may cost. Pauses are seconds: `first_pause_s`, doubled each time
    up to `longest_pause_s`, with jitter. `attempts_per_hour` bounds all attempts at one order.
    """

    budget: int
    first_pause_s: float
    longest_pause_s: float
    attempts_per_hour: int


@dataclass(slots=True)
class Tries:
    """One order's attempts. Times are monotonic seconds.

    `made` numbers the attempts, so that no two of them can be the same transaction. `used` is what they cost of the
    budget, `failed` how many failed, whether that cost budget or not: the next one is simulated first, and bids more.
    `recent` are the times of those within the last hour. `as_of` is the slot of what last let it be tried again: a
    simulation as of an earlier one knows nothing of that.
    """

    made: int = 0
    used: int = 0
    failed: int = 0
    as_of: int = 0
    recent: deque[float] = field(default_factory=deque)

    def undo(self) -> None:
        """The attempt was not made after all. Its number stays used: numbers never come twice."""
        if self.recent:
            self.recent.pop()

    def left(self, limits: RetryLimits) -> int:
        """How much of the budget is left."""
        return max(0, limits.budget - self.used)

    def pause_s(self, limits: RetryLimits) -> float:
        """How long to wait before the next attempt, by the budget used so far; with jitter."""
        pause = min(limits.first_pause_s * 2.0 ** min(64, max(0, self.used - 1)), limits.longest_pause_s)
        return pause * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret

    def at_ceiling(self, limits: RetryLimits) -> bool:
        """Whether the hourly ceiling is reached, or was a moment ago: `ceiling_pause_s` looks at the time."""
        return len(self.recent) >= limits.attempts_per_hour

    def ceiling_pause_s(self, limits: RetryLimits, now_s: float) -> float:
        """Seconds until the hourly ceiling allows another attempt; 0 when it does now."""
        recent = self.recent
        while recent and now_s - recent[0] > HOUR_S:
            recent.popleft()
        if not self.at_ceiling(limits):
            return 0.0
        return HOUR_S - (now_s - recent[0])

    def reset(self) -> None:
        """Give the order its whole budget back. The count of attempts stays."""
        self.used = self.failed = 0
        self.recent.clear()
