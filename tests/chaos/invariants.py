"""What must be true of an order once the network is well again, from the chain's record and the journal alone.

Two sorts of findings. `broken` can never become right: the campaign stops at it at once. `unsettled` is not right
yet; it is a violation only when it is still there after the time that convergence may take.

The rules of the program are written down here once more, not imported from the keeper: a check that shares the
keeper's mistakes finds none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.orders import Market, OnchainStatus, Order, OrderState, OrderType, Position, Side
from keeper.journal import Queries
from keeper.journal.records import OrderRow
from tests.support import PROGRAM

EXECUTE = PROGRAM.idl.instruction("execute_conditional_order").discriminator
_ENDS = frozenset({AttemptState.FINALIZED, AttemptState.FAILED, AttemptState.EXPIRED})
_STATE_OF = {
    OnchainStatus.FILLED: OrderState.FILLED,
    OnchainStatus.CANCELLED: OrderState.CANCELLED,
    OnchainStatus.EXPIRED: OrderState.EXPIRED,
}


class Landed(Protocol):
    """A transaction in a block of that time; `err` is None for success, `keys` are its accounts, the payer first."""

    @property
    def signature(self) -> Signature: ...
    @property
    def slot(self) -> int: ...
    @property
    def time(self) -> int: ...
    @property
    def err(self) -> Any: ...
    @property
    def keys(self) -> tuple[Pubkey, ...]: ...
    @property
    def transaction(self) -> VersionedTransaction: ...


class Landing(Protocol):
    """Where an attempt landed, and how."""

    @property
    def slot(self) -> int: ...
    @property
    def err(self) -> Any: ...


class Record(Protocol):
    """What the chain's record says, all of it at one moment. A `World` is one of its embedded chain."""

    def order(self, address: Pubkey) -> Order | None: ...
    def position(self, order: Pubkey) -> Position | None: ...
    def market_state(self, address: Pubkey) -> Market: ...
    def history(self, address: Pubkey) -> Sequence[Landed]: ...
    def landed(self, signature: Signature) -> Landing | None: ...
    def is_final(self, slot: int) -> bool: ...
    def now(self) -> int: ...


@dataclass(slots=True)
class Findings:
    """Sentences about one episode's orders."""

    broken: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)


def condition_holds(order: Order, price_1e6: int) -> bool:
    """Whether the program would fill the order at this price (the table of revision 0.2)."""
    if order.order_type is OrderType.LIMIT:
        fires_below, trigger = order.side is Side.LONG, order.price_1e6
    elif order.order_type is OrderType.TAKE_PROFIT:
        fires_below, trigger = order.side is Side.SHORT, order.stop_price_1e6
    else:
        fires_below, trigger = order.side is Side.LONG, order.stop_price_1e6
    return price_1e6 <= trigger if fires_below else price_1e6 >= trigger


def executions_on_chain(record: Record, order: Pubkey) -> list[Landed]:
    """Every execution of this order that succeeded, on the fork that survived.

    One that comes after the order's expiry succeeds too: it marks the order Expired and fills nothing.
    """
    return [landed for landed in record.history(order) if landed.err is None and _executes(landed, order)]


def _executes(landed: Landed, order: Pubkey) -> bool:
    return any(
        landed.keys[instruction.program_id_index] == PROGRAM.id
        and bytes(instruction.data[:8]) == EXECUTE
        and order in [landed.keys[i] for i in bytes(instruction.accounts)]
        for instruction in landed.transaction.message.instructions
    )


def check(
    record: Record,
    journal: Queries,
    keeper: Pubkey,
    orders: Iterable[Pubkey],
    acked: Iterable[Pubkey],
    may_fail: Container[Pubkey],
    since_slot: int = 0,
) -> Findings:
    """Look at these orders. `acked` are those whose placing the keeper's API had accepted; `may_fail` those whose users
    can't pay for them, and nobody else's order may be given up. The present keeper runs since `since_slot`.
    """
    findings = Findings()
    for address in orders:
        _check_order(record, journal, keeper, address, findings, may_fail=address in may_fail, since_slot=since_slot)
    for address in acked:
        row = journal.order(address)
        if row is None:
            findings.broken.append(f"order {address}: its placing was accepted, and the journal does not know it")
        elif row.state in (OrderState.PREPARED, OrderState.SUBMITTED, OrderState.CANCELLING):
            findings.unsettled.append(f"order {address}: its placing was accepted, and it is still {row.state}")
    still_open = journal.open_attempts()
    findings.unsettled += [
        f"attempt {attempt.signature} at order {attempt.order} is still {attempt.state}"
        for attempt in still_open
        if attempt.state is not AttemptState.ARMED or not _rests(record, attempt.order)
    ]
    live = Counter(attempt.order for attempt in still_open if attempt.kind is AttemptKind.EXECUTE)
    findings.broken += [
        f"order {address} has {n} live executions in the journal (promise 2)" for address, n in live.items() if n > 1
    ]
    return findings


def _rests(record: Record, address: Pubkey) -> bool:
    """Whether an attempt at the order may be armed for long."""
    order = record.order(address)
    return order is not None and order.pending


def _check_order(
    record: Record,
    journal: Queries,
    keeper: Pubkey,
    address: Pubkey,
    findings: Findings,
    *,
    may_fail: bool,
    since_slot: int,
) -> None:
    order = record.order(address)
    executions = executions_on_chain(record, address)
    fills = [] if order is not None and order.status is OnchainStatus.EXPIRED else executions
    position = record.position(address)
    row = journal.order(address)
    attempts = journal.attempts_of(address)
    name = f"order {address}"

    if len(executions) > 1:
        findings.broken.append(f"{name} was executed {len(executions)} times: {[str(e.signature) for e in executions]}")
    if (position is not None) != (len(fills) == 1):
        findings.broken.append(f"{name} has {len(fills)} fills and {'a' if position else 'no'} position")
    if order is not None and (order.status is OnchainStatus.FILLED) != (len(fills) == 1):
        findings.broken.append(f"{name} reads {order.status.word} and has {len(fills)} fills")
    if (
        order is not None
        and position is not None
        and (
            (position.user, position.market, position.side) != (order.user, order.market, order.side)
            or position.size_1e6 != order.filled_size_1e6
        )
    ):
        findings.broken.append(f"{name}: its position is not what it asked for: {position}")
    for attempt in attempts:
        _check_attempt(record, attempt, findings)
    executed = [attempt for attempt in attempts if attempt.fate is Fate.EXECUTED]
    if len(executed) > 1:
        findings.broken.append(f"{name}: the journal counts {len(executed)} executions")

    if order is None:
        # A fork took its placing, or its user closed it, or never signed what was prepared. The keeper may never have
        # seen it.
        if row is not None and not row.state.terminal and row.state is not OrderState.PREPARED:
            findings.unsettled.append(f"{name} is gone and the journal says {row.state}: {row.reason}")
        return
    if row is None:
        # One that came and ended while no keeper ran was never seen by one: lists name the pending orders alone.
        if order.pending:
            findings.unsettled.append(f"{name} is pending on chain and the journal does not know it")
        elif attempts:
            findings.broken.append(f"{name} was attempted and the journal does not know it")
        return
    if not row.reason:
        findings.broken.append(f"{name} is {row.state} without a reason")
    if order.pending:
        _check_pending(record, order, row, findings, may_fail=may_fail)
        return
    if row.state is not _STATE_OF.get(order.status) and not _expired_first(record, order, row, since_slot):
        findings.unsettled.append(f"{name} reads {order.status.word} and the journal says {row.state}: {row.reason}")
    if fills:
        own = fills[0].keys[0] == keeper
        if own and [attempt.signature for attempt in executed] != [fills[0].signature]:
            findings.unsettled.append(
                f"{name}: the keeper's fill {fills[0].signature} is not its execution in the journal"
            )
        if not own and executed:
            findings.broken.append(f"{name} was filled by another, and the journal counts it as the keeper's")
        if own and position is not None and row.position != position.address:
            findings.unsettled.append(f"{name}: the journal has the position {row.position}, not {position.address}")


def _expired_first(record: Record, order: Order, row: OrderRow, since_slot: int) -> bool:
    """Whether its user cancelled it when it was past its expiry, before the present keeper was ready: a start does not
    ask what became of orders whose end is told, and that it expired is true.
    """
    if row.state is not OrderState.EXPIRED or order.status is not OnchainStatus.CANCELLED:
        return False
    landed = [landed for landed in record.history(order.address) if landed.err is None]
    cancel = max(landed, key=lambda landed: landed.slot, default=None)
    return cancel is not None and cancel.slot <= since_slot and order.expired_at(cancel.time)


def _check_pending(record: Record, order: Order, row: OrderRow, findings: Findings, *, may_fail: bool) -> None:
    name = f"order {order.address}"
    market = record.market_state(order.market)
    if order.expired_at(record.now()):
        if row.state is not OrderState.EXPIRED:
            findings.unsettled.append(f"{name} is past its expiry and the journal says {row.state}")
    elif row.state is OrderState.FAILED:
        if not may_fail:
            findings.unsettled.append(f"{name} was given up, and its user can pay for it: {row.reason}")
    elif condition_holds(order, market.last_oracle_price_1e6):
        findings.unsettled.append(
            f"{name} ({order.order_type.word} {order.side.word}): its condition holds at "
            f"{market.last_oracle_price_1e6 / 1e6:g}, it is not filled; the journal says {row.state}: {row.reason}"
        )
    elif row.state is not OrderState.OPEN:
        findings.unsettled.append(f"{name} rests on chain and the journal says {row.state}: {row.reason}")


def _check_attempt(record: Record, attempt: Attempt, findings: Findings) -> None:
    """An attempt's end in the journal is what the chain's record says; the ends are final, so wrong ones stay."""
    landed = record.landed(attempt.signature)
    if attempt.state not in _ENDS:
        return
    name = f"attempt {attempt.signature} at order {attempt.order}"
    if attempt.state is AttemptState.EXPIRED:
        if landed is not None:
            findings.broken.append(f"{name} is called expired and landed in slot {landed.slot} with {landed.err}")
    elif landed is None:
        findings.broken.append(f"{name} is called {attempt.state} and is not on chain")
    elif (landed.err is None) != (attempt.state is AttemptState.FINALIZED):
        findings.broken.append(f"{name} is called {attempt.state} and landed with {landed.err}")
    elif attempt.state is AttemptState.FINALIZED and not record.is_final(landed.slot):
        findings.broken.append(f"{name} is called finalized and is not yet")
    elif attempt.kind is AttemptKind.EXECUTE and attempt.state is AttemptState.FINALIZED and attempt.fate is None:
        findings.broken.append(f"{name} ended without a fate")
