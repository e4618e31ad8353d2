"""Where news of accounts and slots comes from: any number of streams, each of which tells the same in its own protocol.

A WebSocket is one (here), Yellowstone gRPC another (`keeper.solana.geyser`). Who listens says what is wanted, and does
not know which of them tells it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from solders.pubkey import Pubkey

from keeper.solana.client import PROCESSED, memcmp
from keeper.solana.pool import RpcPool
from keeper.solana.sockets import Connect, Notification, Subscribed, Subscription, connect, subscribed

SLOTS: Final = "slot"
"""The tag of the news of slots, which every stream tells of: they are its heartbeat."""


@dataclass(frozen=True, slots=True)
class Owned:
    """The accounts of a program whose data begins with `prefix`. `repeats`: see `Subscription`."""

    tag: str
    program: Pubkey
    prefix: bytes
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Single:
    """One account; its news has its address for a tag."""

    address: Pubkey


Wanted = Owned | Single


class Stream(Protocol):
    """An open stream. `malformed` counts the messages that could not be read and were skipped."""

    malformed: int

    def notifications(self) -> AsyncGenerator[Notification, None]:
        """News as it arrives. Ends with Transient when the stream ends or falls silent."""
        ...


class Source(Protocol):
    """One endpoint's stream. `label` is for health and metrics, and never holds a secret."""

    label: str

    def open(self, wanted: Sequence[Wanted], silence_s: float) -> AbstractAsyncContextManager[Stream]:
        """Open it; it is open when every wish is known to be granted. ChainError when it can't be opened."""
        ...

    async def identify(self, pool: RpcPool) -> int | None:
        """Make sure that it tells of the pool's chain; about which slot it is at, None when that is not known.
        Transient when it is another chain, or when nobody knows.
        """
        ...

    def replay(
        self, wanted: Sequence[Wanted], since: int, silence_s: float
    ) -> AsyncGenerator[Notification, None] | None:
        """What was told after slot `since`, once more and in whole slots, up to where the stream that was opened last
        tells all. Ends with ChainError as soon as anything of it can't be had. None: this kind tells nothing twice.
        """
        ...


@dataclass(slots=True)
class SocketSource:
    """A node's WebSocket. It tells nothing a second time."""

    label: str
    url: str = field(repr=False)
    connect: Connect = field(default=connect, repr=False)

    def open(self, wanted: Sequence[Wanted], silence_s: float) -> AbstractAsyncContextManager[Subscribed]:
        """See Source."""
        subscriptions = [Subscription(SLOTS, "slotSubscribe"), *map(_subscription, wanted)]
        return subscribed(self.url, subscriptions, label=self.label, silence_s=silence_s, connect=self.connect)

    async def identify(self, pool: RpcPool) -> int | None:
        """See Source: by the RPC beside it, which has the same label."""
        return await pool.identify(self.label)

    def replay(self, wanted: Sequence[Wanted], since: int, silence_s: float) -> None:
        """See Source."""


def _subscription(wanted: Wanted) -> Subscription:
    config: dict[str, Any] = {"encoding": "base64", "commitment": PROCESSED}
    if isinstance(wanted, Single):
        return Subscription(str(wanted.address), "accountSubscribe", (str(wanted.address), config))
    config["filters"] = [memcmp(0, wanted.prefix)]
    return Subscription(wanted.tag, "programSubscribe", (str(wanted.program), config), repeats=wanted.repeats)
