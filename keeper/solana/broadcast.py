"""The same signed bytes to every endpoint of a pool: what each of them answers, and the best of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from keeper.domain.errors import ChainError, Rejected, Transient
from keeper.solana.rpc import BegunBatch, Call, Reply

if TYPE_CHECKING:
    from keeper.solana.pool import RpcPool, Seat


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Calls to every endpoint that is not benched, with what of them is on the wire already. `told` hears each
    endpoint's answers by its label, as they come.
    """

    pool: RpcPool
    calls: Sequence[Call]
    deadline_s: float
    begun: Sequence[tuple[Seat, BegunBatch | None]]
    told: Callable[[str, Sequence[Reply]], None] | None = None

    async def replies(self) -> list[Reply]:
        """Wait for the answers. A call's reply is the best of them: a result, else a rejection, else what went wrong
        last (unknown). Once every call has a result from somebody, an endpoint that hangs is waited for no longer than
        `straggler_s`.
        """
        if len(self.begun) == 1:  # without a task of its own, which would be one turn of the event loop later
            return await self._answers(*self.begun[0])
        pool, best = self.pool, list[Reply]([Transient("no endpoint was asked")] * len(self.calls))
        started = pool.now()
        waiting = [seat for seat, _ in self.begun]

        async def send(seat: Seat, batch: BegunBatch | None) -> None:
            answers = await self._answers(seat, batch)
            waiting.remove(seat)
            for i, answer in enumerate(answers):
                if _rank(answer) >= _rank(best[i]):
                    best[i] = answer
            if all(_rank(answer) == 2 for answer in best):
                tg.cancel_scope.deadline = min(tg.cancel_scope.deadline, anyio.current_time() + pool.limits.straggler_s)

        async with anyio.create_task_group() as tg:
            for seat, batch in self.begun:
                tg.start_soon(send, seat, batch)
        for seat in waiting:
            late = Transient(f"{seat.endpoint.label}: too slow")
            pool.note(seat.health, self.calls[0].method, started, late)
            if self.told is not None:
                self.told(seat.health.label, [late] * len(self.calls))
        return best

    async def _answers(self, seat: Seat, batch: BegunBatch | None) -> list[Reply]:
        answers = await self.pool.tried_batch(seat, self.calls, self.deadline_s, batch)
        if self.told is not None:
            self.told(seat.health.label, answers)
        return answers


def _rank(reply: Reply) -> int:
    if not isinstance(reply, ChainError):
        return 2
    return 1 if isinstance(reply, Rejected) else 0
