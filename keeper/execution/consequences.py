"""What a failed attempt means for its order: the fate's policy, put into words, operations and reasons.

The same whether the chain refused a transaction or a simulation of one did. `keeper.execution.fates` says what each
fate's policy is. `following` decides, and touches nothing; `ops` is what the journal must hold of it; `take_effect`
comes after the journal holds that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.attempts import Fate
from keeper.domain.orders import OnchainStatus, Order, OrderState
from keeper.execution.fates import FREE_OF_CHARGE, POLICIES, Next
from keeper.execution.orders import Orders, Reason
from keeper.journal.ops import NoteOrder, NoteState, Op, UseBudget
from keeper.journal.transitions import first_state
from keeper.venue.program_errors import ProgramFailure
from keeper.venue.venue import Venue

WAITS_FOR_ACCOUNT: Final = "it is tried again when its user's account changes"
"""How the reason of an order ends that waits; a restart knows such orders by it."""


@dataclass(frozen=True, slots=True)
class Following:
    """What follows for the order at `address`. `order` is the order as it was last read, None when it is gone;
    `slot` is the failure's; `account` is what it waits for. `generation` is that of the order that was tried; `next`
    and `state` are None when another order is at the address by now.
    """

    address: Pubkey
    generation: int
    order: Order | None
    slot: int
    next: Next | None
    costs_budget: bool
    state: OrderState | None
    reason: str
    account: Pubkey | None


def following(
    orders: Orders,
    venue: Venue,
    address: Pubkey,
    generation: int,
    fate: Fate,
    failure: ProgramFailure,
    order: Order | None,
    slot: int,
) -> Following:
    """Apply the fate's policy to the order of this generation. Where another one was made at its address meanwhile,
    the attempt's end says nothing of that.
    """
    policy = POLICIES[fate]
    step = policy.next
    record = orders.get(address)
    # After a restart the record is of the journal's order until the watch has read the one that is there.
    known = None if record is None else record.order
    another = known is not None and order is not None and known.identity != order.identity
    if record is None or record.generation != generation or another:
        reason = "Another order was made at its address since."
        return Following(address, generation, None, slot, None, False, None, reason, None)
    costs = policy.costs_budget and failure.name not in FREE_OF_CHARGE
    account = venue.user_account_of(order) if order is not None and step is Next.ACCOUNT_CHANGE else None
    used_up = costs and record.tries.left(orders.limits) <= 1 and step in (Next.BACK_OFF, Next.ACCOUNT_CHANGE)
    if used_up or (step is Next.ACCOUNT_CHANGE and account is None):
        step = Next.OPERATOR
    state, reason = _words(fate, step, failure, order, used_up=used_up)
    return Following(address, generation, order, slot, step, costs, state, reason, account)


def ops_of(f: Following) -> list[Op]:
    """What the journal must hold."""
    if f.state is None:
        return []
    budget: list[Op] = [UseBudget(f.address)] if f.costs_budget else []
    return [*budget, *conclusion(f.address, f.order, f.state, f.reason, slot=f.slot)]


def take_effect(f: Following, orders: Orders, now_s: float) -> None:
    """Carry it out. What was tried may have been closed meanwhile and another order made at its address: then nothing
    of it is that order's.
    """
    record = orders.get(f.address)
    if record is None or record.generation != f.generation or f.next is None:
        return
    if f.next is Next.STOP:
        if f.state is OrderState.EXPIRED and f.order is not None and f.order.pending:
            # Its account says pending until its user closes it, and the program will not fill it any more.
            orders.block(record, Reason.EXPIRED)
        else:
            orders.close(f.address, f.order.slot if f.order else f.slot)
        return
    record.tries.failed += 1
    record.tries.used += f.costs_budget
    match f.next:
        case Next.NEXT_PRICE:
            if f.order is not None:
                orders.await_price(record, f.order.market, f.slot)
        case Next.BACK_OFF:
            orders.pause(record, now_s + record.tries.pause_s(orders.limits))
        case Next.ACCOUNT_CHANGE:
            orders.block(record, Reason.ACCOUNT, f.account)
        case Next.OPERATOR:
            orders.block(record, Reason.FAILED)


def conclusion(
    address: Pubkey,
    order: Order | None,
    state: OrderState,
    reason: str,
    *,
    slot: int | None = None,
    position: Pubkey | None = None,
    reopen: bool = False,
) -> list[Op]:
    """What became of an order, for the journal, with the order as it was last read (None when it is gone).

    Two operations: the facts may be older than what the journal has from the watch, which reads at `processed`,
    and are then ignored. What follows from an attempt's end is news all the same.
    """
    facts: list[Op] = [] if order is None else [NoteOrder(order)]
    as_of = order.slot if slot is None and order is not None else slot
    return [*facts, NoteState(address, state, reason, slot=as_of, position=position, reopen=reopen)]


def _words(
    fate: Fate, step: Next, failure: ProgramFailure, order: Order | None, *, used_up: bool
) -> tuple[OrderState, str]:
    name = failure.name + (f" ({failure.detail})" if failure.detail else "")
    if fate is Fate.LOST_RACE:
        if order is None:
            return OrderState.DROPPED, "Its account is gone: its user closed it."
        return first_state(order.status), _LOST.get(order.status, f"It reads {order.status.word} on chain.")
    if fate is Fate.EXPIRED_ORDER:
        return OrderState.EXPIRED, "The program refused it as expired."
    if step is Next.NEXT_PRICE:
        return OrderState.OPEN, f"The chain refused the attempt with {name}; it rests until the price is news."
    if step is Next.BACK_OFF:
        return OrderState.OPEN, f"The last attempt failed with {name}; it is tried again."
    if step is Next.ACCOUNT_CHANGE:
        return OrderState.FAILED, f"The program refused the fill with {name}; {WAITS_FOR_ACCOUNT}."
    if fate is Fate.DRAINS_KEY:
        return OrderState.FAILED, f"It was not sent: {name}. An operator has to look."
    if used_up:
        return OrderState.FAILED, f"Its retry budget is used up; the last attempt failed with {name}."
    return OrderState.FAILED, f"The program refused the fill with {name}; an operator has to look."


_LOST: Final = {
    OnchainStatus.FILLED: "Another transaction than the keeper's last one filled it.",
    OnchainStatus.CANCELLED: "Its user cancelled it first.",
    OnchainStatus.EXPIRED: "It expired first.",
}
