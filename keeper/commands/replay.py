"""`keeper replay`: a recording decided again, and held against itself, against other settings, or against another."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keeper.commands import EXIT_FAILED, options
from keeper.domain.errors import Misconfigured

if TYPE_CHECKING:
    from keeper.recording.comparing import Side
    from keeper.recording.entries import Decided
    from keeper.recording.replay import Replay, Told
    from keeper.triggers.decision import Rules

_PROGRESS_EVERY_S: Final = 2.0
_LATE_NS: Final = 60 * 10**9
"""News is kept with its arrival, so an entry may be of a little before the one that it follows."""
_Files = Annotated[list[Path], typer.Argument(help="A recording; or two, whose decisions are compared.")]
_Configs = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", help="Settings to decide by, against the recorded ones; or two, to be compared."),
]
_Speed = Annotated[str, typer.Option(help="1: as it was; 10: so many times as fast; max: as fast as it goes.")]


def replay(files: _Files, config: _Configs = None, speed: _Speed = "max", as_json: options.AsJson = False) -> None:
    """Decide again what a recording holds, and compare. Exit code 1 at the first decision that is not the recorded one.

    With --config, or with two recordings: which orders are triggered when, at what price, and with what delay.
    """
    configs = config or []
    if len(files) > 2 or len(configs) > 2 or (len(files) == 2 and configs):
        raise Misconfigured(
            "At most two sides can be compared.", remedy="Give one recording and up to two --config, or two recordings."
        )
    pace = _pace(speed)
    if pace is not None and (configs or len(files) == 2):
        raise Misconfigured("Only the replay of one recording has a speed.", remedy="Leave --speed out.")
    if len(files) == 1 and not configs:
        _verify(files[0], pace, as_json)
    else:
        _compare(files, configs, as_json)


def _pace(speed: str) -> float | None:
    if speed == "max":
        return None
    try:
        pace = float(speed)
    except ValueError:
        pace = 0.0
    if not 0 < pace < 1e6:
        raise Misconfigured(f"--speed {speed} is no speed.", remedy="Give a number above 0, or max.")
    return pace


def _verify(file: Path, pace: float | None, as_json: bool) -> None:
    from keeper.recording.replay import Different, Replay, words

    def say(decisions: Decided, at_ns: int) -> None:
        for sentence in words(again.told, decisions):
            print(f"{again.told.wall(at_ns)}  {sentence}", flush=True)

    again = Replay(None if pace is None or as_json else say)
    began, different = time.perf_counter(), ""
    torn = 0
    try:
        torn = _play(file, again, pace)
    except Different as e:
        different = str(e)
    told, took_s = again.told, time.perf_counter() - began
    if as_json:
        print(json.dumps(_told(file, told, torn) | {"same": not different, "difference": different or None}))
    else:
        for sentence in _shortcomings(file, told, torn):
            print(sentence)
        what = f"{told.decisions:,} decisions of {told.entries:,} entries, in {took_s:.1f} s"
        print(different or f"The same decisions: {what}.")
    if different:
        raise typer.Exit(EXIT_FAILED)


def _compare(files: list[Path], configs: list[Path], as_json: bool) -> None:
    from keeper.recording.comparing import Side, compare
    from keeper.recording.trial import Listing, Trial

    sides: list[Side] = []
    for file in files if len(configs) < 2 else []:
        listing = Listing()
        torn = _play(file, listing, None)
        _warn(file, listing.told, torn)
        sides.append(Side(str(file), listing.told, listing.told.triggers))
    for config in configs:
        rules, program = _rules(config)
        trial = Trial(rules)
        torn = _play(files[0], trial, None)
        if trial.told.program != program:
            raise Misconfigured(f"{files[0]} is of another program than {config} names.", remedy="Set program.id.")
        if len(configs) == 2:
            _warn(files[0], trial.told, torn)
        sides.append(Side(str(config), trial.told, trial.triggers))
    a, b = sides
    if a.told.program != b.told.program:
        raise Misconfigured(f"{a.name} and {b.name} are of two programs.", remedy="Compare recordings of one.")
    found = compare(a, b)
    if as_json:
        print(json.dumps(found))
        return
    print(
        f"{found['same']:,} orders triggered alike, {found['other_price']:,} at another price, {found['only_a']:,} by "
        f"{a.name} alone, {found['only_b']:,} by {b.name} alone."
    )
    rows = [_cells(row) for row in found["orders"] if row["differs"] or row["delay_s"]]
    if rows:
        from keeper.commands.table import print_table

        print_table(rows[: options.MOST_ROWS], list(rows[0]), below={"order"})
    if len(rows) > options.MOST_ROWS:
        print(f"{len(rows) - options.MOST_ROWS:,} more are in --json.")


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    cells = {"order": row["order"], "market": row["market"]}
    for name in ("a", "b"):
        side = row[name] or {"at": "never", "price": "", "slot": ""}
        cells |= {f"{name}": side["at"][11:26] or "never", f"{name}_price": side["price"], f"{name}_slot": side["slot"]}
    return cells | {"delay_s": row["delay_s"]}


def _rules(config: Path) -> tuple[Rules, bytes]:
    from keeper.app.limits import decision_rules
    from keeper.app.program import load_program
    from keeper.config.loading import load_settings

    settings = load_settings(config)
    program = load_program(settings.program)
    return decision_rules(settings, program), bytes(program.id)


def _play(file: Path, again: Replay, pace: float | None) -> int:
    """Play the whole file; how many bytes at its end are not whole."""
    from keeper.recording.blocks import Reading

    reading, pacer = Reading(file), None if pace is None else _Pacer(pace)
    shown_at = time.monotonic()
    for some in reading.entries():
        if pacer is None:
            again.play(some)
        else:
            for entry in some:
                pacer.wait(entry[1])
                again.play([entry])
        if time.monotonic() - shown_at >= _PROGRESS_EVERY_S:
            shown_at = time.monotonic()
            told = again.told
            print(
                f"{100 * reading.at // reading.size} %, {told.wall(told.at_ns)[:19]}, {told.entries:,} entries, "
                f"{told.decisions:,} decisions",
                file=sys.stderr,
            )
    if not again.told.sessions:
        print(f"{file} has no entries.", file=sys.stderr)
    return reading.torn


class _Pacer:
    """Waits until a moment of the recording is due, `pace` times as fast as it was. Time that went back is another run
    of the keeper's: that goes on at once.
    """

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._first_ns = self._last_ns = -1
        self._began = 0.0

    def wait(self, at_ns: int) -> None:
        if self._first_ns < 0 or at_ns < self._last_ns - _LATE_NS:
            self._first_ns, self._began = at_ns, time.monotonic()
        self._last_ns = at_ns
        time.sleep(max(0.0, self._began + (at_ns - self._first_ns) / 1e9 / self._pace - time.monotonic()))


def _told(file: Path, told: Told, torn: int) -> dict[str, Any]:
    return {
        "file": str(file),
        "keeper": told.keeper,
        "entries": told.entries,
        "decisions": told.decisions,
        "starts": told.sessions,
        "missing": told.missing,
        "torn_bytes": torn,
        "until": told.wall(told.at_ns),
    }


def _shortcomings(file: Path, told: Told, torn: int) -> Iterator[str]:
    if torn:
        yield f"{file}: the last {torn:,} bytes are not whole, and were not read."
    if told.missing:
        yield f"{file} has a hole: {told.missing:,} entries were dropped, and nothing of that time is replayed."


def _warn(file: Path, told: Told, torn: int) -> None:
    for sentence in _shortcomings(file, told, torn):
        print(sentence, file=sys.stderr)
