"""How final a slot is, as a client names it."""

from enum import StrEnum


class Commitment(StrEnum):
    """The three levels that the RPC interface knows.

    `processed` is the newest state, which a fork can still take away; `confirmed` has the votes of a
    supermajority on a real cluster (here: it is some blocks deep); `finalized` never changes again.
    """

    PROCESSED = "processed"
    CONFIRMED = "confirmed"
    FINALIZED = "finalized"


# Agave still reads the older names, and web3.js can send them.
ALIASES = {
    "recent": Commitment.PROCESSED,
    "single": Commitment.CONFIRMED,
    "singleGossip": Commitment.CONFIRMED,
    "root": Commitment.FINALIZED,
    "max": Commitment.FINALIZED,
} | {level.value: level for level in Commitment}
