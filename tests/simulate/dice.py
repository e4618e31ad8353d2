"""The process's clocks and dice, taken out of the machine's hands: the one place where that is done.

The keeper and its libraries read time by `time.monotonic()` and its like, and draw by `random` and `secrets`. Here
these functions themselves are replaced, once, before anything of the keeper is imported: so no call is missed, no
default argument keeps the real one, and nothing in the keeper has to be told. `tests.simulate.__main__` does it first.
"""

from __future__ import annotations

import random
import secrets
import time
from typing import Final

EPOCH_S: Final = 1_750_000_000.0
"""The time of day at which every simulation begins, unix seconds."""
_UPTIME_S: Final = 1_000.0


class Clock:
    """Virtual time. `passed_s` is what an event loop moves, `off_s` the error of this machine's time of day."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.off_s = 0.0

    def monotonic(self) -> float:
        """As `time.monotonic`."""
        return _UPTIME_S + self.passed_s

    def time(self) -> float:
        """As `time.time`."""
        return EPOCH_S + self.passed_s + self.off_s

    def real(self) -> float:
        """The time of day without this machine's error: what the chain goes by."""
        return EPOCH_S + self.passed_s


clock: Final = Clock()
real_perf_counter: Final = time.perf_counter
"""For progress and budgets of real time, which nothing simulated sees."""
real_process_time: Final = time.process_time


def take_over() -> None:
    """From now on `time` tells virtual time, and `secrets` draws from `random`. Call it before importing the keeper."""
    time.monotonic = time.perf_counter = clock.monotonic
    time.monotonic_ns = time.perf_counter_ns = lambda: round(clock.monotonic() * 1e9)
    time.time = clock.time
    time.time_ns = lambda: round(clock.time() * 1e9)
    time.thread_time = lambda: 0.0
    secrets.token_bytes = lambda nbytes=None: random.randbytes(32 if nbytes is None else nbytes)
    secrets.randbits = lambda k: random.getrandbits(k)


def seed(text: str) -> None:
    """Begin the dice of this process anew: what the keeper draws from `random` and `secrets` follows from `text`."""
    random.seed(text)
