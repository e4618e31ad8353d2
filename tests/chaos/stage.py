"""The stage: a chain, two breakable ways to it, and a keeper that is started again whenever it ends.

What kind of chain it is, a subclass knows: `embedded`, which can be broken as well, or `validator`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.domain.orders import OrderType, Side
from keeper.journal import Home, Queries, home_of
from tests.chaos.invariants import Record
from tests.chaos.lives import AnyLives
from tests.chaos.proxy import FaultProxy
from tests.chaos.proxy.faults import Calm, Faults
from tests.chaos.scenario import Event
from tests.chaos.witness import AnyWitness
from tests.support import KeeperConfig, Trader

SOL: Final = 1_000_000_000


class Stage(ABC):
    """What an episode plays on; reused from episode to episode, with a new journal now and then.

    `pace` is how many times slower than the plan it plays, `settle_within_s` how long convergence may take,
    `sure_after_s` how long what can never become right has to be seen for, and `settings` are its keepers'. What is
    done to the chain raises Refused when the chain does not do it.
    """

    pace: ClassVar[float]
    settle_within_s: ClassVar[float]
    sure_after_s: ClassVar[float]
    settings: ClassVar[Mapping[str, Mapping[str, Any]]]
    keepers = 1
    lease_s = 0.0
    """Of several keepers."""
    shared_markets = 1
    """How many markets the keepers of the present journal share; 1 where one works on all of them."""
    forgotten = False
    """Whether its first keeper was not told to share them."""

    def __init__(self, proxies: Sequence[FaultProxy], lives: AnyLives, witness: AnyWitness, folder: Path) -> None:
        self.proxies = proxies
        self.lives = lives
        self.witness = witness
        self.folder = folder
        self.key = Keypair()
        self.rival = Keypair()
        self.chain_faults: Counter[str] = Counter()
        self.config: KeeperConfig | None = None
        self.evidence = folder
        """Where the present keepers' files are."""
        self._journals = 0

    @staticmethod
    @asynccontextmanager
    async def ways(
        rpc_url: str, ws_url: str, witness: AnyWitness, seed: str, keeper: str = ""
    ) -> AsyncIterator[Sequence[FaultProxy]]:
        """Two proxies to one node; the witness stands in both. `keeper` is whose they are, where there are several."""
        first, second = (
            FaultProxy(rpc_url, ws_url, on_calls=partial(witness.on_calls, name), seed=f"{seed}/{name}")
            for name in (f"{keeper}first", f"{keeper}second")
        )
        async with first, second:
            yield first, second

    @asynccontextmanager
    async def playing(self, shared_markets: int = 1, *, forgotten: bool = False) -> AsyncIterator[None]:
        """With a keeper, until the end of the block."""
        try:
            await self.new_journal(shared_markets, forgotten=forgotten)
            yield
        finally:
            await self.lives.stop(graceful=False)
            self._close_journal()

    @property
    def journal(self) -> Queries:
        """The present journal, read beside the keeper that writes it."""
        assert self.witness.journal is not None, "new_journal comes first"
        return self.witness.journal

    @property
    def home(self) -> Home:
        """Where the present journal is."""
        assert self.config is not None, "new_journal comes first"
        return home_of(self.config.place)

    async def new_journal(self, shared_markets: int = 1, *, forgotten: bool = False) -> None:
        """Keepers with a fresh journal; the first is started cold, as `python -m keeper run` does. They share so many
        markets, unless that was `forgotten` in the first one; with 1, one works on all of them.
        """
        await self.lives.stop(graceful=True)
        self._close_journal()
        self.shared_markets, self.forgotten = shared_markets, forgotten
        self._journals += 1
        self.evidence = self.folder / f"keeper-{self._journals:03}"
        configs = await self._configs(self.evidence)
        self.config = configs[0]
        await self.lives.start(configs, cold=True)
        await self.lives.ready()
        self.witness.journal = self.home.open_queries()

    async def _configs(self, folder: Path) -> Sequence[KeeperConfig]:
        """The settings of its keepers, for a fresh journal."""
        return [KeeperConfig.at(folder, self.key, **self._settings(self.proxies))]

    def _settings(self, proxies: Sequence[FaultProxy]) -> dict[str, Mapping[str, Any]]:
        first, second = proxies
        rpc = {
            "url": first.rpc_url,
            "ws_url": first.ws_url,
            "fallbacks": [{"url": second.rpc_url, "ws_url": second.ws_url}],
            **self.settings["rpc"],
        }
        return {**self.settings, "rpc": rpc}

    def _close_journal(self) -> None:
        if self.witness.journal is not None:
            self.witness.journal.close()
            self.witness.journal = None

    def counts(self) -> Counter[str]:
        """What it counts beside proxies, kills and the chain."""
        return Counter()

    def weather(self, faults: Sequence[Faults]) -> None:
        """Give each endpoint its faults."""
        for proxy, its in zip(self.proxies, faults, strict=True):
            proxy.faults = its

    async def prepare(self, events: Sequence[Event]) -> None:  # noqa: B027  (most stages need nothing)
        """Have ready what these events need."""

    async def unsettled(self) -> Sequence[str]:
        """What of the keepers has yet to fall into place, beside the orders."""
        return ()

    def clear(self) -> None:
        """From now on nothing breaks."""
        self.weather([Calm() for _ in self.proxies])

    # -- the chain

    @abstractmethod
    async def markets(self, count: int, *, price_1e6: int) -> Sequence[Pubkey]:
        """So many markets, priced, on which no order rests that this price would fill."""

    @abstractmethod
    async def traders(self, collateral_1e6: Mapping[str, int | None]) -> dict[str, Trader]:
        """Funded wallets by name, with margin accounts that hold so much; None: without an account."""

    @abstractmethod
    async def set_price(self, market: Pubkey, price_1e6: int) -> None:
        """The oracle says a price now."""

    @abstractmethod
    async def place(self, trader: Trader, market: Pubkey, order_type: OrderType, side: Side, **terms: int) -> Pubkey:
        """An order placed as the trader's wallet does, with the fields of `World.place`."""

    @abstractmethod
    async def execute(self, order: Pubkey) -> None:
        """The rival executes the order, if there is one."""

    @abstractmethod
    async def cancel(self, trader: Trader, order: Pubkey) -> None:
        """The trader cancels."""

    @abstractmethod
    async def take_back(self, orders: Mapping[Pubkey, Trader]) -> None:
        """Users cancel what rests and close what ended, as far as that is cheap here."""

    @abstractmethod
    async def deposit(self, trader: Trader, amount_1e6: int) -> None:
        """Add to a trader's collateral."""

    @abstractmethod
    async def now(self) -> int:
        """The chain's clock, in unix seconds."""

    @abstractmethod
    async def act(self, event: Event) -> None:
        """Break the chain as the event says, and count it; nothing, where that can't be done."""

    @abstractmethod
    async def read(self, markets: Sequence[Pubkey], orders: Iterable[Pubkey]) -> Record:
        """The chain's record, with these orders and markets in it."""

    @abstractmethod
    async def judge(self) -> Sequence[str]:
        """Violations that the witness could not see at the moment of a send."""
