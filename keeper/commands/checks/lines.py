"""One line a check: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from keeper.errors import KeeperError, Misconfigured


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


class Lines:
    """Collects lines in the order in which they are found."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines)

    def __repr__(self) -> str:
        return f"Lines({', '.join(f'{line.name}: {line.outcome}' for line in self._lines)})"

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(line.outcome is Outcome.FAIL for line in self._lines)

    def passed(self, name: str, detail: str) -> None:
        """It is as it should be."""
        self._lines.append(Line(name, Outcome.PASS, detail))

    def warn(self, name: str, detail: str, remedy: str) -> None:
        """The keeper runs with it."""
        self._lines.append(Line(name, Outcome.WARN, detail, remedy))

    def fail(self, name: str, detail: str, remedy: str) -> None:
        """The keeper does not start with it, or starts and sends nothing."""
        self._lines.append(Line(name, Outcome.FAIL, detail, remedy))

    def refused(self, name: str, error: KeeperError, *, remedy: str = "") -> None:
        """An error of the keeper's own says it; Misconfigured brings its remedy along."""
        given = error.remedy if isinstance(error, Misconfigured) else ""
        self.fail(name, str(error).removesuffix(given).strip(), given or remedy)
