"""What lasts as long as the process, whether it works or stands by: the chain, and all that is known of it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from keeper import __version__
from keeper.app import limits
from keeper.app.crank import check_authority, load_authority
from keeper.app.endpoints import endpoints_of, senders_of, sources_of
from keeper.app.feeds import feeds_of
from keeper.app.opening import home_for, open_journal
from keeper.app.program import load_program, refuse_fills_without_position
from keeper.app.wallets import load_signer, load_wallets
from keeper.config.settings import Settings
from keeper.domain.intake import Intake
from keeper.execution.deployment import Deployment
from keeper.execution.lookout import Lookout
from keeper.http.edge.middleware import Instruments
from keeper.http.orders.managed import ManagedWallet
from keeper.journal import Journal
from keeper.recording.folder import Bounds, Folder
from keeper.recording.recorder import Recorder
from keeper.recording.tape import Heard
from keeper.runtime.genesis import hold_to_genesis
from keeper.runtime.lag import LoopLag
from keeper.runtime.outside import Outside
from keeper.runtime.schedule import Schedule
from keeper.runtime.surroundings import Surroundings
from keeper.solana.allowance import Allowance, UsersPool
from keeper.solana.client import ChainClient
from keeper.solana.clock import ClockWatch
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint
from keeper.solana.senders import Sender
from keeper.solana.transactions import Blockhashes, Signer
from keeper.solana.watch import ProgramWatch, WatchLimits
from keeper.telemetry.metrics import Metrics
from keeper.telemetry.reporting import Telemetry
from keeper.triggers.decision import Decision, Rules
from keeper.venue.oracle import MarketPull, PullWhenSilent
from keeper.venue.prices.watching import FeedWatch
from keeper.venue.program import Program
from keeper.venue.venue import Venue

_CLOCK_EVERY_S: Final = 5.0
_CONSENSUS_EVERY_S: Final = 10.0
_SILENCE_EVERY_S: Final = 1.0


@dataclass(slots=True, kw_only=True, repr=False)
class Life:
    """`settings` are those in force. `journal` is the one that is this keeper's own from the start and for ever; None
    where several keepers share one. `poster` signs posted prices; None: none are. `listed` is set when the first list
    of orders has been taken in. `rent_lamports` is a position's. What is started in `tasks` ends with the process.
    """

    settings: Settings
    outside: Outside
    journal: Journal | None
    program: Program
    signer: Signer
    poster: Signer | None
    wallets: Sequence[ManagedWallet]
    telemetry: Telemetry
    instruments: Instruments
    client: ChainClient
    users: ChainClient
    venue: Venue
    blockhashes: Blockhashes
    senders: Sequence[Sender]
    deployment: Deployment
    lookout: Lookout
    watches: Sequence[ProgramWatch]
    feeds: Sequence[FeedWatch]
    clock: ClockWatch
    recorder: Recorder | None
    lag: LoopLag
    genesis: str
    rent_lamports: int
    listed: anyio.Event
    tasks: TaskGroup
    _frozen: bool = False

    @property
    def surroundings(self) -> Surroundings:
        """How the chain's side of it does."""
        return Surroundings(
            self.client,
            self.watches,
            [feed for watch in self.feeds for feed in watch.feeds],
            self.clock,
            self.blockhashes,
            self.lookout,
            self.settings.rpc.silence_s,
        )

    def markets(self) -> list[str]:
        """The addresses of all markets that are known, and of those that an order names which rests (revision 0.1's
        name none). From any thread.
        """
        named = {market for market, _ in self.lookout.decision.book.counts()}
        return [str(market) for market in named.union(list(self.lookout.markets))]

    async def whole(self) -> None:
        """Return when every order of the chain is known."""
        await self.listed.wait()
        if not self._frozen:
            # What was made until now stays: a full collection would go through it all, and hold up the loop.
            self._frozen = True
            gc.collect()
            gc.freeze()


@asynccontextmanager
async def living(settings: Settings, outside: Outside, *, alone: bool) -> AsyncIterator[Life]:
    """Begin to know the chain. Misconfigured when the keeper could not work by it. `alone`: no other keeper is to have
    the journal, so that it is opened first.
    """
    program = load_program(settings.program)
    signer = load_signer(settings.key)
    wallets = load_wallets(settings.managed, signer.address)
    authority = load_authority(settings, program, signer.address)
    telemetry = Telemetry(Metrics(__version__))

    async with AsyncExitStack() as stack:
        pool, users_pool = _pools(settings, telemetry, outside)
        stack.push_async_callback(pool.aclose)
        stack.push_async_callback(users_pool.aclose)
        client = ChainClient(pool)
        if authority is not None:
            await check_authority(client, program, authority)
        journal = None
        if alone:
            opened = open_journal(settings, home_for(settings, outside), telemetry, outside)
            journal = await stack.enter_async_context(opened)
        poster = None if authority is None else authority.signer
        venue = Venue(program, signer.address, None if poster is None else poster.address)
        deployment = Deployment(client, program, signer.address, telemetry.report)
        await deployment.check()
        refuse_fills_without_position(settings, program)
        genesis = await hold_to_genesis(client, settings.rpc.genesis)

        # What is known: one watch for each source of news, all into the same lookout; the first news wins
        rules, listed = limits.decision_rules(settings, program), anyio.Event()
        recorder = _recorder(settings, program, rules, telemetry)
        lookout = Lookout(Decision(rules) if recorder is None else recorder.decision)
        told_by = partial(_told_by, recorder, lookout)
        life = Life(
            settings=settings,
            outside=outside,
            journal=journal,
            program=program,
            signer=signer,
            poster=poster,
            wallets=wallets,
            telemetry=telemetry,
            instruments=Instruments(telemetry.metrics.registry),
            client=client,
            users=ChainClient(users_pool),
            venue=venue,
            blockhashes=Blockhashes(client, refresh_every_s=settings.rpc.blockhash_every_s),
            senders=senders_of(settings.rpc, outside.transport),
            deployment=deployment,
            lookout=lookout,
            watches=_watches(settings, venue, client, told_by, telemetry, listed.set, outside),
            feeds=_feeds(settings, poster, client, lookout, told_by("feeds"), telemetry, outside),
            clock=ClockWatch(client, told_by("clock"), telemetry.doubted_clock),
            recorder=recorder,
            lag=stack.enter_context(contextlib.closing(outside.lag())),
            genesis=genesis,
            rent_lamports=0 if venue.position_size is None else await client.rent_exempt_minimum(venue.position_size),
            listed=listed,
            tasks=await stack.enter_async_context(anyio.create_task_group()),
        )
        # Whatever ends the keeper ends these.
        stack.callback(life.tasks.cancel_scope.cancel)
        schedule = await stack.enter_async_context(outside.schedule())
        # Loops, in the order in which they need each other. `start` means: ready when it returns.
        if recorder is not None:
            await life.tasks.start(recorder.run, [watch.health for watch in life.watches], name="recorder")
        await life.tasks.start(life.blockhashes.run, name="blockhashes")
        schedule.every(_CONSENSUS_EVERY_S, partial(client.consensus.look, telemetry.report), "consensus", life.tasks)
        pull = MarketPull(client, venue, lambda: lookout.markets, told_by("pull"), telemetry.metrics.oracle_asks.inc)
        life.tasks.start_soon(_look, life, schedule, pull, name="look")
        yield life


async def _look(life: Life, schedule: Schedule, pull: MarketPull) -> None:
    """Begin to watch, once the chain's clock is known."""
    tasks = life.tasks
    await life.clock.first()
    schedule.every(_CLOCK_EVERY_S, life.clock.look, "clock", tasks)
    for watch in life.watches:
        tasks.start_soon(watch.run, name=f"watch-{watch.label}")
    await life.listed.wait()
    for feed_watch in life.feeds:
        tasks.start_soon(feed_watch.run, name="feeds")
    tasks.start_soon(life.client.pool.probe_forever, name="probe")
    silent = PullWhenSilent(pull, life.watches, silent_s=life.settings.rpc.silence_s / 2)
    schedule.every(_SILENCE_EVERY_S, silent.look, "prices", tasks)


def _pools(settings: Settings, telemetry: Telemetry, outside: Outside) -> tuple[RpcPool, UsersPool]:
    """The keeper's own, and the one through which the API's users are answered."""
    r = settings.rpc
    bounds = PoolLimits(deadline_s=r.deadline_s, probe_every_s=r.probe_every_s, max_slot_lag=r.max_slot_lag)
    pool = RpcPool(_endpoints(settings, outside), bounds, observe=telemetry.rpc_call)
    allowance = Allowance(settings.http.node_calls_per_s)
    return pool, UsersPool(pool, _endpoints(settings, outside), allowance, observe=telemetry.rpc_call)


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
