"""One order's whole story, put together from the journal, the chain and a running keeper; whichever of them is there.

Nothing is changed and nothing is sent. What can't be reached is named in `missing`, and the rest is told without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import anyio.to_thread
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.app.endpoints import endpoints_of
from keeper.app.program import load_program
from keeper.commands.asking import client_for
from keeper.commands.listing import Names, attempt_line, terms_line, utc
from keeper.commands.remote import call, health_of, url_of
from keeper.commands.ways import way_lines
from keeper.config.settings import Settings
from keeper.domain.attempts import LIVE_STATES, Attempt, AttemptKind
from keeper.domain.decimals import decimal
from keeper.domain.errors import ChainError, KeeperError
from keeper.domain.orders import Market, Order, OrderState, Position
from keeper.domain.prices import Price
from keeper.domain.ways import WayRow
from keeper.journal import OrderRow, PreparedRow, Queries, Reader
from keeper.journal.records import ChangeRow
from keeper.solana.history import history
from keeper.triggers.conditions import Trigger, trigger_of
from keeper.triggers.explain import SIDES, explain
from keeper.venue.landed import Step, steps_of
from keeper.venue.program import Program
from keeper.venue.venue import Venue

_WITHIN_S: Final = 3.0
"""So long the chain, and the keeper, may take to answer."""
_MOST_STEPS: Final = 25
_NAMED: Final = 5
_ACTED_ON: Final = (None, OrderState.OPEN, OrderState.TRIGGERED, OrderState.EXECUTING)


@dataclass(slots=True)
class Written:
    """What the journal knows."""

    row: OrderRow | None = None
    changes: list[ChangeRow] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    prepared: list[PreparedRow] = field(default_factory=list)
    names: Names = field(default_factory=dict)
    ways: dict[Signature, list[WayRow]] = field(default_factory=dict)


@dataclass(slots=True)
class Read:
    """What the chain says. `order` is None when its account is gone, or is no order."""

    program: Program
    order: Order | None = None
    market: Market | None = None
    position: Position | None = None
    rent_lamports: int | None = None
    chain_time_s: int = 0
    steps: list[Step] = field(default_factory=list)


async def tell(settings: Settings, name: str) -> dict[str, Any]:
    """The story of the order at an address, or of the one that its user called so. KeeperError when none is known, or
    when the name is not one order's alone.
    """
    missing: dict[str, str] = {}
    address, written = await _from_journal(settings, name, missing)
    heard: dict[str, Any] = {}
    read: Read | None = None

    async def ask_keeper() -> None:
        heard.update(await _from_keeper(settings, address, missing))

    async def ask_chain() -> None:
        nonlocal read
        read = await _from_chain(settings, address, written, missing)

    async with anyio.create_task_group() as tg:
        tg.start_soon(ask_keeper)
        tg.start_soon(ask_chain)
    order = _newest(written, read)
    if order is None and not written.prepared:
        raise KeeperError(_unknown(name, missing))
    return _story(settings, address, written, read, heard, missing, order)


async def _from_journal(settings: Settings, name: str, missing: dict[str, str]) -> tuple[Pubkey, Written]:
    def look(queries: Queries) -> tuple[Pubkey | None, Written | tuple[OrderRow, ...]]:
        with queries.one_moment():
            place = _address(name)
            if place is None or (queries.order(place) is None and not queries.prepared_of(place)):
                found = queries.orders(client_order_id=name, limit=_NAMED + 1).items
                if len(found) != 1:
                    return place, found
                place = found[0].address
            attempts = queries.attempts_of(place)
            return place, Written(
                queries.order(place),
                queries.changes_of(place),
                attempts,
                queries.prepared_of(place),
                queries.market_names(),
                queries.ways_of(attempt.signature for attempt in attempts),
            )

    try:
        with contextlib.closing(Reader(settings.journal.place)) as journal:
            address, found = await journal.read(look)
    except KeeperError as e:
        missing["journal"] = str(e)
        address, found = _address(name), ()
    if isinstance(found, Written):
        assert address is not None
        return address, found
    if found:
        them = ", ".join(f"{row.address} of {row.order.user}" for row in found[:_NAMED])
        more = " and others" if len(found) > _NAMED else ""
        raise KeeperError(f"Several orders are called {name!r}: {them}{more}. Give an order's address.")
    if address is None:
        raise KeeperError(_unknown(name, missing))
    return address, Written()


async def _from_chain(settings: Settings, address: Pubkey, written: Written, missing: dict[str, str]) -> Read | None:
    try:
        program = load_program(settings.program)
        venue, read = Venue(program, Pubkey.default()), Read(program)
        with anyio.fail_after(_WITHIN_S):
            async with client_for(endpoints_of(settings.rpc), _WITHIN_S) as client:
                slot, (account,) = await client.accounts([address])
                read.order = venue.order(account, slot)
                known = read.order or (None if written.row is None else written.row.order)
                _, read.chain_time_s = await client.chain_time()
                if known is not None:
                    place = (written.row and written.row.position) or venue.position_of(known) or address
                    slot, (market, position) = await client.accounts([known.market, place])
                    read.market = venue.market(market, slot)
                    if position is not None and place != address:
                        read.position, read.rent_lamports = venue.position(position, slot), position.lamports
                try:
                    touches = await history(client, address, _MOST_STEPS)
                    read.steps = [step for touch in touches for step in steps_of(program, touch)]
                except ChainError as e:  # many plans leave it out
                    missing["history"] = str(e)
    except (KeeperError, TimeoutError) as e:
        missing["chain"] = str(e) or f"No node answered within {_WITHIN_S:g} s."
        return None
    return read


async def _from_keeper(settings: Settings, address: Pubkey, missing: dict[str, str]) -> dict[str, Any]:
    """What a keeper that runs says of the order, and of itself where it is not ready."""

    def ask() -> dict[str, Any]:
        url = url_of(settings.http)
        health = health_of(url, _WITHIN_S)
        found = call(url, "GET", f"/v1/orders/{address}", timeout_s=_WITHIN_S)
        failing = [f"{c['name']}: {c['detail']}" for c in health["checks"] if not c["ok"]]
        return {"status_reason": found["status_reason"], "not_ready": failing}

    try:
        return await anyio.to_thread.run_sync(ask)
    except (KeeperError, KeyError) as e:
        missing["keeper"] = str(e)
        return {}


def _story(
    settings: Settings,
    address: Pubkey,
    written: Written,
    read: Read | None,
    heard: dict[str, Any],
    missing: dict[str, str],
    order: Order | None,
) -> dict[str, Any]:
    row, names = written.row, dict(written.names)
    if read is not None and read.market is not None:
        names[read.market.address] = read.market.symbol
    waits_for, by = _waits_for(settings, written, read, heard, order)
    story: dict[str, Any] = {"order": str(address)}
    trigger = None
    if order is not None:
        trigger = trigger_of(order) if read is None else trigger_of(order, read.program.executable)
        story |= _terms(order, names, trigger)
    own = {attempt.signature for attempt in written.attempts if attempt.kind is not AttemptKind.RELAY}
    return story | {
        "client_order_id": None if row is None else row.client_order_id,
        "state": None if row is None else row.state.value,
        "reason": None if row is None else row.reason,
        "waits_for": waits_for,
        "waits_for_by": by,
        "prices": _prices(written, read, trigger),
        "attempts": [
            _attempt(attempt, row, names) | {"ways": way_lines(written.ways.get(attempt.signature, []))}
            for attempt in written.attempts
        ],
        "position": _position(row, read),
        "history": [
            {"at": utc(c.at), "slot": c.slot or None, "state": c.state.value, "reason": c.reason}
            for c in written.changes
        ],
        "prepared": [
            {"at": utc(p.created_at), "kind": p.kind.value, "status": p.status.value} for p in written.prepared
        ],
        "on_chain": [] if read is None else [_step(step, order, names, own) for step in read.steps],
        "missing": missing,
    }


def _terms(order: Order, names: Names, trigger: Trigger | None) -> dict[str, Any]:
    return {
        **terms_line(order, names),
        "fires": None if trigger is None else SIDES[trigger.fires],
        "limit_price": decimal(order.price_1e6) if order.price_1e6 else None,
        "trailing_distance_ppm": order.trailing_distance_ppm or None,
        "leverage": order.leverage,
        "made_at": utc(order.created_at) if order.created_at else None,
        "expires_at": utc(order.expires_at) if order.expires_at else None,
        "onchain_status": order.status.word if order.slot else None,
    }


def _prices(written: Written, read: Read | None, trigger: Trigger | None) -> list[dict[str, Any]]:
    """Each price that mattered, in the order in which it did."""
    found: list[dict[str, Any]] = []

    def add(what: str, price_1e6: int | None, slot: int | None = None, at: float | None = None) -> None:
        if price_1e6 is not None:
            when = None if at is None else utc(at)
            found.append({"what": what, "price": decimal(price_1e6), "slot": slot, "at": when})

    add("trigger", None if trigger is None else trigger.price_1e6)
    for attempt in written.attempts:
        what = f"decided attempt {attempt.number}"
        # One that was armed was signed before its price came.
        add(what, attempt.trigger_price_1e6, attempt.trigger_slot, attempt.sent_at or attempt.signed_at)
    if read is not None and read.position is not None:
        add("entry of the position", read.position.entry_price_1e6, None, read.position.opened_at)
    if read is not None and read.market is not None and read.market.last_oracle_price_1e6:
        market = read.market
        add("now", market.last_oracle_price_1e6, market.slot, market.last_oracle_update_s)
    return found


def _attempt(attempt: Attempt, row: OrderRow | None, names: Names) -> dict[str, Any]:
    times = {name: getattr(attempt, name) for name in ("sent_at", "confirmed_at", "finalized_at", "ended_at")}
    return attempt_line(attempt, row, names) | {
        "trigger_slot": attempt.trigger_slot,
        **{name: None if at is None else utc(at) for name, at in times.items()},
        "unit_limit": attempt.unit_limit,
        "unit_price_micro_lamports": attempt.unit_price_micro_lamports,
    }


def _position(row: OrderRow | None, read: Read | None) -> dict[str, Any] | None:
    """The fill's position, as far as it is known."""
    position = None if read is None else read.position
    if read is not None and position is not None:
        return {
            "address": str(position.address),
            "size": decimal(position.size_1e6),
            "entry_price": decimal(position.entry_price_1e6),
            "rent_lamports": read.rent_lamports,
        }
    return None if row is None or row.position is None else {"address": str(row.position)}


def _step(step: Step, order: Order | None, names: Names, own: Collection[Signature]) -> dict[str, Any]:
    market = step.accounts.get("market")
    foreign = order is not None and market is not None and market != order.market
    return {
        "slot": step.slot,
        "instruction": step.instruction,
        "by": "this keeper" if step.signature in own else str(step.payer),
        "other_market": names.get(market, str(market)) if foreign and market is not None else None,
        "error": step.error,
        "signature": str(step.signature),
    }


def _waits_for(
    settings: Settings, written: Written, read: Read | None, heard: Mapping[str, Any], order: Order | None
) -> tuple[str, str]:
    """What has to come for the order to go on, and who says so: the keeper that runs, the chain, or the journal."""
    row = written.row
    pending_on_chain = read is not None and read.order is not None and read.order.pending
    if row is not None and row.state.terminal and not pending_on_chain:
        return f"Nothing: it is {row.state}.", "journal"
    if heard:
        stopped = "".join(f" The keeper is not ready: {reason}." for reason in heard["not_ready"])
        return heard["status_reason"] + stopped, "keeper"
    idle = " No keeper answers, so nothing is sent for it."
    if row is None and order is None:
        return "Its user's signature: it was prepared, and is not on chain.", "journal"
    if read is None or (read.order is None and row is not None and row.state is OrderState.SUBMITTED):
        assert row is not None
        return row.reason + idle, "journal"
    if read.order is None:
        return "Nothing: it has no account on chain.", "chain"
    if not read.order.pending:
        return f"Nothing: it reads {read.order.status.word} on chain.", "chain"
    live = [a for a in written.attempts if a.kind is AttemptKind.EXECUTE and a.state in LIVE_STATES]
    blocked = None
    if live:
        blocked = (
            f"Attempt {live[-1].number} is {live[-1].state}: a keeper that starts looks up first what became of it."
        )
    elif row is not None and row.state not in _ACTED_ON:
        blocked = row.reason
    market = read.market
    price = None
    if market is not None and market.last_oracle_price_1e6:
        price = Price(market.address, market.last_oracle_price_1e6, market.slot, market.last_oracle_update_s)
    sentence = explain(
        read.order,
        blocked=blocked,
        trigger=trigger_of(read.order, read.program.executable),
        price=price,
        now_s=read.chain_time_s,
        max_price_age_s=settings.trigger.max_price_age_s,
        held=None if market is None or market.is_active else "the market is inactive",
    )
    return sentence + idle, "chain"


def _newest(written: Written, read: Read | None) -> Order | None:
    """The chain's reading, else the journal's."""
    if read is not None and read.order is not None:
        return read.order
    return None if written.row is None else written.row.order


def _address(name: str) -> Pubkey | None:
    with contextlib.suppress(ValueError):
        return Pubkey.from_string(name)
    return None


def _unknown(name: str, missing: Mapping[str, str]) -> str:
    gaps = "".join(
        f" The {part} is missing: {why.rstrip('.')}." for part, why in missing.items() if part in ("journal", "chain")
    )
    return (
        f"No order {name} was found.{gaps} "
        "Give an order's address or its client order id; `keeper orders` lists those of the journal."
    )
