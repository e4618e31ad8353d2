"""Jobs that wait to be signed: executions before ratchets, because a late fill costs its trader more."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from keeper.execution.drafting import Job


class Jobs:
    """A queue, bounded by the number of orders: each has one job at most."""

    def __init__(self) -> None:
        self._executions: deque[Job] = deque()
        self._ratchets: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self._executions) + len(self._ratchets)

    def add(self, job: Job) -> None:
        """To the end."""
        (self._executions if job.executes else self._ratchets).append(job)

    def put_back(self, jobs: Sequence[Job]) -> None:
        """To the front again: nothing was signed for them."""
        for job in reversed(jobs):
            (self._executions if job.executes else self._ratchets).appendleft(job)

    def first(self) -> list[Job]:
        """All of them, those that are signed first at the front. They stay."""
        return [*self._executions, *self._ratchets]

    def drop_ratchets(self) -> None:
        """A price that comes later moves these stops, or does not."""
        self._ratchets.clear()

    def take(self, most: int) -> list[Job]:
        """Take the first ones out."""
        jobs: list[Job] = []
        for queue in (self._executions, self._ratchets):
            while queue and len(jobs) < most:
                jobs.append(queue.popleft())
        return jobs
