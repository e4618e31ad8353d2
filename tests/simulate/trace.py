"""What happened, line by line: the story for people, and the hash that says that two runs were the same."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Final

from tests.simulate.dice import Clock

_MOST_LINES: Final = 200_000


class Trace:
    """Lines with their virtual time. `counts` is how often each sort of line came."""

    def __init__(self, clock: Clock, *, keep: bool = False) -> None:
        self._clock = clock
        self._hash = hashlib.sha256()
        self._keep = keep
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()

    def note(self, sort: str, text: str) -> None:
        """One thing that happened; `sort` is one word."""
        line = f"{self._clock.passed_s:.6f} {sort} {text}"
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        self.counts[sort] += 1
        if self._keep and len(self.lines) < _MOST_LINES:
            self.lines.append(line)

    def digest(self) -> str:
        """SHA-256 of all lines so far."""
        return self._hash.hexdigest()
