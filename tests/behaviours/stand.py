"""A stand: the whole keeper application in the test's own event loop, on an embedded chain, behind fault proxies.

In the same process the test can hold the blocks and let them go between any two steps. Where a signal or a kill
matters, the keeper is a process of its own (`tests.support.KeeperProcess`, `tests.chaos.lives`).

Every transaction that leaves the keeper passes the campaign's witness, who checks it against the journal's file and
the chain's own record: nothing unjournaled, nothing altered, never a second signature while the first could land.
So each test here also shows promises 1 and 2 for its own fault; `open` fails the test when they were broken.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.app.wiring import Ready, run
from keeper.config.loading import load_settings
from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.domain.orders import OrderState
from keeper.journal import Queries, home_of
from keeper.journal.records import OrderRow
from keeper.localnet import Bank
from keeper.runtime.outside import REAL_WORLD, Outside
from tests.behaviours.edited_node import EditedNode
from tests.chaos.proxy import FaultProxy, Script
from tests.chaos.witness import Witness
from tests.support import BOUND_S, KeeperConfig, Trader, World, until
from tests.support.blocks import Blocks

USDC: Final = 1_000_000
SOL: Final = 1_000_000_000
A_FILL_LAMPORTS: Final = 3_723_600 + 5_300
"""A little more than what a fill takes from the keeper's key: the rent of a position's 407 bytes, and a fee."""
BLOCK_S: Final = 0.01
BLOCKHASH_LIFE: Final = 150

FAST: Final[dict[str, dict[str, Any]]] = {
    "rpc": {
        "deadline_s": 2.0,
        "silence_s": 5.0,
        "snapshot_every_s": 30.0,
        "probe_every_s": 30.0,
        "blockhash_every_s": 0.05,
    },
    "execution": {
        "armed_a_side": 0,
        "resend_every_s": 0.1,
        "finality_every_s": 0.05,
        "account_every_s": 0.05,
        "first_pause_s": 0.02,
        "longest_pause_s": 0.05,
    },
    "trigger": {"breaker_trip": 1.0},
}
"""Everything quick, and what the tests do not ask for slow or off: prices may jump unless a test is about that, and
executions are armed in `test_armed` alone, so that elsewhere each goes all of its way at the tick.
"""


def stop_loss(user: str, symbol: str, trigger_price: str = "95") -> dict[str, Any]:
    """What a trader's own program asks the API for."""
    return {
        "user": user,
        "market": symbol,
        "order_type": "stop_loss",
        "side": "long",
        "size": "1",
        "trigger_price": trigger_price,
        "leverage": 5,
    }


@dataclass(frozen=True, slots=True)
class Send:
    """One `sendTransaction` that reached an endpoint: which, and the bytes."""

    endpoint: int
    wire: bytes

    @property
    def signature(self) -> Signature:
        """The transaction's signature."""
        return Signature.from_bytes(self.wire[1:65])


@dataclass
class Stand:
    """A world, and a keeper's files. Blocks come every 10 ms unless they are `held`.

    Each endpoint of the keeper is a fault proxy with its script, before a node whose answers can be edited, before
    the chain.
    """

    world: World
    proxies: list[FaultProxy]
    scripts: list[Script]
    nodes: list[EditedNode]
    config: KeeperConfig
    witness: Witness
    sends: list[Send] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    """The methods of each request to the first endpoint."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Each call to the first endpoint, with its parameters."""
    ready: Ready | None = None
    blocks: Blocks = field(init=False)

    def __post_init__(self) -> None:
        self.blocks = Blocks(self.bank, BLOCK_S)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path,
        *,
        endpoints: int = 1,
        confirmed_slots: int = 2,
        finalized_slots: int = 6,
        chain: Mapping[str, Any] | None = None,
        lamports: int = 100 * SOL,
        **sections: Mapping[str, Any],
    ) -> AsyncIterator[Stand]:
        """Build it, without a keeper. `chain` are further fields of LocalnetConfig, `sections` settings."""
        async with AsyncExitStack() as stack:
            world = await stack.enter_async_context(
                World.open(slot_ms=0, confirmed_slots=confirmed_slots, finalized_slots=finalized_slots, **(chain or {}))
            )
            for _ in range(finalized_slots + 2):
                world.bank.advance()
            scripts = [Script() for _ in range(endpoints)]
            nodes = [await stack.enter_async_context(EditedNode(world.net.rpc_url)) for _ in scripts]
            proxies = [
                await stack.enter_async_context(FaultProxy(node.rpc_url, world.net.ws_url, faults=script))
                for node, script in zip(nodes, scripts, strict=True)
            ]
            witness = Witness(world.bank)
            settings = {name: {**FAST.get(name, {}), **sections.get(name, {})} for name in {*FAST, *sections}}
            settings["rpc"] = {
                "url": proxies[0].rpc_url,
                "ws_url": proxies[0].ws_url,
                "fallbacks": [{"url": p.rpc_url, "ws_url": p.ws_url} for p in proxies[1:]],
                **settings["rpc"],
            }
            if world.net.geyser_url is not None:
                stream = {"kind": "yellowstone", "url": world.net.geyser_url}
                settings["rpc"] = {"streams": [stream], **settings["rpc"]}
            config = KeeperConfig.at(folder / "keeper", world.wallet(lamports), **settings)
            stand = cls(world, proxies, scripts, nodes, config, witness)
            for i, proxy in enumerate(proxies):
                proxy._on_calls = partial(stand._on_calls, i)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(stand.blocks.make)
            yield stand
            tasks.cancel_scope.cancel()
            if witness.journal is not None:
                witness.journal.close()
            assert witness.violations == []

    @asynccontextmanager
    async def keeper(self, config: KeeperConfig | None = None, outside: Outside = REAL_WORLD) -> AsyncIterator[Ready]:
        """Run the application until the block is left; it is ready when the block begins."""
        settings = load_settings((config or self.config).file)
        ready: list[Ready] = []
        async with anyio.create_task_group() as tg:
            tg.start_soon(partial(run, settings, on_ready=ready.append, outside=outside), name="keeper")
            await until(lambda: ready)
            self.ready = ready[0]
            yield ready[0]
            tg.cancel_scope.cancel()

    # -- the chain

    @property
    def bank(self) -> Bank:
        """The chain's bank."""
        return self.world.bank

    @property
    def lamports(self) -> int:
        """What the keeper's key has by now."""
        account = self.bank.account(self.config.key.pubkey())
        return 0 if account is None else account.lamports

    def held(self) -> AbstractContextManager[None]:
        """No blocks but the test's own."""
        return self.blocks.held()

    def order(self, trader: Trader, market: Pubkey, stop_usd: float = 95, **terms: Any) -> Pubkey:
        """A stop loss of a long, unless `terms` say otherwise: it fires at or below `stop_usd`."""
        return self.world.place(trader, market, stop_price_1e6=round(stop_usd * USDC), **terms)

    def tell(self, address: Pubkey, slot: int) -> None:
        """Have the node tell its subscribers of an account as it is now, as of a slot that may be a lie."""
        for observer in self.bank._observers:
            observer.written(slot, {address: self.bank.account(address)})

    def outlive_blockhashes(self) -> None:
        """So many blocks that nothing signed before can land any more, and that this is final."""
        for _ in range(BLOCKHASH_LIFE + 2 + self.bank.settings.finalized_slots):
            self.bank.advance()

    # -- the journal's file, read beside the keeper

    @property
    def journal(self) -> Queries:
        """Queries on the keeper's journal."""
        if self.witness.journal is None:
            self.witness.journal = home_of(self.config.place).open_queries()
        return self.witness.journal

    def row(self, order: Pubkey) -> OrderRow | None:
        """The order as the journal has it."""
        return self.journal.order(order)

    def state(self, order: Pubkey) -> OrderState | None:
        """The order's state in the journal."""
        row = self.row(order)
        return None if row is None else row.state

    def attempts(self, order: Pubkey) -> Sequence[Attempt]:
        """The keeper's attempts at the order, the first one first."""
        return self.journal.attempts_of(order)

    def landed(self, order: Pubkey) -> int:
        """How many of the keeper's executions of the order are on chain as successes."""
        executions = [one for one in self.attempts(order) if one.kind is AttemptKind.EXECUTE]
        found = [self.bank.history.get(one.signature) for one in executions]
        return sum(one is not None and one.err is None for one in found)

    def attempt_state(self, order: Pubkey) -> AttemptState | None:
        """The state of the newest attempt."""
        attempts = self.attempts(order)
        return attempts[-1].state if attempts else None

    async def known(self, *orders: Pubkey) -> None:
        """Wait until the keeper rests these orders."""
        await until(lambda: all(self.state(order) is not None for order in orders))

    async def reach(self, order: Pubkey, state: OrderState, *, within_s: float = BOUND_S) -> OrderRow:
        """Wait for the order's state in the journal."""
        try:
            await until(lambda: self.state(order) is state, within_s=within_s)
        except TimeoutError:
            row = self.row(order)
            raise AssertionError(f"the order is {row and (row.state, row.reason)}, not {state}") from None
        row = self.row(order)
        assert row is not None
        return row

    async def reason(self, order: Pubkey, part: str, *, within_s: float = BOUND_S) -> OrderRow:
        """Wait until the journal's sentence on the order has this part."""
        try:
            await until(lambda: part in (((row := self.row(order)) and row.reason) or ""), within_s=within_s)
        except TimeoutError:
            raise AssertionError(f"of the order is said {self.row(order)}, not {part!r}") from None
        row = self.row(order)
        assert row is not None
        return row

    # -- what left the keeper

    def sent(self, order: Pubkey) -> list[bytes]:
        """The wires that were sent for an order, in order, each time that an endpoint received one."""
        known = {attempt.signature for attempt in self.attempts(order)}
        return [send.wire for send in self.sends if send.signature in known]

    def _on_calls(self, endpoint: int, calls: Sequence[dict[str, Any]]) -> None:
        if endpoint == 0:
            self.calls.append([str(call.get("method")) for call in calls])
            self.asked += calls
        for call in calls:
            if call.get("method") == "sendTransaction":
                assert self.journal is not None  # opens it for the witness, who reads it at this moment
                self.sends.append(Send(endpoint, base64.b64decode(call["params"][0])))
        self.witness.on_calls(str(endpoint), calls)

    # -- its API

    async def get(self, path: str) -> httpx.Response:
        """Ask the keeper's API."""
        assert self.ready is not None
        async with httpx.AsyncClient(base_url=self.ready.http_url) as http:
            return await http.get(path)

    async def readiness(self, check: str) -> tuple[bool, str]:
        """One check of those that readiness depends on: whether it is well, and its sentence."""
        checks = (await self.get("/healthz")).json()["checks"]
        found = next(c for c in checks if c["name"] == check)
        return bool(found["ok"]), str(found["detail"] or "")

    async def told(self, check: str, wanted: Callable[[str], bool], *, within_s: float = BOUND_S) -> None:
        """Wait until the sentence of a check is as wanted."""
        with anyio.fail_after(within_s):
            while not wanted((await self.readiness(check))[1]):  # noqa: ASYNC110 - asked over HTTP
                await anyio.sleep(0.02)


async def stays(holds: Callable[[], bool], stand: Stand, *, blocks: int = 12) -> None:
    """Check that something keeps true while so many further blocks are made."""
    last = stand.bank.chain.tip.height + blocks
    while stand.bank.chain.tip.height < last:
        assert holds(), f"it did not keep true: {holds.__qualname__}"
        await anyio.sleep(BLOCK_S / 2)
