"""Named points between two steps, where a test can kill or stop the process.

A promise that holds through kill -9 has to be tried at each place where a kill hurts most. With the environment
variable QUANTDESK_CRASH_AT="journaled:3" the process sends itself SIGKILL the third time it passes that point, and
with "journaled:3:stop" SIGSTOP, from which the test lets it go on when it is too late.
Without it a point is one comparison.
"""

from __future__ import annotations

import os
import signal
from typing import Final

POINTS: Final = (
    "decided",  # a job was taken from the queue; nothing is signed
    "signed",  # signed in memory, not journaled
    "journaled",  # the journal holds it, as armed where a lone tick waited for it; nothing was sent
    "sent",  # the bytes left; the journal still says signed
    "armed",  # signed and committed before its order's condition is met
    "launched",  # an attempt left that the journal holds as armed
    "sent_journaled",  # the journal says sent
    "seen_journaled",  # the journal says processed
    "landed",  # confirmed, not read back
    "confirmed_journaled",  # the journal says confirmed, the book was not told
    "failed",  # failed on chain, the journal does not know yet
    "failed_journaled",  # the journal says failed, the order was not released
    "expired",  # it can no longer land, the journal does not know yet
    "finalized_journaled",  # closed
    "relay_journaled",  # a user's transaction is accepted; nothing was sent
    "recovering",  # open attempts were loaded, none looked up
)

_wanted, _count, _how = (*os.environ.get("QUANTDESK_CRASH_AT", "").split(":"), "", "")[:3]
_left = int(_count or 1)
if _wanted and _wanted not in POINTS:
    raise ValueError(f"QUANTDESK_CRASH_AT names no point: {_wanted}; the points are {', '.join(POINTS)}")


tried: Final = bool(_wanted)
"""Whether a test wants a kill at all: the hot path asks this first."""


def point(name: str) -> None:
    """Pass a point; kill the process there if a test asked for it."""
    global _left
    if name == _wanted:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGSTOP if _how == "stop" else signal.SIGKILL)
