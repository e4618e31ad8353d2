"""Rows for a person: a table where the terminal is wide enough, and otherwise a paragraph for each row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

_GAP: Final = "  "


def print_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], below: Collection[str], console: Console | None = None
) -> None:
    """Print `columns` of the rows. Those in `below` are long (addresses, sentences): they are never cut into pieces
    to fit beside others, but stand under their row when there is no room. A file or a pipe has room. What is one word
    and longer than a line is left to the terminal, so that it can be copied as one."""
    console = console or Console(highlight=False)
    texts = [{column: _text(column, row[column]) for column in columns} for row in rows]
    widths = {column: max(len(column), *(len(row[column]) for row in texts)) for column in columns}
    wide = not console.is_terminal or sum(widths.values()) + len(_GAP) * (len(columns) - 1) <= console.width
    beside = [column for column in columns if wide or column not in below]
    under = [column for column in columns if column not in beside]

    def line(cells: Mapping[str, str], style: str = "") -> Text:
        return Text(_GAP.join(f"{cells[column]:<{widths[column]}}" for column in beside).rstrip(), style)

    console.print(line({column: column.replace("_", " ") for column in columns}, "bold"), soft_wrap=True)
    for row in texts:
        console.print(line(row), soft_wrap=True)
        for column in under:
            if " " not in row[column] and len(row[column]) > console.width - 2:
                console.print(Text(row[column]), soft_wrap=True)
            elif row[column]:
                console.print(Padding(Text(row[column]), (0, 0, 0, 2), expand=False))


def _text(column: str, value: Any) -> str:
    if value is None:
        return ""
    # Times in UTC to the second: the rest is for --json.
    return str(value)[:19].replace("T", " ") if column.endswith("_at") else str(value)
