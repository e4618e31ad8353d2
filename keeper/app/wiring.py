"""The wiring diagram: what feeds what, in order. No policy is here."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio
from solders.pubkey import Pubkey

from keeper import __version__
from keeper.app import limits
from keeper.app.crank import check_authority, load_authority
from keeper.app.endpoints import endpoints_of, senders_of, sources_of
from keeper.app.feeds import feeds_of
from keeper.app.program import load_program, refuse_fills_without_position
from keeper.app.standby import Bystander, StandingBy, home_for, stand_by_and_work
from keeper.app.wallets import bearers, load_signer, load_wallets
from keeper.config.effective import effective
from keeper.config.settings import Settings
from keeper.domain.intake import Intake
from keeper.domain.reports import Note
from keeper.execution.assembly import Execution
from keeper.execution.deployment import Deployment
from keeper.execution.lookout import Lookout
from keeper.execution.purse import spent_before, utc_day
from keeper.execution.relay import RelayDesk
from keeper.http.api import run_api
from keeper.http.edge.clients import Tokens
from keeper.http.ports import ApiPorts
from keeper.journal import Home, Journal, Retention
from keeper.recording.folder import Bounds, Folder
from keeper.recording.recorder import Recorder
from keeper.recording.tape import Heard
from keeper.runtime.gauges import Gauges
from keeper.runtime.genesis import hold_to_genesis
from keeper.runtime.health import HealthReport
from keeper.runtime.outside import REAL_WORLD, Outside
from keeper.runtime.upkeep import look_after
from keeper.runtime.watchdog import Loop, Watchdog
from keeper.solana.allowance import Allowance, UsersPool
from keeper.solana.client import ChainClient
from keeper.solana.clock import ClockWatch
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint
from keeper.solana.transactions import Blockhashes, Signer
from keeper.solana.watch import ProgramWatch, WatchLimits
from keeper.telemetry.metrics import Metrics
from keeper.telemetry.reporting import Telemetry
from keeper.triggers.decision import Decision, Rules
from keeper.venue.oracle import MarketPull, PullWhenSilent
from keeper.venue.prices.watching import FeedWatch
from keeper.venue.program import Program
from keeper.venue.venue import Venue

_SWITCH_INTERVAL_S: Final = 0.000_5
_CLOCK_EVERY_S: Final = 5.0
_CONSENSUS_EVERY_S: Final = 10.0
_SILENCE_EVERY_S: Final = 1.0
_GAUGES_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Ready:
    """What a started keeper tells: where its API is, who it is, what it serves; and the holds that a supervisor has.

    `summary` is one line on how it is, `stalled` the loops that are stuck, `reload` takes up changed settings
    (`keeper.config.reloading` says which).
    """

    http_url: str
    keeper: Pubkey
    program: Program
    summary: Callable[[], str]
    stalled: Callable[[], tuple[str, ...]]
    reload: Callable[[Settings], None]


async def run(
    settings: Settings,
    *,
    on_ready: Callable[[Ready], None],
    on_stand_by: Callable[[str], None] | None = None,
    outside: Outside = REAL_WORLD,
) -> None:
    """Run the keeper until cancelled. Misconfigured, before anything is sent, when it can't work. LeaseLost when
    another keeper has taken over; `on_stand_by` is told whose lease is waited for. Once it has handed the service over,
    and when the database goes away while it starts, it stands by, and is ready again when it takes over.
    """
    # The journal's thread needs the interpreter's lock a dozen times a commit, and would wait 5 ms for it each time.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    work = partial(_work, settings, outside)
    if on_stand_by is None or settings.journal.url is None:
        await work(on_ready)
    else:
        await stand_by_and_work(settings, on_ready, on_stand_by, work)


async def _work(
    settings: Settings, outside: Outside, on_ready: Callable[[Ready], None], stand_by: StandingBy | None = None
) -> None:
    program = load_program(settings.program)
    signer = load_signer(settings.key)
    wallets = load_wallets(settings.managed, signer.address)
    authority = load_authority(settings, program, signer.address)
    telemetry = Telemetry(Metrics(__version__))
    metrics = telemetry.metrics

    async with AsyncExitStack() as stack:
        # The chain
        pool, users_pool = _pools(settings, telemetry, outside)
        stack.push_async_callback(pool.aclose)
        stack.push_async_callback(users_pool.aclose)
        client = ChainClient(pool)
        if authority is not None:
            await check_authority(client, program, authority)
        poster = None if authority is None else authority.signer
        venue = Venue(program, signer.address, None if poster is None else poster.address)
        blockhashes = Blockhashes(client, refresh_every_s=settings.rpc.blockhash_every_s)

        # The journal, which is waited for while another keeper works
        deployment = Deployment(client, program, signer.address, telemetry.report)
        home, bystander = home_for(settings, outside.machine, stand_by), None
        if stand_by is not None:
            # What a start loads, and what of it stays, is dealt with now: a takeover does not wait for that.
            await deployment.check()
            gc.collect()
            gc.freeze()
            bystander = Bystander(settings, stand_by, home, venue, client, users_pool, blockhashes)
        journal = await stack.enter_async_context(_journal(settings, home, telemetry, outside, bystander))
        await deployment.check()
        refuse_fills_without_position(settings, program)
        genesis = await hold_to_genesis(client, journal, settings.rpc.genesis, program.id)

        # The decision, and what carries it out
        rules = limits.decision_rules(settings, program)
        recorder = _recorder(settings, program, rules, telemetry)
        lookout = Lookout(Decision(rules) if recorder is None else recorder.decision)
        execution = Execution(
            client=client,
            venue=venue,
            signer=signer,
            authority=poster,
            blockhashes=blockhashes,
            journal=journal,
            lookout=lookout,
            limits=limits.execution_limits(settings),
            rent_lamports=0 if venue.position_size is None else await client.rent_exempt_minimum(venue.position_size),
            spent=await spent_before(journal, utc_day()),
            report=telemetry.report,
            senders=senders_of(settings.rpc, outside.transport),
        )
        stack.push_async_callback(execution.arming.close)
        router = execution.router
        await execution.operator.load()

        # The watch: one for each source of news, all into the same lookout; the first news wins
        listed = anyio.Event()
        told_by = partial(_told_by, recorder, lookout)
        watches = _watches(settings, venue, client, told_by, telemetry, listed.set, outside)
        feeds = _feeds(settings, poster, client, lookout, told_by("feeds"), telemetry, outside)
        clock = ClockWatch(client, told_by("clock"), telemetry.doubted_clock)

        # What keeps the process honest
        watchdog = _watchdog(settings, telemetry, execution, [blockhashes, *watches, *feeds])
        health = HealthReport(
            client=client,
            watches=watches,
            feeds=[feed for watch in feeds for feed in watch.feeds],
            clock=clock,
            blockhashes=blockhashes,
            journal=journal,
            execution=execution,
            watchdog=watchdog,
            silence_s=settings.rpc.silence_s,
            recorder=recorder,
        )

        # Loops, in the order in which they need each other. `start` means: ready when it returns.
        lag = stack.enter_context(contextlib.closing(outside.lag()))
        schedule = await stack.enter_async_context(outside.schedule())
        async with anyio.create_task_group() as tg:
            tg.start_soon(journal.hold, name="lease")
            if recorder is not None:
                await tg.start(recorder.run, [watch.health for watch in watches], name="recorder")
            await tg.start(blockhashes.run, name="blockhashes")
            schedule.every(_CONSENSUS_EVERY_S, partial(client.consensus.look, telemetry.report), "consensus", tg)
            if execution.ways is not None:
                await tg.start(execution.ways.run, name="ways")
            await execution.recovery.resolve(await execution.recovery.load())
            health.recovered = True
            await tg.start(router.follow_attempts, name="lander")
            await execution.balance.look()
            await tg.start(router.run, name="router")
            await lookout.hand_to(router)
            relay = execution.relay(tg)
            ports = _api_ports(
                settings, venue, client, users_pool, blockhashes, journal, execution, relay, health, metrics, genesis
            )
            serve, around = outside.run_api or run_api, tg
            if stand_by is not None and bystander is not None:
                # Around this life: requests that are under way at its end must not put off the next keeper's.
                serve, around = bystander.leave(), stand_by.tasks
            port = await around.start(serve, ports, settings.http.host, settings.http.port, wallets, name="http")
            await clock.first()
            schedule.every(_CLOCK_EVERY_S, clock.look, "clock", tg)
            for watch in watches:
                tg.start_soon(watch.run, name=f"watch-{watch.label}")
            await listed.wait()
            await execution.recovery.reconcile()
            # What was made until now stays: a full collection would go through it all, and hold up the loop.
            gc.collect()
            gc.freeze()

            tg.start_soon(pool.probe_forever, name="probe")
            for feed_watch in feeds:
                tg.start_soon(feed_watch.run, name="feeds")
            pull = MarketPull(client, venue, lambda: lookout.markets, told_by("pull"), metrics.oracle_asks.inc)
            silent = PullWhenSilent(pull, watches, silent_s=settings.rpc.silence_s / 2)
            gauges = Gauges(metrics, execution, client, watches, health.feeds, journal, health.report, lag, recorder)
            look_after(schedule, tg, client, journal, execution, deployment)
            schedule.every(_SILENCE_EVERY_S, silent.look, "prices", tg)
            schedule.every(_GAUGES_EVERY_S, gauges.update, "gauges", tg)
            await tg.start(watchdog.run, name="watchdog")
            on_ready(_ready(f"http://{settings.http.host}:{port}", venue, execution, health, watchdog))
            telemetry.report(Note("keeper.ready", f"{program!r}, {len(execution.decision.book)} orders resting"))
            await anyio.sleep_forever()


def _journal(
    settings: Settings, home: Home, telemetry: Telemetry, outside: Outside, bystander: Bystander | None
) -> AbstractAsyncContextManager[Journal]:
    return Journal.open(
        home,
        retention=Retention(history_days=settings.journal.retention_days),
        on_group=telemetry.journal_group,
        inline_below_s=settings.journal.inline_below_ms / 1e3,
        machine=outside.machine,
        on_stand_by=None if bystander is None else bystander.told,
    )


def _pools(settings: Settings, telemetry: Telemetry, outside: Outside) -> tuple[RpcPool, UsersPool]:
    """The keeper's own, and the one through which the API's users are answered."""
    r = settings.rpc
    bounds = PoolLimits(deadline_s=r.deadline_s, probe_every_s=r.probe_every_s, max_slot_lag=r.max_slot_lag)
    pool = RpcPool(_endpoints(settings, outside), bounds, observe=telemetry.rpc_call)
    allowance = Allowance(settings.http.node_calls_per_s)
    return pool, UsersPool(pool, _endpoints(settings, outside), allowance, observe=telemetry.rpc_call)


def _watchdog(
    settings: Settings,
    telemetry: Telemetry,
    execution: Execution,
    always: Sequence[Blockhashes | ProgramWatch | FeedWatch],
) -> Watchdog:
    """Over the loops that go round always, and those that do while there is work."""
    loops = [Loop(execution.lander.turns, lambda: len(execution.flights) > 0)]
    loops += [Loop(execution.executor.turns, lambda: execution.executor.has_work)]
    loops += [Loop(each.turns) for each in always]
    stalled_after_s = settings.health.stalled_after_s
    return Watchdog(loops, stalled_after_s=stalled_after_s, report=telemetry.report, observe=telemetry.loop_still)


def _endpoints(settings: Settings, outside: Outside) -> list[Endpoint]:
    """Each of the settings', on connections of its own."""
    return [Endpoint(p.label, outside.transport(p.url, p.label)) for p in endpoints_of(settings.rpc)]


def _recorder(settings: Settings, program: Program, rules: Rules, telemetry: Telemetry) -> Recorder | None:
    """None when nothing is to be recorded."""
    if (r := settings.record).folder is None:
        return None
    return Recorder(rules, Folder(r.folder, Bounds(r.keep_days, r.max_bytes)), program.id, telemetry.report)


def _told_by(recorder: Recorder | None, lookout: Lookout, source: str) -> Intake[Any]:
    """Where facts go; with who told them, when they are recorded."""
    return lookout if recorder is None else Heard(recorder.tape, source, lookout)


def _watches(
    settings: Settings,
    venue: Venue,
    client: ChainClient,
    told_by: Callable[[str], Intake[Any]],
    telemetry: Telemetry,
    on_list: Callable[[], None],
    outside: Outside,
) -> list[ProgramWatch]:
    lists = anyio.Lock()
    return [
        ProgramWatch(
            reader=venue,
            client=client,
            source=source,
            intake=told_by(source.label),
            on_malformed=telemetry.malformed_account,
            on_snapshot=on_list,
            on_trouble=telemetry.reconnect,
            on_unlisted=telemetry.unlisted,
            limits=WatchLimits(silence_s=settings.rpc.silence_s, snapshot_every_s=settings.rpc.snapshot_every_s),
            snapshot_lock=lists,
        )
        for source in sources_of(settings.rpc, outside.connect)
    ]


def _feeds(
    settings: Settings,
    poster: Signer | None,
    client: ChainClient,
    lookout: Lookout,
    told: Intake[Any],
    telemetry: Telemetry,
    outside: Outside,
) -> list[FeedWatch]:
    """One for all feeds; none when no market names one."""
    watch = FeedWatch(
        feeds_of(settings.prices, settings.crank, None if poster is None else poster.address),
        client,
        sources_of(settings.rpc, outside.connect),
        markets=lookout.markets.values,
        now_s=lookout.now_s,
        intake=told,
        told=telemetry.feed_fault,
        silence_s=settings.rpc.silence_s,
    )
    return [watch] if watch.feeds else []


def _ready(http_url: str, venue: Venue, execution: Execution, health: HealthReport, watchdog: Watchdog) -> Ready:
    return Ready(
        http_url=http_url,
        keeper=venue.keeper,
        program=venue.program,
        summary=health.summary,
        stalled=lambda: watchdog.stalled,
        reload=lambda new: execution.reload(limits.fee_rules(new), limits.purse_limits(new)),
    )


def _api_ports(
    settings: Settings,
    venue: Venue,
    client: ChainClient,
    users_pool: UsersPool,
    blockhashes: Blockhashes,
    journal: Journal,
    execution: Execution,
    relay: RelayDesk,
    health: HealthReport,
    metrics: Metrics,
    genesis: str,
) -> ApiPorts:
    return ApiPorts(
        program=venue.program,
        client=ChainClient(users_pool),
        blockhashes=blockhashes,
        journal=journal,
        desk=execution.desk,
        relay=relay,
        health=health,
        metrics=metrics.registry,
        keeper_pubkey=venue.keeper,
        balance_lamports=lambda: execution.balance.lamports,
        limits=limits.api_limits(settings),
        brakes=execution.operator,
        operators=limits.operators(settings),
        tokens=Tokens(bearers(settings.managed)),
        news=execution.lookout.tell,
        settings_shown=lambda: {setting.name: setting.value for setting in effective(settings, None, {})},
        genesis=genesis,
        hand_over=journal.hand_over,
        busy=lambda: execution.busy,
        public_url=settings.http.public_url,
        consensus=lambda: client.consensus.name,
        slot_s=lambda: client.pool.pace.slot_s if client.pool.pace.measured else None,
    )
