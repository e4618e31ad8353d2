"""What the operator's routes take and give."""

from __future__ import annotations

from typing import Annotated, Any

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


class SettingsView(Answer, frozen=True, kw_only=True):
    """The settings in force. A secret shows as that it is set, a URL as its host."""

    settings: dict[str, Any]


class OrderResynced(Answer, frozen=True, kw_only=True):
    """The order as the chain has it now."""

    order: Address
    slot: Annotated[int, Meta(description="Of the node that was asked.")]
    onchain_status: Annotated[str | None, Meta(description="Null: there is no such account.")]


class OrderRetried(Answer, frozen=True, kw_only=True):
    """The order rests again, with its whole retry budget."""

    order: Address
