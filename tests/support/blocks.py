"""A chain's blocks, made by a test: they come by themselves, and stand still while it holds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from keeper.localnet.bank import Bank


class Blocks:
    """Makes a block every `every_s` seconds, unless they are held."""

    def __init__(self, bank: Bank, every_s: float) -> None:
        self._bank = bank
        self._every_s = every_s
        self._held = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """No blocks but the test's own."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def make(self) -> None:
        """Make them until cancelled."""
        while True:
            await anyio.sleep(self._every_s)
            if not self._held:
                self._bank.advance()
