"""The chain's clock, read now and then, and what of that is believed.

Prices age and orders expire by this clock, so one wrong word of one node would blind every market, and end orders that
have a day left. The clock goes on as this machine's monotonic time does, give or take: a reading that fits is believed.
One that does not is compared with what the other endpoints say; where there is none, the same one has to say it again,
a few times in a row. Until then the clock is what it was, plus the time that passed here.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import anyio

from keeper.domain.events import ChainTime
from keeper.domain.intake import Intake
from keeper.solana.client import ChainClient

_SLACK_S: Final = 5.0
"""Two readings of one clock may differ by so much: it has whole seconds, and validators vote on it."""
_DRIFT: Final = 0.25
"""And by this share of the time between them."""
_ROUNDS: Final = 3
"""So often a jump has to be told, when only one endpoint can be asked."""
_AGAIN_S: Final = 0.5
"""Between two of those times."""
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """At `slot` the clock read `unix_time_s`, and this machine's monotonic one `at_s`."""

    slot: int
    unix_time_s: int
    at_s: float

    def fits(self, other: _Reading) -> bool:
        """Whether both can be readings of one clock."""
        passed_s = self.at_s - other.at_s
        return abs(self.unix_time_s - other.unix_time_s - passed_s) <= _SLACK_S + _DRIFT * abs(passed_s)


class ClockWatch:
    """Tells `intake` of the chain's clock, and `doubt`, in a sentence, of what is not believed at once."""

    def __init__(self, client: ChainClient, intake: Intake[Any], doubt: Callable[[str], None]) -> None:
        self._client = client
        self._intake = intake
        self._doubt = doubt
        self._last: _Reading | None = None

    def __repr__(self) -> str:
        return f"ClockWatch({self._last})"

    @property
    def age_s(self) -> float | None:
        """Seconds since the last reading that was believed; None before the first."""
        return None if self._last is None else time.monotonic() - self._last.at_s

    async def first(self) -> None:
        """Wait for a first reading: one that fits the next one, and those of the other endpoints."""
        pause_s = _FIRST_PAUSE_S
        while True:
            for _ in range(_ROUNDS):
                readings = [*await self._all(), *await self._all()]
                if len(readings) > 1 and _agree(readings):
                    self._believe(readings)
                    return
            if readings:
                self._doubt("what is told of the clock disagrees; what is nearest to this machine's is believed")
                self._believe([min(readings, key=lambda reading: abs(reading.unix_time_s - time.time()))])
                return
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def look(self) -> None:
        """Read it once. ChainError when no endpoint answers."""
        known = self._last
        assert known is not None, "`first` comes before"
        slot, unix_time_s = await self._client.chain_time()
        reading = _Reading(slot, unix_time_s, time.monotonic())
        if slot <= known.slot:
            return
        if not reading.fits(known):
            self._doubt(
                f"a node says that the clock is {unix_time_s} in slot {slot}; it was {known.unix_time_s} in slot "
                f"{known.slot}, {reading.at_s - known.at_s:.1f} s before"
            )
            await self._ask_again(reading, known)
            return
        self._believe([reading])

    async def _ask_again(self, jumped: _Reading, known: _Reading) -> None:
        """Whether it did jump. When nothing is found out, the next look asks again."""
        told = [jumped]
        for _ in range(_ROUNDS):
            readings = [reading for reading in await self._all() if reading.slot > known.slot]
            fitting = [reading for reading in readings if reading.fits(known)]
            if fitting:
                self._believe(fitting)
                return
            told += readings
            if not _agree(told):
                return
            if len(readings) > 1 or len(told) > _ROUNDS:
                self._believe(told)
                return
            await anyio.sleep(_AGAIN_S)

    async def _all(self) -> list[_Reading]:
        return [_Reading(slot, unix_time_s, time.monotonic()) for slot, unix_time_s in await self._client.chain_times()]

    def _believe(self, readings: Sequence[_Reading]) -> None:
        self._last = newest = max(readings, key=lambda reading: reading.slot)
        self._intake.on_event(ChainTime(newest.slot, newest.unix_time_s))


def _agree(readings: Sequence[_Reading]) -> bool:
    return all(one.fits(other) for one, other in itertools.combinations(readings, 2))
