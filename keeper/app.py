"""The wiring diagram: what feeds what, in order. No logic.

watch ──events──► engine (decision) ──jobs──► executor ──► lander ──verdicts──► settlement ──► engine
                     │                           │            │                     │
                     └──────────notes──────► journal ◄────────┴─────────────────────┘
http ──► journal, engine (what is known), relay ──► lander
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import anyio
from solders.pubkey import Pubkey

from keeper import __version__
from keeper.config.effective import effective
from keeper.config.inputs import endpoints_of, load_program, load_signer
from keeper.config.settings import Settings
from keeper.config.wallets import bearers, load_wallets
from keeper.domain.reports import Note
from keeper.errors import Misconfigured
from keeper.execution.account_wait import AccountWait
from keeper.execution.balance import BalanceWatch
from keeper.execution.brakes import Brakes
from keeper.execution.consequences import Consequences
from keeper.execution.endings import Endings
from keeper.execution.engine import Engine
from keeper.execution.executor import Executor, ExecutorLimits
from keeper.execution.fees import FeePolicy, FeeRules
from keeper.execution.flights import Flights
from keeper.execution.gate import Gate
from keeper.execution.lander import Lander, LandingLimits
from keeper.execution.recovery import Recovery
from keeper.execution.rehearsal import Rehearsal
from keeper.execution.relay import RelayDesk, RelaySettlement
from keeper.execution.settlement import Settlement
from keeper.execution.tries import RetryLimits, Tries
from keeper.http.ports import ApiLimits, ApiPorts
from keeper.http.running import run_api
from keeper.http.tokens import Tokens
from keeper.journal import Journal, Retention
from keeper.runtime import housekeeping
from keeper.runtime.gauges import Gauges
from keeper.runtime.health import HealthOf
from keeper.runtime.lag import LoopLag
from keeper.runtime.schedule import Schedule
from keeper.runtime.watchdog import Loop, Watchdog
from keeper.solana.blockhashes import Blockhashes
from keeper.solana.client import ChainClient
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint, HttpTransport
from keeper.solana.transactions import Signer
from keeper.telemetry import Metrics, Telemetry
from keeper.triggers.breaker import BreakerRules
from keeper.triggers.decision import Decision, Rules
from keeper.triggers.prices import ChainClock
from keeper.venue.deployment import check_idl, check_program
from keeper.venue.oracle import MarketPull
from keeper.venue.program import Program
from keeper.venue.watch import ProgramWatch, WatchLimits

_SWITCH_INTERVAL_S: Final = 0.000_5


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


async def run(settings: Settings, *, on_ready: Callable[[Ready], None]) -> None:
    """Run the keeper until cancelled. Misconfigured, before anything is sent, when it can't work."""
    # The journal's thread needs the interpreter's lock a dozen times a commit, and would wait 5 ms for it each time.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    program: Program = load_program(settings.program)
    signer: Signer = load_signer(settings.key)
    wallets = load_wallets(settings.managed, signer.address)
    metrics = Metrics(__version__)
    report = Telemetry(metrics).report

    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(
            Journal.open(
                settings.journal.path,
                retention=Retention(history_days=settings.journal.retention_days),
                on_group=housekeeping.groups_into(metrics),
                inline_below_s=settings.journal.inline_below_ms / 1e3,
            )
        )

        # The chain
        places = endpoints_of(settings.rpc)
        pool = RpcPool(
            [Endpoint(place.label, HttpTransport(place.url, label=place.label)) for place in places],
            PoolLimits(
                deadline_s=settings.rpc.deadline_s,
                probe_every_s=settings.rpc.probe_every_s,
                max_slot_lag=settings.rpc.max_slot_lag,
            ),
            observe=lambda label, _, seconds, outcome: metrics.rpc_seconds.labels(label, outcome).observe(seconds),
        )
        stack.push_async_callback(pool.aclose)
        client = ChainClient(pool)
        await check_program(client, program)
        await check_idl(client, program, signer.address)
        _refuse_fills_without_position(settings, program)
        await housekeeping.hold_to_genesis(client, journal, settings.rpc.genesis)
        blockhashes = Blockhashes(client, refresh_every_s=settings.rpc.blockhash_every_s)

        # The decision, and the life of attempts
        flights, clock, gate = Flights(), ChainClock(), Gate(report)
        decision = Decision(_rules(settings, program))
        engine = Engine(decision=decision, clock=clock, journal=journal, flights=flights, report=report)
        dry_run = settings.execution.dry_run
        lander = Lander(client, journal, flights, _landing_limits(settings), report, dry_run=dry_run)
        tries = Tries(_retry_limits(settings), time.monotonic)
        fees = FeePolicy(_fee_rules(settings), today=_today, spent_today_lamports=await journal.spent(_today()))
        relays = RelaySettlement(flights, engine, report)
        consequences = Consequences(program, signer.address, tries, engine, report)
        settlement = Settlement(
            client=client,
            program=program,
            journal=journal,
            flights=flights,
            consequences=consequences,
            fees=fees,
            resting=engine,
            relays=relays,
            report=report,
            accept_fills_without_position=settings.program.accept_fills_without_position,
        )
        lander.settle_with(settlement)
        executor = Executor(
            client=client,
            program=program,
            signer=signer,
            blockhashes=blockhashes,
            journal=journal,
            lander=lander,
            flights=flights,
            tries=tries,
            consequences=consequences,
            fees=fees,
            gate=gate,
            resting=engine,
            report=report,
            limits=ExecutorLimits(max_in_flight=settings.execution.max_in_flight),
            dry_run=dry_run,
        )
        accounts = AccountWait(
            client,
            lambda order: engine.reopen(order, "Its user's account changed; it may be tried again."),
            Rehearsal(client, program, signer.address).would_fill,
            every_s=settings.execution.account_every_s,
        )
        endings = Endings(client, journal, flights, program.id, engine.on_event)
        engine.connect(executor, accounts.add, endings)
        brakes = Brakes(journal, gate, engine, tries, report)
        await brakes.load()
        recovery = Recovery(
            journal, lander, engine, relays, tries, fees, program, signer.address, report, dry_run=dry_run
        )

        # The watch: one for each endpoint that has a socket, all into the same engine; the first news wins
        snapshot_merged, snapshot_lock = anyio.Event(), anyio.Lock()
        watches = [
            ProgramWatch(
                program=program,
                client=client,
                ws_url=place.ws_url,
                label=place.label,
                sink=engine.on_event,
                not_seen_since=engine.not_seen_since,
                begin_load=engine.begin_load,
                end_load=engine.end_load,
                unchanged=engine.unchanged,
                snapshot_lock=snapshot_lock,
                on_malformed=housekeeping.malformed_into(metrics, report),
                on_snapshot=snapshot_merged.set,
                on_trouble=lambda reason: report(Note("watch.reconnect", reason, level="warning")),
                limits=WatchLimits(silence_s=settings.rpc.silence_s, snapshot_every_s=settings.rpc.snapshot_every_s),
            )
            for place in places
        ]
        balance = BalanceWatch(
            client,
            signer.address,
            gate,
            fees,
            floor_lamports=settings.fees.min_balance_lamports,
            observe=metrics.balance.set,
        )
        metrics.balance_floor.set_function(lambda: balance.floor_lamports)
        loops = [Loop(blockhashes.turns), Loop(lander.turns, lambda: len(flights) > 0)]
        loops += [Loop(executor.turns, lambda: executor.has_work), *(Loop(watch.turns) for watch in watches)]
        watchdog = Watchdog(
            loops,
            stalled_after_s=settings.health.stalled_after_s,
            report=report,
            observe=lambda loop, still_s: metrics.loop_still.labels(loop).set(still_s),
        )
        health = HealthOf(
            pool=pool,
            watches=watches,
            blockhashes=blockhashes,
            journal=journal,
            gate=gate,
            engine=engine,
            flights=flights,
            watchdog=watchdog,
            silence_s=settings.rpc.silence_s,
            dry_run=dry_run,
        )

        # Loops, in the order in which they need each other. `start` means: ready when it returns.
        lag = stack.enter_context(contextlib.closing(LoopLag()))
        schedule = await stack.enter_async_context(Schedule())
        async with anyio.create_task_group() as tg:
            await tg.start(blockhashes.run, name="blockhashes")
            open_attempts = await recovery.load()
            await recovery.resolve(open_attempts)
            health.recovered = True
            await tg.start(lander.run, name="lander")
            await tg.start(engine.run_later, name="later")
            await tg.start(engine.carry_on, name="carry-on")
            await tg.start(engine.note_the_rest, name="note-the-rest")
            await tg.start(accounts.run, name="account-wait")
            await tg.start(endings.run, name="endings")
            await balance.look()
            await tg.start(executor.run, name="executor")
            relay = RelayDesk(journal, lander, relays, engine, tg, report, dry_run=dry_run)
            ports = ApiPorts(
                program=program,
                client=client,
                blockhashes=blockhashes,
                journal=journal,
                desk=engine,
                relay=relay,
                health=health,
                metrics=metrics.registry,
                keeper_pubkey=signer.address,
                balance_lamports=lambda: balance.lamports,
                limits=_api_limits(settings),
                brakes=brakes,
                operators=_operators(settings),
                tokens=Tokens(bearers(settings.managed)),
                news=engine.on_event,
                settings_shown=lambda: {setting.name: setting.value for setting in effective(settings, None, {})},
                genesis=await journal.meta(housekeeping.GENESIS),
                # Jobs to sign, or a commit that a send waits for.
                busy=lambda: executor.has_work or journal.waiting_callers > 0,
                public_url=settings.http.public_url,
            )
            port = await tg.start(run_api, ports, settings.http.host, settings.http.port, wallets, name="http")
            for watch in watches:
                tg.start_soon(watch.run, name=f"watch-{watch.label}")
            await snapshot_merged.wait()
            await recovery.reconcile()
            # What was made until now stays: a full collection would go through it all, and hold up the loop.
            gc.collect()
            gc.freeze()
            tg.start_soon(pool.probe_forever, name="probe")
            tg.start_soon(housekeeping.every, schedule, "balance", 10.0, balance.look)
            prune_every_s = housekeeping.prune_every_s(settings.journal.retention_days)
            tg.start_soon(housekeeping.every, schedule, "retention", prune_every_s, journal.prune)
            prices = housekeeping.RecentFees(client, engine, fees)
            tg.start_soon(housekeeping.every, schedule, "fees", 10.0, prices.look)
            pull = MarketPull(
                client,
                lambda: (market.address for market in engine.markets()),
                engine.on_event,
                metrics.oracle_asks.inc,
            )
            silent = housekeeping.PullWhenSilent(pull, watches, silent_s=settings.rpc.silence_s / 2)
            tg.start_soon(housekeeping.every, schedule, "prices", 1.0, silent.look)
            gauges = Gauges(metrics, engine, flights, executor, gate, pool, watches, journal, health.report, lag)
            tg.start_soon(housekeeping.every, schedule, "gauges", 2.0, gauges.update)
            await tg.start(watchdog.run, name="watchdog")
            on_ready(
                Ready(
                    http_url=f"http://{settings.http.host}:{port}",
                    keeper=signer.address,
                    program=program,
                    summary=lambda: housekeeping.summary(health.report(), len(decision.book), flights.in_flight),
                    stalled=lambda: watchdog.stalled,
                    reload=lambda new: housekeeping.reload_fees(fees, balance, _fee_rules(new), new.fees),
                )
            )
            report(Note("keeper.ready", f"{program!r}, {len(decision.book)} orders resting"))
            await anyio.sleep_forever()


def _refuse_fills_without_position(settings: Settings, program: Program) -> None:
    if program.creates_position or settings.program.accept_fills_without_position or settings.execution.dry_run:
        return
    raise Misconfigured(
        f"In revision {program.idl.version} of the program a fill creates no position, so the keeper will not execute.",
        remedy="Use the atomic revision; or watch only, with execution.dry_run; or say "
        "program.accept_fills_without_position = true if something else opens the positions.",
    )


def _rules(settings: Settings, program: Program) -> Rules:
    trip = settings.trigger.breaker_trip
    return Rules(
        executable=program.executable,
        max_price_age_s=settings.trigger.max_price_age_s,
        trailing_step_ppm=settings.trigger.trailing_step_ppm,
        max_actions=256,
        breaker=None
        if trip is None
        else BreakerRules(trip_ppm=round(trip * 1e6), settle_ppm=round(settings.trigger.breaker_settle * 1e6)),
    )


def _retry_limits(settings: Settings) -> RetryLimits:
    e = settings.execution
    return RetryLimits(e.retry_budget, e.first_pause_s, e.longest_pause_s, e.attempts_per_hour)


def _landing_limits(settings: Settings) -> LandingLimits:
    e = settings.execution
    return LandingLimits(
        final_poll_s=e.finality_every_s,
        resend_every_s=e.resend_every_s,
        height_every_s=e.finality_every_s,
        send_deadline_s=min(5.0, settings.rpc.deadline_s),
    )


def _api_limits(settings: Settings) -> ApiLimits:
    h = settings.http
    return ApiLimits(requests_per_s=h.requests_per_s, burst=h.burst, streams=h.streams)


def _operators(settings: Settings) -> Tokens:
    digest = settings.http.admin_token_sha256
    return Tokens() if digest is None else Tokens({digest.get_secret_value(): "operator"})


def _fee_rules(settings: Settings) -> FeeRules:
    f = settings.fees
    return FeeRules(
        default_unit_limit=f.unit_limit,
        unit_margin=f.unit_margin,
        unit_price_micro_lamports=f.unit_price_micro_lamports,
        percentile=f.percentile,
        retry_factor=f.retry_factor,
        cap_lamports=f.cap_lamports,
        daily_cap_lamports=f.daily_cap_lamports,
    )


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
