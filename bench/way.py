"""A tick's way, counted: how many calls of the keeper's own code, in how many files, and how often the file changes.

    python -m bench.way [--ticks 5] [--story]

Counted from the socket's bytes with a market's news to the first bytes of the signed transaction given to a socket, for
one order that its price meets, on a keeper of default settings. What other tasks do meanwhile is not in it, nor are
libraries. `--story` prints the way itself, call by call.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import anyio

from bench.stage import PRICE_1E6, SOL_FOR_FEES, chain, keeper, traders_for
from bench.traced import hooked
from tests.support.waiting import until

_PACKAGE = str(Path(__file__).parent.parent / "keeper") + "/"
_STEP_1E6 = 10_000


def count(path: str) -> None:
    """Put the counter in; each way that ends in a send is a line of JSON: the files and functions in order."""
    calls: list[str] = []

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_PACKAGE):
            calls.append(f"{code.co_filename.removeprefix(_PACKAGE)}:{code.co_qualname}")

    def begins() -> None:
        calls.clear()
        sys.setprofile(profile)

    def ends() -> None:
        if sys.getprofile() is None:
            return
        sys.setprofile(None)
        with Path(path).open("a") as out:
            out.write(json.dumps(calls) + "\n")

    hooked(lambda *_: begins(), lambda *_: ends())


async def ways(ticks: int) -> list[list[str]]:
    """The ways of so many ticks, the first ones, which load and learn things, left out."""
    async with chain() as world:
        market = world.market("M0/USDC", price_1e6=PRICE_1E6)
        (trader,) = traders_for(world, 1)
        orders = [world.place(trader, market, stop_price_1e6=PRICE_1E6 - (i + 1) * _STEP_1E6) for i in range(ticks + 3)]
        with tempfile.TemporaryDirectory(prefix="keeper-bench-") as folder:
            trace = Path(folder) / "ways"
            key = world.wallet(SOL_FOR_FEES)
            async with keeper(world, Path(folder), key=key, trace=trace, tracer="bench.way"):
                await anyio.sleep(2.0)
                for i, _ in enumerate(orders):
                    known = len(_lines(trace))
                    world.set_price(market, PRICE_1E6 - (i + 1) * _STEP_1E6)
                    await until(lambda known=known: len(_lines(trace)) > known, within_s=20)  # type: ignore[misc]
                    await anyio.sleep(1.5)
            return [json.loads(line) for line in _lines(trace)][3:]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def figures(way: list[str]) -> tuple[int, int, int]:
    """Calls, files, and changes of file."""
    files = [call.partition(":")[0] for call in way]
    return len(way), len(set(files)), sum(a != b for a, b in pairwise(files))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.way", description=__doc__)
    parser.add_argument("--ticks", type=int, default=5)
    parser.add_argument("--story", action="store_true")
    options = parser.parse_args()
    found = anyio.run(ways, options.ticks)
    median = sorted(found, key=len)[len(found) // 2]
    if options.story:
        print("\n".join(median))
    for name, n in Counter(call.partition("/")[0] for call in median).most_common():
        print(f"{n:4} {name}")
    calls, files, changes = (int(statistics.median(column)) for column in zip(*map(figures, found), strict=True))
    print(f"calls {calls}, files {files}, changes of file {changes}")


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[2] == "run":
        from keeper.cli import main as run

        count(sys.argv[1])
        sys.argv = ["keeper", *sys.argv[2:]]
        run()
    else:
        main()
