"""The operator's hands: pause and resume everything, and try a failed order again.

A pause survives a restart, because it is in the journal: an operator who stopped the keeper must not find it trading
after a reboot. So does the keeper's own stop after a fill without its position, and both have one way out: a resume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
from solders.pubkey import Pubkey

from keeper.domain.errors import KeeperError
from keeper.domain.orders import OrderState
from keeper.domain.reports import Note, Report
from keeper.execution.gate import NO_POSITION, Gate
from keeper.execution.orders import Reason
from keeper.execution.router import Router
from keeper.journal import Journal
from keeper.journal.ops import ResetBudget, SetMeta

_PAUSED: Final = "paused"
_LASTING: Final = (_PAUSED, NO_POSITION)
"""Reasons that the journal keeps, by the gate's name."""


class Refused(KeeperError):
    """The operator's request can't be carried out; the message says why."""


class Operator:
    """Pause, resume, retry. Each is durable before it takes effect."""

    def __init__(
        self,
        journal: Journal,
        gate: Gate,
        router: Router,
        report: Callable[[Report], None],
        share: frozenset[Pubkey] | None = None,
    ) -> None:
        self._journal = journal
        self._gate = gate
        self._router = router
        self._report = report
        self._share = share
        self._known: set[str] = set()
        """Of the lasting reasons those that the journal is known to have."""
        self._turn = anyio.Lock()
        """What the journal was asked for is not from before what was written to it meanwhile."""

    async def load(self) -> None:
        """Take up what stopped the keeper before the restart, or another keeper since; and go on when an operator told
        another one to. A stop that the journal does not have yet stays.
        """
        async with self._turn:
            for name in _LASTING:
                reason = await self._journal.meta(name)
                if reason is not None:
                    self._known.add(name)
                    self._gate.close(name, reason)
                elif name in self._known:
                    self._known.discard(name)
                    self._gate.lift(name)

    @property
    def paused(self) -> str | None:
        """Why the keeper is paused; None when it is not."""
        return self._gate.reasons.get(_PAUSED)

    async def pause(self, reason: str) -> None:
        """Sign and send nothing new. What was sent already is still followed to its end."""
        sentence = f"paused by an operator: {reason}" if reason else "paused by an operator"
        # The gate first: an attempt that is signed while the journal writes would be one too many.
        self._gate.close(_PAUSED, sentence)
        self._known.discard(_PAUSED)
        async with self._turn:
            await self._journal.commit(SetMeta(_PAUSED, sentence))
            self._known.add(_PAUSED)

    async def resume(self) -> None:
        """Go on. Orders that are met by the present price are acted on at once."""
        async with self._turn:
            await self._journal.commit(*(SetMeta(name, None) for name in _LASTING))
            for name in _LASTING:
                self._known.discard(name)
                self._gate.lift(name)

    async def retry(self, address: Pubkey) -> None:
        """Give a failed order its whole budget back and let it rest again. Refused when it did not fail."""
        row = await self._journal.order(address)
        if row is None:
            raise Refused(f"the journal knows no order {address}")
        if row.state is not OrderState.FAILED:
            raise Refused(f"the order is {row.state.value}, not failed: {row.reason}")
        if self._share is not None and row.order.market not in self._share:
            raise Refused(f"another keeper works on the order's market, {row.order.market}: ask that one")
        record = self._router.orders.get(address)
        if record is None or self._router.orders.book.get(address) is None:
            raise Refused("the order does not rest on chain any more")
        generation = record.generation
        await self._journal.commit(ResetBudget(address))
        record.tries.reset()
        self._report(Note("order.retried", "an operator gave its budget back", order=address))
        self._router.reopen(
            address, generation, "An operator let it be tried again.", Reason.FAILED, Reason.ACCOUNT, Reason.PAUSE
        )
