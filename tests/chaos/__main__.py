"""`python -m tests.chaos`: run the fault campaign (docs/chaos.md)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

import anyio

from keeper.demo.validator import NAME, Validator, find
from keeper.localnet.program import PROGRAM_SO
from tests.chaos.campaign import Options, Totals, run
from tests.chaos.planted import NAMES as FAULTS
from tests.chaos.scenario import Sharing
from tests.chaos.worker import share, work


def main() -> int:
    """Exit codes: 0 no violation, 1 a violation or a broken run, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--episodes", type=int, help="how many episodes (default 100; 30 on a validator)")
    parser.add_argument("--validator", action="store_true", help="on a real solana-test-validator, one worker")
    parser.add_argument("--keepers", type=int, default=1, help="so many on one PostgreSQL (default 1, on SQLite)")
    parser.add_argument(
        "--share", choices=list(Sharing), type=Sharing, default=Sharing.DRAWN, help="whether several share the markets"
    )
    parser.add_argument("--plant", choices=FAULTS, help="with several keepers: a fault in each of them")
    parser.add_argument("--seed", type=int, default=1, help="what they are drawn from (default 1)")
    parser.add_argument("--only", type=int, help="this episode of the seed's campaign alone")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes (default 2)")
    parser.add_argument("--evidence", type=Path, default=Path("build/chaos"), help="where violations leave their files")
    parser.add_argument("--keep-going", action="store_true", help="go on after a violation")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, last line of standard output")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.keepers < 1 or (given.keepers > 1 and given.validator) or (given.keepers == 1 and given.plant):
        parser.error("--keepers is at least 1, and several are not for --validator; --plant is for several")
    validator = None
    if given.validator:
        binary = find()
        if binary is None:
            parser.error(f"there is no {NAME}: put one on the PATH, or run make validator")
        validator, given.workers = Validator(binary, PROGRAM_SO), 1
    if given.episodes is None:
        given.episodes = 100 if validator is None else 30
    if given.episodes < 1 or given.workers < 1:
        parser.error("--episodes and --workers must be at least 1")
    episodes = range(given.episodes) if given.only is None else range(given.only, given.only + 1)
    if given.worker is not None:
        worker, workers = (int(part) for part in given.worker.split("/"))
        mine = share(episodes, worker, workers)
        planted = () if given.plant is None else (given.plant,)
        several = {"keepers": given.keepers, "planted": planted, "sharing": given.share}
        play = partial(work, keep_going=given.keep_going, validator=validator, **several)
        anyio.run(play, given.seed, mine, given.evidence.absolute())
        return 0
    options = Options(
        given.episodes,
        given.seed,
        1 if given.only is not None else given.workers,
        given.evidence.absolute(),
        given.only,
        given.keep_going,
        given.validator,
        given.keepers,
        given.plant,
        given.share,
    )
    totals = anyio.run(run, options, _progress)
    _report(totals, options, as_json=given.json)
    return 0 if totals.ok else 1


def _progress(totals: Totals, violated: bool) -> None:
    if totals.episodes % 10 == 0 or violated:
        print(
            f"{totals.episodes} episodes, {totals.kills.total()} kills, {totals.part('fault ').total()} faults, "
            f"{len(totals.violations)} violations, {totals.seconds:.0f} s",
            file=sys.stderr,
        )


def _report(totals: Totals, options: Options, *, as_json: bool) -> None:
    document = totals.document(options)
    if as_json:
        print(json.dumps(document))
    else:
        for name, value in document.items():
            if name != "violations":
                print(f"{name.replace('_', ' ')}: {_plain(value)}")
    for found in totals.violations:
        print(f"VIOLATION in episode {found['episode']} of seed {options.seed}:", file=sys.stderr)
        for sentence in found["violations"]:
            print(f"  {sentence}", file=sys.stderr)
        print(f"  its journal, log, plan and sends: {found['evidence']}", file=sys.stderr)
        flag, args = options.flags, f' ARGS="{options.flags.strip()}"' if options.flags else ""
        print(
            f"  again: .venv/bin/python -m tests.chaos --seed {options.seed} --only {found['episode']}{flag}",
            file=sys.stderr,
        )
        print(
            f"  with all before it: make chaos SEED={options.seed} EPISODES={found['episode'] + 1}{args}",
            file=sys.stderr,
        )
    for sentence in totals.broken_workers:
        print(f"BROKEN: {sentence}", file=sys.stderr)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
