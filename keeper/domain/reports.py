"""What happened, in one frozen record that feeds both the log line and the metric.

`event` is a dotted constant; `telemetry` decides the level and the metric by the record's type and state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import AttemptKind, AttemptState, Fate
from keeper.domain.ways import Answer


@dataclass(frozen=True, slots=True)
class AttemptMoved:
    """An attempt changed state. `since_trigger_s` is measured monotonically from the arrival of the deciding news, None
    when the trigger was before this process; `slots_since_trigger` from the price's slot. `armed_for_s` is how long it
    had been armed when it was sent, None when it was signed for the trigger. `posted_from` is told of one that is
    signed and posts a price first: the feed's account.
    """

    order: Pubkey
    attempt: Signature
    kind: AttemptKind
    number: int
    state: AttemptState
    fate: Fate | None = None
    error_name: str | None = None
    detail: str | None = None
    slot: int | None = None
    since_trigger_s: float | None = None
    slots_since_trigger: int | None = None
    armed_for_s: float | None = None
    posted_from: Pubkey | None = None


@dataclass(frozen=True, slots=True)
class OrderTriggered:
    """A fresh price met an order's condition, and the executor was told."""

    event: ClassVar[str] = "order.triggered"
    order: Pubkey
    market: Pubkey
    order_type: str
    price_1e6: int
    slot: int


@dataclass(frozen=True, slots=True)
class OrderSettled:
    """An attempt's end was applied to its order: `fate` says what it means, `reason` is for people.

    `fee_lamports` is the fee that the keeper paid when it landed, `rent_lamports` what it put into the position, and
    `tip_lamports` what it paid a sender.
    """

    event: ClassVar[str] = "order.settled"
    order: Pubkey
    attempt: Signature
    kind: AttemptKind
    fate: Fate
    reason: str
    error_name: str | None = None
    fee_lamports: int = 0
    rent_lamports: int = 0
    tip_lamports: int | None = None


@dataclass(frozen=True, slots=True)
class FillWithoutPosition:
    """ALARM: an order reads Filled and its position is not there (promise 3)."""

    event: ClassVar[str] = "alarm.fill_without_position"
    order: Pubkey
    attempt: Signature
    position: Pubkey | None


@dataclass(frozen=True, slots=True)
class FillAccepted:
    """An order reads Filled, and the program's revision creates no position: the operator accepts such fills."""

    event: ClassVar[str] = "order.filled_without_position"
    order: Pubkey
    attempt: Signature


@dataclass(frozen=True, slots=True)
class FillOffCondition:
    """Another executor had the program judge an order by the price of a market that is not its own (revision 0.1)."""

    event: ClassVar[str] = "order.filled_off_condition"
    order: Pubkey
    attempt: Signature
    market: Pubkey
    executor: Pubkey


@dataclass(frozen=True, slots=True)
class GateChanged:
    """Sending was stopped or goes on. `reason` is empty when it goes on."""

    event: ClassVar[str] = "executor.gate"
    open: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Anything else worth a line: `event` says what, `detail` is one sentence. `level` is a logging level's name."""

    event: str
    detail: str
    level: str = "info"
    order: Pubkey | None = None
    attempt: Signature | None = None


@dataclass(frozen=True, slots=True)
class GroupDone:
    """One finished group of the journal's operations, for the metrics.

    `seconds` is from its first operation's start to durable. `problem` is None when it committed.
    """

    callers: int = 0
    ops: int = 0
    notes: int = 0
    refused: int = 0
    seconds: float = 0.0
    problem: str | None = None
    inline: bool = False
    """Whether it was committed on the event loop's thread, which could do nothing else meanwhile."""


@dataclass(frozen=True, slots=True)
class ArmingDone:
    """One round of arming that changed something: `armed` now, of which `signed` are new and `again` were signed again
    with a newer blockhash or for a changed order; `disarmed` are armed no more. `seconds` of the event loop's time it
    took.
    """

    event: ClassVar[str] = "arming.done"
    armed: int
    signed: int
    again: int
    disarmed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class WaySent:
    """So many attempts were handed to a way: an RPC endpoint's label or a sender's name."""

    event: ClassVar[str] = "way.sent"
    way: str
    attempts: int


@dataclass(frozen=True, slots=True)
class WayAnswered:
    """What a way said of so many attempts, `seconds` after it was handed them. It is no verdict on any of them."""

    event: ClassVar[str] = "way.answered"
    way: str
    answer: Answer
    attempts: int
    seconds: float
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class WayLanded:
    """An attempt that this way had carried, maybe beside others, is in a block."""

    event: ClassVar[str] = "way.landed"
    way: str
    order: Pubkey
    attempt: Signature


Report = (
    ArmingDone
    | AttemptMoved
    | OrderTriggered
    | OrderSettled
    | FillWithoutPosition
    | FillAccepted
    | FillOffCondition
    | GateChanged
    | WaySent
    | WayAnswered
    | WayLanded
    | Note
)
