"""A live keeper is recorded, and its recording decided again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from solders.pubkey import Pubkey
from typer.testing import CliRunner

from keeper.cli import cli
from keeper.domain.orders import Order, OrderState, OrderType
from keeper.recording import entries
from keeper.recording.blocks import Reading
from keeper.recording.replay import Different, Replay
from keeper.recording.trial import Listing, Trial
from keeper.triggers.book import Book
from tests.behaviours.stand import USDC, Stand
from tests.support import until

pytestmark = pytest.mark.anyio


def recordings(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.rec"))


def played(files: Sequence[Path], again: Replay) -> Replay:
    """All files, as one: a day may end while the test runs."""
    for file in files:
        reading = Reading(file)
        for some in reading.entries():
            again.play(some)
    return again


async def test_a_live_keepers_recording_decides_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several fills, a moved stop, a cancel and a restart; then a decision that is changed, and other settings."""
    folder = tmp_path / "recordings"
    async with Stand.open(tmp_path, record={"folder": str(folder)}, rpc={"snapshot_every_s": 0.2}) as stand:
        market, other = stand.world.market("SOL/USDC"), stand.world.market("BTC/USDC")
        traders = [stand.world.trader() for _ in range(7)]
        early = [stand.order(trader, market, 95 - i) for i, trader in enumerate(traders[:3])]
        trailing = stand.order(traders[3], market, order_type=OrderType.TRAILING_STOP, trailing_distance_ppm=50_000)
        doomed, resting = stand.order(traders[4], other), stand.order(traders[5], other)
        async with stand.keeper():
            await stand.known(*early, trailing, doomed, resting)
            late = stand.order(traders[6], market, 94)
            await stand.known(late)
            stand.world.cancel(traders[4], doomed)
            await stand.reach(doomed, OrderState.CANCELLED)
            stand.world.set_price(market, 110 * USDC)
            await until(lambda: (order := stand.world.order(trailing)) is not None and order.stop_price_1e6 > 95 * USDC)
            stand.world.set_price(market, 94 * USDC)
            for order in (*early[:2], late, trailing):
                await stand.reach(order, OrderState.FILLED)
            assert await stand.readiness("recording") == (True, "recording")
            assert 'keeper_recording{state="recording"} 1.0' in (await stand.get("/metrics")).text
        async with stand.keeper():
            stand.world.set_price(market, 92 * USDC)
            await stand.reach(early[2], OrderState.FILLED)
            await until(lambda: bytes(early[2]) in played(recordings(folder), Listing()).told.triggers)

    files = recordings(folder)
    told = played(files, Replay()).told
    assert told.triggers.keys() == {bytes(order) for order in (*early, late, trailing)}
    assert told.decisions >= 6
    assert told.sessions >= 2
    assert told.missing == 0
    last = told.triggers[bytes(early[2])]
    assert (last.market, last.price_1e6) == (bytes(market), 92 * USDC)
    assert told.symbols == {bytes(market): "SOL/USDC", bytes(other): "BTC/USDC"}
    assert played(files, Listing()).told.triggers == told.triggers
    main = next(str(file) for file in files if bytes(late) in played([file], Listing()).told.triggers)
    kinds = {entry[0] for file in files for some in Reading(file).entries() for entry in some}
    assert kinds >= {
        entries.SLOT,
        entries.TIME,
        entries.MARKET,
        entries.ORDER,
        entries.LOOK,
        entries.STATE,
        entries.ENDED,
    }

    assert told.rules is not None
    same = Trial(told.rules)
    played(files, same)
    assert same.triggers == told.triggers

    # A breaker that the price's jump from 110 to 94 trips.
    config = tmp_path / "other.toml"
    config.write_text("[trigger]\nbreaker_trip = 0.1\n")
    result = CliRunner().invoke(cli, ["replay", main, "--config", str(config), "--json"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["only_b"]) == (0, 0)
    row = next(row for row in found["orders"] if row["order"] == str(late))
    assert (row["market"], row["a"]["price"], row["b"]) == ("SOL/USDC", "94", None)

    crossed = Book.crossed

    def all_but_one(self: Book, market: Pubkey, price_1e6: int, limit: int | None = None) -> list[Order]:
        return [order for order in crossed(self, market, price_1e6, limit) if order.address != early[1]]

    monkeypatch.setattr(Book, "crossed", all_but_one)
    with pytest.raises(Different, match=f"execute {early[1]}, SOL/USDC at 94"):
        played(files, Replay())
    result = CliRunner().invoke(cli, ["replay", main])
    assert result.exit_code == 1
    assert "The first difference is at " in result.stdout
