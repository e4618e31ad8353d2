"""What the API needs of the rest of the keeper, and nothing more. The application fills it in."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from prometheus_client import CollectorRegistry
from solders.pubkey import Pubkey

from keeper.domain.events import OrderGone, OrderSeen
from keeper.domain.health import Health
from keeper.domain.orders import Market, Order, OrderType
from keeper.domain.prices import Fires, Level, Price
from keeper.http.edge.clients import ApiLimits, Tokens
from keeper.http.edge.elsewhere import Elsewhere, Seal, WhereElse
from keeper.http.edge.middleware import Instruments
from keeper.journal import Followed
from keeper.journal.records import PreparedRow
from keeper.solana.client import Blockhash, ChainClient
from keeper.venue.program import Program


class Desk(Protocol):
    """What the keeper knows by heart: the book, the markets and their prices. It never waits."""

    def order(self, address: Pubkey) -> Order | None:
        """The order as the book holds it; None when it does not rest there."""

    def why(self, address: Pubkey) -> str:
        """Why the order was not executed yet, as one sentence for its user; empty when nothing is to be said."""

    def market(self, key: str | Pubkey) -> Market | None:
        """A market by symbol (`SOL/USDC`) or by address; None when the program has none such."""

    def markets(self) -> list[Market]:
        """Every market that the keeper watches."""

    def price(self, market: Pubkey) -> Price | None:
        """The market's newest price, however old; None when it never had one."""

    def chain_time_s(self) -> float | None:
        """The chain's clock, unix seconds; None before it was first seen."""

    def executing(self, market: Market) -> tuple[bool, str]:
        """Whether the market's orders are executed now, and if not, why, in a sentence."""

    def counts(self) -> Mapping[tuple[Pubkey, OrderType], int]:
        """How many orders rest, by market and type."""

    def levels(self, market: Pubkey, fires: Fires, n: int) -> Sequence[Level]:
        """The first `n` triggers that a falling or a rising price would meet, the nearest first."""


class Blockhashes(Protocol):
    """A blockhash that is always at hand. `keeper.solana.transactions.Blockhashes` is one."""

    def current(self) -> Blockhash:
        """A recent confirmed blockhash. Transient when there is none fresh enough."""

    def lives_s(self) -> float:
        """Seconds for which a transaction with it can still land, about, at the pace that the chain has."""

    @property
    def undone_blocks(self) -> int:
        """So many blocks on top of a confirmed one, and it is not undone any more."""


class Relay(Protocol):
    """Lands a user's own signed transaction."""

    async def submit(self, prepared: PreparedRow, wire: bytes, placed: Order | None, /) -> None:
        """Journal the transaction and begin to land it.

        When it returns, the attempt, the order that it places (`placed`; None when it only cancels) and the prepared
        row's move to `submitted` are durable, in one commit, and the first send is on its way. Only these bytes are
        ever sent. `wire` was checked against `prepared`, which says what it cancels. Raises JournalConflict when
        the row was submitted meanwhile, and other JournalErrors when nothing was accepted; DryRun when nothing is sent
        at all.
        """


class HealthReport(Protocol):
    """Where health is known. It never waits: a probe that hangs is worse than one that says no."""

    def report(self) -> Health:
        """The state of things now."""


class Brakes(Protocol):
    """The operator's hands. Each call is durable when it returns; JournalError when it could not be made so."""

    @property
    def paused(self) -> str | None:
        """Why an operator paused the keeper; None when none did."""

    async def pause(self, reason: str) -> None:
        """Sign and send nothing new."""

    async def resume(self) -> None:
        """Go on, also after the keeper's own stop for a fill without its position."""

    async def retry(self, address: Pubkey) -> None:
        """Let a failed order rest again; another KeeperError says why it can't."""


@dataclass(frozen=True, slots=True)
class ApiPorts:
    """Everything the API is connected to. `client` asks the chain within what users are allowed
    (`keeper.solana.allowance`); `now` is unix seconds by this machine's clock, for people; `busy` says whether orders
    are being executed right now, for which news of them waits. `standing_by` is set while this keeper stands by: it
    says who works, empty when nobody does. `hand_over` lets another keeper work instead of this one.

    Where several keepers have the journal, `name` is this one's, `elsewhere` says who works on a market when another
    keeper does, and with `seal` one proves to another that it forwards a request.
    """

    program: Program
    client: ChainClient
    blockhashes: Blockhashes
    journal: Followed
    desk: Desk
    relay: Relay
    health: HealthReport
    metrics: CollectorRegistry
    keeper_pubkey: Pubkey | None
    limits: ApiLimits
    instruments: Instruments | None = None
    balance_lamports: Callable[[], int | None] = lambda: None
    tokens: Tokens = field(default_factory=Tokens)
    brakes: Brakes | None = None
    operators: Tokens = field(default_factory=Tokens)
    news: Callable[[OrderSeen | OrderGone], None] = lambda event: None
    settings_shown: Callable[[], Mapping[str, Any]] = dict
    genesis: str | None = None
    public_url: str | None = None
    consensus: Callable[[], str] = lambda: "unknown"
    slot_s: Callable[[], float | None] = lambda: None
    now: Callable[[], float] = time.time
    busy: Callable[[], bool] = lambda: False
    standing_by: Callable[[], str] | None = None
    hand_over: Callable[[], None] = lambda: None
    name: str = ""
    elsewhere: WhereElse | None = None
    seal: Seal | None = None

    def holder_of(self, market: Pubkey) -> Elsewhere | None:
        """The other keeper that works on the market; None when this one does, as where one works on all."""
        return None if self.elsewhere is None else self.elsewhere(market)
