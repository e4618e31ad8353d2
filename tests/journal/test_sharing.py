"""How keepers divide the markets: from the same view shares that do not overlap, even, and with few changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keeper.journal.sharing import share_of

NAMES = ["a", "b", "c", "d", "e"]
MARKETS = [f"m{n:02}" for n in range(23)]

names_of = st.sets(st.sampled_from(NAMES), min_size=1)
held_by = st.dictionaries(st.sampled_from(MARKETS), st.sampled_from(NAMES))


def settled(names: set[str], held: dict[str, str]) -> tuple[dict[str, str], int]:
    """What they hold in the end when each does in turn what it is to do, and how many times a market was taken."""
    held, taken = {market: name for market, name in held.items() if name in names}, 0
    for _ in range(2):
        before = dict(held)
        for name in sorted(names):
            share = share_of(name, names, MARKETS, before)
            for market in [market for market, holder in held.items() if holder == name and market not in share]:
                del held[market]
        before = dict(held)
        for name in sorted(names):
            for market in share_of(name, names, MARKETS, before) - {m for m, h in held.items() if h == name}:
                assert market not in held, "nobody steals, and no two take one"
                held[market] = name
                taken += 1
    return held, taken


@given(names_of, held_by)
def test_the_markets_come_to_be_shared_evenly_and_each_has_one_keeper(names: set[str], held: dict[str, str]) -> None:
    end, _ = settled(names, held)
    counts = [list(end.values()).count(name) for name in names]
    assert set(end) == set(MARKETS)
    assert max(counts) - min(counts) <= 1
    assert settled(names, end)[1] == 0, "and then nothing moves any more"


@given(names_of, held_by)
def test_only_what_is_too_much_or_nobodys_moves(names: set[str], held: dict[str, str]) -> None:
    _, taken = settled(names, held)
    free = sum(1 for market in MARKETS if held.get(market) not in names)
    most = -(-len(MARKETS) // len(names))
    too_much = sum(max(0, list(held.values()).count(name) - len(MARKETS) // len(names)) for name in names)
    assert taken <= free + too_much
    assert all(len(share_of(name, names, MARKETS, held)) <= most for name in names)


def test_who_can_not_work_has_no_share_and_an_unknown_market_stays_where_it_is() -> None:
    assert share_of("z", {"a"}, MARKETS, {"m00": "z"}) == frozenset()
    assert "new" in share_of("a", {"a", "b"}, MARKETS[:2], {"new": "a"})
