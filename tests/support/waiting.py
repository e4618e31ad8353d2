"""Waiting for a state, bounded: never for a time that has to be long enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

BOUND_S: Final = 60.0
"""How long a test waits for what has to come. Only one that fails waits so long, however busy the machine is."""


async def until(holds: Callable[[], object], *, within_s: float = BOUND_S, every_s: float = 0.005) -> None:
    """Return when `holds()` is true. TimeoutError names the condition that did not come."""
    with anyio.move_on_after(within_s):
        while not holds():  # noqa: ASYNC110 - what is waited for is outside this process
            await anyio.sleep(every_s)
        return
    name = getattr(holds, "__qualname__", repr(holds))
    raise TimeoutError(f"not within {within_s:g} s: {name}")
