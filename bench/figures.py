"""From samples to figures. Nothing is left out: no outlier is trimmed, and a part that warms up says so."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def quantile(samples: Sequence[float], q: float) -> float:
    """The smallest sample that a share `q` of all samples does not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def spread(samples: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, 99th percentile, least and most, and how many there were."""
    return {
        "p50": round(statistics.median(samples), digits),
        "p99": round(quantile(samples, 0.99), digits),
        "min": round(min(samples), digits),
        "max": round(max(samples), digits),
        "n": len(samples),
    }


def across(runs: Sequence[float], digits: int = 1) -> dict[str, float]:
    """One figure from several runs: their median, and the worst and the best of them."""
    return {
        "median": round(statistics.median(runs), digits),
        "min": round(min(runs), digits),
        "max": round(max(runs), digits),
        "runs": len(runs),
    }
