"""What the keeper says of itself to probes, operators and its supervisor."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Protocol

from keeper.domain.prices import Price


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that readiness depends on, with a sentence for the operator."""

    name: str
    ok: bool
    detail: str = ""


STANDS_BY: Final = "working"
"""The name of the check that fails while another keeper works."""


@dataclass(frozen=True, slots=True)
class Health:
    """`live`: a restart would not help. `ready`: orders are watched, executed and accepted right now.

    `standing_by`: who works while this keeper stands by, empty when nobody does; None when it works itself.
    """

    live: bool
    ready: bool
    checks: tuple[Check, ...] = ()
    standing_by: str | None = None


class FeedShown(Protocol):
    """A market's feed: `market` is its symbol or address, `kind` a word of the settings, `price` the newest that passed
    every check, and `sentence` says what is wrong with the account's newest news; it is empty when nothing is.
    """

    market: str
    kind: str
    price: Price | None
    sentence: str


class RecordingState(enum.StrEnum):
    """Whether what comes in is written down."""

    RECORDING = "recording"
    BEHIND = "behind"
    """The disk is too slow."""
    FULL = "full"
    FAILED = "failed"


class RecorderShown(Protocol):
    """How a recording does."""

    @property
    def state(self) -> RecordingState:
        """Whether it records now."""
        ...

    @property
    def detail(self) -> str:
        """A sentence on why it does not."""
        ...

    @property
    def written_bytes(self) -> int:
        """Since the start."""
        ...

    @property
    def dropped(self) -> int:
        """Entries, since the start."""
        ...
