"""Senders: ways for signed bytes that are asked nothing else. Another node, one that wants a tip, or a block engine.

A sender says nothing that counts: what it accepts may never land, and what it refuses may have landed by another way.
It has an endpoint's health, so one that fails or asks for a pause rests for a while, and no other way knows of it.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Sequence
from typing import Any, Final

from solders.pubkey import Pubkey

from keeper.domain.errors import ChainError, MalformedReply
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import SENDING, Endpoint, Reply

_JITO_SENDING: Final = {"encoding": "base64"}
"""Jito's block engine never looks at preflight and retries by itself: it takes no other word."""


class SenderKind(enum.StrEnum):
    """What a sender speaks, and whether it wants a tip."""

    RPC = "rpc"
    """Another node: `sendTransaction`, and no tip."""
    SENDER = "sender"
    """`sendTransaction` without preflight, for transactions that pay it a tip."""
    JITO = "jito"
    """The same of a block engine. Its answer, a signature or a bundle's id, is no landing either."""


class Sender:
    """One of them. `tip_accounts`: it carries what pays a tip to one of these; none: it carries everything. `secrets`
    are never shown, even when it repeats them.
    """

    def __init__(
        self,
        kind: SenderKind,
        endpoint: Endpoint,
        tip_accounts: Sequence[Pubkey] = (),
        *,
        deadline_s: float,
        secrets: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.name = endpoint.label
        self.tip_accounts = tuple(tip_accounts)
        self.fault = ""
        """What is wrong with it, as of its last answer; empty while nothing is."""
        self._deadline_s = deadline_s
        self._secrets = secrets
        self._pool = RpcPool([endpoint], PoolLimits(deadline_s=deadline_s))

    def __repr__(self) -> str:
        return f"Sender({self.name}, {self.kind}{', rests' if self.rests else ''})"

    @property
    def rests(self) -> bool:
        """Whether it is sent nothing for now: it failed several times in a row, or asked for a pause."""
        return not self._pool.awake()

    def carries(self, tip_account: Pubkey | None) -> bool:
        """Whether it is for transactions that pay this account, or nobody."""
        return not self.tip_accounts or tip_account in self.tip_accounts

    async def send(self, wire: bytes) -> Reply:
        """Hand it the bytes: what it says, within the deadline."""
        sending = _JITO_SENDING if self.kind is SenderKind.JITO else SENDING
        try:
            answer: Any = await self._pool.call(
                "sendTransaction", base64.b64encode(wire).decode(), sending, deadline_s=self._deadline_s
            )
        except ChainError as e:
            self.fault = self.shown(e)
            return e
        if not isinstance(answer, str):
            self.fault = f"{self.name}: it answers sendTransaction with something else than a signature"
            return MalformedReply(self.fault)
        self.fault = ""
        return answer

    def shown(self, error: ChainError) -> str:
        """What an error of it says, fit to be shown."""
        text = str(error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return "".join(c if c.isprintable() else "?" for c in text)[:300]

    async def aclose(self) -> None:
        """Close its connections."""
        await self._pool.aclose()
