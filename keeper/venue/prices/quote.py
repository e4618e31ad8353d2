"""What an oracle's account says, before it is judged; what is demanded of it; and the price that it then is.

Integers throughout: a float would make two of a price. Nothing here knows an account's layout.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey

LEAST_EXPONENT: Final = -18
MOST_EXPONENT: Final = 6
_MOST_1E6: Final = 1 << 63
_AHEAD_S: Final = 15
"""The chain's clock is voted on, and may be so far behind a feed's."""


class Fault(enum.StrEnum):
    """What is wrong with a feed's account. The values are the metric's labels."""

    MISSING = "missing"
    OWNER = "owner"
    LAYOUT = "layout"
    FEED_ID = "feed_id"
    STATUS = "status"
    VERIFICATION = "verification"
    EXPONENT = "exponent"
    PRICE = "price"
    CONFIDENCE = "confidence"
    TIME = "time"
    AUTHORITY = "authority"


class BadFeed(Exception):
    """A feed's account decides nothing: which of the checks it fails, and a sentence."""

    def __init__(self, fault: Fault, sentence: str) -> None:
        super().__init__(sentence)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Quote:
    """As the account has it: `price` and `confidence` x 10 ** `exponent`, unix seconds, and whose feed it is.

    `trading`: the oracle stands by it. `signatures`: how many have been checked, None for all that the oracle demands.
    `slot` is given where an account may have no time: then that is told by the slot.
    """

    feed_id: bytes
    price: int
    confidence: int
    exponent: int
    publish_time_s: int | None
    trading: bool = True
    signatures: int | None = None
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Now:
    """When an account was read: its slot, the chain's clock in unix seconds, and how many seconds a slot takes."""

    slot: int
    chain_time_s: float
    slot_s: float


@dataclass(frozen=True, slots=True)
class Demands:
    """What has to hold of a market's feed. `max_confidence_ppm`: the confidence, in millionths of the price.
    `min_signatures` None: all that the oracle demands for a price that is verified in full.
    """

    owner: Pubkey
    feed_id: bytes
    max_confidence_ppm: int
    min_signatures: int | None = None


def price_of(quote: Quote, demands: Demands, now: Now) -> tuple[int, int]:
    """The price x 1e6, rounded down, and its unix seconds. BadFeed names the first check that fails."""
    if quote.feed_id != demands.feed_id:
        raise BadFeed(Fault.FEED_ID, f"it is of another feed: {quote.feed_id.hex()}")
    if not quote.trading:
        raise BadFeed(Fault.STATUS, "the oracle does not stand by its price: it is not trading")
    least, checked = demands.min_signatures, quote.signatures
    if checked is not None and (least is None or checked < least):
        wanted = "a full verification" if least is None else least
        raise BadFeed(Fault.VERIFICATION, f"only {checked} signatures of it were checked, and {wanted} is demanded")
    if not LEAST_EXPONENT <= quote.exponent <= MOST_EXPONENT:
        bounds = f"{LEAST_EXPONENT} to {MOST_EXPONENT}"
        raise BadFeed(Fault.EXPONENT, f"its exponent is {quote.exponent}, which is not within {bounds}")
    if quote.price <= 0:
        raise BadFeed(Fault.PRICE, f"its price is {quote.price}, which is none")
    shift = quote.exponent + 6
    price_1e6 = quote.price * 10**shift if shift >= 0 else quote.price // 10**-shift
    if not 0 < price_1e6 < _MOST_1E6:
        raise BadFeed(Fault.PRICE, f"its price is absurd: {quote.price} x 10^{quote.exponent}")
    if quote.confidence < 0 or quote.confidence * 1_000_000 > demands.max_confidence_ppm * quote.price:
        share = quote.confidence * 100 / quote.price
        limit = demands.max_confidence_ppm / 10_000
        raise BadFeed(Fault.CONFIDENCE, f"its confidence is {share:.3g} % of its price, and the limit is {limit:g} %")
    time_s = quote.publish_time_s
    if time_s is None:
        time_s = int(now.chain_time_s - (now.slot - quote.slot) * now.slot_s)
    if time_s > now.chain_time_s + _AHEAD_S:
        ahead_s = time_s - now.chain_time_s
        raise BadFeed(Fault.TIME, f"its time is {ahead_s:.0f} s ahead of the chain's clock: one of the two is behind")
    return price_1e6, time_s
