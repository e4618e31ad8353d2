"""Orders whose attempt the chain refused at its own price, and which only a newer price makes eligible again."""

from __future__ import annotations

import heapq

from solders.pubkey import Pubkey


class Waiting:
    """Orders that wait for a price from after a slot: by market, the earliest slot first."""

    __slots__ = ("_heaps", "_slots")

    def __init__(self) -> None:
        self._slots: dict[Pubkey, int] = {}  # the truth; a heap entry that disagrees is void
        self._heaps: dict[Pubkey, list[tuple[int, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def __repr__(self) -> str:
        return f"Waiting(orders={len(self._slots)}, markets={len(self._heaps)})"

    def put(self, market: Pubkey, address: Pubkey, after_slot: int) -> None:
        """Let the order wait for a price of its market from a slot after `after_slot`."""
        self._slots[address] = after_slot
        heapq.heappush(self._heaps.setdefault(market, []), (after_slot, bytes(address)))

    def drop(self, address: Pubkey) -> None:
        """The order waits no longer, whyever."""
        self._slots.pop(address, None)

    def slot(self, address: Pubkey) -> int | None:
        """The slot after which a price counts for this order; None when it does not wait."""
        return self._slots.get(address)

    def due(self, market: Pubkey, slot: int, limit: int | None = None) -> list[Pubkey]:
        """Take out those for whom a price as of `slot` counts, at most `limit`."""
        heap = self._heaps.get(market)
        if not heap or heap[0][0] >= slot:
            return []
        due: list[Pubkey] = []
        while heap and heap[0][0] < slot and len(due) != limit:
            after_slot, raw = heapq.heappop(heap)
            address = Pubkey.from_bytes(raw)
            if self._slots.get(address) == after_slot:
                del self._slots[address]
                due.append(address)
        return due
