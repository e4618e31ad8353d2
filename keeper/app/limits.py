"""From settings to the rules of the decision and of what carries it out. A default is said once, in the settings."""

from __future__ import annotations

from keeper.app.crank import crank_rules
from keeper.config.settings import Settings
from keeper.execution.drafting import FeeRules
from keeper.execution.limits import ArmingLimits, ExecutionLimits, LandingLimits
from keeper.execution.purse import PurseLimits
from keeper.execution.tries import RetryLimits
from keeper.http.edge.clients import ApiLimits, Tokens
from keeper.http.edge.connections import ConnectionLimits
from keeper.triggers.decision import Rules
from keeper.triggers.prices import BreakerRules
from keeper.venue.program import Program

_MOST_ACTIONS = 256
"""So many actions are decided before the event loop may do something else."""


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
        max_deviation_ppm=round(settings.prices.max_deviation * 1e6) if settings.prices.feeds else None,
        crank=crank_rules(settings, program),
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
        purse=purse_limits(settings),
        arming=ArmingLimits(e.armed_a_side, e.armed_signatures_per_s),
        max_in_flight=e.max_in_flight,
        account_every_s=e.account_every_s,
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
        tip_lamports=f.tip_lamports,
        tip_from_attempt=f.tip_from_attempt,
    )


def purse_limits(settings: Settings) -> PurseLimits:
    """What may leave the keeper's key."""
    return PurseLimits(settings.fees.daily_outflow_cap_lamports, settings.fees.min_balance_lamports)


def api_limits(settings: Settings) -> ApiLimits:
    """Of the API."""
    h = settings.http
    named = () if h.public_url is None else (h.public_url.partition("://")[2],)
    return ApiLimits(
        requests_per_s=h.requests_per_s,
        burst=h.burst,
        streams=h.streams,
        streams_per_client=h.streams_per_client,
        cors_origins=h.cors_origins,
        hosts=(*h.hosts, *named),
        most_unit_price_micro_lamports=h.max_priority_fee_micro_lamports_per_unit,
        connections=ConnectionLimits(h.connections, h.connections_per_address, proxies=h.trusted_proxies),
    )


def operators(settings: Settings) -> Tokens:
    """Who may pause, resume and retry over HTTP."""
    digest = settings.http.admin_token_sha256
    return Tokens() if digest is None else Tokens({digest.get_secret_value(): "operator"})
