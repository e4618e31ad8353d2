"""What a stream misses it is told again, or everything is read: the book is never less than a full reading."""

from __future__ import annotations

import random

import anyio
import pytest
from solders.pubkey import Pubkey

from keeper.solana.geyser import OVERLAP_SLOTS
from tests.support import Trader, until
from tests.yellowstone.listening import Listening, listening

pytestmark = pytest.mark.anyio


class Play:
    """Things happen on the chain, drawn by a seed."""

    def __init__(self, here: Listening, seed: int) -> None:
        self.here = here
        self.dice = random.Random(seed)
        self.markets = [here.world.market() for _ in range(3)]
        self.traders = [here.world.trader() for _ in range(3)]
        self.open: list[tuple[Trader, Pubkey]] = []

    def happen(self) -> None:
        """A few orders come and go, prices move, and blocks pass."""
        world, dice = self.here.world, self.dice
        for _ in range(dice.randint(1, 6)):
            what = dice.random()
            if what < 0.4 and len(self.open) < 40:
                trader = dice.choice(self.traders)
                stop = dice.randint(50, 99) * 1_000_000
                self.open.append((trader, world.place(trader, dice.choice(self.markets), stop_price_1e6=stop)))
            elif what < 0.6 and self.open:
                world.cancel(*self.open.pop(dice.randrange(len(self.open))))
            elif what < 0.8:
                world.set_price(dice.choice(self.markets), dice.randint(100, 150) * 1_000_000)
            else:
                world.bank.advance()


async def through(rounds: int, seed: int) -> None:
    """Every third gap can be told again, every third is longer than the buffer, and every third is a restart."""
    async with listening() as here:
        play = Play(here, seed)
        await here.well()
        for number in range(rounds):
            play.happen()
            await here.fill_the_buffer()
            lists, kind = here.lists, number % 3
            with here.held():
                if kind == 2:
                    here.geyser.restart()
                else:
                    here.geyser.disconnect()
                await until(lambda: not here.watch.health.connected)
                play.happen()
                if kind == 1:
                    here.geyser.replay_slots = 4
                    for _ in range(2 * OVERLAP_SLOTS):
                        here.world.bank.advance()
                    here.geyser.replay_slots = 150
            play.happen()
            await here.well()
            assert kind == 0 or here.lists > lists, f"round {number}: what was not told has to be read"
        # Not each of those that can: a busy machine may be too late for one.
        assert here.watch.health.replays >= rounds // 6
        assert here.geyser.subscribed <= 4 * rounds, "it asks once for each stream, and once for each gap"


async def test_the_book_is_a_full_reading_after_every_gap() -> None:
    await through(6, seed=1)


async def test_what_the_slot_under_way_told_before_the_stream_began_is_not_lost() -> None:
    """A server that repeats at processed leaves it out: the gap's slot is not complete yet when it is asked."""
    async with listening() as here:
        await here.well()
        trader, market = here.world.trader(), here.world.market()
        await here.fill_the_buffer()
        with here.held():
            here.geyser.disconnect()
            await until(lambda: not here.watch.health.connected)
            taken, lists = here.geyser.subscribed, here.lists
            missed = here.world.place(trader, market, stop_price_1e6=1)
            await until(lambda: here.geyser.subscribed > taken)
            here.world.place(trader, market, stop_price_1e6=1)  # the new stream's first news, in the same slot
            await until(lambda: here.geyser.replayed or here.lists > lists)
        await here.well()
        assert missed in here.reader.book


@pytest.mark.long
async def test_the_book_is_a_full_reading_after_a_thousand_gaps() -> None:
    """On ten chains at once, because most of a gap is a pause."""
    async with anyio.create_task_group() as tg:
        for seed in range(2, 12):
            tg.start_soon(through, 100, seed)
