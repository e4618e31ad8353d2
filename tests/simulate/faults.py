"""`python -m tests.simulate.faults`: is each planted fault found? A line for each, and exit code 1 if one is not."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.simulate.planted import BY_NAME, FAULTS
from tests.simulate.planting import Fault

_FOUND = re.compile(r"VIOLATION in episode (\d+)")


def look_for(fault: Fault, episodes: int, seed: int) -> tuple[int | None, str]:
    """The episode in which it was found first, and the sentence; None when it was not, with the reason."""
    command = [sys.executable, "-m", "tests.simulate", "--seed", str(seed), "--workers", "1", "--no-shrink"]
    command += ["--keepers", str(fault.keepers)]
    planted = [*command, "--plant", fault.name, "--episodes", str(episodes)]
    run = subprocess.run(planted, capture_output=True, text=True, check=False)
    found = _FOUND.search(run.stdout)
    if found is None:
        return None, (run.stdout + run.stderr).strip().rpartition("\n")[2]
    if subprocess.run([*command, "--only", found[1]], capture_output=True, check=False).returncode != 0:
        return None, f"episode {found[1]} goes wrong without it, too: mend that first"
    return int(found[1]), run.stdout[found.end() :].splitlines()[1].strip()


def main() -> None:
    """Each in processes of its own, some at once."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulate.faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="these alone")
    parser.add_argument("--episodes", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BY_NAME]
    if unknown:
        parser.error(f"no such fault: {', '.join(unknown)}")
    faults = [BY_NAME[name] for name in options.names] or list(FAULTS)
    missed = 0
    with ThreadPoolExecutor(options.workers) as pool:
        results = pool.map(lambda fault: look_for(fault, options.episodes, options.seed), faults)
        for fault, (episode, sentence) in zip(faults, results, strict=True):
            missed += episode is None
            where = "NOT FOUND" if episode is None else f"episode {episode}"
            print(f"{fault.name:28} {where:14} {sentence[:160]}", flush=True)
    print(f"{len(faults)} planted faults, {missed} not found within {options.episodes} episodes of seed {options.seed}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
