"""What `python -m tests.simulate` does: a campaign, or one episode with its story."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from tests.simulate import campaign
from tests.simulate.campaign import Result, Totals
from tests.simulate.scenario import draw
from tests.simulate.shrinking import only, parts_of, shrink
from tests.simulate.table import table

_COMMAND: Final = "python -m tests.simulate"
_MOST_KEEPERS: Final = 5


def main() -> None:
    """Exit code 0: nothing was violated; 1: something was; 2: wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulate", description=__doc__)
    parser.add_argument("--episodes", type=int, default=100, help="how many, from the first one on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keepers", type=int, help="so many in each episode; by default one, and several in a fifth")
    parser.add_argument("--only", type=int, help="this episode alone")
    parser.add_argument("--trace", action="store_true", help="tell the story of the first (or the only) episode")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--plant", metavar="FAULT", help="with this fault of tests/simulate/planted.py in the keeper")
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first violation")
    parser.add_argument("--parts", help="these parts of the scenario alone, by their names, with commas in between")
    parser.add_argument("--no-shrink", action="store_true", help="do not look for a shorter scenario")
    options = parser.parse_args()
    if options.episodes < 1 or options.workers < 1:
        parser.error("--episodes and --workers must be at least 1")
    if options.keepers is not None and not 1 <= options.keepers <= _MOST_KEEPERS:
        parser.error(f"--keepers must be 1 to {_MOST_KEEPERS}")
    if options.trace:
        sys.exit(_story(options.seed, options.only or 0, options.keepers, options.parts))
    episodes = range(options.episodes) if options.only is None else range(options.only, options.only + 1)
    workers, keepers = min(options.workers, len(episodes)), options.keepers
    totals = campaign.run(options.seed, episodes, workers, _progress(options), keepers)
    again = _COMMAND if keepers is None else f"{_COMMAND} --keepers {keepers}"
    print(table(totals))
    for episode, violations in totals.violations.items():
        print(f"\nVIOLATION in episode {episode} of seed {options.seed}:")
        print("\n".join(f"  {violation}" for violation in violations[:5]))
        print(f"  its story: {again} --seed {options.seed} --only {episode} --trace")
    if totals.violations and not options.no_shrink:
        _shrink(options.seed, keepers, again, *next(iter(totals.violations.items())))
    print(
        f"{len(totals.results)} episodes of seed {options.seed}, {len(totals.violations)} with violations, "
        f"trace sha256 {totals.digest()}"
    )
    sys.exit(1 if totals.violations else 0)


def _progress(options: argparse.Namespace) -> Callable[[Totals, Result], bool]:
    def progress(totals: Totals, result: Result) -> bool:
        done = len(totals.results)
        for violation in result.violations[:1]:
            print(f"\nepisode {result.episode}: {violation}", file=sys.stderr, flush=True)
        text = f"{done} episodes, {totals.seconds:.0f} s, {len(totals.violations)} with violations"
        if sys.stderr.isatty():
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
        elif done % 100 == 0:
            print(text, file=sys.stderr, flush=True)
        return options.keep_going or not result.violations

    return progress


def _shrink(seed: int, keepers: int | None, again: str, episode: int, violations: Sequence[str]) -> None:
    with campaign.folder() as folder:
        made = campaign.ground(folder)
        scenario = draw(seed, episode, keepers)
        parts = shrink(scenario, violations[0], lambda shorter: campaign.play(made, shorter).violations)
    print(f"  the same goes wrong with {len(parts)} of {len(parts_of(scenario))} parts of episode {episode}:")
    print(f"  {again} --seed {seed} --only {episode} --trace --parts {','.join(parts) or 'none'}")
    short = only(scenario, parts)
    for i, order in enumerate(short.orders):
        if i not in short.left_out:
            print(f"    {order}")
    for event in short.events:
        print(f"    {event}")


def _story(seed: int, episode: int, keepers: int | None, parts: str | None) -> int:
    scenario = draw(seed, episode, keepers)
    if parts is not None:
        scenario = only(scenario, parts.split(","))
    with campaign.folder() as folder:
        outcome = campaign.play(campaign.ground(folder), scenario, keep=True)
    print("\n".join(outcome.lines))
    print(f"episode {episode} of seed {seed}, {len(outcome.violations)} violations, trace sha256 {outcome.digest}")
    return 1 if outcome.violations else 0
