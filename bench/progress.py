"""That a part of several minutes goes on: a dot on standard error for each of its steps."""

from __future__ import annotations

import sys


def step() -> None:
    """One more is done."""
    print(".", end=" ", file=sys.stderr, flush=True)
