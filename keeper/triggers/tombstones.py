"""What is remembered of orders that are no longer in the book, so that late news does not bring them back."""

from __future__ import annotations

from typing import Final

DEFAULT_CAPACITY: Final = 65_536


class Tombstones:
    """For each of the last removed orders, the first slot whose news may bring it back.

    At least half of `capacity` and at most all of it are remembered, the latest ones, at about 200 bytes each:
    two halves, the older of which is dropped whole, so that forgetting costs nothing. An order that is
    resurrected because its removal was forgotten costs one attempt that the program refuses with
    OrderNotPending, and nothing else.
    """

    __slots__ = ("_half", "_newer", "_older")

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < 2:
            raise ValueError("tombstones need a capacity of at least 2")
        self._half = capacity // 2
        self._newer: dict[bytes, int] = {}
        self._older: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def __repr__(self) -> str:
        return f"Tombstones({len(self)} of {2 * self._half})"

    def put(self, address: bytes, returns_at_slot: int) -> None:
        """Remember that news of this order from before `returns_at_slot` is old. It is never set back."""
        self._newer[address] = max(self.returns_at(address), returns_at_slot)
        if len(self._newer) >= self._half:
            self._older, self._newer = self._newer, {}

    def drop(self, address: bytes) -> None:
        """It was no removal after all."""
        self._newer.pop(address, None)
        self._older.pop(address, None)

    def refuses(self, address: bytes, slot: int) -> bool:
        """Whether news of this order as of `slot` is older than its removal."""
        return slot < self.returns_at(address)

    def returns_at(self, address: bytes) -> int:
        """The first slot whose news may bring it back; 0 when nothing is remembered of it."""
        known = self._newer.get(address)
        return self._older.get(address, 0) if known is None else known
