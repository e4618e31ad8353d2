"""The simulation itself: one seed is one run, wherever and by whomever it is played."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


def simulate(*arguments: str, hash_seed: int) -> str:
    """The last line of a campaign in which nothing was violated."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.simulate", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.splitlines()[-1]


def test_one_seed_is_one_run_to_the_byte() -> None:
    """In other processes, with sets in another order, and played by one worker or by three."""
    last = simulate("--episodes", "9", "--seed", "5", "--workers", "3", hash_seed=1)
    assert last.startswith("9 episodes of seed 5, 0 with violations, trace sha256 ")
    assert simulate("--episodes", "9", "--seed", "5", "--workers", "1", hash_seed=2) == last
    assert simulate("--episodes", "9", "--seed", "6", "--workers", "2", hash_seed=1) != last
