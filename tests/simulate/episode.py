"""One episode: the scenario is played, everything becomes well, and everything has to fall into place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import anyio

from keeper.domain.orders import OrderState
from keeper.execution.purse import utc_day
from keeper.journal import Queries
from tests.chaos.invariants import Findings, check, executions_on_chain
from tests.simulate.acts import carry_out
from tests.simulate.dice import clock
from tests.simulate.ground import COLLATERAL_1E6, Ground
from tests.simulate.scenario import Purse, Scenario
from tests.simulate.stage import Stage
from tests.simulate.users import Users

CONVERGE_WITHIN_S: Final = 150.0
_LOOK_EVERY_S: Final = 1.0
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
            stage.storm()
            for number, plan in enumerate(scenario.orders, 1):
                tasks.start_soon(self.users.follow, number, plan)
            for event in scenario.events:
                tasks.start_soon(carry_out, stage, event)
            await anyio.sleep(scenario.seconds)
            await self._converge()
            tasks.cancel_scope.cancel()

    # -- the end

    async def _converge(self) -> None:
        stage, lives = self.stage, self.stage.lives
        stage.trace.note("end", "everything is well from here on")
        stage.calm()
        stage.world.deposit(stage.ground.users[Purse.LATER], COLLATERAL_1E6)
        stage.set_price(self._scenario.final_price_1e6)
        begun = stage.loop.time()
        findings = Findings(unsettled=["the keeper did not become ready"])
        settled = 0
        while settled < _LOOKS and not self._broken(findings):
            await anyio.sleep(_LOOK_EVERY_S)
            if lives.up is not None:
                lives.may_refuse = False
            reader = lives.reader()
            if lives.up is None or reader is None:
                settled = 0
            else:
                findings = self._look(reader)
                settled = 0 if findings.unsettled else settled + 1
            if stage.loop.time() - begun > CONVERGE_WITHIN_S:
                self.outcome.violations += [f"not settled: {sentence}" for sentence in findings.unsettled]
                break
        self.outcome.violations += self._broken(findings)
        stage.trace.note("end", f"settled after {stage.loop.time() - begun:.3f} s")
        self._count()

    def _broken(self, findings: Findings) -> list[str]:
        """What can never become right again."""
        stage, lives = self.stage, self.stage.lives
        broken = [*stage.witness.violations, *findings.broken, *self.users.violations, *stage.loop.errors]
        broken += [lives.bad_end] if lives.bad_end else []
        return broken + (lives.life.threads.errors if lives.life is not None else [])

    def _look(self, reader: Queries) -> Findings:
        stage, users = self.stage, self.users
        addresses = list(dict.fromkeys(placed.address for placed in users.placed))
        findings = check(stage.world, reader, stage.ground.key.pubkey(), addresses, users.accepted, may_fail=addresses)
        # Only an order that can't be paid for may be given up.
        for placed in users.placed:
            order, row = stage.world.order(placed.address), reader.order(placed.address)
            if order is None or row is None or not order.pending or row.state is not OrderState.FAILED:
                continue
            can_pay = placed.plan.purse in (Purse.RICH, Purse.LATER)
            if can_pay and not order.expired_at(stage.bank.chain.tip.time):
                findings.unsettled.append(f"order {placed.address} was given up: {row.reason}")
        return findings

    # -- counts

    def _count(self) -> None:
        stage, users, counts = self.stage, self.users, self.outcome.counts
        counts.update(f"act {event.act}" for event in self._scenario.events)
        counts.update(f"user {placed.plan.deed}" for placed in users.placed)
        counts.update({f"fault {kind}": n for kind, n in stage.network.counts.items()})
        counts.update({f"life {kind}": n for kind, n in stage.lives.counts.items()})
        counts["orders"] += len(users.placed)
        counts["orders accepted by the API"] += len(users.accepted)
        counts["lives"] += stage.lives.number
        counts["steps of the loop"] += stage.loop.steps
        counts["requests"] += stage.trace.counts["ask"]
        counts["virtual seconds"] += round(clock.passed_s)
        counts["blocks"] += stage.record.blocks
        counts["forks"] += stage.trace.counts["fork"]
        counts["sends"] += len(stage.witness.sends)
        reader = stage.lives.reader()
        if reader is None:
            return
        for placed in users.placed:
            row = reader.order(placed.address)
            state = "unknown" if row is None else str(row.state)
            stage.trace.note("order", f"{placed.number} {state} {'' if row is None else row.reason}")
            counts[f"order {state}"] += 1
            for execution in executions_on_chain(stage.bank, placed.address):
                own = execution.keys[0] == stage.ground.key.pubkey()
                counts["executed by the keeper" if own else "executed by a rival"] += 1
            for attempt in reader.attempts_of(placed.address):
                counts[f"attempt {attempt.kind} {attempt.state}"] += 1
                if attempt.error_name:
                    counts[f"error {attempt.error_name}"] += 1
        stage.trace.note("money", f"{reader.spent(utc_day())} lamports today")
