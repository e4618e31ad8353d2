"""The files of a recording: bounded, whole or told to be not, and never the keeper's end."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey
from typer.testing import CliRunner

from keeper.cli import cli
from keeper.domain.errors import KeeperError, Misconfigured
from keeper.domain.reports import Note, Report
from keeper.recording import entries
from keeper.recording.blocks import HEAD, Reading, blocks
from keeper.recording.entries import Entry
from keeper.recording.folder import Bounds, Folder, NoRoom
from keeper.recording.recorder import Recorder, begin_entry
from keeper.recording.replay import Replay
from keeper.solana.watch import WatchHealth
from keeper.triggers.decision import Rules
from tests.triggers.order_making import SOL, make_order, market_seen

pytestmark = pytest.mark.anyio

RULES = Rules(breaker=None)
PROGRAM = Pubkey(bytes(range(32)))
DAY = datetime.date(2026, 11, 27)
NOON_S = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC).timestamp()
PLENTY = Bounds(keep_days=7, max_bytes=10**9)


def slots(count: int, first: int = 0) -> list[Entry]:
    """Entries that say nothing, too different to be packed well."""
    return [(entries.SLOT, n, hashlib.sha256(b"%d" % n).hexdigest()[:16], n) for n in range(first, first + count)]


def read(path: Path) -> tuple[list[Entry], int]:
    reading = Reading(path)
    return [tuple(entry) for some in reading.entries() for entry in some], reading.torn


@settings(derandomize=True, deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(counts=st.lists(st.integers(1, 2_000), min_size=1, max_size=2), data=st.data())
def test_a_torn_file_is_read_up_to_where_it_is_whole(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], data: st.DataObject
) -> None:
    folder = Folder(tmp_path_factory.mktemp("torn"), PLENTY)
    said: list[Entry] = []
    for count in counts:
        said += slots(count, len(said))
        folder.write(DAY, said[-count:])
    folder.close()
    path = folder.path / "2026-11-27.rec"
    whole = path.read_bytes()
    uncut, ends, at = Reading(path), {0: 0}, 0
    for some in uncut.entries():
        at += len(some)
        ends[uncut.at] = at
    cut = data.draw(st.one_of(st.integers(0, len(whole)), st.sampled_from(sorted(ends))))
    path.write_bytes(whole[:cut] + data.draw(st.binary(max_size=12)))
    if cut < len(HEAD):
        path.write_bytes(whole[:cut])
    found, torn = read(path)
    assert found == said[: len(found)]
    assert len(found) == max(count for end, count in ends.items() if end <= path.stat().st_size - torn)
    assert len(found) >= max(count for end, count in ends.items() if end <= cut)

    folder.write(DAY, slots(5, 10**6))  # who writes on cuts off what is not whole
    assert read(path) == ([*found, *slots(5, 10**6)], 0)
    folder.close()


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    for content, message in {
        b"SQLite format 3\0": "is no recording of the keeper",
        b"qdkeeper-recording 7\nxyz": "is a recording of format 7, and this keeper reads format 1",
    }.items():
        path = tmp_path / "some.rec"
        path.write_bytes(content)
        result = CliRunner().invoke(cli, ["replay", str(path)])
        assert isinstance(result.exception, Misconfigured)
        assert message in str(result.exception)
    result = CliRunner().invoke(cli, ["replay", str(tmp_path / "absent.rec")])
    assert "can't be read: No such file" in str(result.exception)


def test_settings_of_another_program_are_refused(tmp_path: Path) -> None:
    path, config = tmp_path / "some.rec", tmp_path / "keeper.toml"
    path.write_bytes(HEAD + b"".join(blocks([begin_entry(RULES, PROGRAM, 1, "start")])))
    config.write_text("")
    result = CliRunner().invoke(cli, ["replay", str(path), "--config", str(config)])
    assert "is of another program than" in str(result.exception)


def test_the_oldest_files_go_first_and_the_days_own_stays_whole(tmp_path: Path) -> None:
    some = slots(2_000)
    size = len(b"".join(blocks(some))) + len(HEAD)
    folder = Folder(tmp_path, Bounds(keep_days=4, max_bytes=3 * size))
    for day in range(6):
        folder.write(DAY + datetime.timedelta(days=day), some)
    (tmp_path / "mine.txt").write_text("not a recording")
    names = ["2026-11-30.rec", "2026-12-01.rec", "2026-12-02.rec"]
    assert sorted(path.name for path in tmp_path.glob("*.rec")) == names
    today = DAY + datetime.timedelta(days=5)
    for n in range(2):
        folder.write(today, slots(2_000, n))
    with pytest.raises(NoRoom):
        folder.write(today, slots(2_000, 7))
    found, torn = read(tmp_path / names[-1])
    assert sum(path.stat().st_size for path in tmp_path.glob("*.rec")) <= 3 * size
    assert (found[:2_000], torn) == (some, 0)
    assert (tmp_path / "mine.txt").exists()

    few = Folder(tmp_path, Bounds(keep_days=2, max_bytes=10**9))
    few.write(DAY + datetime.timedelta(days=6), some)
    few.close()
    assert sorted(path.name for path in tmp_path.glob("*.rec")) == ["2026-12-02.rec", "2026-12-03.rec"]


def test_two_keepers_do_not_write_one_file(tmp_path: Path) -> None:
    first, second = Folder(tmp_path, PLENTY), Folder(tmp_path, PLENTY)
    first.write(DAY, slots(3))
    with pytest.raises(OSError, match="another keeper"):
        second.write(DAY, slots(3))
    first.close()
    second.write(DAY, slots(3))
    second.close()
    assert read(tmp_path / "2026-11-27.rec") == (slots(3) * 2, 0)


class OnFullDisk(Folder):
    """Its disk is full while it is `full`: the kernel's own refusal."""

    full = False

    def _append(self, data: bytes) -> None:
        if not self.full:
            super()._append(data)
            return
        with open("/dev/full", "ab", buffering=0) as device:  # noqa: PTH123 - no path of the folder's
            device.write(data)


class Recorded:
    """A recorder whose turns the test makes, on a day of the test's."""

    def __init__(self, path: Path, bounds: Bounds = PLENTY) -> None:
        self.wall_s = NOON_S
        self.said: list[Report] = []
        self.folder = OnFullDisk(path, bounds)
        self.recorder = Recorder(RULES, self.folder, PROGRAM, self.said.append, now_s=lambda: self.wall_s, again_s=0.0)
        self.decision = self.recorder.decision
        self._slot = 10
        self.decided = 0

    def price(self, price: int) -> None:
        self._slot += 1
        seen = market_seen(price * 1_000_000, self._slot, updated_at_s=1_000)
        if self.decision.on_market(seen):
            self.decided += len(self.decision.review(SOL, 1_000.0, seen.received_at_ns))

    def order(self, number: int, stop: int) -> None:
        self._slot += 1
        self.decision.book.upsert(make_order(number, slot=self._slot, stop_price_1e6=stop * 1_000_000))

    @property
    def events(self) -> list[str]:
        return [report.event for report in self.said if isinstance(report, Note)]

    def replayed(self, day: str = "2026-11-27") -> Replay:
        replay = Replay()
        for some in Reading(self.folder.path / f"{day}.rec").entries():
            replay.play(some)
        return replay


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Callable[..., Recorded]]:
    made: list[Recorded] = []

    def make(path: Path = tmp_path, bounds: Bounds = PLENTY) -> Recorded:
        made.append(Recorded(path, bounds))
        return made[-1]

    yield make
    for each in made:
        each.folder.close()


async def test_a_disk_that_fails_ends_the_recording_and_not_the_keeper(
    tmp_path: Path, recorded: Callable[..., Recorded]
) -> None:
    """It says so in a word, counts what is missing, and goes on when the disk does: the rest can be replayed."""
    path = tmp_path / "folder"
    path.write_text("in the way")
    r = recorded(path)
    r.order(1, 90)
    await r.recorder.turn()
    assert (r.recorder.state, r.recorder.tape.dropped) == ("failed", 1)
    r.price(80)
    await r.recorder.turn()
    assert r.recorder.state == "failed"
    path.unlink()
    r.order(2, 70)
    await r.recorder.turn()
    r.price(60)
    await r.recorder.turn()
    assert (r.recorder.state, r.events) == ("recording", ["record.failed", "record.recording"])
    told = r.replayed().told
    assert told.missing == r.recorder.tape.dropped > 0
    assert told.triggers.keys() == {bytes(make_order(n).address) for n in (1, 2)}
    result = CliRunner().invoke(cli, ["replay", str(path / "2026-11-27.rec"), "--json"])
    assert json.loads(result.stdout)["missing"] == told.missing
    result = CliRunner().invoke(cli, ["replay", str(path / "2026-11-27.rec")])
    assert "has a hole" in result.stdout
    assert "The same decisions: 2 decisions of 6 entries" in result.stdout


async def test_a_full_disk_is_full_and_leaves_whole_what_was_written(
    tmp_path: Path, recorded: Callable[..., Recorded]
) -> None:
    r = recorded()
    r.order(1, 90)
    await r.recorder.turn()
    r.folder.full = True
    r.price(80)
    await r.recorder.turn()
    assert r.recorder.state == "full"
    assert r.recorder.detail == "No space left on device"
    r.folder.full = False
    await r.recorder.turn()
    r.price(79)
    await r.recorder.turn()
    assert r.recorder.state == "recording"
    assert r.replayed().told.decisions == 1
    assert r.decided == 2


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.rec"))


async def test_a_day_beyond_the_bound_is_full_until_the_next(tmp_path: Path, recorded: Callable[..., Recorded]) -> None:
    r = recorded(bounds=Bounds(keep_days=7, max_bytes=1_500))
    r.price(100)
    await r.recorder.turn()
    for n in range(1_000):
        r.price(100 + n**3 % 101)
    await r.recorder.turn()
    await r.recorder.turn()
    assert r.recorder.state == "full"
    assert bytes_in(tmp_path) <= 1_500
    r.wall_s += 86_400
    await r.recorder.turn()
    r.price(100)
    await r.recorder.turn()
    assert r.recorder.state == "recording"
    assert bytes_in(tmp_path) <= 1_500
    assert r.replayed("2026-11-28").told.missing >= 1_000


async def test_a_tape_that_runs_over_is_behind_and_says_how_much_is_missing(
    tmp_path: Path, recorded: Callable[..., Recorded]
) -> None:
    r = recorded()
    r.recorder.tape._most = 50
    for n in range(40):
        r.order(n + 1, 90)
    for _ in range(20):
        r.price(95)
    assert r.recorder.tape.dropped > 0
    assert (r.recorder.state, r.recorder.detail) == ("behind", "the disk is too slow")
    r.price(80)  # decided while nothing is kept
    await r.recorder.turn()
    assert (r.recorder.state, r.events) == ("behind", ["record.behind"])
    await r.recorder.turn()
    assert r.recorder.state == "recording"
    r.price(80)
    await r.recorder.turn()
    assert r.events == ["record.behind", "record.recording"]
    told = r.replayed().told
    assert told.missing == r.recorder.tape.dropped
    assert (told.decisions, r.decided) == (40, 80)


async def test_each_days_file_is_replayed_by_itself(tmp_path: Path, recorded: Callable[..., Recorded]) -> None:
    r = recorded()
    r.order(1, 90)
    r.order(2, 70)
    r.price(80)
    await r.recorder.turn([heard := WatchHealth("rpc", last_heard_at=5.0, last_slot=9)])
    r.price(79)
    r.wall_s += 86_400
    await r.recorder.turn([heard])
    r.price(69)
    await r.recorder.turn([heard])
    first, second = r.replayed().told, r.replayed("2026-11-28").told
    assert [first.decisions, second.decisions] == [2, 2]
    assert second.triggers.keys() == {bytes(make_order(n).address) for n in (1, 2)}
    said = [entry for entry in read(tmp_path / "2026-11-27.rec")[0] if entry[0] == entries.SLOT]
    assert said == [(entries.SLOT, 5_000_000_000, "rpc", 9)]


def test_every_refusal_to_compare_says_what_to_give() -> None:
    for wrong in (["a", "b", "c"], ["a", "b", "--config", "x"], ["a", "--speed", "fast"], ["a", "b", "--speed", "2"]):
        result = CliRunner().invoke(cli, ["replay", *wrong])
        assert isinstance(result.exception, Misconfigured), wrong
        assert result.exception.remedy


def test_a_replay_has_the_speed_that_was_asked_for(tmp_path: Path, recorded: Callable[..., Recorded]) -> None:
    """A second of news at a thousand times the speed, with each decision as it is made."""
    r = recorded()
    r.order(1, 90)
    r.price(80)
    r.folder.write(DAY, r.recorder.tape.take())
    r.folder.close()
    result = CliRunner().invoke(cli, ["replay", str(tmp_path / "2026-11-27.rec"), "--speed", "1000"])
    assert f"execute {make_order(1).address}, SOL/USDC at 80 (slot 12)" in result.stdout
    assert result.exit_code == 0


@pytest.mark.parametrize(
    "wrong",
    [
        ["unheard of", 1],
        [],
        [entries.WATCH, 1, b"short", 1],
        [entries.WATCH, 1, bytes(32), 77],
        [entries.TIME, 1, "rpc", 3],
        [entries.STATE, 1, {}, 0],
        [entries.PAGE, 1, b""],
        [entries.GONE, 1, "rpc", bytes(32), -(2**70), 1, True],
    ],
)
def test_an_entry_that_makes_no_sense_is_named(wrong: list[object]) -> None:
    replay = Replay()
    with pytest.raises(KeeperError):
        replay.play([begin_entry(RULES, PROGRAM, 1, "start"), wrong])
    with pytest.raises(KeeperError):
        Replay().play([wrong])
