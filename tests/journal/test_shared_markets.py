"""Several keepers on one PostgreSQL journal that share the markets: each writes for its own, for as long as its leases
run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey

from keeper.domain.errors import JournalError, LeaseLost, StandBy
from keeper.journal import AddAttempt, NoteOrder, Op, SetMeta
from keeper.journal.looking import SERVICE, shares
from tests.journal.journal_making import make_attempt, make_order
from tests.support.postgres import fresh_database, missing

if why := missing():
    pytest.skip(why, allow_module_level=True)

from keeper.journal.postgres import leases, schema
from keeper.journal.postgres.connection import Place
from keeper.journal.postgres.home import PostgresHome
from keeper.journal.postgres.store import PostgresStore
from tests.simulate.database.places import fresh_server

LEASE_S = 1.5
MARKETS = [Pubkey.from_bytes(bytes([n]) * 32) for n in range(1, 8)]


def markets() -> list[str]:
    return [str(market) for market in MARKETS]


@pytest.fixture(params=["postgres", "simulated"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database, and one of the simulation."""
    return fresh_database() if request.param == "postgres" else fresh_server(tmp_path)


class Sharers:
    """Keepers that share the markets: each opens its store anew when its share has moved, as a keeper does."""

    def __init__(self, url: str, stack: contextlib.ExitStack) -> None:
        self._url = url
        self._stack = stack
        self.homes: dict[str, PostgresHome] = {}
        self.stores: dict[str, PostgresStore] = {}

    def join(self, name: str, **words: Any) -> PostgresHome:
        """A further keeper; words are PostgresHome's."""
        home = self.homes[name] = PostgresHome(self._url, name, LEASE_S, markets=markets, **words)
        self._stack.callback(home.leave)
        return home

    def go(self, name: str) -> None:
        """It closes its store, and opens none any more."""
        del self.homes[name]
        if (store := self.stores.pop(name, None)) is not None:
            store.close()

    def until(self, holds: Callable[[], object]) -> None:
        """Let them do what keepers do until that holds."""
        until_s = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < until_s, self.counts
            for name, home in self.homes.items():
                store = self.stores.get(name)
                if store is not None and (store.moved or store.lost):
                    self.stores.pop(name).close()
                elif store is None:
                    with contextlib.suppress(StandBy):
                        self.stores[name] = home.open_store(lambda: None)
            time.sleep(0.02)

    def until_shared(self, **counts: int) -> None:
        """Let them, until each has so many markets."""
        self.until(lambda: self.counts == counts)

    @property
    def counts(self) -> dict[str, int]:
        """How many markets each works on."""
        return {name: len(store.working_on or ()) for name, store in self.stores.items()}

    def of(self, name: str) -> frozenset[str]:
        """The markets of one."""
        return self.stores[name].working_on or frozenset()


@pytest.fixture
def sharers(url: str) -> Iterator[Sharers]:
    with contextlib.ExitStack() as stack:
        keepers = Sharers(url, stack)
        yield keepers
        for store in keepers.stores.values():
            store.close()


def wait_until(holds: Callable[[], object]) -> None:
    until_s = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def intent(market: str) -> list[Op]:
    order = make_order(market=Pubkey.from_string(market))
    return [NoteOrder(order), AddAttempt(make_attempt(order.address))]


def test_who_comes_gets_its_share_and_each_writes_for_its_own(sharers: Sharers) -> None:
    first = sharers.join("a")
    sharers.until_shared(a=7)
    second = sharers.join("b", api_url="http://b:1")
    with pytest.raises(StandBy, match=r"No market .* is this keeper's to work on yet"):
        second.open_store(lambda: None)
    sharers.until_shared(a=4, b=3)
    assert sharers.of("a") | sharers.of("b") == frozenset(markets())
    assert shares(first.holders()) == {"a": 4, "b": 3}
    assert {holder.url for holder in first.holders() if holder.what == "keeper:b"} == {"http://b:1"}

    for name, other in (("a", "b"), ("b", "a")):
        mine, theirs = intent(min(sharers.of(name))), intent(min(sharers.of(other)))
        refused = sharers.stores[name].apply([mine, theirs, [SetMeta("note", "of the service")]], durable=True)
        assert [type(error) for error in refused] == [type(None), JournalError, type(None)]
        assert sharers.stores[other].apply([theirs[:1]], durable=True) == [None]
        (relayed,) = sharers.stores[name].apply([theirs[1:]], durable=True)
        assert "is not " in str(relayed), "nor is a transaction of its user sent, whose order the journal knows"
        with contextlib.closing(first.open_queries()) as queries:
            assert queries.order(mine[0].order.address) is not None  # type: ignore[union-attr]
            assert queries.attempts_of(theirs[0].order.address) == []  # type: ignore[union-attr]


def test_a_holder_that_was_not_heard_of_writes_nothing_more_and_its_markets_go_to_the_others(
    sharers: Sharers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sharers.join("a")
    sharers.join("b")
    sharers.until(lambda: len(sharers.counts) == 2 and sum(sharers.counts.values()) == 7)
    lost, one = max(sharers.of("a")), sharers.stores.pop("a")
    del sharers.homes["a"]
    with one._leases._lock, monkeypatch.context() as patch:
        patch.setattr(one._leases, "renew", lambda: None)
        patch.setattr(one._leases, "_see_moves", lambda: None)
        sharers.until_shared(b=7)
        assert one.lapsed, "by its own clock, before anybody tells it"
        with pytest.raises(LeaseLost, match="nothing was written"):
            one.apply([intent(lost)], durable=True)
        assert sharers.stores["b"].apply([intent(lost)], durable=True) == [None]
    wait_until(lambda: one.lost)
    assert one.lost is not None
    assert one.lost.startswith("b took over from a on the market ")
    one.close()
    sharers.homes["a"] = first
    sharers.until(lambda: sorted(sharers.counts.values()) == [3, 4])


def test_one_lost_market_ends_the_work_on_all(sharers: Sharers, url: str) -> None:
    """What is in memory is of one time of work. It is found at the next commit, whichever market that is about."""
    sharers.join("a")
    sharers.until_shared(a=7)
    store = sharers.stores["a"]
    kept, lost = sorted(sharers.of("a"))[:2]
    with store._leases._lock, Place(url).connect() as admin:
        # Another had it, and gave it back, while this one was not heard of: its own life, and a term too far.
        admin.execute("UPDATE leases SET term = term + 2 WHERE what = %s", (lost,))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store._leases, "renew", store._leases._renew)
            with pytest.raises(LeaseLost):
                store.apply([intent(kept)], durable=True)
    assert store.lost is not None
    sharers.until(lambda: sharers.stores.get("a") not in (store, None))
    found = sharers.stores["a"].apply([intent(kept), intent(lost)], durable=True)
    assert found == [None, None], "the next time of work begins from the journal"


def test_who_is_drained_hands_all_over_and_gets_its_share_back_later(sharers: Sharers) -> None:
    first = sharers.join("a")
    sharers.join("b")
    sharers.until(lambda: sorted(sharers.counts.values()) == [3, 4])
    first.hand_over()
    sharers.stores.pop("a").close()
    with pytest.raises(StandBy):
        first.open_store(lambda: None)
    sharers.until_shared(b=7)
    first._yields_until_s = 0.0
    sharers.until_shared(a=4, b=3)


def test_who_is_not_fit_has_no_share_unless_nobody_is(sharers: Sharers) -> None:
    fit = {"a": True, "b": True}
    sharers.join("a", fit=lambda: fit["a"])
    sharers.join("b", fit=lambda: fit["b"])
    sharers.until(lambda: sorted(sharers.counts.values()) == [3, 4])
    fit["a"] = False
    sharers.until_shared(b=7)
    fit["b"] = False
    sharers.until(lambda: sorted(sharers.counts.values()) == [3, 4])


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_a_newer_keeper_leaves_the_tables_alone_as_long_as_older_ones_work(
    sharers: Sharers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, before = sharers.join("a"), schema.VERSION
    sharers.until_shared(a=7)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, (before + 1, ("CREATE TABLE newer (one bigint)",))))
    monkeypatch.setattr(schema, "VERSION", before + 1)
    newer = sharers.join("b")
    with pytest.raises(StandBy, match="Keepers of an older version work"):
        newer.open_store(lambda: None)
    wait_until(lambda: any(lease.what == "keeper:b" and not lease.fit for lease in newer.holders()))
    assert len(sharers.of("a")) == 7, "or its markets would be nobody's"
    sharers.go("a")
    first.leave()
    sharers.until_shared(b=7)


def test_no_share_is_kept_for_a_keeper_that_does_not_share(
    sharers: Sharers, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_STEADY_S", 0.0)
    sharers.join("a")
    sharers.until_shared(a=7)
    whole, store = PostgresHome(url, "z", LEASE_S), sharers.stores["a"]
    with pytest.raises(StandBy, match="held by a, which shares the markets"):
        whole.open_store(lambda: None)
    wait_until(lambda: any(lease.what == "keeper:z" for lease in store.holders))
    seen = store.holders
    wait_until(lambda: store.holders is not seen)
    assert store.moved is None, "or some markets would be nobody's"
    whole.leave()


def test_a_keeper_that_works_on_all_and_those_that_share_never_work_together(sharers: Sharers, url: str) -> None:
    all_alone, sharer = PostgresHome(url, "z", LEASE_S), sharers.join("a")
    whole = all_alone.open_store(lambda: None)
    with pytest.raises(StandBy, match="held by z, which does not share"):
        sharer.open_store(lambda: None)
    whole.close()
    sharers.until_shared(a=7)
    with pytest.raises(StandBy, match="held by a, which shares the markets"):
        all_alone.open_store(lambda: None)
    assert {holder.what for holder in sharer.holders() if not holder.on_name} == set(markets())
    sharers.go("a")
    sharer.leave()
    whole = all_alone.open_store(lambda: None)
    assert [holder.what for holder in all_alone.holders() if not holder.on_name] == [SERVICE]
    whole.close()
