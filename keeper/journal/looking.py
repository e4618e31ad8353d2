# ruff: noqa: S608  (the texts are put together from this module's constants; every value is a parameter)
"""What an operator sees of a journal without opening it for good, and what must not be in one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from keeper.domain.attempts import Fate
from keeper.domain.orders import OrderState
from keeper.journal.sql import BLOCKING_SQL, Connection

_STATES_SQL: Final = ", ".join(f"'{state.value}'" for state in OrderState)
_CLOSED_SQL: Final = ", ".join(f"'{state.value}'" for state in OrderState if state.terminal)

# Each finds what must not be: its rows are (subject, detail). NOT INDEXED: a damaged index must not hide them.
_INVARIANTS: Final = (
    (
        "two attempts at one order could still land",
        f"SELECT order_address, group_concat(signature, ' ') FROM attempts NOT INDEXED "
        f"WHERE {BLOCKING_SQL} GROUP BY order_address HAVING COUNT(*) > 1",
    ),
    (
        "an order was executed more than once",
        f"SELECT order_address, group_concat(signature, ' ') FROM attempts NOT INDEXED "
        f"WHERE fate = '{Fate.EXECUTED.value}' GROUP BY order_address HAVING COUNT(*) > 1",
    ),
    (
        "an order is in no named state, or has no reason",
        f"SELECT address, state FROM orders NOT INDEXED WHERE state NOT IN ({_STATES_SQL}) OR reason = ''",
    ),
    (
        "an order's closed mark contradicts its state",
        f"SELECT address, state FROM orders NOT INDEXED WHERE (closed = 1) <> (state IN ({_CLOSED_SQL}))",
    ),
    (
        "an attempt's order is not known",
        "SELECT signature, order_address FROM attempts a NOT INDEXED "
        "WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.address = a.order_address)",
    ),
    (
        "the attempt of a send is not known",
        "SELECT signature, way FROM attempt_ways w NOT INDEXED "
        "WHERE NOT EXISTS (SELECT 1 FROM attempts a WHERE a.signature = w.signature)",
    ),
    (
        "an order's state is not the one its history ends in",
        "SELECT address, state FROM orders o NOT INDEXED WHERE state <> COALESCE("
        "(SELECT state FROM changes c WHERE c.order_ref = o.id ORDER BY c.id DESC LIMIT 1), '')",
    ),
    (
        "the count of a state is wrong",
        "SELECT state, n FROM order_counts k "
        "WHERE n <> (SELECT COUNT(*) FROM orders o INDEXED BY orders_state WHERE o.state = k.state)",
    ),
)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a start would find. `version` is None when there is no journal yet; `holder` is why it may not be written
    now: another process writes it; `meta` is the journal's own notes (which chain it belongs to, whether it is paused).
    """

    version: int | None
    newest: int
    holder: str | None
    meta: dict[str, str]
    size_bytes: int


SERVICE: Final = "*"
"""What the lease on all markets is on, where one keeper works and the others stand by. Where they share the markets
each of them has a lease, on its address.
"""
NAME: Final = "keeper:"
"""Before a keeper's name: the lease that says that it runs."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A lease that runs: on what, whose, in which term, since when (unix seconds), and for how long it still runs. That
    on a name has the `url` of the keeper's API, and says whether the keeper is `fit` to work: it hears the chain, and
    has not just been drained; and whether it `shares` the markets, so that a share of them is to be its.
    """

    what: str
    holder: str
    term: int
    since: float
    left_s: float
    url: str = ""
    fit: bool = True
    shares: bool = False

    @property
    def on_name(self) -> bool:
        """Whether it says only that its keeper runs. Any other is the right to work."""
        return self.what.startswith(NAME)


def working_lease(leases: Iterable[Holder]) -> Holder | None:
    """The lease of the one keeper that works; None while none does, where several share the markets, and for a journal
    that is a file.
    """
    return next((lease for lease in leases if lease.what == SERVICE), None)


def market_lease(leases: Iterable[Holder], market: str) -> Holder | None:
    """The lease of the keeper that works on the market; None while none does, and for a journal that is a file."""
    return next((lease for lease in leases if lease.what in (SERVICE, market)), None)


def shares(leases: Iterable[Holder]) -> dict[str, int]:
    """How many markets each keeper that runs has, where they share them: none has any where one works for all."""
    leases = list(leases)
    counts = dict.fromkeys(keeper_names(leases), 0)
    for lease in leases:
        if not lease.on_name and lease.what != SERVICE:
            counts[lease.holder] = counts.get(lease.holder, 0) + 1
    return counts


def unheld(leases: Iterable[Holder], markets: Iterable[str]) -> list[str]:
    """Those of the markets that no keeper works on."""
    held = {lease.what for lease in leases}
    return [] if SERVICE in held else [market for market in markets if market not in held]


def workers(leases: Iterable[Holder]) -> list[str]:
    """The keepers that work: the one that works on all markets, or those that have some."""
    return sorted({lease.holder for lease in leases if not lease.on_name})


def url_of(leases: Iterable[Holder], keeper: str) -> str:
    """Where the API of that keeper is; empty when it is not known."""
    return next((lease.url for lease in leases if lease.on_name and lease.holder == keeper), "")


def keeper_names(leases: Iterable[Holder]) -> list[str]:
    """The keepers that run on the journal, those that stand by included."""
    return [lease.holder for lease in leases if lease.on_name]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be: what, of whom, and the detail."""

    what: str
    subject: str
    detail: str


def broken_promises(db: Connection, limit: int) -> list[Finding]:
    """What the journal says that must not be; at most `limit` of each kind. Reads everything."""
    return [
        Finding(what, str(subject), str(detail))
        for what, sql in _INVARIANTS
        for subject, detail in db.execute(f"{sql} LIMIT ?", (limit,)).fetchall()
    ]
