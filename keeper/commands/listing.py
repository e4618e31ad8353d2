"""`keeper orders`, `executions` and `failures`: what the journal holds, newest first, as a table or as lines of JSON.

Rows are flat, with decimals as strings and times in UTC.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from keeper.commands import options
from keeper.commands.ways import WAY_COLUMNS, with_ways
from keeper.domain.decimals import decimal
from keeper.domain.errors import Misconfigured

if TYPE_CHECKING:
    from solders.pubkey import Pubkey

    from keeper.domain.attempts import Attempt, AttemptState
    from keeper.domain.orders import Order, OrderState
    from keeper.journal import FailureRow, OrderRow, Queries
    from keeper.journal.records import Page

ORDER_COLUMNS: Final = ["order", "market", "type", "side", "size", "trigger", "state", "reason"]
ATTEMPT_COLUMNS: Final = ["signed_at", "order", "market", "kind", "number", "state", "fate", "error", "signature"]
FAILURE_COLUMNS: Final = ["order", "market", "type", "state", "error", "attempts", "reason"]
BELOW: Final = frozenset({"order", "error", "signature", "reason", "detail"})
"""Columns that stand under their row in a narrow terminal."""

Row = dict[str, Any]
T = TypeVar("T")
Names = Mapping["Pubkey", str]
_of_journal = options.takes_settings("journal.path")
_MOST_PAGES: Final = 500
"""So many pages are looked through for what fits a filter; the next list goes on from there."""

Market = Annotated[str | None, typer.Option("--market", help="Only of this market: its name or its address.")]
User = Annotated[str | None, typer.Option("--user", help="Only of this wallet.")]
Since = Annotated[str | None, typer.Option("--since", help="Only newer ones: 30m, 12h, 7d, or 2026-11-27T04:00Z.")]
States = Annotated[list[str] | None, typer.Option("--state", help="Only in this state; may repeat.")]
Cursor = Annotated[str | None, typer.Option("--next", help="Go on after an earlier list, which has printed this.")]


@_of_journal
def orders(
    given: options.Given,
    market: Market = None,
    user: User = None,
    state: States = None,
    since: Since = None,
    limit: options.Limit = 50,
    cursor: Cursor = None,
    as_json: options.AsJson = False,
) -> None:
    """List the orders that the journal knows, newest first. `--since` is when they were first seen."""
    states = _states(state) if state else None
    earliest, wallet = _time(since), _wallet(user)

    def ask(journal: Queries, names: Names) -> tuple[list[Row], str | None]:
        place = _market(market, names)
        found, more = _sift(
            lambda after, most: journal.orders(user=wallet, market=place, states=states, cursor=after, limit=most),
            lambda row: row.first_seen_at >= earliest,
            cursor,
            limit,
        )
        return [order_line(row, names) for row in found], more

    _list(given, ask, ORDER_COLUMNS, as_json)


@_of_journal
def executions(
    given: options.Given,
    market: Market = None,
    user: User = None,
    state: States = None,
    since: Since = None,
    limit: options.Limit = 50,
    cursor: Cursor = None,
    ways: Annotated[bool, typer.Option("--ways", help="By which ways each was sent, and what each said.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """List the keeper's attempts, newest first, with what became of them. `--since` is when they were signed."""
    states = _attempt_states(state) if state else None
    earliest, wallet = _time(since), _wallet(user)

    def ask(journal: Queries, names: Names) -> tuple[list[Row], str | None]:
        place, order_at = _market(market, names), functools.cache(journal.order)
        found, more = _sift(
            lambda after, most: journal.executions(since=earliest, cursor=after, limit=most),
            lambda a: (states is None or a.state in states) and _fits(order_at(a.order), place, wallet),
            cursor,
            limit,
        )
        lines = [attempt_line(attempt, order_at(attempt.order), names) for attempt in found]
        if ways:
            lines = with_ways(lines, journal.ways_of(attempt.signature for attempt in found), apart=not as_json)
        return lines, more

    _list(given, ask, WAY_COLUMNS if ways else ATTEMPT_COLUMNS, as_json)


@_of_journal
def failures(
    given: options.Given,
    context: typer.Context,
    market: Market = None,
    user: User = None,
    state: States = None,
    since: Since = None,
    limit: options.Limit = 50,
    cursor: Cursor = None,
    as_json: options.AsJson = False,
) -> None:
    """List the orders that could not be executed, or not at once, with the named reasons; the last thousand of them.
    `--state` is what they are now, `--since` their last change.
    """
    if context.invoked_subcommand is not None:
        return
    states = _states(state) if state else None
    earliest, wallet = _time(since), _wallet(user)
    after = None if cursor is None else options.address(cursor, "an order after which the list goes on")

    def ask(journal: Queries, names: Names) -> tuple[list[Row], str | None]:
        place = _market(market, names)
        whole = (market, user, states, since, cursor) == (None,) * 5
        rest = iter(journal.failures(limit=min(limit + 1, options.MOST_ROWS) if whole else options.MOST_ROWS))
        if after is not None and not any(_failed(failure) == after for failure in rest):  # goes up to it, no further
            raise Misconfigured(f"--next {cursor} is no place in this list.", remedy="Begin anew, without it.")
        fits = (f for f in rest if _fits(f.order, place, wallet, states) and _changed_at(f) >= earliest)
        page = list(itertools.islice(fits, limit))
        more = next(fits, None) is not None
        return [_failure(failure, names) for failure in page], str(_failed(page[-1])) if more else None

    _list(given, ask, FAILURE_COLUMNS, as_json)


def _list(
    given: options.Given,
    ask: Callable[[Queries, Names], tuple[list[Row], str | None]],
    columns: Sequence[str],
    as_json: bool,
) -> None:
    """Print the rows. On standard error: how to go on after them, for whoever has a person's eyes or a script's."""
    import anyio

    from keeper.commands.table import print_table
    from keeper.journal import Reader

    async def read() -> tuple[list[Row], str | None]:
        with contextlib.closing(Reader(given.settings().journal.place)) as journal:
            return await journal.read(lambda queries: ask(queries, queries.market_names()))

    rows, cursor = anyio.run(read)
    if as_json:
        for row in rows:
            print(json.dumps(row))
    elif rows:
        print_table(rows, columns, BELOW)
    else:
        print("None.")
    if cursor is not None:
        print(f"The list goes on: --next {cursor}", file=sys.stderr)


def _sift(
    page: Callable[[str | None, int], Page[T]], fits: Callable[[T], bool], cursor: str | None, limit: int
) -> tuple[list[T], str | None]:
    """Up to `limit` of what fits, and where the next list goes on."""
    found: list[T] = []
    for _ in range(_MOST_PAGES):
        asked = page(cursor, limit - len(found))
        found += filter(fits, asked.items)
        cursor = asked.cursor
        if cursor is None or len(found) == limit:
            break
    return found, cursor


def _market(text: str | None, names: Names) -> Pubkey | None:
    """A market by its name, else by its address."""
    if text is None:
        return None
    for address, name in names.items():
        if name == text:
            return address
    if "/" in text:
        known = ", ".join(sorted(names.values())) or "none yet"
        raise Misconfigured(f"The journal knows no market {text!r}.", remedy=f"It knows {known}; or give its address.")
    return options.address(text, "a market")


def _wallet(text: str | None) -> Pubkey | None:
    return None if text is None else options.address(text, "a wallet")


def _time(text: str | None) -> float:
    """Unix seconds; a span counts back from now."""
    if text is None:
        return 0.0
    if span := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return time.time() - int(span[1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[span[2]]
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise Misconfigured(
            f"--since {text!r} is no time.", remedy="Give 30m, 12h, 7d, or 2026-11-27T04:00Z."
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp()


def _fits(
    order: OrderRow | None, market: Pubkey | None, user: Pubkey | None, states: Collection[OrderState] | None = None
) -> bool:
    if order is None:
        return market is None and user is None and states is None
    whose = market in (None, order.order.market) and user in (None, order.order.user)
    return whose and (states is None or order.state in states)


def _failed(failure: FailureRow) -> Pubkey:
    """The order's address."""
    return failure.order.address if failure.order else failure.attempts[0].order


def _changed_at(failure: FailureRow) -> float:
    return max((change.at for change in failure.changes), default=0.0)


def _attempt_states(words: Sequence[str]) -> list[AttemptState]:
    from keeper.domain.attempts import AttemptState

    return _known(words, {state.value: state for state in AttemptState})


def _states(words: Sequence[str]) -> list[OrderState]:
    from keeper.domain.orders import OrderState

    return _known(words, {state.value: state for state in OrderState})


def _known(words: Sequence[str], known: Mapping[str, T]) -> list[T]:
    for word in words:
        if word not in known:
            raise Misconfigured(f"There is no state {word!r}.", remedy=f"The states are {', '.join(known)}.")
    return [known[word] for word in words]


def order_line(row: OrderRow, names: Names) -> Row:
    """An order, for people and scripts."""
    return {
        **terms_line(row.order, names),
        "state": row.state.value,
        "onchain_status": row.order.status.word,
        "reason": row.reason,
        "position": _text(row.position),
        "updated_at": utc(row.updated_at),
    }


def terms_line(order: Order, names: Names) -> Row:
    """An order's terms: what its user asked for."""
    return {
        "order": str(order.address),
        "user": str(order.user),
        "market": names.get(order.market),
        "market_address": str(order.market),
        "type": order.order_type.word,
        "side": order.side.word,
        "size": decimal(order.size_1e6),
        "trigger": decimal(order.stop_price_1e6 or order.price_1e6),
    }


def attempt_line(attempt: Attempt, order: OrderRow | None, names: Names) -> Row:
    """An attempt, for people and scripts."""
    price_1e6 = attempt.trigger_price_1e6
    return {
        "signed_at": utc(attempt.signed_at),
        "order": str(attempt.order),
        "market": None if order is None else names.get(order.order.market, str(order.order.market)),
        "kind": attempt.kind.value,
        "number": attempt.number,
        "state": attempt.state.value,
        "fate": _text(attempt.fate),
        "error": attempt.error_name,
        "detail": attempt.error_detail,
        "trigger_price": None if price_1e6 is None else decimal(price_1e6),
        "posted": None if attempt.posted_from is None else _posted(attempt),
        "slot": attempt.seen_slot,
        "fee_lamports": attempt.fee_lamports,
        "tip_lamports": attempt.tip_lamports,
        "tip_account": _text(attempt.tip_account),
        "position": _text(attempt.position),
        "signature": str(attempt.signature),
    }


def _posted(attempt: Attempt) -> Row:
    """The price that the attempt was to post to its market first, and where that came from."""
    price_1e6, at = attempt.trigger_price_1e6, attempt.posted_published_at
    return {
        "price": None if price_1e6 is None else decimal(price_1e6),
        "feed": str(attempt.posted_from),
        "slot": attempt.trigger_slot,
        "published_at": None if at is None else utc(at),
    }


def _failure(failure: FailureRow, names: Names) -> Row:
    order, attempts = failure.order, failure.attempts
    return {
        "order": str(_failed(failure)),
        "market": names.get(order.order.market, str(order.order.market)) if order else None,
        "type": order.order.order_type.word if order else None,
        "state": order.state.value if order else None,
        "error": next((a.error_name for a in reversed(attempts) if a.error_name), None),
        "attempts": len(attempts),
        "reason": order.reason if order else "",
        "history": [
            {"at": utc(change.at), "state": change.state.value, "reason": change.reason} for change in failure.changes
        ],
        "signatures": [str(attempt.signature) for attempt in attempts],
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def utc(seconds: float) -> str:
    """Unix seconds as UTC, to the millisecond."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")
