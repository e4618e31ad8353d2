"""The attempts that are in the air, in memory: what the journal holds as open, with their timing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, blocks
from keeper.domain.orders import Order


@dataclass(slots=True, eq=False)
class Flight:
    """One open attempt. `attempt` is replaced as it moves; times are monotonic seconds.

    `order` is the order as it was when decided, None after a restart until it is read. `triggered_at_s` is None
    when the deciding news came before this process. `landed_slot` is the slot of a confirmed success whose
    read-back is still to be done (`read_back` False) or done. `refused` is what a node said when it refused the
    bytes, for people: it is not a verdict. `answered`: some node has said something of its status in this process.
    `unrecorded` is why the journal refuses what became of it, empty while it does not; `refusals` how often it did.
    """

    attempt: Attempt
    order: Order | None
    triggered_at_s: float | None
    born_at_s: float
    next_poll_s: float
    next_send_s: float
    answered: bool = False
    landed_slot: int | None = None
    read_back: bool = False
    read_backs: int = 0
    refused: str = ""
    unrecorded: str = ""
    refusals: int = 0

    @property
    def signature(self) -> Signature:
        """The attempt's signature."""
        return self.attempt.signature


class Flights:
    """Open attempts by signature and, for the keeper's own, by order: one live attempt an order (promise 2)."""

    def __init__(self) -> None:
        self._by_signature: dict[Signature, Flight] = {}
        self._own_by_order: dict[Pubkey, Flight] = {}

    def __repr__(self) -> str:
        return f"Flights({len(self)} open)"

    def __len__(self) -> int:
        return len(self._by_signature)

    def __iter__(self) -> Iterator[Flight]:
        return iter(list(self._by_signature.values()))

    def add(self, flight: Flight) -> None:
        """Track an attempt that the journal holds. A second one that blocks its order is a bug, refused here too.

        A ratchet that is confirmed and waits to be rooted blocks nothing: after a restart it is tracked beside the
        attempt that came after it.
        """
        attempt = flight.attempt
        if blocks(attempt.kind, attempt.state):
            other = self._own_by_order.get(attempt.order)
            assert other is None or other.signature == attempt.signature, "an order with two live attempts"
            self._own_by_order[attempt.order] = flight
        self._by_signature[attempt.signature] = flight

    def remove(self, flight: Flight) -> None:
        """Its attempt has ended."""
        self._by_signature.pop(flight.signature, None)
        if self._own_by_order.get(flight.attempt.order) is flight:
            del self._own_by_order[flight.attempt.order]

    def landed(self, flight: Flight) -> None:
        """A ratchet that landed can't land again, nor fill: its order is free before its entry closes."""
        if flight.attempt.kind is AttemptKind.RATCHET and self._own_by_order.get(flight.attempt.order) is flight:
            del self._own_by_order[flight.attempt.order]

    def get(self, signature: Signature) -> Flight | None:
        """The flight of that signature."""
        return self._by_signature.get(signature)

    def own(self, order: Pubkey) -> Flight | None:
        """The keeper's own open attempt at that order."""
        return self._own_by_order.get(order)

    @property
    def unrecorded(self) -> list[Flight]:
        """Those whose end the journal refuses."""
        return [flight for flight in self._by_signature.values() if flight.unrecorded]

    @property
    def in_flight(self) -> int:
        """How many have neither landed at confirmed nor died."""
        return sum(1 for flight in self._by_signature.values() if flight.attempt.state.in_flight)
