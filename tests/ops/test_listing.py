"""Rows in a terminal: a narrow one cuts no address into pieces, a wide one has a table."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import anyio
import pytest
from rich.console import Console
from solders.keypair import Keypair
from typer.testing import CliRunner, Result

from keeper.cli import cli
from keeper.commands.listing import ATTEMPT_COLUMNS, BELOW, ORDER_COLUMNS
from keeper.commands.table import print_table
from keeper.domain.attempts import AttemptState
from keeper.domain.errors import Misconfigured
from keeper.domain.orders import OrderState
from keeper.journal import MARKET_NAME, AddAttempt, Journal, MoveAttempt, NoteOrder, SetMeta
from tests.journal.journal_making import key, make_attempt, make_order

ORDER = str(Keypair().pubkey())
ORDERS: list[dict[str, object]] = [
    {
        "order": ORDER,
        "market": "SOL/USDC",
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
    console = Console(width=width, file=io.StringIO(), color_system=None, highlight=False, force_terminal=True)
    print_table(rows, columns, BELOW, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_narrow_terminal_has_each_address_whole_and_no_line_too_long() -> None:
    lines = printed(ORDERS, ORDER_COLUMNS, 80)
    assert max(len(line) for line in lines) <= 80
    assert sum(ORDER in line for line in lines) == 1
    assert lines[0].split() == ["market", "type", "side", "size", "trigger", "state"]
    assert lines[1].split() == ["SOL/USDC", "trailing_stop", "short", "1234.567891", "123456.789012", "triggered"]
    assert "[6002]" in "".join(lines)
    assert lines[-2].split() == ["limit"]


def test_attempts_fit_eighty_columns_and_a_signature_stays_whole() -> None:
    row: dict[str, object] = {
        **dict.fromkeys(ATTEMPT_COLUMNS, ""),
        "signed_at": "2026-11-23T01:45:38.157+00:00",
        "market": "SOL/USDC",
        "kind": "execute",
        "number": 10,
        "state": "finalized",
        "fate": "price_moved_back",
        "error": "InsufficientCollateral",
        "order": ORDER,
        "signature": "4" * 88,
    }
    lines = printed([row], ATTEMPT_COLUMNS, 80)
    assert lines[1].startswith("2026-11-23 01:45:38  SOL/USDC  execute")
    assert lines[2].strip() == ORDER
    # A signature is longer than such a line: the terminal wraps it, and it can be copied.
    assert [line for line in lines if len(line) > 80] == ["4" * 88]


@pytest.mark.parametrize("width", [400])
def test_a_wide_terminal_has_a_line_for_each_row(width: int) -> None:
    lines = printed(ORDERS, ORDER_COLUMNS, width)
    assert len(lines) == 1 + len(ORDERS)
    assert ORDER in lines[1]


# -- of a journal


SOL, BTC, ALICE, BOB = (key() for _ in range(4))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Twelve orders of two markets and two wallets, each with an attempt; every third is finalized, the rest failed."""
    path = tmp_path / "journal.sqlite"
    anyio.run(fill, path)
    return path


async def fill(path: Path) -> None:
    async with Journal.open(path) as journal:
        await journal.commit(SetMeta(f"{MARKET_NAME}{SOL}", "SOL/USDC"), SetMeta(f"{MARKET_NAME}{BTC}", "BTC/USDC"))
        for n in range(12):
            order = make_order(user=(ALICE, BOB)[n % 2], market=(SOL, BTC)[n // 6])
            state = OrderState.FAILED if n % 3 else OrderState.OPEN
            attempt = make_attempt(order.address, signed_at=time.time() - 3_600 * (12 - n))
            end = AttemptState.FAILED if n % 3 else AttemptState.FINALIZED
            await journal.commit(NoteOrder(order, state, "As told."), AddAttempt(attempt))
            await journal.commit(MoveAttempt(attempt.signature, end, ended_at=time.time()))


def listed(journal: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--journal", str(journal)], catch_exceptions=False)


def rows(journal: Path, *arguments: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in listed(journal, *arguments, "--json").stdout.splitlines()]


def test_a_pipe_has_a_whole_line_for_each_row(journal: Path) -> None:
    lines = listed(journal, "executions").stdout.splitlines()
    assert len(lines) == 13
    assert all(str(row["signature"]) in line for row, line in zip(rows(journal, "executions"), lines[1:], strict=True))


@pytest.mark.parametrize("command", ["orders", "executions", "failures"])
def test_lists_of_one_market_or_of_one_wallet(command: str, journal: Path) -> None:
    everything = rows(journal, command)
    assert {row["market"] for row in everything} == {"SOL/USDC", "BTC/USDC"}
    of_sol = [row for row in everything if row["market"] == "SOL/USDC"]
    assert rows(journal, command, "--market", "SOL/USDC") == of_sol == rows(journal, command, "--market", str(SOL))
    mine = {row["order"] for row in rows(journal, "orders", "--user", str(ALICE))}
    assert len(mine) == 6
    assert rows(journal, command, "--user", str(ALICE)) == [row for row in everything if row["order"] in mine]


def test_attempts_in_a_state_and_since_a_time(journal: Path) -> None:
    everything = rows(journal, "executions")
    assert len(rows(journal, "executions", "--state", "finalized")) == 4
    assert rows(journal, "executions", "--since", "210m") == everything[:3]
    assert rows(journal, "executions", "--since", str(everything[2]["signed_at"])) == everything[:3]
    assert rows(journal, "orders", "--since", "2000-01-01") == rows(journal, "orders")
    assert rows(journal, "orders", "--since", "2999-01-01") == []


def test_failures_that_are_in_a_state(journal: Path) -> None:
    assert len(rows(journal, "failures")) == 8
    assert rows(journal, "failures", "--state", "failed") == rows(journal, "failures")
    assert rows(journal, "failures", "--state", "filled") == []
    with pytest.raises(Misconfigured, match="is no place in this list"):
        rows(journal, "failures", "--next", str(key()))


@pytest.mark.parametrize("command", ["orders", "executions", "failures"])
def test_a_long_list_goes_on_where_the_last_one_ended(command: str, journal: Path) -> None:
    found: list[dict[str, object]] = []
    more: list[str] = []
    for _ in range(4):  # the last one may be empty: what is left did not fit
        page = listed(journal, command, "--limit", "2", "--user", str(BOB), "--json", *more)
        found += map(json.loads, page.stdout.splitlines())
        more = page.stderr.split()[-2:]
        if not more:
            break
    assert more == []
    assert found == rows(journal, command, "--user", str(BOB))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--market", "DOGE/USDC"], "It knows BTC/USDC, SOL/USDC"),
        (["--market", "SOL"], "'SOL' is no address of a market"),
        (["--user", "me"], "'me' is no address of a wallet"),
        (["--since", "yesterday"], "Give 30m, 12h, 7d"),
        (["--state", "done"], "The states are "),
    ],
)
def test_a_filter_that_makes_no_sense_is_named(arguments: list[str], says: str, journal: Path) -> None:
    with pytest.raises(Misconfigured, match=says):
        listed(journal, "executions", *arguments)
