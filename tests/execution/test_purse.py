"""The keeper's money: what may leave its key on a day, what is set aside, and what the balance bears."""

from __future__ import annotations

from pathlib import Path

import pytest
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.execution.gate import Gate
from keeper.execution.purse import BALANCE, DAILY_CAP, Purse, PurseLimits, spent_before
from keeper.journal import AddSpend, Journal

KEEPER = Pubkey.new_unique()
DAY = "2026-01-31"
RENT = 3_723_600


def purse_of(*, cap: int = 10**12, floor: int = 0, spent: int = 0, day: list[str] | None = None) -> Purse:
    days = [DAY] if day is None else day
    limits = PurseLimits(daily_cap_lamports=cap, min_balance_lamports=floor)
    return Purse(KEEPER, limits, rent_lamports=RENT, spent=(days[0], spent), today=lambda: days[0])


def attempt_of(units: int = 100_000, *, fills: bool = False) -> Attempt:
    """One that costs 5,000 lamports and a tenth of a lamport for each hundred units."""
    return Attempt(
        signature=Signature.new_unique(),
        kind=AttemptKind.EXECUTE if fills else AttemptKind.RATCHET,
        order=Pubkey.new_unique(),
        wire=b"\x01",
        blockhash="",
        last_valid_block_height=0,
        state=AttemptState.SIGNED,
        number=1,
        signed_at=0.0,
        unit_limit=units,
        unit_price_micro_lamports=1_000,
        position=Pubkey.new_unique() if fills else None,
    )


def closed_by(purse: Purse) -> set[str]:
    """By what the gate is closed."""
    gate = Gate(lambda report: None)
    purse.brake(gate)
    return set(gate.reasons)


def test_23_the_rent_of_a_fills_position_counts_like_its_fee() -> None:
    purse = purse_of(cap=RENT + 5_100)
    assert purse.reserve(attempt_of(fills=True))
    assert purse.reserved_lamports == RENT + 5_100
    assert not purse.reserve(attempt_of())
    assert not purse_of(cap=RENT + 5_099).reserve(attempt_of(fills=True))


def test_each_signature_is_paid_for() -> None:
    cranked = attempt_of(fills=True)._replace(wire=b"\x02")
    purse = purse_of(cap=RENT + 10_100)
    assert purse.reserve(cranked)
    assert purse.reserved_lamports == RENT + 10_100
    purse.hold(cranked)
    assert purse.reserved_lamports == RENT + 10_100, "the same after a restart"
    assert not purse_of(cap=RENT + 10_099).reserve(cranked)


def test_the_daily_cap_stops_and_the_next_day_goes_on() -> None:
    day = [DAY]
    purse = purse_of(cap=10_000, spent=9_000, day=day)
    assert closed_by(purse) == set()
    purse.spend(1_000, 1)
    assert closed_by(purse) == {DAILY_CAP}
    day[0] = "2026-02-01"
    assert closed_by(purse) == set()
    assert purse.spent_today_lamports == 0


def test_several_keepers_together_stay_below_the_cap_and_above_the_floor() -> None:
    """Each takes it that the others have as much set aside as itself, and hears what they spent."""
    for cap, floor in ((26_000, 0), (10**12, 1_000)):
        purses = [purse_of(cap=cap, floor=floor) for _ in range(3)]
        spent = 0
        for purse in purses:
            purse.keepers = 3
            purse.balance_read(27_000, 1)
        for turn in range(1, 20):
            held = [(purse, attempt) for purse in purses if purse.reserve(attempt := attempt_of(0))]
            assert spent + sum(purse.reserved_lamports for purse in purses) <= 26_000
            for purse, attempt in held:
                spent += 5_000
                purse.spend(5_000, turn + 1)
                purse.release(attempt.signature)
            for purse in purses:
                purse.learn_spent(DAY, spent)
                purse.learn_spent("2026-02-01", 10**9)
                purse.balance_read(27_000 - spent, turn + 1)
        assert spent == 15_000, "the last of it is left unspent"
        assert all(closed_by(purse) for purse in purses)


def test_23_the_days_cap_holds_for_what_could_still_be_paid() -> None:
    day = [DAY]
    purse = purse_of(cap=12_000, day=day)
    first, second, third = (attempt_of(units) for units in (100_000, 200_000, 100_000))
    assert purse.reserve(first)
    assert purse.reserve(second)
    assert not purse.reserve(third)
    assert closed_by(purse) == {DAILY_CAP}
    assert (purse.spent_today_lamports, purse.reserved_lamports) == (0, 5_100 + 5_200)
    purse.spend(5_100, 1)
    purse.release(first.signature)
    assert closed_by(purse) == {DAILY_CAP}, "what was set aside was paid"
    purse.release(second.signature)
    assert closed_by(purse) == set(), "what was set aside was not paid"
    purse.release(second.signature)
    assert purse.reserved_lamports == 0
    for _ in range(2):
        purse.hold(third)
    purse.hold(second)
    assert purse.reserved_lamports == 5_100 + 5_200, "one attempt has one reservation"
    assert closed_by(purse) == {DAILY_CAP}, "more than the cap: these were signed before the start"
    day[0] = "2026-02-01"
    assert purse.reserved_lamports == 5_100 + 5_200, "they can still land after midnight"


# -- a clock that steps back


def test_a_clock_that_steps_back_over_midnight_forgets_nothing() -> None:
    day = ["2026-01-31"]
    purse = purse_of(cap=10_000, day=day)
    purse.spend(4_000, 1)
    day[0] = "2026-02-01"
    purse.spend(6_000, 2)
    for stepped in ("2026-01-31", "2026-02-01", "2026-01-31", "2026-02-01"):
        day[0] = stepped
        assert (purse.day, purse.spent_today_lamports) == ("2026-02-01", 6_000)
    day[0] = "2026-02-02"
    assert (purse.day, purse.spent_today_lamports) == ("2026-02-02", 0)


def test_a_clock_that_was_days_ahead_is_believed_again_and_forgets_nothing() -> None:
    day = ["2031-07-01"]
    purse = purse_of(cap=10_000, day=day)
    purse.spend(6_000, 1)
    day[0] = "2026-01-31"
    assert (purse.day, purse.spent_today_lamports) == ("2026-01-31", 6_000)
    day[0] = "2026-02-01"
    assert (purse.day, purse.spent_today_lamports) == ("2026-02-01", 0)


@pytest.mark.anyio
async def test_a_clock_that_stepped_back_over_midnight_before_a_start_forgets_nothing(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.commit(AddSpend("2026-01-31", 4_000))
        assert await spent_before(journal, "2026-01-31") == ("2026-01-31", 4_000)
        await journal.commit(AddSpend("2026-02-01", 6_000))
        assert await spent_before(journal, "2026-01-31") == ("2026-02-01", 6_000)
        assert await spent_before(journal, "2026-02-01") == ("2026-02-01", 6_000)
        assert await spent_before(journal, "2026-02-02") == ("2026-02-02", 0)


# -- the balance


def test_23_what_is_in_flight_counts_against_the_balance() -> None:
    purse = purse_of(floor=1_000)
    assert purse.reserve(attempt_of(fills=True)), "nothing is known of the balance"
    purse.balance_read(2 * (RENT + 5_100) + 1_000, slot=10)
    assert purse.reserve(attempt_of(fills=True))
    assert not purse.reserve(attempt_of())
    assert closed_by(purse) == {BALANCE}
    purse.balance_read(10**9, slot=11)
    assert closed_by(purse) == set()


def test_what_was_spent_since_the_reading_is_gone_from_the_balance() -> None:
    purse = purse_of()
    fill = attempt_of(fills=True)
    purse.balance_read(RENT + 5_100 + 6_000, slot=10)
    assert purse.reserve(fill)
    purse.spend(RENT + 5_100, 12)
    purse.release(fill.signature)
    assert not purse.reserve(attempt_of(fills=True))
    purse.balance_read(RENT + 5_100 + 6_000, slot=11)
    assert not purse.reserve(attempt_of(fills=True)), "that reading is from before the spending"
    assert purse.reserve(attempt_of())


def test_what_the_reading_has_already_is_not_taken_from_it_twice() -> None:
    purse = purse_of()
    fill = attempt_of(fills=True)
    purse.hold(fill)
    purse.balance_read(6_000, slot=12)
    purse.spend(RENT + 5_100, 12)
    purse.release(fill.signature)
    assert purse.reserve(attempt_of())


def test_a_slot_that_is_not_there_yet_does_not_hide_the_balance_for_good() -> None:
    """A node may lie of the slot that something landed in."""
    purse = purse_of()
    purse.balance_read(10_000, slot=10)
    purse.spend(9_000, 10**9)
    purse.balance_read(1_000_000, slot=20)
    assert not purse.reserve(attempt_of()), "it may be older than the spending"
    purse.balance_read(1_000_000, slot=30)
    assert purse.reserve(attempt_of()), "nothing was spent since the reading before"


@pytest.mark.parametrize("balance", [0, 49_999])
def test_23_below_the_floor_nothing_is_sent(balance: int) -> None:
    purse = purse_of(floor=50_000)
    purse.balance_read(balance, slot=1)
    gate = Gate(lambda report: None)
    purse.brake(gate)
    assert str(KEEPER) in gate.reasons[BALANCE]
    purse.balance_read(50_000, slot=2)
    purse.brake(gate)
    assert gate.is_open
