"""What the keeper says of itself to probes, operators and its supervisor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that readiness depends on, with a sentence for the operator."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """`live`: a restart would not help. `ready`: orders are watched, executed and accepted right now."""

    live: bool
    ready: bool
    checks: tuple[Check, ...] = ()
