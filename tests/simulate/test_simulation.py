"""The simulation itself: one seed is one run, wherever and by whomever it is played."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.simulate.planted import FAULTS
from tests.simulate.planting import Fault

ROOT: Final = Path(__file__).parents[2]


def simulate(*arguments: str, hash_seed: int = 0) -> tuple[int, str]:
    """A campaign's exit code and what it prints."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.simulate", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr * (not run.stdout)


def last_line(*arguments: str, hash_seed: int) -> str:
    """The last line of a campaign in which nothing was violated."""
    code, text = simulate(*arguments, hash_seed=hash_seed)
    assert code == 0, text
    return text.splitlines()[-1]


def test_one_seed_is_one_run_to_the_byte() -> None:
    """In other processes, with sets in another order, and played by one worker or by three."""
    last = last_line("--episodes", "5", "--seed", "5", "--workers", "3", hash_seed=1)
    assert last.startswith("5 episodes of seed 5, 0 with violations, trace sha256 ")
    assert last_line("--episodes", "5", "--seed", "5", "--workers", "1", hash_seed=2) == last
    assert last_line("--episodes", "5", "--seed", "6", "--workers", "2", hash_seed=1).split()[-1] != last.split()[-1]


def test_one_seed_is_one_run_with_several_keepers_too() -> None:
    last = last_line("--episodes", "3", "--seed", "5", "--keepers", "2", "--workers", "2", hash_seed=1)
    assert last.startswith("3 episodes of seed 5, 0 with violations, trace sha256 ")
    assert last_line("--episodes", "3", "--seed", "5", "--keepers", "2", "--workers", "1", hash_seed=2) == last


@pytest.mark.long
def test_a_planted_fault_is_found_told_and_made_short() -> None:
    code, text = simulate("--plant", "no-fsync", "--episodes", "20", "--workers", "1")
    assert code == 1
    assert "was sent, and no fsync has it (promise 1)" in text
    short = re.search(r"--only (\d+) --trace --parts (\S+)", text)
    assert short is not None, text
    code, story = simulate("--only", short[1], "--trace", "--parts", short[2], "--plant", "no-fsync")
    assert code == 1, "the short scenario shows it, too"
    assert "was sent, and no fsync has it (promise 1)" in story


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_planted_fault_still_has_its_place(fault: Fault) -> None:
    """Whoever changes the place changes the fault with it: `make simulate-faults` shows that it is found."""
    for module in fault.modules:
        compile(fault.changed(module), module, "exec")
