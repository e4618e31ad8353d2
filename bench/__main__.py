"""`python -m bench`: run the parts, write `bench/results.json` and the README's table; `--table` prints it again.

`--only burst` runs one part and keeps the others' figures; `--quick` is a smoke run of a minute whose figures are
printed and not written.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from bench.machine import describe
from bench.table import table, with_table

RESULTS = Path(__file__).with_name("results.json")
README = Path(__file__).parents[1] / "README.md"
PARTS = (
    "decode",
    "stream",
    "journal",
    "tick",
    "walk",
    "burst",
    "instant",
    "arming",
    "killed",
    "naive",
    "placing",
    "readers",
    "strangers",
    "capacity",
    "replay",
    "scale",
)


def main() -> int:
    """Exit code 0 when every part ran, 1 when one failed; the others' figures are written all the same."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="run this part alone")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    parser.add_argument("--table", action="store_true", help="print the table of the last results and stop")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(RESULTS.read_text())))
        return 0
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if given.only and RESULTS.exists() else {}
    machine = describe()
    failed = False
    for part in (given.only,) if given.only else PARTS:
        print(f"{part} ...", end=" ", file=sys.stderr, flush=True)
        began = time.perf_counter()
        try:
            figures = anyio.run(importlib.import_module(f"bench.parts.{part}").measure, given.quick)
        except Exception as e:
            print(f"failed: {e!r}", file=sys.stderr)
            failed = True
            continue
        took = time.perf_counter() - began
        print(f"{took:.0f} s", file=sys.stderr)
        results |= figures
        # The figures of a part are of the machine as it was then.
        results["machine"] = {**machine, "load_after": os.getloadavg()[0]}
        results.setdefault("parts", {})[part] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "took_s": round(took),
            "commit": machine["commit"],
        }
        if not given.quick:
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")
            README.write_text(with_table(README.read_text(), results))
    if given.quick:
        print(json.dumps(results, indent=2))
    else:
        print(table(results))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
