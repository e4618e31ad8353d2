"""What a failed attempt means for its order: the fate's policy, applied.

The same whether the chain refused a transaction or a simulation of one did. `keeper.execution.fates` says what
each fate's policy is; here it is carried out: charge the budget, write the sentence, and let the order rest,
wait, stop, or stay for an operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from solders.pubkey import Pubkey

from keeper.domain.attempts import Attempt, Fate
from keeper.domain.orders import OnchainStatus, Order, OrderState
from keeper.domain.reports import OrderSettled, Report
from keeper.execution.fates import FREE_OF_CHARGE, POLICIES, Next
from keeper.execution.tries import Tries
from keeper.journal.ops import NoteOrder, NoteState, Op, UseBudget
from keeper.journal.transitions import first_state
from keeper.venue.program import Program
from keeper.venue.program_errors import ProgramFailure

WAITS_FOR_ACCOUNT: Final = "it is tried again when its user's account changes"
"""How the reason of an order ends that waits; a restart knows such orders by it."""

Consequence = Callable[[], None]
"""What follows once the journal holds the operations beside it."""


class Resting(Protocol):
    """What is told of an order; the engine in life."""

    def release(self, address: Pubkey, *, after_price_slot: int | None = None, delay_s: float = 0.0) -> None:
        """The order rests again, after `delay_s`; only a price from a slot after `after_price_slot` counts."""
        ...

    def forget(self, address: Pubkey, slot: int) -> None:
        """Nothing more will come of it, as of `slot`."""
        ...

    def wait_for_account(self, order: Order, account: Pubkey) -> None:
        """The order waits, suspended, until `account` changes."""
        ...


class Consequences:
    """Applies policies. Nothing takes effect here before the journal holds it: see `apply`."""

    def __init__(
        self, program: Program, keeper: Pubkey, tries: Tries, resting: Resting, report: Callable[[Report], None]
    ) -> None:
        self._program = program
        self._keeper = keeper
        self._tries = tries
        self._resting = resting
        self._report = report

    def apply(
        self,
        attempt: Attempt,
        fate: Fate,
        failure: ProgramFailure,
        order: Order | None,
        slot: int,
        ops: list[Op],
        after: list[Consequence],
    ) -> None:
        """Add to `ops` what the journal must hold, and to `after` what to do once it does.

        `order` is the order as it was last read, None when it is gone; `slot` is the failure's.
        """
        address = attempt.order
        policy = POLICIES[fate]
        following = policy.next
        after.append(lambda: self._tries.note_failure(address))
        if policy.costs_budget and failure.name not in FREE_OF_CHARGE:
            if self._tries.left(address) <= 1 and following in (Next.BACK_OFF, Next.ACCOUNT_CHANGE):
                following = Next.OPERATOR
            ops.append(UseBudget(address))
            after.append(lambda: self._charge(address))
        state, reason = _words(fate, following, failure, order)
        ops += conclusion(address, order, state, reason, slot=slot)
        fee = attempt.fee_lamports or 0
        self._report(OrderSettled(address, attempt.signature, attempt.kind, fate, reason, failure.name, fee))
        match following:
            case Next.STOP:
                after.append(lambda: self.ended(address, order.slot if order else slot))
            case Next.NEXT_PRICE:
                after.append(lambda: self._resting.release(address, after_price_slot=slot))
            case Next.BACK_OFF:
                after.append(lambda: self._resting.release(address, delay_s=self._tries.pause_s(address)))
            case Next.ACCOUNT_CHANGE:
                account = self._program.user_account_of(order, self._keeper) if order else None
                if order is not None and account is not None:
                    after.append(lambda: self._resting.wait_for_account(order, account))
            case Next.OPERATOR:
                pass  # it stays suspended until an operator retries it

    def ended(self, address: Pubkey, slot: int) -> None:
        """Nothing more will come of this order."""
        self._tries.forget(address)
        self._resting.forget(address, slot)

    def _charge(self, address: Pubkey) -> None:
        self._tries.charge(address)


def conclusion(
    address: Pubkey,
    order: Order | None,
    state: OrderState,
    reason: str,
    *,
    slot: int | None = None,
    position: Pubkey | None = None,
) -> list[Op]:
    """What became of an order, for the journal, with the order as it was last read (None when it is gone).

    Two operations: the facts may be older than what the journal has from the watch, which reads at `processed`,
    and are then ignored. What follows from an attempt's end is news all the same.
    """
    facts: list[Op] = [] if order is None else [NoteOrder(order)]
    as_of = order.slot if slot is None and order is not None else slot
    return [*facts, NoteState(address, state, reason, slot=as_of, position=position)]


def _words(fate: Fate, following: Next, failure: ProgramFailure, order: Order | None) -> tuple[OrderState, str]:
    name = failure.name + (f" ({failure.detail})" if failure.detail else "")
    if fate is Fate.LOST_RACE:
        if order is None:
            return OrderState.DROPPED, "Its account is gone: its user closed it."
        return first_state(order.status), _LOST.get(order.status, f"It reads {order.status.word} on chain.")
    if fate is Fate.EXPIRED_ORDER:
        return OrderState.EXPIRED, "The program refused it as expired."
    if following is Next.NEXT_PRICE:
        return OrderState.OPEN, f"The chain refused the attempt with {name}; it rests until the price is news."
    if following is Next.BACK_OFF:
        return OrderState.OPEN, f"The last attempt failed with {name}; it is tried again."
    if following is Next.ACCOUNT_CHANGE:
        return OrderState.FAILED, f"The program refused the fill with {name}; {WAITS_FOR_ACCOUNT}."
    if POLICIES[fate].next is not Next.OPERATOR:
        return OrderState.FAILED, f"Its retry budget is used up; the last attempt failed with {name}."
    return OrderState.FAILED, f"The program refused the fill with {name}; an operator has to look."


_LOST = {
    OnchainStatus.FILLED: "Another transaction than the keeper's last one filled it.",
    OnchainStatus.CANCELLED: "Its user cancelled it first.",
    OnchainStatus.EXPIRED: "It expired first.",
}
