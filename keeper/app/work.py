"""A keeper's work, from when it has the right to write the journal until it has that no more.

Nothing that was learnt while another worked, or in an earlier time of work, stands for or against an order: what holds
is what the journal says, and beside it what rests on chain. So to begin to work is the same after a start and after a
takeover, and to end is to forget.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final

import anyio
from solders.pubkey import Pubkey

from keeper.app import limits
from keeper.app.life import Life
from keeper.app.opening import name_of, open_journal
from keeper.app.ports import ports_of
from keeper.app.standby import Bystander, StandingBy
from keeper.config.effective import effective
from keeper.config.settings import Settings
from keeper.domain.reports import Note
from keeper.execution.assembly import Execution
from keeper.execution.purse import spent_before, utc_day
from keeper.execution.relay import RelayDesk
from keeper.http.api import run_api
from keeper.http.ports import ApiPorts
from keeper.journal import Journal
from keeper.runtime.gauges import Gauges
from keeper.runtime.genesis import hold_journal_to
from keeper.runtime.health import HealthReport
from keeper.runtime.upkeep import look_after
from keeper.runtime.watchdog import Loop, Watchdog
from keeper.solana.transactions import Blockhashes
from keeper.solana.watch import ProgramWatch
from keeper.venue.prices.watching import FeedWatch
from keeper.venue.program import Program

_GAUGES_EVERY_S: Final = 2.0
_OTHERS_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Ready:
    """What a keeper that works tells: where its API is, who it is, what it serves; and the holds that a supervisor has.

    `summary` is one line on how it is, `stalled` the loops that are stuck, `reload` takes up changed settings
    (`keeper.config.reloading` says which).
    """

    http_url: str
    keeper: Pubkey
    program: Program
    summary: Callable[[], str]
    stalled: Callable[[], tuple[str, ...]]
    reload: Callable[[Settings], None]


async def work(life: Life, on_ready: Callable[[Ready], None], stand_by: StandingBy | None = None) -> None:
    """Work until cancelled; before that stand by, as `stand_by` says, while another keeper has the journal.

    Raises LeaseLost when another has taken over, HandedOver when one is to, ShareMoved when other markets are its own
    by now, and JournalAway when the database goes away while it begins.
    """
    outside, lookout = life.outside, life.lookout
    async with AsyncExitStack() as stack:
        journal, bystander = life.journal, None
        if stand_by is not None:
            # It is waited for while another keeper works.
            bystander = Bystander(life, stand_by)
            await bystander.know()
            opened = open_journal(life.settings, stand_by.home, life.telemetry, outside, bystander.told)
            journal = await stack.enter_async_context(opened)
        assert journal is not None, "it is the life's own, or waited for"
        await hold_journal_to(journal, life.genesis, life.program.id)
        share = None if journal.markets is None else frozenset(map(Pubkey.from_string, journal.markets))

        # What carries decisions out
        execution = Execution(
            client=life.client,
            venue=life.venue,
            signer=life.signer,
            authority=life.poster,
            blockhashes=life.blockhashes,
            journal=journal,
            lookout=lookout,
            limits=limits.execution_limits(life.settings),
            rent_lamports=life.rent_lamports,
            spent=await spent_before(journal, utc_day()),
            report=life.telemetry.report,
            senders=life.senders,
            share=share,
        )
        stack.push_async_callback(execution.close)
        router = execution.router
        await execution.operator.load()
        if share is not None:
            await execution.hear_of_others()

        # What keeps the process honest
        watchdog = _watchdog(life, execution)
        health = HealthReport(
            surroundings=life.surroundings,
            journal=journal,
            execution=execution,
            watchdog=watchdog,
            recorder=life.recorder,
            name=name_of(life.settings),
        )

        # Loops, in the order in which they need each other. `start` means: ready when it returns.
        schedule = await stack.enter_async_context(outside.schedule())
        async with anyio.create_task_group() as tg:
            # From the moment at which this ends nothing is decided any more, whatever is waited for after it.
            with lookout.leaving(router):
                tg.start_soon(journal.hold, name="lease")
                if execution.ways is not None:
                    await tg.start(execution.ways.run, name="ways")
                if stand_by is not None:
                    await life.deployment.look(execution.gate)
                await execution.recovery.resolve(await execution.recovery.load())
                health.recovered = True
                await tg.start(router.follow_attempts, name="lander")
                await execution.balance.look()
                await tg.start(router.run, name="router")
                taken_up = anyio.Event()
                tg.start_soon(_take_up, life, execution, taken_up, name="take-up")
                ports = _api_ports(life, journal, execution, execution.relay(tg), health)
                serve, around = outside.run_api or run_api, tg
                if stand_by is not None and bystander is not None:
                    # Around this work: requests that are under way at its end must not put off the next keeper's.
                    serve, around = bystander.leave(), stand_by.tasks
                http = life.settings.http
                port = await around.start(serve, ports, http.host, http.port, life.wallets, name="http")
                await taken_up.wait()

                gauges = Gauges(life.telemetry.metrics, execution, life.surroundings, journal, health, life.lag)
                look_after(schedule, tg, life.client, journal, execution, life.deployment)
                if share is not None:
                    tg.start_soon(journal.follow, name="follow")
                    schedule.every(_OTHERS_EVERY_S, execution.hear_of_others, "others", tg)
                schedule.every(_GAUGES_EVERY_S, gauges.update, "gauges", tg)
                await tg.start(watchdog.run, name="watchdog")
                on_ready(_ready(life, f"http://{http.host}:{port}", execution, health, watchdog))
                resting = len(lookout.decision.book)
                life.telemetry.report(Note("keeper.ready", f"{life.program!r}, {resting} orders resting"))
                await anyio.sleep_forever()


async def _take_up(life: Life, execution: Execution, done: anyio.Event) -> None:
    """Act on what rests, as soon as that is known; and find out what became of what does not rest any more."""
    await life.lookout.hand_to(execution.router, execution.share)
    await life.listed.wait()
    await execution.recovery.reconcile()
    await life.whole()
    done.set()


def _watchdog(life: Life, execution: Execution) -> Watchdog:
    """Over the loops that go round always, and those that do while there is work."""
    loops = [Loop(execution.lander.turns, lambda: len(execution.flights) > 0)]
    loops += [Loop(execution.executor.turns, lambda: execution.executor.has_work)]
    always: list[Blockhashes | ProgramWatch | FeedWatch] = [life.blockhashes, *life.watches, *life.feeds]
    loops += [Loop(each.turns) for each in always]
    telemetry, stalled_after_s = life.telemetry, life.settings.health.stalled_after_s
    return Watchdog(loops, stalled_after_s=stalled_after_s, report=telemetry.report, observe=telemetry.loop_still)


def _ready(life: Life, http_url: str, execution: Execution, health: HealthReport, watchdog: Watchdog) -> Ready:
    def reload(new: Settings) -> None:
        life.settings = new
        execution.reload(limits.fee_rules(new), limits.purse_limits(new))

    return Ready(
        http_url=http_url,
        keeper=life.venue.keeper,
        program=life.program,
        summary=health.summary,
        stalled=lambda: watchdog.stalled,
        reload=reload,
    )


def _api_ports(life: Life, journal: Journal, execution: Execution, relay: RelayDesk, health: HealthReport) -> ApiPorts:
    return replace(
        ports_of(life, journal, execution.desk, relay, health, execution.share),
        balance_lamports=lambda: execution.balance.lamports,
        brakes=execution.operator,
        news=life.lookout.tell,
        settings_shown=lambda: {each.name: each.value for each in effective(life.settings, None, {})},
        genesis=life.genesis,
        hand_over=journal.hand_over,
        busy=lambda: execution.busy,
    )
