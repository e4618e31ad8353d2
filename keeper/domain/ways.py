"""Ways to send: by which of them an attempt went out, and what each said. None of it is a verdict."""

from __future__ import annotations

import enum
from typing import NamedTuple

from solders.signature import Signature


class Answer(enum.StrEnum):
    """What a way said of an attempt that was sent by it. It proves nothing: only the chain says what landed."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNCLEAR = "unclear"
    """No usable answer: it came too late, the connection broke, or it was something else than an answer."""


class WayRow(NamedTuple):
    """One attempt's sends by one way: an RPC endpoint's label or a sender's name. Times are unix seconds.

    `sends` counts how often the bytes were handed to it. The answer is the last one; None while there is none yet.
    """

    signature: Signature
    way: str
    sent_at: float
    sends: int
    answer: Answer | None = None
    detail: str | None = None
    answered_at: float | None = None

    def and_then(self, later: WayRow) -> WayRow:
        """Both together, where `later` tells of what came after this."""
        told = self if later.answer is None else later
        return self._replace(
            sends=self.sends + later.sends, answer=told.answer, detail=told.detail, answered_at=told.answered_at
        )
