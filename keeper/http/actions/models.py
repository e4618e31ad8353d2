"""What the Solana Actions specification says that travels. Field names are the specification's."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from keeper.http.models import Address, Answer


class ActionRule(Answer, frozen=True, kw_only=True):
    """A path of this host that is an Action."""

    pathPattern: str  # noqa: N815
    apiPath: str  # noqa: N815


class ActionRules(Answer, frozen=True, kw_only=True):
    """Which paths of this host are Actions."""

    rules: list[ActionRule]


class ActionOption(Answer, frozen=True, kw_only=True):
    """One choice of a parameter."""

    label: str
    value: str
    selected: bool = False


class ActionParameter(Answer, frozen=True, kw_only=True):
    """What a user fills in."""

    name: str
    label: str
    type: Literal["text", "number", "select"]
    required: bool = False
    options: list[ActionOption] | UnsetType = UNSET


class LinkedAction(Answer, frozen=True, kw_only=True):
    """A button, with the fields before it."""

    type: Literal["transaction"] = "transaction"
    label: str
    href: str
    parameters: list[ActionParameter]


class ActionLinks(Answer, frozen=True, kw_only=True):
    """What can be done."""

    actions: list[LinkedAction]


class ActionView(Answer, frozen=True, kw_only=True):
    """An Action, as a wallet shows it."""

    type: Literal["action"] = "action"
    icon: str
    title: str
    description: str
    label: str
    disabled: bool = False
    links: ActionLinks


class ActionAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants to act. Wallets may send more than this; what is not known is not looked at."""

    account: Annotated[Address, Meta(description="The wallet that will sign and pay.")]


class ActionTransaction(Answer, frozen=True, kw_only=True):
    """A transaction for the wallet to sign and send."""

    type: Literal["transaction"] = "transaction"
    transaction: Annotated[str, Meta(description="Unsigned, in base64.")]
    message: str
