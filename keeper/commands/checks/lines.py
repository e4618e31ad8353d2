"""One line a check: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from keeper.domain.errors import KeeperError, Misconfigured

T = TypeVar("T")


class Outcome(enum.StrEnum):
    """`warn`: the keeper starts, and the operator should know."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Line:
    """`detail` says what was found, `remedy` what to change; it is empty when the check passed."""

    name: str
    outcome: Outcome
    detail: str
    remedy: str = ""


class Lines(list[Line]):
    """The lines, in the order in which they are found."""

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(line.outcome is Outcome.FAIL for line in self)

    def passed(self, name: str, detail: str) -> None:
        """It is as it should be."""
        self.append(Line(name, Outcome.PASS, detail))

    def warn(self, name: str, detail: str, remedy: str) -> None:
        """The keeper runs with it."""
        self.append(Line(name, Outcome.WARN, detail, remedy))

    def fail(self, name: str, detail: str, remedy: str) -> None:
        """The keeper does not start with it, or starts and sends nothing."""
        self.append(Line(name, Outcome.FAIL, detail, remedy))

    def try_to(self, name: str, work: Callable[[], T]) -> T | None:
        """What `work` gives; None, and a line, when it raises Misconfigured."""
        try:
            return work()
        except Misconfigured as e:
            self.refused(name, e)
            return None

    async def holds(self, name: str, check: Awaitable[None], detail: str) -> bool:
        """Whether `check` ends without Misconfigured; `detail` is what was found then."""
        try:
            await check
        except Misconfigured as e:
            self.refused(name, e)
            return False
        self.passed(name, detail)
        return True

    def refused(self, name: str, error: KeeperError, *, remedy: str = "") -> None:
        """An error of the keeper's own says it; Misconfigured brings its remedy along."""
        given = error.remedy if isinstance(error, Misconfigured) else ""
        self.fail(name, str(error).removesuffix(given).strip(), given or remedy)
