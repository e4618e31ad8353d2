"""Where the facts go that are read on chain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from solders.pubkey import Pubkey

from keeper.domain.events import Event
from keeper.domain.orders import OrderFields


class Load(Protocol):
    """Takes in many orders, faster than one by one."""

    def add(self, orders: Iterable[tuple[bytes, OrderFields]], slot: int) -> None:
        """Pending orders, each its address and its fields."""
        ...


L = TypeVar("L", bound=Load)


class Intake(Protocol[L]):
    """Where the facts go; `keeper.execution.lookout` is one. Nothing of it may block but `end_load`."""

    def on_event(self, event: Event) -> None:
        """A fact, in the order of arrival."""
        ...

    def unchanged(self, address: Pubkey, fields: OrderFields, slot: int) -> bool:
        """Whether the order is known just so: then it is not reported again."""
        ...

    def begin_load(self) -> L | None:
        """A way to take in a first list's orders in bulk, or None."""
        ...

    async def end_load(self, load: L) -> None:
        """The list was given, as far as it came."""
        ...

    def not_seen_since(self, slot: int, cursor: int) -> tuple[Sequence[Pubkey], int | None]:
        """In steps, the orders that nothing as new as `slot` is known of; from cursor 0 to None."""
        ...
