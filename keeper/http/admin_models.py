"""What the operator's routes take and give."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from keeper.http.models import Address, Answer, HealthView, Request


class PauseKeeper(Request, frozen=True, kw_only=True):
    """Why, for whoever finds it paused."""

    reason: Annotated[str, Meta(max_length=200, description="Shown in the health report.")] = ""


class OperatorStatus(Answer, frozen=True, kw_only=True):
    """The keeper as its operator sees it."""

    paused: Annotated[str | None, Meta(description="Why an operator paused it; null when none did.")]
    keeper: Address | None
    health: HealthView


class OrderRetried(Answer, frozen=True, kw_only=True):
    """The order rests again, with its whole retry budget."""

    order: Address
