"""What an episode plays on: the chain, the network, the keeper's lives, and who sees what leaves them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import anyio
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.localnet import Commitment
from keeper.localnet.chain import Block
from keeper.localnet.history import Landed
from keeper.localnet.observer import Observer
from keeper.localnet.subscriptions import Subscriptions
from tests.chaos.proxy import Storm
from tests.simulate.dice import clock
from tests.simulate.fleet import Fleet
from tests.simulate.ground import NODES, OPERATOR, SENDERS, STRANGE_PACE, TIP_ACCOUNT, Ground
from tests.simulate.judge import Judge, hold_to_leases
from tests.simulate.life import Lives
from tests.simulate.loop import VirtualLoop
from tests.simulate.network import Link, Network
from tests.simulate.node import Node
from tests.simulate.scenario import START_1E6, Act, Scenario
from tests.simulate.sharer import Sharer
from tests.simulate.trace import Trace
from tests.support.world import SOL

_FEED_EVERY_S: Final = 4.0
_ANSWER_WITHIN_S: Final = 8.0
_OTHERS_KNOW_WITHIN_S: Final = 1.5
"""Of a pause at one of the keepers that share the markets: docs/scale.md, and something for a slow machine."""
_MORE_MARKETS: Final = ("BTC/USDC", "ETH/USDC")
_ASKS_ANOTHER: Final = 0.1
"""So often whoever asks the API of several keepers asks any of them."""


class Stage:
    """One episode's. Blocks are made and prices told until it is left."""

    def __init__(self, ground: Ground, scenario: Scenario, *, keep: bool = False) -> None:
        random.seed(f"{scenario.seed}/keeper")
        self.ground, self.scenario = ground, scenario
        self.world, self.bank = ground.world, ground.bank
        self.markets = {"SOL/USDC": ground.market}
        """By symbol. There are more of them where several keepers share them."""
        self.shares = scenario.several is not None and scenario.several.share
        if self.shares:
            for symbol in _MORE_MARKETS:
                self.markets[symbol] = self.world.market(symbol, price_1e6=START_1E6)
        self.trace = Trace(clock, keep=keep)
        self.loop = VirtualLoop(clock, f"{scenario.seed}/loop")
        self.dice = random.Random(f"{scenario.seed}/episode")
        self._asks = random.Random(f"{scenario.seed}/asks")
        told = Subscriptions(self.bank)
        self.nodes = [Node(label, f"{scenario.seed}/{label}", self.bank, told) for label in NODES]
        if scenario.stranger:
            other = ground.stranger.bank
            self.nodes[1] = Node(NODES[1], f"{scenario.seed}/{NODES[1]}", other, Subscriptions(other))
        for node, slow_s in zip(self.nodes, scenario.slow_s, strict=True):
            node.slow_s = slow_s
        self.senders = [
            Node(label, f"{scenario.seed}/{label}", self.bank, told)
            for label, _ in zip(SENDERS, scenario.sender_storms, strict=False)
        ]
        if self.senders:
            self.bank.airdrop(TIP_ACCOUNT, SOL)
        self.network = Network(self.loop, [*self.nodes, *self.senders], self.trace, self._on_calls)
        dice = random.Random(f"{scenario.seed}/lives")
        settings = partial(ground.settings, cap_lamports=scenario.cap_lamports, senders=bool(self.senders))
        self.fleet: Fleet | None = None
        """Several keepers; None where there is one."""
        how = (self.loop, self.network, settings, ground.folder, self.trace, dice)
        self.lives: Lives | Fleet
        if scenario.several is None:
            self.lives = Lives(*how)
        else:
            self.lives = self.fleet = Fleet(*how, scenario.several)
        self.lives.on_ready = self._keeper_is_ready
        self.since_slot = 0
        """The chain's slot when the present life began."""
        self.calm_from = 0.0
        """Until then things break, by the loop's time."""
        self.ready_since = 0.0
        """When the present life was ready, by the loop's time."""
        self.judge = Judge(self.world)
        self.network.on_blockhash = self._blockhash_told
        self.judge.clock_steps = scenario.has(Act.STEP_CLOCK)
        if self.shares:
            self.judge.pause_within_s = _OTHERS_KNOW_WITHIN_S
        self.record = ChainRecord(self.trace, ground.key.pubkey(), self._landed)
        self.bank.observe(self.record)
        if scenario.alpenglow_after is not None:
            self.bank.chain.alpenglow_from = self.bank.chain.tip.slot + scenario.alpenglow_after
        self.price_1e6 = START_1E6
        self.fed_from = 0.0
        """From then on the oracle speaks again, by the loop's time."""
        self.paused_until = 0.0
        """Until then there are no blocks."""
        self.forks_after_fill: list[int] = []
        self._fork_to: tuple[int, int] | None = None
        self.topping_up = False
        """Whether the poor user pays in little by little still; the episode ends after that."""
        self.bare_fills = 0
        """So many of the keeper's next fills lose their position."""
        self.bare: dict[Pubkey, Landed] = {}
        """The orders whose fill lost it, with that fill."""

    def storm(self) -> None:
        """From now until the scenario's end things break on the network."""
        scenario = self.scenario
        ends = self.calm_from = self.loop.time() + scenario.seconds
        storms = (*scenario.storms, *scenario.sender_storms)
        for i, (node, storm) in enumerate(zip(self.network.nodes, storms, strict=True)):
            seed = f"{scenario.seed}/storm/{i}"
            node.faults = Storm(seed, storm, until=ends, longest_s=scenario.longest_fault_s)
        for node, lies in zip(self.nodes, scenario.lies, strict=True):
            node.lies, node.lies_until = dict(lies), ends

    def tips_lamports(self) -> int:
        """What was paid to the sender that wants tips."""
        account = self.bank.account(TIP_ACCOUNT) if self.senders else None
        return 0 if account is None else account.lamports - SOL

    def calm(self) -> None:
        """From now on nothing breaks."""
        for node in self.network.nodes:
            node.faults, node.lies_until, node.slow_s = None, 0.0, 0.02
        self.forks_after_fill.clear()
        self._fork_to = None  # it would take with it what users pay in now, and they do so once
        self.bank.lose_transactions(0)
        self.bank.release_transactions()
        self.fed_from = self.paused_until = 0.0
        self.lives.calm()

    # -- the chain

    async def make_blocks(self) -> None:
        """A block a slot, unless the chain stands still."""
        while True:
            await anyio.sleep(self.scenario.slot_s)
            if self.loop.time() < self.paused_until:
                continue
            self._fork_after_fill()
            self.bank.advance()
            for _ in range(STRANGE_PACE if self.scenario.stranger else 0):
                self.ground.stranger.bank.advance()

    async def feed(self) -> None:
        """The oracle tells the present price now and then."""
        while True:
            await anyio.sleep(_FEED_EVERY_S * self.dice.uniform(0.5, 1.0))
            if self.loop.time() >= self.fed_from:
                self.set_price(self.price_1e6)

    def set_price(self, price_1e6: int) -> None:
        """The oracle tells a price, and this one from now on."""
        self.price_1e6 = price_1e6
        self.trace.note("price", f"{price_1e6 / 1e6:g}")
        for market in self.markets.values():
            self.world.set_price(market, price_1e6)

    def market_of(self, number: int) -> str:
        """The symbol of the market on which the order of this number is."""
        symbols = list(self.markets)
        return symbols[number % len(symbols)]

    def fork(self, blocks: int) -> None:
        """The last `blocks` blocks never were, unless one of them was confirmed: no cluster has undone that."""
        chain = self.bank.chain
        slot = chain.tip.slot
        for _ in range(blocks):
            block = chain.block(slot)
            slot = slot if block is None else block.parent
        self._fork(slot)

    def _fork(self, slot: int) -> None:
        chain = self.bank.chain  # which may have left that slot out by another fork, meanwhile
        if chain.block(slot) is not None and chain.at(Commitment.CONFIRMED).slot <= slot < chain.tip.slot:
            gone = self.bank.drop_slots_after(slot)
            self.trace.note("fork", f"slots after {slot} never were, and {len(gone)} transactions")

    def _fork_after_fill(self) -> None:
        if self._fork_to is not None:
            slot, left = self._fork_to
            if left > 0:
                self._fork_to = (slot, left - 1)
            else:
                self._fork_to = None
                self._fork(slot)
        elif self.forks_after_fill:
            tip = self.bank.chain.tip
            if any(landed.keys[0] == self.ground.key.pubkey() and landed.err is None for landed in tip.transactions):
                self._fork_to = (tip.parent, self.forks_after_fill.pop(0))

    def _keeper_is_ready(self) -> None:
        self.since_slot, self.ready_since = self.bank.chain.tip.slot, self.loop.time()

    # -- what leaves the keeper

    def _blockhash_told(self, link: Link, last_valid_block_height: int) -> None:
        # Of one keeper all lives are judged by what any of them was told; of several each by what it was told itself.
        self.judge.blockhash_told(last_valid_block_height, None if self.fleet is None else link)

    def _on_calls(self, link: Link, label: str, calls: Sequence[dict[str, Any]]) -> None:
        life = self.lives.of(link)
        who = f"{life.client.name} " if isinstance(life, Sharer) else ""
        self.trace.note("ask", f"{who}{label} {' '.join(str(call.get('method')) for call in calls)}")
        if not any(call.get("method") == "sendTransaction" for call in calls):
            return
        reader = self.lives.reader()
        if life is None or reader is None:
            self.judge.violations.append("something was sent before there was a journal")
        elif self.fleet is None:
            self.judge.sent(label, calls, reader, life.disk)
        else:
            self.judge.sent(label, calls, reader, self.fleet.server, link)
            if isinstance(life, Sharer):
                hold_to_leases(self.judge, calls, reader, life, self.fleet.server)

    # -- the API

    async def ask_api(
        self, about: str, path: str, body: dict[str, Any], *, market: str = "SOL/USDC", **headers: str
    ) -> Any:
        """The API's answer, of a keeper that works on this market; None when it gave none, or refused."""
        life = self.lives.up
        if self.fleet is not None:
            held = self.fleet.server.holder(str(self.markets[market]))
            life = life if held is None else self.fleet.life_of(held[0])
            if life is None or self._asks.random() < _ASKS_ANOTHER:
                life = self._asks.choice(self.fleet.keepers).sharer
        status, answer = 0, None
        api = None if life is None else life.asked
        if life is not None and api is not None:
            status, answer = await api.ask("POST", path, body, within_s=_ANSWER_WITHIN_S, **headers)
            if life.dead:
                status = 0  # nobody was left to answer
        code = answer.get("code", "") if isinstance(answer, dict) else ""
        self.trace.note("api", f"{about}: {path.split('/')[-1]} {status} {code}".rstrip())
        if status >= 500 and code in ("", "internal_error"):
            self.judge.violations.append(f"the API answered {status} {code} to {path}: {answer}")
        return (answer or {}) if 200 <= status < 300 else None

    async def resume(self) -> bool:
        """An operator asks the keeper to go on, whoever stopped it; whether it says that it does."""
        self.judge.paused_since = None
        return await self.ask_api("operator", "/v1/admin/resume", {}, authorization=OPERATOR) is not None

    # -- fills without a position

    def _landed(self, landed: Landed) -> None:
        if self.bare_fills and landed.err is None and landed.keys[0] == self.ground.key.pubkey():
            for key in landed.keys:
                if self.world.position(key) is not None:
                    self.bare_fills -= 1
                    self.bare[key] = landed
                    self.loop.call_soon(self._take_position, key)

    def bare_now(self) -> list[Pubkey]:
        """The orders that are filled without a position: a fork that dropped the fill has undone that, too, and the
        same bytes may have landed again since, with their position.
        """
        found = [(order, self.bank.history.get(landed.signature), landed) for order, landed in self.bare.items()]
        return [
            order
            for order, now, then in found
            if now is not None and now.slot == then.slot and self.world.position(order) is None
        ]

    def _take_position(self, order: Pubkey) -> None:
        position = self.world.position(order)
        if position is not None:
            self.trace.note("act", f"the position of {order} is not there")
            self.bank.set_account(position.address, None)


class ChainRecord(Observer):
    """Writes down what lands."""

    def __init__(self, trace: Trace, keeper: Pubkey, on_landed: Callable[[Landed], None]) -> None:
        self._trace, self._keeper, self._on_landed = trace, keeper, on_landed
        self.blocks = 0

    def received(self, signature: Signature) -> None:
        pass

    def written(self, slot: int, accounts: Any) -> None:
        pass

    def landed(self, landed: Landed) -> None:
        who = "keeper" if landed.keys[0] == self._keeper else "other"
        self._trace.note("land", f"slot {landed.slot} {who} {landed.signature} {landed.err or 'ok'}")
        self._on_landed(landed)

    def advanced(self, tip: Block, confirmed: Sequence[Block], final: Sequence[Block]) -> None:
        self.blocks += 1

    def reverted(self, tip: Block, accounts: Any, confirmed: bool) -> None:
        pass
