"""The keeper's own money: what left its key today, what could still leave it, and what therefore must not be sent.

What leaves the key is the fee of whatever lands, filled or refused, the tip of what lands without an error, and the
rent of each position that a fill creates, which is seven hundred times the fee. An attempt's whole cost is set aside
before its bytes leave, until it has landed or no longer can: otherwise a burst would be signed whole before the first
of it has cost anything. What is set aside counts against the day's cap and against the balance.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt
from keeper.execution.drafting import MICRO
from keeper.execution.gate import Gate
from keeper.journal import Journal
from keeper.solana.transactions import SIGNATURE_FEE_LAMPORTS

DAILY_CAP: Final = "daily_cap"
BALANCE: Final = "balance"
_DAY: Final = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class PurseLimits:
    """Lamports. `daily_cap_lamports`: the most that may leave the key on a UTC day. `min_balance_lamports`: what would
    take the balance below this is not sent.
    """

    daily_cap_lamports: int
    min_balance_lamports: int


def fee_of(attempt: Attempt) -> int:
    """The fee of an attempt of the keeper's if it lands, in lamports; 0 for a user's own transaction. It is for each
    signature, with whose number the transaction's bytes begin.

    The priority fee is price x REQUESTED units, rounded up as the chain does.
    """
    limit, price = attempt.unit_limit, attempt.unit_price_micro_lamports
    return 0 if limit is None or price is None else attempt.wire[0] * SIGNATURE_FEE_LAMPORTS - (-limit * price // MICRO)


def utc_day() -> str:
    """Today in UTC by this machine's clock, `YYYY-MM-DD`."""
    return datetime.datetime.fromtimestamp(time.time(), datetime.UTC).date().isoformat()


def _day_after(day: str) -> str:
    return (datetime.date.fromisoformat(day) + _DAY).isoformat()


async def spent_before(journal: Journal, today: str) -> tuple[str, int]:
    """The day that spending is counted to at a start, and what left the key on it, in lamports. It is the next day's
    when the journal has that already: the clock stepped back over midnight, and what was spent stays spent.
    """
    tomorrow = _day_after(today)
    ahead = await journal.spent(tomorrow)
    return (tomorrow, ahead) if ahead else (today, await journal.spent(today))


class Purse:
    """Counts in lamports. `rent_lamports` is a position's; `spent` is what `spent_before` found; `today` gives the UTC
    day as `YYYY-MM-DD`.
    """

    def __init__(
        self,
        keeper: Pubkey,
        limits: PurseLimits,
        *,
        rent_lamports: int,
        spent: tuple[str, int],
        today: Callable[[], str] = utc_day,
    ) -> None:
        self.limits = limits
        self._keeper = keeper
        self._rent_lamports = rent_lamports
        self._today = today
        self._day, self._spent = spent
        self.keepers = 1
        """So many spend from the key. What this one sets aside counts for each: it is not told what the others do."""
        self._reserved: dict[Signature, int] = {}
        self.reserved_lamports = 0
        """What is set aside for attempts that could still land."""
        self._too_much = 0
        """What found no room last."""
        self._balance: float = math.inf  # until it is read
        self._balance_slot = 0
        self._spent_slot = 0
        self._spent_since = False

    def __repr__(self) -> str:
        return (
            f"Purse({self._balance} lamports, {self._spent} spent on {self._day}, {self.reserved_lamports} set aside)"
        )

    # -- what an attempt takes

    def rent_of(self, attempt: Attempt) -> int:
        """The rent of the position that the attempt creates if it fills."""
        return 0 if attempt.position is None else self._rent_lamports

    def reserve(self, attempt: Attempt) -> bool:
        """Set aside what an attempt may cost. False, and nothing is set aside, when there is no room for it."""
        if self._today() != self._day:
            self._turn_day()
        limits, cost = self.limits, fee_of(attempt) + (attempt.tip_lamports or 0)
        if attempt.position is not None:
            cost += self._rent_lamports
        all_of_it = (self.reserved_lamports + cost) * self.keepers
        if (
            self._spent + all_of_it > limits.daily_cap_lamports
            or self._balance - all_of_it < limits.min_balance_lamports
        ):
            self._too_much = cost
            return False
        self._too_much = 0
        self._reserved[attempt.signature] = cost
        self.reserved_lamports += cost
        return True

    def hold(self, attempt: Attempt) -> None:
        """Set it aside whether there is room or not: it was signed before the start, and could still land."""
        self.release(attempt.signature)
        self._reserved[attempt.signature] = cost = fee_of(attempt) + self.rent_of(attempt) + (attempt.tip_lamports or 0)
        self.reserved_lamports += cost

    def release(self, signature: Signature) -> None:
        """Nothing is set aside for it any more: it has ended, or was not sent."""
        self.reserved_lamports -= self._reserved.pop(signature, 0)

    def learn_spent(self, day: str, lamports: int) -> None:
        """What the journal says that left the key on this day: other keepers may have spent of it."""
        if day == self._day:
            self._spent = max(self._spent, lamports)

    def spend(self, lamports: int, slot: int) -> None:
        """Count what left the key in this slot."""
        self._turn_day()
        self._spent += lamports
        self._spent_slot, self._spent_since = max(self._spent_slot, slot), True
        if slot > self._balance_slot:
            self._balance -= lamports

    def balance_read(self, lamports: int, slot: int) -> None:
        """The key's balance as of a slot. While the keeper spends, a reading from before what it spent last would bring
        that back: it is left out, and what is counted here holds.
        """
        if slot >= self._spent_slot or not self._spent_since:
            self._balance, self._balance_slot = lamports, slot
        self._spent_since = False

    # -- whether there is room

    def brake(self, gate: Gate) -> None:
        """Close the gate while there is no room for what found none last, and lift it when there is."""
        self._turn_day()
        limits, reserved, too_much = self.limits, self.reserved_lamports, self._too_much * self.keepers
        aside = f", and {reserved} are set aside for attempts in flight" if reserved else ""
        if self.keepers > 1:
            reserved *= self.keepers
            aside += f", and as much by each of {self.keepers} keepers" if aside else ""
        if self._spent + reserved + max(1, too_much) > limits.daily_cap_lamports:
            reason = (
                f"what left the key today ({self._spent} lamports{aside}) leaves no room below "
                f"fees.daily_outflow_cap_lamports ({limits.daily_cap_lamports})"
            )
            gate.close(DAILY_CAP, reason)
        else:
            gate.lift(DAILY_CAP)
        if self._balance - reserved - too_much < limits.min_balance_lamports:
            reason = (
                f"the keeper's balance ({self._balance} lamports{aside}) leaves no room above "
                f"fees.min_balance_lamports ({limits.min_balance_lamports}): send SOL to {self._keeper}"
            )
            gate.close(BALANCE, reason)
        else:
            gate.lift(BALANCE)

    # -- the day

    @property
    def day(self) -> str:
        """The UTC day that spending is counted to, `YYYY-MM-DD`."""
        self._turn_day()
        return self._day

    @property
    def spent_today_lamports(self) -> int:
        """What has left the key on that day."""
        self._turn_day()
        return self._spent

    def _turn_day(self) -> None:
        """Forwards only: where the clock steps back over midnight, the day that had begun goes on. A clock that was
        days ahead is believed again, but nothing that was spent is forgotten for it.
        """
        today = self._today()
        if today > self._day:
            self._day, self._spent, self._too_much = today, 0, 0
        elif today != self._day and _day_after(today) < self._day:
            self._day = today
