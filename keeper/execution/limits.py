"""What bounds execution, and what of that an operator can set (`keeper.app.limits` makes these of the settings).

The bounds of retries are beside what they bound, in `tries`, and those of money in `drafting` and `purse`.
"""

from __future__ import annotations

from dataclasses import dataclass

from keeper.execution.drafting import FeeRules
from keeper.execution.purse import PurseLimits
from keeper.execution.tries import RetryLimits
from keeper.solana.client import BLOCKHASH_BLOCKS


@dataclass(frozen=True, slots=True)
class ExecutorLimits:
    """`max_in_flight`: how many attempts may be open before the loop waits. `first_batch`: how many are signed and
    journaled together at first, so that the first of a burst do not wait for the others; twice as many each time while
    more wait, up to `batch`, so that an fsync is shared by many. `one_send`: how many go to a node in one request,
    which must stay below its body limit; `concurrent_sends`: requests on the wire at once. `journal_rest_s`: the
    pause, in seconds, after the journal has not taken something. `keeps_s`: so long, in seconds, a decision that is
    signed may wait for the journal; then it is decided again. `at_once`: so many orders are signed, journaled and
    sent in one step of the event loop. `step`: transactions signed before the event loop may do something else, which
    is about 3 ms.
    """

    max_in_flight: int
    first_batch: int = 16
    batch: int = 256
    one_send: int = 64
    concurrent_sends: int = 4
    journal_rest_s: float = 1.0
    keeps_s: float = 1.0
    at_once: int = 4
    step: int = 32


@dataclass(frozen=True, slots=True)
class ArmingLimits:
    """`a_side`: so many orders are armed of a market and direction, those nearest to their triggers; 0: none.
    `signatures_per_s` bounds the signatures of arming. An armed attempt is signed again once its blockhash is
    `renew_blocks_old` blocks older than the newest one, and is not sent once it is `most_blocks_old`: a blockhash lives
    150 blocks, and the newest that is known may itself be 50 old. One from before a restart, in whose place nothing may
    be signed, is sent until it is `dead_blocks_old`. `step`: transactions signed before the event loop may do something
    else.
    """

    a_side: int
    signatures_per_s: float
    renew_blocks_old: int = 50
    most_blocks_old: int = 80
    dead_blocks_old: int = BLOCKHASH_BLOCKS
    step: int = 8


@dataclass(frozen=True, slots=True)
class LandingLimits:
    """Seconds. A young attempt is asked for often, an old one rarely: the pause is half its age, at least `poll_min_s`
    and a quarter of a slot, at most `poll_max_s`, which it is while every node rests. `final_poll_s`: how often one is
    asked for that only waits to be rooted. `resend_every_s`: how often the same bytes go out again while it is in
    flight. `height_every_s`: how often the finalized block height is read while something could expire.
    """

    final_poll_s: float
    resend_every_s: float
    height_every_s: float
    send_deadline_s: float
    poll_min_s: float = 0.05
    poll_max_s: float = 1.0


@dataclass(frozen=True, slots=True)
class ExecutionLimits:
    """What an operator can set of it. `account_every_s` is in seconds; each other record says its own units."""

    retries: RetryLimits
    landing: LandingLimits
    fees: FeeRules
    purse: PurseLimits
    arming: ArmingLimits
    max_in_flight: int
    account_every_s: float
    accept_fills_without_position: bool
    dry_run: bool
