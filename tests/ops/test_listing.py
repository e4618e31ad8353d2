"""Rows in a terminal: a narrow one cuts no address into pieces, a wide one has a table."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from solders.keypair import Keypair

from keeper.commands.listing import ATTEMPT_COLUMNS, BELOW, ORDER_COLUMNS
from keeper.commands.table import print_table

ORDER = str(Keypair().pubkey())
ORDERS: list[dict[str, object]] = [
    {
        "order": ORDER,
        "type": "trailing_stop",
        "side": "short",
        "size": "1234.567891",
        "trigger": "123456.789012",
        "state": "triggered",
        "reason": "Its retry budget is used up; the last attempt failed with InsufficientCollateral [6002]. " * 2,
    },
    {**dict.fromkeys(ORDER_COLUMNS), "order": str(Keypair().pubkey()), "type": "limit"},
]


def printed(rows: list[dict[str, object]], columns: list[str], width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None, highlight=False)
    print_table(rows, columns, BELOW, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_narrow_terminal_has_each_address_whole_and_no_line_too_long() -> None:
    lines = printed(ORDERS, ORDER_COLUMNS, 80)
    assert max(len(line) for line in lines) <= 80
    assert sum(ORDER in line for line in lines) == 1
    assert lines[0].split() == ["type", "side", "size", "trigger", "state"]
    assert lines[1].split() == ["trailing_stop", "short", "1234.567891", "123456.789012", "triggered"]
    assert "[6002]" in "".join(lines)
    assert lines[-2].startswith("limit")


def test_attempts_fit_eighty_columns() -> None:
    row: dict[str, object] = {
        **dict.fromkeys(ATTEMPT_COLUMNS, ""),
        "signed_at": "2026-11-23T01:45:38.157+00:00",
        "kind": "execute",
        "number": 10,
        "state": "finalized",
        "fate": "price_moved_back",
        "error": "InsufficientCollateral",
        "order": ORDER,
        "signature": "4" * 88,
    }
    lines = printed([row], ATTEMPT_COLUMNS, 80)
    assert max(len(line) for line in lines) <= 80
    assert lines[1].startswith("2026-11-23 01:45:38  execute")
    assert lines[2].strip() == ORDER


@pytest.mark.parametrize("width", [400])
def test_a_wide_terminal_has_a_line_for_each_row(width: int) -> None:
    lines = printed(ORDERS, ORDER_COLUMNS, width)
    assert len(lines) == 1 + len(ORDERS)
    assert ORDER in lines[1]
