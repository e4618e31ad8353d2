"""The stage: a chain, two breakable ways to it, and a keeper that is started again whenever it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from keeper.journal import Queries
from keeper.journal.sqlite.files import open_reader
from keeper.localnet import Commitment
from tests.chaos.lives import Lives
from tests.chaos.proxy import FaultProxy
from tests.chaos.proxy.faults import Calm, Faults
from tests.chaos.witness import Witness
from tests.support import KeeperConfig, World

SLOT_S: Final = 0.02
CONFIRMED_SLOTS: Final = 4
FINALIZED_SLOTS: Final = 10
SOL: Final = 1_000_000_000

# Everything twenty times as fast as in life, as the blocks are.
_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "rpc": {
        "deadline_s": 1.0,
        "silence_s": 0.6,
        "snapshot_every_s": 0.4,
        "probe_every_s": 0.5,
        "blockhash_every_s": 0.3,
    },
    "execution": {
        "resend_every_s": 0.1,
        "finality_every_s": 0.1,
        "account_every_s": 0.3,
        "first_pause_s": 0.05,
        "longest_pause_s": 0.4,
        "attempts_per_hour": 1_000,
        "retry_budget": 8,
    },
    # Prices jump here at will; the breaker has tests of its own.
    "trigger": {"breaker_trip": 1.0},
}


class Stage:
    """What an episode plays on. Made by `open`; reused from episode to episode, with a new journal now and then."""

    def __init__(
        self, world: World, proxies: Sequence[FaultProxy], lives: Lives, witness: Witness, folder: Path
    ) -> None:
        self.world = world
        self.proxies = proxies
        self.lives = lives
        self.witness = witness
        self.folder = folder
        self.key = world.wallet(1_000 * SOL)
        self.rival = world.wallet(1_000 * SOL)
        self.chain_faults: Counter[str] = Counter()
        self.blocks_paused = False
        self.forks_after_fill: list[int] = []
        self.config: KeeperConfig | None = None
        self._fork_to: tuple[int, int] | None = None
        self._journals = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, *, seed: str) -> AsyncIterator[Stage]:
        """Build it. The files of its keepers are in `folder`."""
        async with (
            World.open(slot_ms=0, confirmed_slots=CONFIRMED_SLOTS, finalized_slots=FINALIZED_SLOTS) as world,
            Lives.open() as lives,
        ):
            witness = Witness(world.bank)
            first, second = (
                FaultProxy(
                    world.net.rpc_url,
                    world.net.ws_url,
                    on_calls=partial(witness.on_calls, name),
                    seed=f"{seed}/{name}",
                )
                for name in ("first", "second")
            )
            async with first, second, anyio.create_task_group() as tasks:
                stage = cls(world, (first, second), lives, witness, folder)
                await stage._run(tasks)
                try:
                    yield stage
                finally:
                    await lives.stop(graceful=False)
                    stage._close_journal()
                    tasks.cancel_scope.cancel()

    async def _run(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self._make_blocks)
        await self.new_journal()

    @property
    def journal(self) -> Queries:
        """The present journal, read beside the keeper that writes it."""
        assert self.witness.journal is not None, "new_journal comes first"
        return self.witness.journal

    async def new_journal(self) -> None:
        """A keeper with a fresh journal, started cold, as `python -m keeper run` does."""
        await self.lives.stop(graceful=True)
        self._close_journal()
        self._journals += 1
        first, second = self.proxies
        rpc = {
            "url": first.rpc_url,
            "ws_url": first.ws_url,
            "fallbacks": [{"url": second.rpc_url, "ws_url": second.ws_url}],
            **_SETTINGS["rpc"],
        }
        folder = self.folder / f"keeper-{self._journals:03}"
        self.config = KeeperConfig.at(folder, self.key, **{**_SETTINGS, "rpc": rpc})
        await self.lives.start(self.config, cold=True)
        await self.lives.ready()
        self.witness.journal = Queries(open_reader(self.config.journal))

    def _close_journal(self) -> None:
        if self.witness.journal is not None:
            self.witness.journal.close()
            self.witness.journal = None

    async def restart(self, *, graceful: bool, crash_at: str | None) -> None:
        """End the present life and begin one that dies at a point."""
        assert self.config is not None
        await self.lives.stop(graceful=graceful)
        await self.lives.start(self.config, crash_at=crash_at)

    def weather(self, faults: Sequence[Faults]) -> None:
        """Give each endpoint its faults."""
        for proxy, its in zip(self.proxies, faults, strict=True):
            proxy.faults = its

    def clear(self) -> None:
        """From now on nothing breaks."""
        self.weather([Calm() for _ in self.proxies])
        self.blocks_paused = False
        self.forks_after_fill.clear()
        self._fork_to = None
        self.world.bank.lose_transactions(0)
        self.world.bank.release_transactions()

    # -- the chain's moves

    def fork(self, depth: int) -> None:
        """The last `depth` blocks never were; only processed ones, as on a live cluster."""
        chain = self.world.bank.chain
        *older, _ = chain.recent(depth + 1)
        if older:
            self._drop_after(older[0].slot, "forks")

    def _drop_after(self, slot: int, name: str) -> None:
        chain = self.world.bank.chain
        # Another fork may have taken that block away itself.
        if slot >= chain.at(Commitment.CONFIRMED).slot and chain.block(slot) is not None:
            self.world.bank.drop_slots_after(slot)
            self.chain_faults[name] += 1

    async def _make_blocks(self) -> None:
        due = anyio.current_time()
        while True:
            due = max(due + SLOT_S, anyio.current_time() - SLOT_S)
            await anyio.sleep_until(due)
            if self.blocks_paused:
                continue
            self._fork_after_fill()
            self.world.bank.advance()

    def _fork_after_fill(self) -> None:
        bank = self.world.bank
        if self._fork_to is not None:
            slot, left = self._fork_to
            if left > 0:
                self._fork_to = (slot, left - 1)
            else:
                self._fork_to = None
                self._drop_after(slot, "forks_after_fill")
        elif self.forks_after_fill:
            tip = bank.chain.tip
            if any(landed.keys[0] == self.key.pubkey() and landed.err is None for landed in tip.transactions):
                self._fork_to = (tip.parent, self.forks_after_fill.pop(0))
