"""How the chain agrees on blocks, TowerBFT or Alpenglow: asked of the nodes, again and again, and never assumed.

A chain turns to Alpenglow while it runs, once. What the words for a block's state mean turns with it
(anza-xyz/agave#10063):

- processed: a node has replayed it; under Alpenglow it is notarized. A fork may drop it under both.
- confirmed: under TowerBFT two thirds of the stake have voted for it, which no cluster has undone and the rules do not
  rule out. Under Alpenglow it is final.
- finalized: under TowerBFT 31 blocks are on top of it. Under Alpenglow it is the same as confirmed.

`getAgGenesisCert` answers null before, and a certificate of the block that Alpenglow began with after; nodes older than
Agave 4.3 and some providers do not serve it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import anyio

from keeper.domain.errors import ChainError, MalformedReply
from keeper.domain.reports import Note, Report
from keeper.solana.pool import RpcPool, Seat

_WITHIN_S: Final = 2.0
_TOWER_BLOCKS: Final = 32

Name = Literal["unknown", "towerbft", "alpenglow"]


class Consensus:
    """Which it is, by the endpoints of a pool that may be asked. Only when all of them that have a word for it say so
    is it Alpenglow: to take it for TowerBFT is late, and the other mistake would close what a fork can undo.
    """

    def __init__(self, pool: RpcPool) -> None:
        self._pool = pool
        self._said: dict[str, int | None] = {}
        """By endpoint, the slot of the certificate's block; None: there is no certificate."""
        self.name: Name = "unknown"
        self.since_slot: int | None = None
        self.dispute = ""
        """Who says what, while the endpoints contradict each other."""

    def __repr__(self) -> str:
        return f"Consensus({self})"

    def __str__(self) -> str:
        since = "" if self.since_slot is None else f" since slot {self.since_slot}"
        return self.name + since + (f"; {self.dispute}" if self.dispute else "")

    @property
    def undone_blocks(self) -> int:
        """So many blocks on top of a confirmed one, and it is not undone any more."""
        return 0 if self.name == "alpenglow" else _TOWER_BLOCKS

    def is_final(self, word: str, slot: int) -> bool:
        """Whether a block is never undone, whose state a node calls so."""
        return word == "finalized" or (word == "confirmed" and self.since_slot is not None and slot > self.since_slot)

    async def look(self, report: Callable[[Report], None]) -> None:
        """Ask once, and report a change. It counts neither for nor against an endpoint what it answers to this: some
        providers refuse the method as if too much had been asked.
        """
        seats = self._pool.awake()
        async with anyio.create_task_group() as tg:
            for seat in seats:
                tg.start_soon(self._ask, seat)
        said = {seat.health.label: self._said[seat.health.label] for seat in seats if seat.health.label in self._said}
        if not said:
            return
        before = str(self)
        slots = [slot for slot in said.values() if slot is not None]
        agreed = len(slots) == len(said)
        self.name = "alpenglow" if agreed else "towerbft"
        self.since_slot = max(slots) if agreed else None
        self.dispute = ""
        if slots and (not agreed or min(slots) != max(slots)):
            words = (f"{label}: {'none' if slot is None else f'of slot {slot}'}" for label, slot in said.items())
            self.dispute = f"the nodes disagree on the certificate of Alpenglow's first block ({', '.join(words)})"
        if str(self) != before:
            report(Note("chain.consensus", str(self), level="warning" if self.dispute else "info"))

    async def _ask(self, seat: Seat) -> None:
        try:
            self._said[seat.health.label] = _slot_of(await seat.endpoint.call("getAgGenesisCert", deadline_s=_WITHIN_S))
        except ChainError:
            return  # it has no word for it, or none now: what it said before stands


def _slot_of(certificate: object) -> int | None:
    if certificate is None:
        return None
    block = certificate.get("block") if isinstance(certificate, dict) else None
    slot = block.get("slot") if isinstance(block, dict) else None
    if isinstance(slot, int) and not isinstance(slot, bool) and 0 <= slot < 2**64:
        return slot
    raise MalformedReply("a certificate without its block's slot")
