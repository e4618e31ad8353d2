"""An attempt: one signed transaction and everything known about its life.

The journal stores these words, execution moves between them, the API and the metrics show them. Which moves
are allowed is `keeper.execution.lifecycle`'s to say.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from solders.pubkey import Pubkey
from solders.signature import Signature


class AttemptKind(enum.StrEnum):
    """What the transaction is for."""

    EXECUTE = "execute"
    """The keeper fills an order: `execute_conditional_order`."""
    RATCHET = "ratchet"
    """The keeper moves a trailing stop: `update_trailing_stop`."""
    RELAY = "relay"
    """A user's own signed transaction (place or cancel), relayed with identical bytes."""


class AttemptState(enum.StrEnum):
    """Where an attempt stands. What is decided and not signed is no attempt yet: a crash forgets it, and the order
    simply triggers again.
    """

    ARMED = "armed"
    """Signed and committed before its order's condition is met, and not sent. Only memory knows whether it was since:
    after a restart it counts as sent until it can no longer land. What is disarmed leaves the journal.
    """
    SIGNED = "signed"
    """Signature, bytes, blockhash and last valid block height are committed; it may be on its way."""
    SENT = "sent"
    """A node took it. That proves nothing (landing rules): it may land or not."""
    UNKNOWN = "unknown"
    """A send timed out or broke: it may land or not. Only the same bytes may be sent again."""
    SEEN = "seen"
    """Processed; a fork may still drop it."""
    CONFIRMED = "confirmed"
    """Voted by the supermajority; shown to people, not yet closed."""
    FINALIZED = "finalized"
    """Rooted. The only state that closes a success."""
    FAILED = "failed"
    """It landed and the program refused it, at confirmed or better; `error_name` says why."""
    EXPIRED = "expired"
    """It can no longer land, by all three parts of the rule."""
    DRY_RUN = "dry_run"
    """It would have been sent; nothing left the process."""

    @property
    def live(self) -> bool:
        """Whether its signature could still land, or has landed and is not yet rooted."""
        return self in LIVE_STATES

    @property
    def in_flight(self) -> bool:
        """Whether it was sent, and has neither landed at confirmed nor died."""
        return self in IN_FLIGHT_STATES

    @property
    def undecided(self) -> bool:
        """Whether it has neither landed at confirmed nor died, sent or not."""
        return self in IN_FLIGHT_STATES or self is AttemptState.ARMED


IN_FLIGHT_STATES: Final = frozenset({AttemptState.SIGNED, AttemptState.SENT, AttemptState.UNKNOWN, AttemptState.SEEN})
LIVE_STATES: Final = IN_FLIGHT_STATES | {AttemptState.ARMED, AttemptState.CONFIRMED}
BLOCKING: Final = frozenset(
    [(AttemptKind.EXECUTE, state) for state in LIVE_STATES]
    + [(AttemptKind.RATCHET, state) for state in IN_FLIGHT_STATES]
)
"""While an attempt is one of these, no other of the keeper's may be signed for its order (promise 2).

A ratchet that landed can't land again and never fills, so it blocks no longer than it is in flight; a fill blocks until
it is rooted. A relayed transaction is its user's own and blocks nothing here.
"""


class Fate(enum.StrEnum):
    """What an attempt's end means for its order: each has one policy (`keeper.execution.fates`)."""

    EXECUTED = "executed"
    """Filled, with its position."""
    RATCHETED = "ratcheted"
    RELAYED = "relayed"
    LOST_RACE = "lost_race"
    """Someone else was first, or the user cancelled: read the order again, record which, stop."""
    PRICE_MOVED_BACK = "price_moved_back"
    """The condition no longer held on chain: the order rests, at no cost to its budget."""
    PRICE_STALE = "price_stale"
    """The program would not use the oracle's price: wait for a price, not for a timer."""
    MARKET_PAUSED = "market_paused"
    CRANK_REFUSED = "crank_refused"
    """The market did not take the price that was to be posted first: the order had no part in it."""
    EXPIRED_ORDER = "expired_order"
    """The order was past `expires_at`: the program marked it Expired instead of filling it."""
    CANNOT_PAY = "cannot_pay"
    """The user's account can't carry the position: back off until it changes."""
    TRANSIENT = "transient"
    """It could not land (expired signature, exceeded units): worth another try within the budget."""
    REFUSED = "refused"
    """The program refused it for a reason that will not go away by itself."""
    MISCONFIGURED = "misconfigured"
    """The IDL, the program id or an account is wrong: an operator has to look."""
    DRAINS_KEY = "drains_key"
    """A simulation says that it would take more from the keeper's key than it should: it is not sent."""
    NO_POSITION = "no_position"
    """Filled without a position: an alarm, not a success (promise 3)."""
    DRY_RUN = "dry_run"


class Attempt(NamedTuple):
    """One signed transaction, as the journal keeps it.

    `order` is the order's address. `wire` is the exact signed bytes: only these may be sent again.
    `last_valid_block_height` is the RPC's; landing is possible up to it plus one. Prices are x 1e6.
    `*_at` are unix seconds by this machine's clock (for people); latencies are measured monotonically.
    A named tuple, as `Order` is: each step of an attempt makes another one.
    """

    signature: Signature
    kind: AttemptKind
    order: Pubkey
    wire: bytes
    blockhash: str
    last_valid_block_height: int
    state: AttemptState
    number: int
    """1 for the first attempt at this order, counted over its whole life."""
    signed_at: float
    trigger_price_1e6: int | None = None
    trigger_slot: int | None = None
    unit_limit: int | None = None
    unit_price_micro_lamports: int | None = None
    sent_at: float | None = None
    seen_slot: int | None = None
    confirmed_at: float | None = None
    finalized_at: float | None = None
    ended_at: float | None = None
    fate: Fate | None = None
    error_name: str | None = None
    error_program: str | None = None
    error_detail: str | None = None
    fee_lamports: int | None = None
    position: Pubkey | None = None
    """Where the fill's position must be; None when the revision creates none."""
    built_from: str | None = None
    """Of an armed attempt: the reading of its order that its bytes were built from (`reading_of`)."""
    posted_from: Pubkey | None = None
    """The feed's account whose price it posts to its order's market before it executes; None: it posts none. The price
    and the slot that it was read in are the trigger's.
    """
    posted_published_at: int | None = None
    """When the feed's oracle published that price, unix seconds."""
    tip_lamports: int | None = None
    """What it pays a sender for carrying it, once it lands without an error; None: nothing."""
    tip_account: Pubkey | None = None
    """To whom: only ways that ask for a tip to this account may carry it, beside those that ask for none."""
