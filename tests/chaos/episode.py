"""One episode: the scenario is played, the network becomes well, and everything has to fall into place."""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import httpx
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.orders import OrderState, OrderType
from tests.chaos.invariants import Findings, check, executions_on_chain
from tests.chaos.lives import EndedByItself
from tests.chaos.proxy import Storm
from tests.chaos.scenario import START_1E6, Act, Ending, Event, OrderPlan, Scenario
from tests.chaos.stage import Stage
from tests.support import Refused, Trader

# How far from the start, in parts per million, each order's trigger is; the rest are crossed by the price's moves.
_AWAY_PPM: Final = {Ending.BRIEF: 40_000, Ending.RESTING: 65_000, Ending.EXPIRING: 65_000}
_CROSSED_PPM: Final = 20_000
_BLIP_PPM: Final = 42_000
_EXPIRES_IN_S: Final = 20
_LOOK_EVERY_S: Final = 0.02
_COLLATERAL_1E6: Final = 1_000_000_000_000


@dataclass(slots=True)
class Outcome:
    """What an episode came to."""

    orders: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    converge_s: float = 0.0
    violations: list[str] = field(default_factory=list)


class Episode:
    """Plays one scenario on a stage."""

    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self._stage = stage
        self._scenario = scenario
        self._markets: Sequence[Pubkey] = ()
        self._traders: dict[str, Trader] = {}
        self._placed: dict[Pubkey, tuple[OrderPlan, Trader]] = {}
        self._acked: list[Pubkey] = []
        self._price_1e6 = START_1E6

    async def play(self) -> Outcome:
        """Play it and judge it. Nothing of it is left on the chain that could disturb the next one."""
        scenario, stage = self._scenario, self._stage
        before = stage.lives.kills.copy()
        try:
            await self._set_up()
        except (EndedByItself, TimeoutError) as e:
            return Outcome(violations=[f"on a network without faults the keeper did not start: {e}"])
        self._break()
        begun = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for order in scenario.orders:
                tasks.start_soon(self._order, order, begun)
            for event in scenario.events:
                tasks.start_soon(self._event, event, begun)
            await self._at(begun, scenario.seconds)
        outcome = await self._converge()
        outcome.counts.update({f"killed at {point}": n for point, n in (stage.lives.kills - before).items()})
        # Users take back what rests.
        await stage.take_back({address: trader for address, (_, trader) in self._placed.items()})
        return outcome

    async def _at(self, begun: float, planned_s: float) -> None:
        """Until this moment of the plan, at the stage's pace."""
        await anyio.sleep(max(0.0, begun + planned_s * self._stage.pace - time.monotonic()))

    # -- the beginning

    async def _set_up(self) -> None:
        stage = self._stage
        await stage.prepare(self._scenario.events)
        self._markets = await stage.markets(self._scenario.markets, price_1e6=START_1E6)
        self._traders = await stage.traders({"rich": _COLLATERAL_1E6, "poor": 0, "later": 0, "none": None})
        # Before the restart: where there are several keepers, one of these begins with it already.
        stage.lives.arm_next(self._scenario.crash_again)
        if self._scenario.crash_at or stage.lives.armed:
            await stage.lives.restart(graceful=self._scenario.graceful, crash_at=self._scenario.crash_at)
        await stage.lives.ready()
        await self._keepers_settled()

    async def _keepers_settled(self) -> None:
        ends = time.monotonic() + self._stage.settle_within_s
        while left := await self._stage.unsettled():
            if time.monotonic() > ends:
                raise TimeoutError("; ".join(left))
            await anyio.sleep(_LOOK_EVERY_S * self._stage.pace)

    def _break(self) -> None:
        pace = self._stage.pace
        until = time.monotonic() + self._scenario.seconds * pace
        self._stage.lives.excuse(True)
        self._stage.weather(
            [
                Storm(f"{self._scenario.seed}/{i}", rates, until=until, longest_s=self._scenario.longest_fault_s * pace)
                for i, rates in enumerate(self._scenario.storms)
            ]
        )

    # -- orders

    async def _order(self, plan: OrderPlan, begun: float) -> None:
        await self._at(begun, plan.at_s)
        trader = self._traders[_PURSES.get(plan.ending, "rich")]
        away_ppm = _AWAY_PPM.get(plan.ending, _CROSSED_PPM)
        trigger_1e6 = START_1E6 + (-1 if plan.below else 1) * START_1E6 * away_ppm // 1_000_000
        try:
            if plan.by_api:
                order = await self._place_by_api(plan, trader, trigger_1e6)
            else:
                order = await self._place(plan, trader, trigger_1e6, away_ppm)
        except Refused:
            return  # a price that a fork or a blip moved away: no order
        if order is None:
            return
        self._placed[order] = (plan, trader)
        await self._at(begun, plan.act_s)
        try:
            if plan.ending is Ending.RIVAL:
                await self._stage.execute(order)
            elif plan.ending is Ending.CANCELLED:
                await self._stage.cancel(trader, order)
        except Refused:
            pass  # the keeper was first, or the price is not there: that is the race

    async def _place(self, plan: OrderPlan, trader: Trader, trigger_1e6: int, away_ppm: int) -> Pubkey:
        kind = plan.order_type
        expires_at = await self._stage.now() + _EXPIRES_IN_S if plan.ending is Ending.EXPIRING else 0
        return await self._stage.place(
            trader,
            self._markets[plan.market],
            kind,
            plan.side,
            price_1e6=trigger_1e6 if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT) else 0,
            stop_price_1e6=0 if kind in (OrderType.LIMIT, OrderType.TRAILING_STOP) else trigger_1e6,
            trailing_distance_ppm=away_ppm if kind is OrderType.TRAILING_STOP else 0,
            expires_at=expires_at,
        )

    async def _place_by_api(self, plan: OrderPlan, trader: Trader, trigger_1e6: int) -> Pubkey | None:
        """Through the keeper's API, like a trader's program: the order, or None when it gave none."""
        url, market = self._stage.lives.url, self._markets[plan.market]
        if url is None:
            return None
        body = {
            "user": str(trader.address),
            "market": (await self._stage.read([market], ())).market_state(market).symbol,
            "order_type": "stop_loss",
            "side": "long" if plan.below else "short",
            "size": "1",
            "trigger_price": f"{trigger_1e6 / 1e6:g}",
            "leverage": 5,
        }
        try:
            async with httpx.AsyncClient(base_url=url, timeout=2.0, verify=False) as http:
                prepared = (await http.post("/v1/orders", json=body)).raise_for_status().json()
                order = Pubkey.from_string(prepared["order"])
                self._placed[order] = (plan, trader)
                unsigned = VersionedTransaction.from_bytes(base64.b64decode(prepared["transaction"]))
                wire = bytes(VersionedTransaction(unsigned.message, [trader.key]))
                signed = {"id": prepared["id"], "signed_transaction": base64.b64encode(wire).decode()}
                (await http.post("/v1/orders/execute", json=signed)).raise_for_status()
        except httpx.HTTPError:
            return None  # refused, or the keeper died: if it had taken the order, the chain and the journal tell
        self._acked.append(order)
        return order

    # -- events

    async def _event(self, event: Event, begun: float) -> None:
        await self._at(begun, event.at_s)
        match event.act:
            case Act.PRICE:
                await self._set_price(int(event.amount))
                self._stage.chain_faults[event.act] += 1
            case Act.BLIP:
                before = self._price_1e6
                off = START_1E6 * _BLIP_PPM // 1_000_000
                await self._set_price(START_1E6 - off if before <= START_1E6 else START_1E6 + off)
                await anyio.sleep(event.amount)
                await self._set_price(before)
            case Act.KILL:
                self._stage.lives.kill()
            case _:
                await self._stage.act(event)

    async def _set_price(self, price_1e6: int) -> None:
        self._price_1e6 = price_1e6
        for market in self._markets:
            await self._stage.set_price(market, price_1e6)

    # -- the end

    async def _converge(self) -> Outcome:
        stage, scenario = self._stage, self._scenario
        begun = time.monotonic()
        stage.clear()
        later = self._traders["later"]
        await stage.deposit(later, _COLLATERAL_1E6)
        await self._set_price(scenario.final_price_1e6)
        outcome = Outcome(orders=len(self._placed))
        findings = Findings()
        broken_since: dict[str, float] = {}
        ready = False
        while True:
            now = time.monotonic()
            broken_since = {sentence: broken_since.get(sentence, now) for sentence in findings.broken}
            sure = [sentence for sentence, since in broken_since.items() if now - since >= stage.sure_after_s]
            outcome.violations = [*stage.witness.violations, *sure]
            if stage.lives.bad_end:
                outcome.violations.append(f"{stage.lives.bad_end}")
            if outcome.violations or (ready and not findings.unsettled and not findings.broken):
                break
            if time.monotonic() - begun > stage.settle_within_s:
                outcome.violations = [f"not settled: {sentence}" for sentence in findings.unsettled]
                outcome.violations += [] if ready else ["the keeper did not become ready"]
                break
            await anyio.sleep(_LOOK_EVERY_S * stage.pace)
            if stage.lives.up:
                # A start that began in the storm may still end by it; a later one may not.
                stage.lives.excuse(False)
                ready = True
            may_fail = {order for order, (plan, _) in self._placed.items() if plan.ending in _MAY_FAIL}
            record = await stage.read(self._markets, self._placed)
            findings = check(record, stage.journal, stage.key.pubkey(), self._placed, self._acked, may_fail)
            findings.unsettled += await stage.unsettled()
        outcome.converge_s = time.monotonic() - begun
        outcome.violations += await stage.judge()
        await self._count(outcome)
        return outcome

    async def _count(self, outcome: Outcome) -> None:
        counts, record = outcome.counts, await self._stage.read(self._markets, self._placed)
        for address, (plan, _) in self._placed.items():
            for execution in executions_on_chain(record, address):
                counts[
                    "executed by the keeper" if execution.keys[0] == self._stage.key.pubkey() else "lost to a rival"
                ] += 1
            attempts = self._stage.journal.attempts_of(address)
            counts.update(f"attempts {attempt.state}" for attempt in attempts)
            counts.update(f"errors {attempt.error_name}" for attempt in attempts if attempt.error_name)
            row = self._stage.journal.order(address)
            if row is not None and row.state is OrderState.FAILED:
                counts[f"failed by name ({plan.ending})"] += 1
        counts["placed by API"] += len(self._acked)


_PURSES: Final[dict[Ending, str]] = {
    Ending.POOR: "poor",
    Ending.POOR_THEN_RICH: "later",
    Ending.NO_ACCOUNT: "none",
}
_MAY_FAIL: Final = frozenset({Ending.POOR, Ending.NO_ACCOUNT})
"""The users of these can't pay to the end. Nobody else's order may be given up, whatever the storms did."""
