"""The attempts that are in the air, in memory: what the journal holds as open, with their timing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptState
from keeper.domain.orders import Order
from keeper.domain.reports import AttemptMoved


@dataclass(slots=True, eq=False)
class Flight:
    """One open attempt. `attempt` is replaced as it moves; times are monotonic seconds.

    It is asked for at `next_poll_s`, and from `may_poll_s` on along with another one.
    `order` is the order as it was when decided, None after a restart until it is read; `generation` is its record's
    (`keeper.execution.orders`), 0 for a user's own transaction that places it, and for an attempt at an order that
    was closed while no keeper ran, where another one is by now. `triggered_at_s` is None when the
    deciding news came before this process. `prepared` names a user's own transaction by the id under which it was
    handed out, and `cancels` are the orders that it cancels. `landed_slot` is the slot of a confirmed success whose
    read-back is still to be done (`read_back` False) or done. `refused` is what a node said when it refused the bytes,
    for people: it is not a verdict. `answered`: some node has said something of its status in this process.
    `unrecorded` is why the journal refuses what became of it, empty while it does not; `refusals` how often it did.
    """

    attempt: Attempt
    order: Order | None
    generation: int
    triggered_at_s: float | None
    born_at_s: float
    next_poll_s: float
    next_send_s: float
    may_poll_s: float = float("inf")
    prepared: str | None = None
    cancels: tuple[Pubkey, ...] = ()
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

    @property
    def orders(self) -> tuple[Pubkey, ...]:
        """The orders that it is about, the attempt's own first."""
        return tuple(dict.fromkeys((self.attempt.order, *self.cancels)))


class Flights:
    """Open attempts by signature."""

    def __init__(self) -> None:
        self.open: dict[Signature, Flight] = {}
        """By signature; what the journal holds as open is put here and nowhere else."""

    def __repr__(self) -> str:
        return f"Flights({len(self)} open)"

    def __len__(self) -> int:
        return len(self.open)

    def __iter__(self) -> Iterator[Flight]:
        return iter(list(self.open.values()))

    def remove(self, flight: Flight) -> None:
        """Its attempt has ended."""
        self.open.pop(flight.signature, None)

    def __contains__(self, flight: Flight) -> bool:
        return self.open.get(flight.signature) is flight

    @property
    def unrecorded(self) -> list[Flight]:
        """Those whose end the journal refuses."""
        return [flight for flight in self.open.values() if flight.unrecorded]

    @property
    def in_flight(self) -> int:
        """How many have neither landed at confirmed nor died."""
        return sum(1 for flight in self.open.values() if flight.attempt.state.in_flight)


def signed(flight: Flight, *, state: AttemptState | None = None, armed_for_s: float | None = None) -> AttemptMoved:
    """The report of an attempt that is on its way, as of when it was. `armed_for_s`: so long it had been armed."""
    since_s = None if flight.triggered_at_s is None else flight.born_at_s - flight.triggered_at_s
    a = flight.attempt
    return AttemptMoved(
        a.order,
        a.signature,
        a.kind,
        a.number,
        state or AttemptState.SIGNED,
        since_trigger_s=since_s,
        armed_for_s=armed_for_s,
        posted_from=a.posted_from,
    )
