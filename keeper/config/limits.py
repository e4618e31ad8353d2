"""From settings to the limits and rules that each room is given. A default is said once, in the settings."""

from __future__ import annotations

from keeper.config.settings import Settings
from keeper.domain.errors import Misconfigured
from keeper.execution.fees import FeeRules
from keeper.execution.limits import ExecutionLimits, LandingLimits
from keeper.execution.tries import RetryLimits
from keeper.http.edge.clients import ApiLimits, Tokens
from keeper.journal import Retention
from keeper.solana.pool import PoolLimits
from keeper.solana.watch import WatchLimits
from keeper.triggers.decision import Rules
from keeper.triggers.prices import BreakerRules
from keeper.venue.program import Program

_MOST_ACTIONS = 256
"""So many actions are decided before the event loop may do something else."""


def pool_limits(settings: Settings) -> PoolLimits:
    """Of the RPC pool."""
    r = settings.rpc
    return PoolLimits(deadline_s=r.deadline_s, probe_every_s=r.probe_every_s, max_slot_lag=r.max_slot_lag)


def watch_limits(settings: Settings) -> WatchLimits:
    """Of the watch."""
    return WatchLimits(silence_s=settings.rpc.silence_s, snapshot_every_s=settings.rpc.snapshot_every_s)


def retention(settings: Settings) -> Retention:
    """Of the journal."""
    return Retention(history_days=settings.journal.retention_days)


def decision_rules(settings: Settings, program: Program) -> Rules:
    """Of the decision."""
    t = settings.trigger
    breaker = None
    if t.breaker_trip is not None:
        breaker = BreakerRules(trip_ppm=round(t.breaker_trip * 1e6), settle_ppm=round(t.breaker_settle * 1e6))
    return Rules(
        executable=program.executable,
        max_price_age_s=t.max_price_age_s,
        trailing_step_ppm=t.trailing_step_ppm,
        max_actions=_MOST_ACTIONS,
        breaker=breaker,
    )


def execution_limits(settings: Settings) -> ExecutionLimits:
    """Of everything that carries out decisions."""
    e = settings.execution
    return ExecutionLimits(
        retries=RetryLimits(e.retry_budget, e.first_pause_s, e.longest_pause_s, e.attempts_per_hour),
        landing=LandingLimits(
            final_poll_s=e.finality_every_s,
            resend_every_s=e.resend_every_s,
            height_every_s=e.finality_every_s,
            send_deadline_s=min(5.0, settings.rpc.deadline_s),
        ),
        fees=fee_rules(settings),
        max_in_flight=e.max_in_flight,
        account_every_s=e.account_every_s,
        min_balance_lamports=settings.fees.min_balance_lamports,
        accept_fills_without_position=settings.program.accept_fills_without_position,
        dry_run=e.dry_run,
    )


def fee_rules(settings: Settings) -> FeeRules:
    """What the next attempt may cost."""
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


def api_limits(settings: Settings) -> ApiLimits:
    """Of the API."""
    h = settings.http
    return ApiLimits(requests_per_s=h.requests_per_s, burst=h.burst, streams=h.streams)


def operators(settings: Settings) -> Tokens:
    """Who may pause, resume and retry over HTTP."""
    digest = settings.http.admin_token_sha256
    return Tokens() if digest is None else Tokens({digest.get_secret_value(): "operator"})


def refuse_fills_without_position(settings: Settings, program: Program) -> None:
    """Misconfigured when a fill would have no position behind it and nobody said that this is meant (promise 3)."""
    if program.creates_position or settings.program.accept_fills_without_position or settings.execution.dry_run:
        return
    raise Misconfigured(
        f"In revision {program.idl.version} of the program a fill creates no position, so the keeper will not execute.",
        remedy="Use the atomic revision; or watch only, with execution.dry_run; or say "
        "program.accept_fills_without_position = true if something else opens the positions.",
    )
