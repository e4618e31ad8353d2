"""One episode: the scenario is played, everything becomes well, and everything has to fall into place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import anyio
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptState, Fate
from keeper.domain.orders import OrderState
from keeper.execution.gate import NO_POSITION
from keeper.execution.purse import utc_day
from keeper.journal import Queries
from tests.chaos.invariants import Findings, check, executions_on_chain
from tests.simulate.acts import carry_out
from tests.simulate.api import Api
from tests.simulate.dice import clock
from tests.simulate.ground import COLLATERAL_1E6, SENDERS, Ground
from tests.simulate.inside import Inside
from tests.simulate.scenario import Purse, Scenario
from tests.simulate.stage import Stage
from tests.simulate.users import Users

CONVERGE_WITHIN_S: Final = 150.0
_LOOK_EVERY_S: Final = 1.0
_SENT_WITHIN_S: Final = 8.0
"""In calm, what could land and has not is sent every two seconds; a node takes its time, too."""
RETRY_BUDGET: Final = 5
_OF_ONE_SECOND: Final = 4_000_000
"""Lamports that a keeper may set aside within a second: those of an execution with its position's rent."""
_LOOKS: Final = 2
"""So many looks in a row have to find everything in its place."""


@dataclass(slots=True)
class Outcome:
    """What an episode came to. `digest` is its trace's."""

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    digest: str = ""
    lines: list[str] = field(default_factory=list)


class Episode:
    """Plays one scenario on the ground, in this process, whose clock it moves."""

    def __init__(self, ground: Ground, scenario: Scenario, *, keep: bool = False) -> None:
        self.stage = Stage(ground, scenario, keep=keep)
        self.users = Users(self.stage)
        self._scenario = scenario
        self.outcome = Outcome()
        self._wrong_inside: list[str] = []
        self._calm_since = 0.0

    def play(self) -> Outcome:
        """Play it, and judge it."""
        stage, outcome = self.stage, self.outcome
        try:
            stage.loop.run_until_complete(self._main())
        except BaseException as error:
            outcome.violations.append(f"the simulation broke: {type(error).__name__}: {error}")
        for violation in outcome.violations:
            stage.trace.note("violation", violation.replace(str(stage.ground.folder), "~"))
        outcome.digest, outcome.lines = stage.trace.digest(), stage.trace.lines
        return outcome

    async def _main(self) -> None:
        stage, scenario = self.stage, self._scenario
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.lives.run, name="lives")
            tasks.start_soon(stage.make_blocks, name="blocks")
            tasks.start_soon(stage.feed, name="oracle")
            tasks.start_soon(self._look_inside, name="inside")
            stage.storm()
            for number, plan in enumerate(scenario.orders, 1):
                if number - 1 in scenario.left_out:
                    continue
                tasks.start_soon(self.users.follow, number, plan)
            for event in scenario.events:
                tasks.start_soon(carry_out, stage, event)
            await anyio.sleep(scenario.seconds)
            await self._converge()
            tasks.cancel_scope.cancel()

    async def _look_inside(self) -> None:
        """Every second of the keeper's lives."""
        insides: dict[Api, Inside] = {}
        while not self._wrong_inside:
            await anyio.sleep(_LOOK_EVERY_S)
            apis = [life.api for life in self.stage.lives.working() if life.api is not None]
            insides = {api: insides.get(api) or Inside(api.ports) for api in apis}
            for inside in insides.values():
                self._wrong_inside += inside.look([placed.address for placed in self.users.placed])

    # -- the end

    async def _converge(self) -> None:
        stage, lives = self.stage, self.stage.lives
        stage.trace.note("end", "everything is well from here on")
        stage.calm()
        stage.world.deposit(stage.ground.users[Purse.LATER], COLLATERAL_1E6)
        stage.set_price(self._scenario.final_price_1e6)
        begun = self._calm_since = stage.loop.time()
        not_there = "the keeper is not ready" if stage.fleet is None else "not every keeper has its place"
        findings = Findings(unsettled=[not_there])
        settled = 0
        while settled < _LOOKS and not self._broken(findings):
            await anyio.sleep(_LOOK_EVERY_S)
            if lives.up is not None:
                lives.may_refuse = False
            reader = lives.reader()
            if stage.bare and reader is not None and reader.meta(NO_POSITION) is not None:
                await stage.resume()  # a fill without its position stops the keeper until an operator has looked
            if not lives.whole or reader is None:
                settled, findings = 0, Findings(unsettled=[not_there])
            else:
                findings = self._look(reader)
                settled = 0 if findings.unsettled or stage.topping_up else settled + 1
            if stage.loop.time() - begun > CONVERGE_WITHIN_S:
                self.outcome.violations += [f"not settled: {sentence}" for sentence in findings.unsettled]
                break
        self.outcome.violations += self._broken(findings)
        stage.trace.note("end", f"settled after {stage.loop.time() - begun:.3f} s")
        self._count()

    def _broken(self, findings: Findings) -> list[str]:
        """What can never become right again."""
        stage, lives = self.stage, self.stage.lives
        broken = [*stage.judge.violations, *self._wrong_inside, *findings.broken, *stage.loop.errors]
        broken += [lives.bad_end] if lives.bad_end else []
        return broken + lives.errors + ([] if stage.fleet is None else stage.fleet.server.unlawful)

    def _look(self, reader: Queries) -> Findings:
        stage, users = self.stage, self.users
        bare = stage.bare_now()
        addresses = list(dict.fromkeys(p.address for p in users.placed if p.address not in bare))
        findings = check(
            stage.world,
            reader,
            stage.ground.key.pubkey(),
            addresses,
            users.accepted,
            may_fail=addresses,
            since_slot=stage.since_slot,
        )
        # Only an order that can't be paid for may be given up.
        for placed in users.placed:
            order, row = stage.world.order(placed.address), reader.order(placed.address)
            if order is None or row is None or not order.pending or row.state is not OrderState.FAILED:
                continue
            can_pay = placed.plan.purse in (Purse.RICH, Purse.LATER)
            if can_pay and not order.expired_at(stage.bank.chain.tip.time):
                findings.unsettled.append(f"order {placed.address} was given up: {row.reason}")
            if row.budget_used > RETRY_BUDGET:
                findings.broken.append(f"order {placed.address} has cost {row.budget_used} of {RETRY_BUDGET} attempts")
        for address in bare:
            self._look_at_bare(address, reader, findings)
        if self._scenario.cap_lamports:
            self._look_at_cap(findings)
        if stage.senders:
            self._look_at_tips(reader, findings)
        self._look_at_sends(reader, findings)
        return findings

    def _look_at_sends(self, reader: Queries, findings: Findings) -> None:
        """What may have got lost is sent again, as long as it could land."""
        stage = self.stage
        tip, now, since = stage.bank.chain.tip, stage.loop.time(), max(self._calm_since, stage.ready_since)
        for attempt in reader.open_attempts():
            if not attempt.state.in_flight or tip.height > attempt.last_valid_block_height:
                continue
            signed = now - max(0.0, clock.time() - attempt.signed_at)
            last = max(since, signed, stage.judge.last_sent.get(str(attempt.signature), 0.0))
            if stage.bank.history.get(attempt.signature) is None and now - last > _SENT_WITHIN_S:
                findings.broken.append(f"{attempt.signature} could land, and was not sent again")

    def _look_at_tips(self, reader: Queries, findings: Findings) -> None:
        """A tip is paid with what landed without an error, and once: the journal knows of each."""
        known = sum(
            attempt.tip_lamports or 0
            for address in {placed.address for placed in self.users.placed}
            for attempt in reader.attempts_of(address)
            if attempt.state in (AttemptState.CONFIRMED, AttemptState.FINALIZED)
        )
        if known != (paid := self.stage.tips_lamports()):
            findings.unsettled.append(f"{paid} lamports of tips were paid, and the journal knows of {known}")

    def _look_at_cap(self, findings: Findings) -> None:
        """What the day's cap holds up waits for another day; and no more than it says has left the key."""
        stage, keeper = self.stage, self.stage.ground.key.pubkey()
        findings.unsettled = [text for text in findings.unsettled if "journal says triggered" not in text]
        landed = [each for each in stage.bank.history.mentioning(keeper) if each.keys[0] == keeper]
        spent = sum(each.pre_balances[0] - each.post_balances[0] for each in landed)
        several = self._scenario.several
        # Each of several hears once a second what the others have set aside.
        beyond = _OF_ONE_SECOND * (several.keepers - 1) if several is not None and several.share else 0
        if spent > self._scenario.cap_lamports + beyond and not stage.judge.clock_steps:
            findings.broken.append(f"{spent} lamports have left the key, and {self._scenario.cap_lamports} may")

    def _look_at_bare(self, address: Pubkey, reader: Queries, findings: Findings) -> None:
        """A fill without its position is an alarm, not a success (promise 3)."""
        order, row = self.stage.world.order(address), reader.order(address)
        fates = [attempt.fate for attempt in reader.attempts_of(address)]
        if order is None or order.pending:
            return  # a fork dropped it
        if Fate.EXECUTED in fates:
            findings.broken.append(f"order {address} counts as executed, and has no position (promise 3)")
        if Fate.NO_POSITION not in fates or row is None or row.state is not OrderState.FAILED:
            findings.unsettled.append(f"order {address} was filled without a position, and nobody is told")

    # -- counts

    def _count(self) -> None:
        stage, users, counts = self.stage, self.users, self.outcome.counts
        counts.update(f"act {event.act}" for event in self._scenario.events)
        counts.update(f"user {placed.plan.deed}" for placed in users.placed)
        counts.update({f"fault {kind}": n for kind, n in stage.network.counts.items()})
        counts.update({f"life {kind}": n for kind, n in stage.lives.counts.items()})
        if (several := self._scenario.several) is not None and stage.fleet is not None:
            counts.update({f"several {event}": n for event, n in stage.fleet.events.items()})
            counts[f"episodes with {several.keepers} keepers{' that share the markets' * several.share}"] += 1
            counts["several requests handed on"] += stage.trace.counts["handed"]
        counts["orders"] += len(users.placed)
        counts["orders accepted by the API"] += len(users.accepted)
        counts["lives"] += stage.lives.number
        counts["steps of the loop"] += stage.loop.steps
        counts["requests"] += stage.trace.counts["ask"]
        counts["virtual seconds"] += round(clock.passed_s)
        counts["blocks"] += stage.record.blocks
        counts["forks"] += stage.trace.counts["fork"]
        counts["sends"] += len(stage.judge.sends)
        counts["sends to senders"] += sum(send["endpoint"] in SENDERS for send in stage.judge.sends)
        counts["lamports of tips"] += stage.tips_lamports()
        reader = stage.lives.reader()
        if reader is None:
            return
        for placed in users.placed:
            row = reader.order(placed.address)
            state = "unknown" if row is None else str(row.state)
            stage.trace.note("order", f"{placed.number} {state} {'' if row is None else row.reason}")
            counts[f"order {state}"] += 1
            for execution in executions_on_chain(stage.world, placed.address):
                own = execution.keys[0] == stage.ground.key.pubkey()
                counts["executed by the keeper" if own else "executed by a rival"] += 1
            for attempt in reader.attempts_of(placed.address):
                counts[f"attempt {attempt.kind} {attempt.state}"] += 1
                if attempt.error_name:
                    counts[f"error {attempt.error_name}"] += 1
        stage.trace.note("money", f"{reader.spent(utc_day())} lamports today")
