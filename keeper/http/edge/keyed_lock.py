"""One lock a key, for as long as somebody holds or waits for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import anyio


class KeyedLock:
    """Mutual exclusion among those who name the same key; others don't meet. Nothing stays behind afterwards."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[anyio.Lock, int]] = {}

    def __repr__(self) -> str:
        return f"KeyedLock({len(self._locks)} in use)"

    @contextlib.asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Hold the key's lock. Waiters get it in the order in which they came."""
        lock, users = self._locks.get(key, (anyio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)
