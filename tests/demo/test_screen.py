"""The view of the demo in a terminal of 80 columns and 24 lines: nothing of it is cut, whatever there is to show."""

from __future__ import annotations

import io

import anyio
import pytest
from rich.console import Console

from keeper.demo.board import Board, FillLine, MarketLine
from keeper.demo.screen import Screen, render

pytestmark = pytest.mark.anyio

DEAD = "its price is 299 s old, and the limit is 4 s"
SCENE = "The feed of JUP/USDC dies; the price of SOL/USDC moves and moves back"


def terminal(out: io.StringIO) -> Console:
    return Console(file=out, force_terminal=True, color_system=None, width=80, height=24, legacy_windows=False)


def crowded() -> Board:
    """More in it than a demo ever has at once: the most orders that it takes, in seven states, and all its fills."""
    board = Board(wanted=5_100, scene=SCENE, progress=0.5, placed=5_100, positions=5_000)
    board.markets = [
        MarketLine("SOL/USDC", "150.08", 0.2, True, "", 1_250, 0.0123),
        MarketLine("BTC/USDC", "65000.00", 0.2, True, "", 1_250, -0.1234),
        MarketLine("ETH/USDC", "3200", None, True, "", 1_250, None),
        MarketLine("JUP/USDC", "0.85", 299.0, False, DEAD, 1_250, 0.0001),
    ]
    states = ("submitted", "open", "triggered", "executing", "filled", "cancelled", "failed")
    board.states.update(dict.fromkeys(states, 5_000))
    for _ in range(20):
        board.fills.append(FillLine("BTC/USDC", "trailing_stop", "short", "65000.00", 29_999.0))
    board.notes = ["A note that is longer than a line of this terminal is, so that it has to go on in the next one."]
    return board


def test_the_whole_view_fits() -> None:
    out = io.StringIO()
    terminal(out).print(render(crowded()))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 24
    assert {len(line) for line in lines} == {80}
    text = " ".join(out.getvalue().replace("│", " ").split())
    assert "…" not in text
    for shown in ("5100 of 5100", "BTC/USDC trailing_stop short 65,000.00 29999 ms", "-12.34%", "positions 5000"):
        assert shown in text
    for sentence in (SCENE, DEAD):
        assert all(word in text.split() for word in sentence.split())


async def test_what_the_demo_has_shown_stays_above_the_view() -> None:
    out, board = io.StringIO(), crowded()
    screen = Screen(board, terminal(out))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(screen.run)
        await anyio.wait_all_tasks_blocked()
        board.notes.append("The last one.")
        await screen.close()
    text = out.getvalue()
    assert text.count("A note that is longer") == text.count("• The last one.") == 1
    assert "…" not in text
    assert "..." not in text
