"""Oracles' accounts: real ones are read, and nothing is accepted that a second reading does not accept, too."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from keeper.solana.client import AccountBytes
from keeper.venue.prices.layouts import KINDS
from keeper.venue.prices.quote import BadFeed, Demands, Fault, Now, price_of
from keeper.venue.prices.watching import Feed
from tests.venue.feed_accounts import (
    BONK_PRODUCT,
    BONK_USD,
    DEVNET_NVDA,
    DSOL_SLOT,
    DSOL_VALUE,
    MAINNET_SOL_USD,
    NVDA_USD,
    OWNERS,
    SOL_USD,
    SOL_USD_ACCOUNT,
    Asked,
    judge,
    pull,
    update,
)

MARKET: Final = Pubkey.new_unique()
NOBODY: Final = Pubkey.new_unique()


def asked(kind: str, **changes: Any) -> Asked:
    return Asked(OWNERS[kind], **{"feed_id": SOL_USD, **changes})


def accepted(kind: str, owner: Pubkey, data: bytes, wanted: Asked) -> tuple[int, int] | Fault:
    """What the keeper makes of an account: a price x 1e6 and its time, or the fault."""
    demands = Demands(wanted.owner, wanted.feed_id, wanted.max_confidence_ppm, wanted.min_signatures)
    feed = Feed("SOL/USDC", kind, SOL_USD_ACCOUNT, demands)
    now = Now(wanted.slot, wanted.chain_time_s, wanted.slot_s)
    price = feed.take(AccountBytes(SOL_USD_ACCOUNT, owner, 1, data), MARKET, now)
    if price is None:
        assert feed.fault is not None
        assert feed.sentence
        return feed.fault
    assert (feed.fault, feed.sentence) == (None, "")
    return price.price_1e6, price.updated_at_s


# -- real ones


def test_pyths_sol_usd_of_mainnet() -> None:
    wanted = asked("pyth", chain_time_s=1_791_360_268.0)
    assert accepted("pyth", OWNERS["pyth"], MAINNET_SOL_USD, wanted) == (118_621_644, 1_791_360_258)


def test_a_price_that_five_guardians_signed_is_taken_only_where_that_is_enough() -> None:
    owner = OWNERS["pyth"]
    for least, expected in ((None, Fault.VERIFICATION), (6, Fault.VERIFICATION), (5, (220_190_000, 1_780_598_260))):
        wanted = asked("pyth", feed_id=NVDA_USD, min_signatures=least)
        assert accepted("pyth", owner, DEVNET_NVDA, wanted) == expected


def test_pyths_old_oracle_of_mainnet() -> None:
    wanted = asked("pyth-legacy", feed_id=BONK_PRODUCT, max_confidence_ppm=20_000)
    assert accepted("pyth-legacy", OWNERS["pyth-legacy"], BONK_USD, wanted) == (14, 1_702_120_657)


def test_switchboards_dsol_of_mainnet_is_as_old_as_its_slot() -> None:
    """As account 8an9aE6j4STjv1cNXaE7SJfqmfjgLUHpBKURjqcAQJbQ had it: its own time is half a year older."""
    wanted = asked("switchboard", slot=DSOL_SLOT + 555)
    time_s = int(wanted.chain_time_s - 555 * wanted.slot_s)
    assert accepted("switchboard", OWNERS["switchboard"], pull(high=DSOL_VALUE + 10**16), wanted) == (
        226_556_945,
        time_s,
    )


# -- every check, by name


@pytest.mark.parametrize(
    ("kind", "data", "fault"),
    [
        ("pyth", update(NVDA_USD), Fault.FEED_ID),
        ("pyth", update(signatures=18), Fault.VERIFICATION),
        ("pyth", update(price=0), Fault.PRICE),
        ("pyth", update(price=-1), Fault.PRICE),
        ("pyth", update(price=2**63 - 1, exponent=0), Fault.PRICE),
        ("pyth", update(price=9, exponent=-8, confidence=0), Fault.PRICE),
        ("pyth", update(exponent=-19), Fault.EXPONENT),
        ("pyth", update(exponent=7), Fault.EXPONENT),
        ("pyth", update(exponent=-(2**31)), Fault.EXPONENT),
        ("pyth", update(confidence=100_000_001), Fault.CONFIDENCE),
        ("pyth", update(time_s=1_800_000_016), Fault.TIME),
        ("pyth", update(time_s=2**62), Fault.TIME),
        ("pyth", update()[:-1], Fault.LAYOUT),
        ("pyth", update() + b"\0", Fault.LAYOUT),
        ("pyth", b"", Fault.LAYOUT),
        ("pyth", BONK_USD, Fault.LAYOUT),
        ("pyth", update()[:40] + b"\2" + update()[41:], Fault.LAYOUT),
        ("pyth-legacy", update(), Fault.LAYOUT),
        ("pyth-legacy", bytes(3_312), Fault.LAYOUT),
        ("pyth-legacy", BONK_USD[:4] + b"\1" + BONK_USD[5:], Fault.LAYOUT),
        ("pyth-legacy", BONK_USD[:224] + b"\2" + BONK_USD[225:], Fault.STATUS),
        ("pyth-legacy", BONK_USD[:224] + b"\0" + BONK_USD[225:], Fault.STATUS),
        ("switchboard", update(), Fault.LAYOUT),
        ("switchboard", pull(NVDA_USD), Fault.FEED_ID),
        ("switchboard", pull(samples=2, least=3), Fault.STATUS),
        ("switchboard", pull(samples=0, least=0), Fault.STATUS),
        ("switchboard", pull(slot=0), Fault.STATUS),
        ("switchboard", pull(value=-1), Fault.PRICE),
        ("switchboard", pull(low=DSOL_VALUE + 1, high=DSOL_VALUE + 2), Fault.PRICE),
        ("switchboard", pull(value=2**126, low=0, high=2**126), Fault.PRICE),
        ("switchboard", pull(deviation=DSOL_VALUE), Fault.CONFIDENCE),
        ("switchboard", pull(deviation=-1), Fault.CONFIDENCE),
        ("switchboard", pull(slot=400_000_100), Fault.TIME),
        ("switchboard", pull(time_s=1_800_000_016), Fault.TIME),
    ],
)
def test_what_is_wrong_is_named(kind: str, data: bytes, fault: Fault) -> None:
    wanted = asked(kind, feed_id=BONK_PRODUCT if kind == "pyth-legacy" else SOL_USD)
    assert accepted(kind, OWNERS[kind], data, wanted) is fault
    assert judge(kind, OWNERS[kind], data, wanted) is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_account_of_another_program_is_none(kind: str) -> None:
    good = {"pyth": update(), "pyth-legacy": BONK_USD, "switchboard": pull()}[kind]
    assert accepted(kind, NOBODY, good, asked(kind)) is Fault.OWNER


def test_an_account_that_is_gone_is_named() -> None:
    feed = Feed("SOL/USDC", "pyth", SOL_USD_ACCOUNT, Demands(OWNERS["pyth"], SOL_USD, 10_000))
    now = Now(1, 1_800_000_000.0, 0.4)
    assert feed.take(None, MARKET, now) is None
    assert feed.fault is Fault.MISSING
    assert feed.take(AccountBytes(SOL_USD_ACCOUNT, OWNERS["pyth"], 0, b""), MARKET, now) is None
    assert feed.fault is Fault.MISSING


def test_a_clock_that_goes_back_is_named_and_the_price_stays() -> None:
    feed = Feed("SOL/USDC", "pyth", SOL_USD_ACCOUNT, Demands(OWNERS["pyth"], SOL_USD, 10_000))

    def take(time_s: int) -> object:
        account = AccountBytes(SOL_USD_ACCOUNT, OWNERS["pyth"], 1, update(time_s=time_s))
        return feed.take(account, MARKET, Now(1, 1_800_000_000.0, 0.4))

    assert take(1_799_999_990) is not None
    assert take(1_799_999_900) is None
    assert feed.fault is Fault.TIME
    assert feed.price is not None
    assert feed.price.updated_at_s == 1_799_999_990
    assert take(1_799_999_991) is not None
    assert feed.fault is None


def test_news_of_a_node_that_is_behind_is_late_and_of_an_impossible_slot_is_not() -> None:
    feed = Feed("SOL/USDC", "pyth", SOL_USD_ACCOUNT, Demands(OWNERS["pyth"], SOL_USD, 10_000))
    assert not feed.late(0)
    account = AccountBytes(SOL_USD_ACCOUNT, OWNERS["pyth"], 1, update())
    for newest in (500_000_000, 2**60):  # the second is a node's that says too much: it must not make all others late
        feed.take(account, MARKET, Now(newest, 1_800_000_000.0, 0.4))
        assert feed.late(newest - 1)
        assert not feed.late(newest)
        assert not feed.late(newest - 1_001)


# -- properties


@given(
    price=st.integers(-(2**63), 2**63 - 1),
    confidence=st.integers(0, 2**64 - 1),
    exponent=st.one_of(st.integers(-20, 8), st.integers(-(2**31), 2**31 - 1)),
    time_s=st.integers(-(2**63) + 1, 2**63 - 1),
    signatures=st.one_of(st.none(), st.integers(0, 255)),
    least=st.one_of(st.none(), st.integers(1, 19)),
)
def test_a_pyth_price_is_what_its_fields_say(
    price: int, confidence: int, exponent: int, time_s: int, signatures: int | None, least: int | None
) -> None:
    data = update(price=price, confidence=0, exponent=exponent, time_s=time_s, signatures=signatures)
    at = 73 + (signatures is not None) + 8
    data = data[:at] + confidence.to_bytes(8, "little") + data[at + 8 :]
    wanted = asked("pyth", min_signatures=least)
    found = accepted("pyth", OWNERS["pyth"], data, wanted)
    assert (None if isinstance(found, Fault) else found) == judge("pyth", OWNERS["pyth"], data, wanted)


@given(
    value=st.integers(-(2**127), 2**127 - 1),
    deviation=st.integers(-(2**127), 2**127 - 1),
    spread=st.integers(0, 2**100),
    slot=st.integers(0, 2**64 - 1),
    samples=st.integers(0, 255),
    least=st.integers(0, 255),
    which=st.integers(0, 31),
)
def test_a_switchboard_price_is_what_its_fields_say(
    value: int, deviation: int, spread: int, slot: int, samples: int, least: int, which: int
) -> None:
    low, high = max(-(2**127), value - spread), min(2**127 - 1, value + spread)
    data = pull(
        value=value, deviation=deviation, slot=slot, samples=samples, least=least, low=low, high=high, which=which
    )
    wanted = asked("switchboard")
    found = accepted("switchboard", OWNERS["switchboard"], data, wanted)
    expected = judge("switchboard", OWNERS["switchboard"], data, wanted)
    assert (None if isinstance(found, Fault) else found) == expected


@given(kind=st.sampled_from(sorted(KINDS)), data=st.binary(max_size=200))
def test_any_bytes_are_a_price_or_a_fault(kind: str, data: bytes) -> None:
    read, _ = KINDS[kind]
    with pytest.raises(BadFeed):  # so few bytes are no account of any of them
        price_of(read(data), Demands(OWNERS[kind], SOL_USD, 10_000), Now(1, 1.0, 0.4))


# -- a fuzz: accounts that are nearly right


_HEADS: Final = {
    "pyth": range(134),
    "pyth-legacy": range(240),
    "switchboard": (*range(8), *range(2_100, 2_400), *range(2_952, 3_208)),
}
"""Where the bytes are that matter, so that a change is rarely in vain."""


def _fuzzed(rng: random.Random) -> tuple[str, Pubkey, bytes, Asked]:
    kind = rng.choice(("pyth", "pyth-legacy", "switchboard"))
    wanted = asked(
        kind,
        feed_id=BONK_PRODUCT if kind == "pyth-legacy" else SOL_USD,
        max_confidence_ppm=rng.choice((0, 10_000, 1_000_000)),
        min_signatures=rng.choice((None, 1, 5, 19)),
    )
    if kind == "pyth":
        signatures = rng.choice((None, None, rng.randrange(256)))
        data = update(
            price=rng.randrange(1, 1 << rng.randrange(1, 63)), exponent=rng.randrange(-19, 8), signatures=signatures
        )
    elif kind == "pyth-legacy":
        data = BONK_USD
    else:
        data = pull(
            value=rng.randrange(1, 1 << rng.randrange(1, 100)), deviation=0, time_s=rng.choice((0, 1_799_999_000))
        )
    changed, places = bytearray(data), _HEADS[kind]
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        at = rng.choice(places)
        match rng.randrange(4):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at] = rng.randrange(256)
            case 2:
                edge = rng.choice((0, 1, -1, 2**63 - 1, -(2**63)))
                changed[at : at + 8] = (edge & (2**64 - 1)).to_bytes(8, "little")[: len(changed) - at]
            case _:
                changed[at : at + 4] = rng.randbytes(4)[: len(changed) - at]
    if rng.random() < 0.02:
        del changed[rng.randrange(len(changed)) :]
    elif rng.random() < 0.02:
        changed += rng.randbytes(rng.randrange(1, 9))
    owner = wanted.owner if rng.random() < 0.97 else rng.choice((NOBODY, *OWNERS.values()))
    return kind, owner, bytes(changed), wanted


def _fuzz(seed: int, count: int) -> Counter[str]:
    """An acceptance is wrong when the second reading (`judge`) refuses the account, or has another price or time of it;
    and a refusal is wrong when that one accepts it.
    """
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    for n in range(count):
        kind, owner, data, wanted = _fuzzed(rng)
        said = accepted(kind, owner, data, wanted)
        expected = judge(kind, owner, data, wanted)
        if (None if isinstance(said, Fault) else said) != expected:
            raise AssertionError(f"seed {seed}, account {n}: {kind} {data.hex()} is {said}, and should be {expected}")
        found[said.value if isinstance(said, Fault) else "accepted"] += 1
    return found


@given(st.integers(0, 2**32))
def test_no_fuzzed_account_is_accepted_wrongly(seed: int) -> None:
    _fuzz(seed, 100)


_OF_THE_WATCH = (Fault.MISSING, Fault.AUTHORITY)
"""What is not told by an account's bytes."""


def test_the_fuzz_meets_every_fault_and_many_good_accounts() -> None:
    found = _fuzz(7, 10_000)
    assert set(found) == {"accepted", *(fault.value for fault in Fault if fault not in _OF_THE_WATCH)}
    assert min(found.values()) > 20
    assert found["accepted"] > 1_000


@pytest.mark.long
def test_of_a_million_fuzzed_accounts_none_is_accepted_wrongly() -> None:
    assert _fuzz(20_261_127, 1_000_000)["accepted"] > 100_000
