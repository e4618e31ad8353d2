"""A look into the running keeper, every second: what must hold of it whatever happens.

An order that may be acted on is acted on; one that may not has a reason whose way out is open; and nothing grows. What
is only for a moment otherwise is fine: a sentence counts when it was true at several looks in a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from solders.pubkey import Pubkey

from keeper.domain.orders import Order
from keeper.execution.orders import Reason, Record
from keeper.http.ports import ApiPorts
from tests.chaos.invariants import condition_holds
from tests.simulate.dice import clock

_LOOKS: Final = 6
"""So many looks in a row make a moment a state."""
_PATIENCE: Final = {"ended": 40}
"""What waits for a node waits longer: some of them lie, and some say nothing."""
_MOST: Final = 200
"""No queue, cache or set of a keeper with a handful of orders holds more."""


class Inside:
    """Looks into one life."""

    def __init__(self, ports: ApiPorts) -> None:
        operator: Any = ports.brakes
        self._router: Any = operator._router
        self._journal: Any = ports.journal
        self._seen: Counter[str] = Counter()

    def look(self, addresses: list[Pubkey]) -> list[str]:
        """What is wrong, in sentences."""
        found = set(self._sentences(addresses))
        self._seen = Counter({sentence: self._seen[sentence] + 1 for sentence in sorted(found)})
        return [s for s, looks in self._seen.items() if looks >= _PATIENCE.get(s.split()[-1], _LOOKS)]

    def _sentences(self, addresses: list[Pubkey]) -> Iterator[str]:
        router, mine = self._router, self._journal.markets
        gate = router._executor._gate
        for address in addresses:
            order, record = router.decision.book.get(address), router.orders.get(address)
            if order is not None and mine is not None and str(order.market) not in mine:
                continue
            if record is not None and record.reasons:
                yield from self._blocked(record)
            elif order is not None and gate.is_open and self._is_met(order):
                yield f"order {address} is free, its condition holds, and nothing is done"
        sizes = {
            "records": len(router.orders),
            "pauses": len(router.orders._pauses),
            "flights": len(router._flights),
            "jobs": router._executor.queued,
            "notes": self._journal.waiting_notes,
            "callers": self._journal.waiting_callers,
        }
        for name, size in sizes.items():
            if size > _MOST:
                yield f"the keeper holds {name} without a bound"

    def _is_met(self, order: Order) -> bool:
        decision = self._router.decision
        now_s = self._router.lookout.now_s()
        if order.expired_at(int(now_s)) or decision.held(order.market) is not None:
            return False
        price = decision.prices.fresh(order.market, now_s, decision.rules.max_price_age_s)
        return price is not None and condition_holds(order, price.price_1e6)

    def _blocked(self, record: Record) -> Iterator[str]:
        router, now_s = self._router, clock.monotonic()
        for reason, detail in record.reasons.items():
            match reason:
                case Reason.ATTEMPT:
                    waits = router._executor.queued or not router._executor._gate.is_open
                    stuck = not waits if detail is None else detail not in router._flights.open
                case Reason.CANCEL:
                    stuck = not any(signature in router._flights.open for signature in detail)  # type: ignore[union-attr]
                case Reason.PAUSE:
                    stuck = isinstance(detail, float) and detail < now_s
                case Reason.LATER_PRICE:
                    price = None if record.order is None else router.decision.prices.read(record.order.market)
                    stuck = price is not None and isinstance(detail, int) and price.slot > detail
                case Reason.ENDED:
                    stuck = Reason.ATTEMPT not in record.reasons  # whose read-back tells of the order, too
                case _:
                    stuck = False
            if stuck:
                yield f"order {record.address} waits for what never comes: {reason.name.lower()}"
