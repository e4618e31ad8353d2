"""Four keepers share 100 markets on which 100,000 orders rest: how even their shares are, how long the markets take
to change hands when one of them comes, is told to stop or is killed, and how long an order waits meanwhile.

`joined_s` is from the lease on the fourth's name to when every market is held, evenly, and each keeper works again (it
says so in its log); `stopped_s` from SIGTERM to the same of the three that stay; `killed_s` from when the killed one's
leases were over. `joined_wait_s` and the others are the longest that an order waited meanwhile, from the price that met
it to the arrival of its execution: a tick each 50 ms, in each market in turn, until all work and for a second more.
`uneven` is how far the share with the most orders is above the mean: orders are spread over the markets by chance, and
markets over the keepers by number. A guard in the database sees to it that no market has two holders (`two_holders`).
"""

from __future__ import annotations

import contextlib
import datetime
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from bench.figures import spread
from bench.ledger import Ledger
from bench.node import PreparedNode, prepare, prepared_node
from bench.progress import step
from bench.resting import order_accounts
from bench.stage import PRICE_1E6, SOL_FOR_FEES, chain, keeper, traders_for
from keeper.domain.orders import OrderState
from keeper.execution.orders import RESTS
from keeper.journal import NoteOrder
from keeper.journal.looking import NAME, Holder, shares
from keeper.journal.postgres.connection import Database, Place
from keeper.journal.postgres.home import PostgresHome
from keeper.journal.postgres.leases import holders
from keeper.venue.venue import decode_order
from tests.chaos.guard import as_keeper, guard, unlawful
from tests.support.keeper_process import KeeperProcess
from tests.support.postgres import fresh_database
from tests.support.waiting import until
from tests.support.world import World

_STEP_1E6: Final = 10_000
_TICK_S: Final = 0.05
_AFTER_S: Final = 1.0
_WITHIN_S: Final = 120.0
_NOTED_AT_ONCE: Final = 2_000
_CHANCES: Final = 10
"""So many places a market has on the list from which each resting order draws its own: some have thrice as many."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything. `ticks` are the orders that can be met in one market."""

    keepers: int
    markets: int
    resting: int
    ticks: int
    rounds: int


_FULL: Final = Size(keepers=4, markets=100, resting=100_000, ticks=40, rounds=5)
_QUICK: Final = Size(keepers=2, markets=20, resting=2_000, ticks=30, rounds=1)


@dataclass(frozen=True, slots=True)
class Moved:
    """How long markets took to change hands, and the longest that an order waited meanwhile."""

    took_s: float
    longest_wait_s: float


class Hall:
    """A chain with markets and orders, and all keepers but one, which comes and goes."""

    def __init__(self, size: Size, world: World, url: str, node: PreparedNode, key: Keypair) -> None:
        self.size, self.world, self.url, self.node, self.key = size, world, url, node, key
        self.markets = [world.market(f"M{n}/USDC", price_1e6=PRICE_1E6) for n in range(size.markets)]
        traders = traders_for(world, size.markets * size.ticks)
        self._placed = [
            world.place(
                traders[n * len(traders) // (size.markets * size.ticks)],
                self.markets[n % size.markets],
                stop_price_1e6=self._price_1e6(n),
            )
            for n in range(size.markets * size.ticks)
        ]
        self.ledger = Ledger.of(world.bank, key, self._placed)
        rng = random.Random(1)
        places = [rng.choice(self.markets) for _ in range(_CHANCES * size.markets)]
        self._resting = Counter(str(places[n % len(places)]) for n in range(size.resting))
        template = world.bank.account(self._placed[0])
        assert template is not None
        self._lamports = template.lamports
        self._far = list(order_accounts(bytes(template.data), places, size.resting))
        self._body = prepare(world.program.id, self._far, self._lamports)
        self._next = 0
        self._logs: dict[str, Path] = {}
        self._db = Database(Place(url))

    def close(self) -> None:
        """Let go of the database."""
        self._db.close()

    # -- orders

    def _price_1e6(self, n: int) -> int:
        return PRICE_1E6 - (n // self.size.markets + 1) * _STEP_1E6

    def tick(self) -> tuple[Pubkey, float]:
        """Meet the condition of the next order, in the next market; when that was."""
        n, self._next = self._next, self._next + 1
        began_s = time.perf_counter()
        self.world.set_price(self.markets[n % self.size.markets], self._price_1e6(n))
        return self._placed[n], began_s

    def waited_s(self, order: Pubkey, since_s: float) -> float:
        """Until its execution, which has landed by now, was first at the node."""
        return self.ledger.received_at[self.ledger.signature_of[order]] - since_s

    def list_anew(self) -> None:
        """The node's list of orders is as the chain is now."""
        left = [(order, self.world.bank.account(order)) for order in self._placed[self._next :]]
        real = prepare(
            self.world.program.id, [(order, bytes(known.data)) for order, known in left if known], self._lamports
        )
        self.node.tell([*self._body, *((b"," if n == 0 else b"") + piece for n, piece in enumerate(real))])

    def note_all(self) -> None:
        """Have the journal know every order, as that of keepers does that have worked for a while."""
        slot = self.world.bank.chain.tip.slot
        left = [(order, self.world.bank.account(order)) for order in self._placed]
        accounts = [*self._far, *((order, bytes(known.data)) for order, known in left if known)]
        home = PostgresHome(as_keeper(self.url, "bench"), "bench")
        with contextlib.closing(home.open_store(lambda: None)) as store:
            for n in range(0, len(accounts), _NOTED_AT_ONCE):
                orders = [decode_order(address, data, slot) for address, data in accounts[n : n + _NOTED_AT_ONCE]]
                notes = [NoteOrder(order, OrderState.OPEN, RESTS) for order in orders]
                for error in store.apply([notes], durable=True):
                    if error is not None:
                        raise error

    # -- keepers

    @asynccontextmanager
    async def keeper(self, name: str) -> AsyncIterator[KeeperProcess]:
        """One of them, once it works."""
        self.list_anew()
        with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
            rpc = {"url": self.node.url, "snapshot_every_s": 3_600, "deadline_s": 120}
            places: dict[str, Any] = {"key": self.key, "url": as_keeper(self.url, name), "name": name}
            self._logs[name] = Path(folder) / "keeper.log"
            try:
                async with keeper(
                    self.world, Path(folder), rpc=rpc, shares=True, ready_within_s=_WITHIN_S, **places
                ) as process:
                    yield process
            finally:
                del self._logs[name]

    def settled_at(self, names: Sequence[str]) -> float | None:
        """When the last of these began to work on its even share of the markets, all of which are held. None while that
        is not so. Unix seconds.
        """
        counts = shares(self._held())
        if sorted(counts) != sorted(names) or sum(counts.values()) != self.size.markets:
            return None
        if max(counts.values()) - min(counts.values()) > 1:
            return None
        began = [_works_since(self._logs[name]) for name in names]
        return None if None in began else max(at_s for at_s in began if at_s is not None)

    def name_since(self, name: str) -> float | None:
        """Since when there is a lease on that name; None while there is none."""
        return next((lease.since for lease in self._held() if lease.what == NAME + name), None)

    def over_at(self, name: str) -> float | None:
        """When the last lease of one that is gone was over; None while one runs."""
        row: Any = self._db.run(
            "SELECT extract(epoch FROM max(until))::float8, max(until) > clock_timestamp() FROM leases "
            "WHERE holder = %s AND life = (SELECT life FROM leases WHERE what = %s)",
            (name, NAME + name),
        ).fetchone()
        return None if row[1] else float(row[0])

    def uneven(self) -> float:
        """How far the share with the most resting orders is above the mean."""
        counts: Counter[str] = Counter()
        for lease in self._held():
            if not lease.on_name:
                counts[lease.holder] += self._resting[lease.what]
        return max(counts.values()) / (counts.total() / len(counts)) - 1

    def takings(self) -> int:
        """How often a market was taken."""
        markets = [str(market) for market in self.markets]
        row: Any = self._db.run("SELECT sum(term) FROM leases WHERE what = ANY (%s)", (markets,)).fetchone()
        return int(row[0])

    def _held(self) -> list[Holder]:
        return holders(self._db)


def _works_since(log: Path) -> float | None:
    """Since when it works, by its own words; None while it does not."""
    began_s: float | None = None
    for line in log.read_text().splitlines():
        said = json.loads(line)
        if said["event"] == "keeper.ready":
            began_s = datetime.datetime.fromisoformat(said["timestamp"]).timestamp()
        elif said["event"] in ("keeper.share_moved", "keeper.lease_lost", "keeper.standing_by"):
            began_s = None
    return began_s


async def _moves(hall: Hall, names: Sequence[str], began: Callable[[], float | None]) -> Moved:
    """Tick until these all work, and for a moment more; the time since `began`, once that is known."""
    ticked: list[tuple[Pubkey, float]] = []
    ends_s = time.time() + _WITHIN_S
    settled_s: float | None = None
    while settled_s is None or time.time() < settled_s + _AFTER_S:
        if time.time() > ends_s:
            raise RuntimeError(f"{', '.join(names)} did not divide the markets evenly within {_WITHIN_S:g} s")
        ticked.append(hall.tick())
        await anyio.sleep(_TICK_S)
        settled_s = hall.settled_at(names)
    began_s = began()
    assert began_s is not None
    await until(lambda: all(order in hall.ledger.landed_at for order, _ in ticked))
    return Moved(settled_s - began_s, max(hall.waited_s(order, at_s) for order, at_s in ticked))


async def _round(hall: Hall, others: Sequence[str], last: str, figures: dict[str, list[float]]) -> None:
    """One more comes and is told to stop; and comes again and is killed."""

    def note(word: str, moved: Moved) -> None:
        figures.setdefault(f"{word}_s", []).append(moved.took_s)
        figures.setdefault(f"{word}_wait_s", []).append(moved.longest_wait_s)

    async def come() -> None:
        # Not before it knows the chain, which it does when it has the lease on its name.
        await until(lambda: hall.name_since(last) is not None, within_s=_WITHIN_S)
        note("joined", await _moves(hall, [*others, last], lambda: hall.name_since(last)))
        figures.setdefault("uneven", []).append(hall.uneven())

    for word in ("stopped", "killed"):
        async with anyio.create_task_group() as tg:
            tg.start_soon(come)
            stack = AsyncExitStack()
            process = await stack.enter_async_context(hall.keeper(last))
        async with stack:
            began_s = time.time()
            if word == "stopped":
                process.terminate()
                note(word, await _moves(hall, others, lambda: began_s))  # noqa: B023
            else:
                process.kill()
                note(word, await _moves(hall, others, lambda: hall.over_at(last)))
        await until(lambda: hall.name_since(last) is None)
        step()


async def measure(quick: bool) -> dict[str, Any]:
    """The figures, by name."""
    size, url, figures = _QUICK if quick else _FULL, fresh_database(), dict[str, list[float]]()
    *others, last = (f"k{n + 1}" for n in range(size.keepers))
    async with chain() as world, prepared_node(world.bank, []) as node, AsyncExitStack() as stack:
        hall = Hall(size, world, url, node, world.wallet(SOL_FOR_FEES))
        stack.callback(hall.close)
        await anyio.to_thread.run_sync(hall.note_all)
        guard(url)
        for name in others:
            await stack.enter_async_context(hall.keeper(name))
        await until(lambda: hall.settled_at(others) is not None, within_s=_WITHIN_S)
        step()
        for _ in range(size.rounds):
            await _round(hall, others, last, figures)
        takings, found = hall.takings(), unlawful(url)
        if found or hall.ledger.duplicates or hall.ledger.failed:
            done = f"{hall.ledger.duplicates} executed twice, {hall.ledger.failed} failed"
            raise RuntimeError("; ".join([done, *found]))
    return {
        **{name: spread(samples) for name, samples in figures.items()},
        "two_holders": len(found),
        "takings": takings,
        "orders": size.resting,
        "markets": size.markets,
        "keepers": size.keepers,
    }
