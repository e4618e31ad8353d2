"""The last word: the audit's numbers, and whether they are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from solders.pubkey import Pubkey

from keeper.demo.audit import Verdict

_REFUSED: Final = "InsufficientCollateral"
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Summary:
    """The demo's result. `problems` are sentences; none means that all is right."""

    verdict: Verdict
    latencies_ms: Sequence[float]
    problems: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every triggered order was executed exactly once with its position, and nothing else happened."""
        return not self.problems

    def document(self) -> dict[str, Any]:
        """The object that `--json` prints. `trigger_to_confirm_ms` is null in both when nothing was executed."""
        v = self.verdict
        return {
            "ok": self.ok,
            "placed": v.placed,
            "triggered": v.triggered,
            "executed": v.executed,
            "positions": v.positions,
            "duplicates": v.duplicates,
            "failed": len(v.failed),
            "lost": v.lost,
            "trigger_to_confirm_ms": {
                "p50": quantile(self.latencies_ms, 0.50),
                "p99": quantile(self.latencies_ms, 0.99),
            },
            "trigger_to_landed_slots": {"p50": quantile(v.landed_slots, 0.50), "p99": quantile(v.landed_slots, 0.99)},
            "failures": dict(Counter(v.failed.values())),
            "refusals": dict(v.refusals),
            "cancelled": v.cancelled,
            "resting": v.resting,
            "moved_back": v.moved_back,
            "ratchets": v.ratchets,
            "seconds": round(self.seconds, 1),
            "problems": list(self.problems),
        }


def summarize(
    verdict: Verdict, latencies_ms: Mapping[str, float], *, placed: int, poor: Collection[Pubkey], seconds: float
) -> Summary:
    """Judge the audit's numbers: `placed` orders were accepted over HTTP, and those in `poor`, and no others, are
    expected to be refused.
    """
    problems = list(verdict.wrong[:_SHOWN])
    if len(verdict.wrong) > _SHOWN:
        problems.append(f"and {len(verdict.wrong) - _SHOWN} more such things")
    expected = dict.fromkeys(poor, _REFUSED)
    checks = (
        (verdict.placed == placed, f"{placed} orders were accepted over HTTP, and {verdict.placed} are on chain"),
        (verdict.duplicates == 0, f"{verdict.duplicates} executions too many"),
        (verdict.lost == 0, f"{verdict.lost} triggered orders were neither executed nor refused"),
        (
            verdict.positions == verdict.executed,
            f"{verdict.positions} positions stand against {verdict.executed} executed orders",
        ),
        (
            verdict.triggered == verdict.executed + len(verdict.failed),
            f"of {verdict.triggered} triggered orders {verdict.executed} were executed "
            f"and {len(verdict.failed)} failed",
        ),
        (
            verdict.failed == expected,
            f"{len(poor)} fills should have been refused with {_REFUSED}, and the refused ones are "
            f"{dict(Counter(verdict.failed.values()))}",
        ),
        (verdict.executed > 0, "nothing was executed"),
    )
    problems += [sentence for right, sentence in checks if not right]
    return Summary(verdict, sorted(latencies_ms.values()), tuple(problems), seconds)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of the values does not exceed; None of none."""
    if not values:
        return None
    ranked = sorted(values)
    return round(ranked[max(0, -(-len(ranked) * round(share * 100) // 100) - 1)], 1)
