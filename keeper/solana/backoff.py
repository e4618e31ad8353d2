"""The pause before what failed is tried again."""

from __future__ import annotations

import random
from typing import Final

import anyio

_FIRST_S: Final = 0.25
LONGEST_S: Final = 15.0


class Backoff:
    """Each pause is twice as long as the one before, up to `LONGEST_S`; up to half of it is left out by chance."""

    def __init__(self) -> None:
        self._next_s = _FIRST_S

    def __repr__(self) -> str:
        return f"Backoff(next={self._next_s:g} s)"

    def reset(self) -> None:
        """It went well: the next pause is a short one again."""
        self._next_s = _FIRST_S

    async def pause(self) -> None:
        """Wait, and longer the next time."""
        await anyio.sleep(self._next_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        self._next_s = min(self._next_s * 2, LONGEST_S)
