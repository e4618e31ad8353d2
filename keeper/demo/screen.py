"""The live view: tables in a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import Final

import anyio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from keeper.demo.board import Board
from keeper.demo.options import SLOT_MS
from keeper.demo.summary import Summary

_FRAMES_PER_S: Final = 4
_WIDTH: Final = 80
_LINE_EVERY_S: Final = 2.0
_STATES: Final = (
    "submitted",
    "open",
    "triggered",
    "executing",
    "filled",
    "cancelled",
    "expired",
    "failed",
    "rejected",
    "dropped",
)


class Screen:
    """Draws the board: a live view when the console is a terminal, else a line when something changed."""

    def __init__(self, board: Board, console: Console) -> None:
        self._board = board
        self._console = console
        self._done = anyio.Event()
        self._gone = anyio.Event()
        self._noted = 0

    async def run(self) -> None:
        """Draw until `close`, or until cancelled."""
        try:
            if self._console.is_terminal:
                await self._draw()
            else:
                await self._print_lines()
        finally:
            self._gone.set()

    async def close(self) -> None:
        """Draw a last time, and leave the terminal to whoever prints next."""
        self._done.set()
        await self._gone.wait()

    async def _draw(self) -> None:
        with Live(render(self._board), console=self._console, auto_refresh=False) as live:
            while not self._done.is_set():
                await self._pause(1 / _FRAMES_PER_S)
                self._print_notes()
                live.update(render(self._board), refresh=True)

    async def _print_lines(self) -> None:
        shown = ""
        while not self._done.is_set():
            line = _line(self._board)
            if line != shown:
                self._console.print(line, highlight=False, soft_wrap=True)
                shown = line
            await self._pause(_LINE_EVERY_S)
            self._print_notes()

    def _print_notes(self) -> None:
        """What the demo has shown since the last time; above the view, if there is one, so that it stays readable."""
        for note in self._board.notes[self._noted :]:
            self._console.print(f"• {note}", highlight=False, soft_wrap=not self._console.is_terminal)
        self._noted = len(self._board.notes)

    async def _pause(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._done.wait()


def _line(board: Board) -> str:
    states = [f"{board.states[state]} {state}" for state in _STATES if board.states[state]]
    return ", ".join([f"{board.scene}: {board.placed}/{board.wanted} placed", *states])


def render(board: Board) -> RenderableType:
    """The whole view. It fits into a terminal of 80 columns and 24 lines."""
    below = Table.grid(padding=(0, 3))
    below.add_row(_orders(board), _fills(board))
    parts: list[RenderableType] = [_header(board), Text(), _markets(board), Text(), below]
    return Panel(Group(*parts), title="QuantDesk keeper, demo", border_style="cyan", width=_WIDTH)


def _header(board: Board) -> RenderableType:
    line = Table.grid(expand=True)
    line.add_column(ratio=1)
    line.add_column(width=24)
    bar = ProgressBar(total=1.0, completed=board.progress, width=24)
    line.add_row(Text(f"{board.scene}", style="bold"), bar)
    return line


def _table() -> Table:
    return Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)


def _markets(board: Board) -> Table:
    table = _table()
    table.add_column("market", width=10)
    table.add_column("price", justify="right", width=11)
    table.add_column("age", justify="right", width=5)
    table.add_column("resting", justify="right")
    table.add_column("nearest", justify="right")
    table.add_column("")
    for market in board.markets:
        table.add_row(
            market.symbol,
            _price(market.price),
            "" if market.age_s is None else f"{market.age_s:.0f} s",
            str(market.resting),
            "" if market.nearest is None else f"{market.nearest:.2%}",
            Text("executing", style="green") if market.executing else Text(market.reason, style="yellow"),
        )
    return table


def _orders(board: Board) -> Table:
    table = _table()
    table.add_column("orders", no_wrap=True)
    table.add_column(f"{board.placed} of {board.wanted}", justify="right", no_wrap=True)
    for state in _STATES:
        if board.states[state]:
            style = {"filled": "green", "failed": "red", "dropped": "red", "rejected": "red"}.get(state, "")
            table.add_row(Text(state, style=style), str(board.states[state]))
    table.add_row(Text("positions", style="bold"), str(board.positions))
    return table


def _fills(board: Board) -> Table:
    table = _table()
    table.add_column("fills", width=8, no_wrap=True)
    table.add_column("", width=19, no_wrap=True)
    table.add_column("at", justify="right", width=9, no_wrap=True)
    table.add_column("after", justify="right", width=8, no_wrap=True)
    for fill in reversed(board.fills):
        table.add_row(fill.market, f"{fill.kind} {fill.side}", _price(fill.price), f"{fill.latency_ms:.0f} ms")
    return table


def _price(text: str) -> str:
    """Enough digits to see it move."""
    return "" if not text else f"{float(text):,.{4 if float(text) < 10 else 2}f}"


def closing(summary: Summary) -> RenderableType:
    """The summary for people."""
    document = summary.document()
    v, latency = summary.verdict, document["trigger_to_confirm_ms"]
    lines = [
        f"{v.placed} orders placed, {v.triggered} triggered, {v.executed} executed, {v.positions} positions, "
        f"{v.duplicates} duplicates, {len(v.failed)} failed, {v.lost} lost.",
        f"{v.resting} still rest ({v.moved_back} of them were met for a moment only), {v.cancelled} were cancelled; "
        f"trailing stops were moved {v.ratchets} times.",
    ]
    if latency["p50"] is not None:
        lines.append(
            f"From trigger to confirmed: {latency['p50']:.0f} ms at the median, {latency['p99']:.0f} ms at the 99th "
            f"percentile; the chain itself confirms one slot ({SLOT_MS} ms) after a transaction lands."
        )
    if v.refusals:
        names = ", ".join(f"{count} x {name}" for name, count in sorted(v.refusals.items()))
        lines.append(f"Attempts that the program refused: {names}.")
    if summary.ok:
        lines.append("Counted on the chain: every triggered order was executed exactly once, with its position.")
    else:
        lines += [f"WRONG: {problem}." for problem in summary.problems]
    return Text("\n".join(lines), style="green" if summary.ok else "red")
