"""The small loops beside the main path: ticks to work, gauges, and what holds the keeper to one chain."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from solders.pubkey import Pubkey

from keeper.config.settings import FeeSettings
from keeper.domain.health import Health
from keeper.domain.reports import Note, Report
from keeper.errors import ChainError, JournalError, Misconfigured
from keeper.execution.balance import BalanceWatch
from keeper.execution.engine import Engine
from keeper.execution.fees import FeePolicy, FeeRules
from keeper.journal import GroupDone, Journal, SetMeta
from keeper.runtime.schedule import Schedule
from keeper.solana.client import ChainClient
from keeper.telemetry import Metrics
from keeper.venue.oracle import MarketPull
from keeper.venue.watch import ProgramWatch

GENESIS: Final = "genesis_hash"
"""Where the journal remembers which chain it belongs to."""


async def every(schedule: Schedule, name: str, every_s: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` at each tick. What a node or the disk refuses is tried again at the next."""
    async for _ in schedule.ticks(name, every_s=every_s):
        try:
            await work()
        except (ChainError, JournalError):
            continue  # counted where it happened; health shows what lasts


def prune_every_s(retention_days: float) -> float:
    """How often the journal is pruned: hourly, and with a short retention ten times within it."""
    return min(3600.0, max(5.0, retention_days * 8_640.0))


async def hold_to_genesis(client: ChainClient, journal: Journal, expected: str | None) -> None:
    """A journal belongs to one chain: on another one its open attempts would look as if they never landed."""
    try:
        genesis = await client.genesis_hash()
    except ChainError as e:
        raise Misconfigured(
            f"The chain can't be reached: {e}.", remedy="Check rpc.url, and that the node is up."
        ) from e
    if expected not in (None, genesis):
        raise Misconfigured(
            f"The endpoint is on another cluster: its genesis hash is {genesis}, and rpc.genesis wants {expected}.",
            remedy="Check rpc.url, or rpc.genesis.",
        )
    known = await journal.meta(GENESIS)
    if known is not None and known != genesis:
        raise Misconfigured(
            f"The journal {journal.path} belongs to another chain (genesis {known}, this one is {genesis}).",
            remedy="Set journal.path to a file of its own for each chain.",
        )
    if known is None:
        await journal.commit(SetMeta(GENESIS, genesis))
    await client.pool.hold_to(genesis)


def groups_into(metrics: Metrics) -> Callable[[GroupDone], None]:
    """Counts the journal's groups, and by themselves those that the event loop waited for."""

    def count(group: GroupDone) -> None:
        metrics.journal_seconds.observe(group.seconds)
        if group.inline:
            metrics.journal_inline_seconds.observe(group.seconds)

    return count


def malformed_into(metrics: Metrics, report: Callable[[Report], None]) -> Callable[[Pubkey, str], None]:
    """Count and log an account that does not decode."""

    def on_malformed(address: Pubkey, reason: str) -> None:
        metrics.malformed.inc()
        report(Note("watch.malformed_account", reason, level="warning", order=address))

    return on_malformed


class PullWhenSilent:
    """Asks for prices while no socket brings news."""

    def __init__(self, pull: MarketPull, watches: Sequence[ProgramWatch], *, silent_s: float) -> None:
        self._pull = pull
        self._watches = watches
        self._silent_s = silent_s

    async def look(self) -> None:
        """One look: nothing to do while any socket was heard of lately."""
        now = time.monotonic()
        heard = (w.health.last_heard_at for w in self._watches if w.health.connected)
        if not any(at is not None and now - at <= self._silent_s for at in heard):
            await self._pull.ensure()


def summary(health: Health, resting: int, in_flight: int) -> str:
    """The keeper's state on one line, for a supervisor's status."""
    if health.ready:
        return f"ready; {resting} orders resting, {in_flight} attempts in flight"
    return "not ready: " + "; ".join(f"{check.name}: {check.detail}" for check in health.checks if not check.ok)


def reload_fees(fees: FeePolicy, balance: BalanceWatch, rules: FeeRules, settings: FeeSettings) -> None:
    """What the next attempt may cost. Attempts that are under way keep what they were signed with."""
    fees.rules = rules
    balance.floor_lamports = settings.min_balance_lamports


class RecentFees:
    """Tells the fee policy what others pay to write the markets' accounts, if the policy wants to know."""

    def __init__(self, client: ChainClient, engine: Engine, fees: FeePolicy) -> None:
        self._client = client
        self._engine = engine
        self._fees = fees

    async def look(self) -> None:
        """Ask once."""
        markets = [market.address for market in self._engine.markets()]
        if markets and self._fees.rules.percentile is not None:
            self._fees.learn_prices(await self._client.recent_priority_fees(markets))
