"""What the chain's ledger says happened: the program's transactions, decoded, in their order."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.demo.errors import DemoFailed
from keeper.domain.errors import ChainError
from keeper.domain.orders import Order, Position
from keeper.solana.client import CONFIRMED, ChainClient, landed_call, memcmp
from keeper.solana.history import Touch
from keeper.solana.rpc import Call
from keeper.venue.landed import steps_of
from keeper.venue.program import CANCEL, EXECUTE, PLACE, RATCHET, Program
from keeper.venue.venue import ORDER_DISCRIMINATOR, POSITION_DISCRIMINATOR, decode_order, decode_position

PRICE: Final = "update_oracle_price"
_FOLLOWED: Final = frozenset({PRICE, PLACE, CANCEL, EXECUTE, RATCHET})
_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One transaction of the program, landed in `slot`. `time_s` is the block's.

    `name` is the instruction's. `order` is None for a price update, whose price is in `price_1e6`. `error` is the
    failure's name; None for success.
    """

    signature: str
    slot: int
    time_s: int
    name: str
    market: Pubkey | None
    order: Pubkey | None
    price_1e6: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """The chain at the end. `by_market` is each market's history, oldest first; `by_order` each order's."""

    by_market: dict[Pubkey, list[Entry]]
    by_order: dict[Pubkey, list[Entry]]
    orders: dict[Pubkey, Order]
    positions: dict[Pubkey, Position]
    slot: int


async def read_ledger(
    client: ChainClient, program: Program, markets: Iterable[Pubkey], orders: Sequence[Pubkey]
) -> Ledger:
    """Read accounts and histories at confirmed. The order in which getSignaturesForAddress names transactions is the
    chain's, within a slot, too.
    """
    slot, order_accounts = await client.program_accounts(
        program.id, [memcmp(0, ORDER_DISCRIMINATOR)], commitment=CONFIRMED
    )
    _, position_accounts = await client.program_accounts(
        program.id, [memcmp(0, POSITION_DISCRIMINATOR)], commitment=CONFIRMED
    )
    histories = {address: await _signatures(client, address) for address in markets}
    replies = await client.pool.batch([_signatures_call(address) for address in orders])
    for address, reply in zip(orders, replies, strict=True):
        histories[address] = [row["signature"] for row in _result(reply)]
    entries = await _entries(client, program, {s for history in histories.values() for s in history})
    in_order = {
        address: [entries[s] for s in reversed(history) if s in entries] for address, history in histories.items()
    }
    return Ledger(
        by_market={market: in_order[market] for market in markets},
        by_order={order: in_order[order] for order in orders},
        orders={a.address: decode_order(a.address, a.data, slot) for a in order_accounts},
        positions={a.address: decode_position(a.address, a.data, slot) for a in position_accounts},
        slot=slot,
    )


async def _signatures(client: ChainClient, address: Pubkey) -> list[str]:
    """All of an address's signatures, newest first."""
    found: list[str] = []
    while True:
        before = found[-1] if found else None
        call = _signatures_call(address, before)
        page = [row["signature"] for row in await client.pool.call(call.method, *call.params)]
        found += page
        if len(page) < _PAGE:
            return found


def _signatures_call(address: Pubkey, before: str | None = None) -> Call:
    config = {"commitment": "confirmed", "limit": _PAGE} | ({} if before is None else {"before": before})
    return Call("getSignaturesForAddress", (str(address), config))


async def _entries(client: ChainClient, program: Program, signatures: Iterable[str]) -> dict[str, Entry]:
    wanted = list(signatures)
    replies = await client.pool.batch([landed_call(s) for s in wanted], deadline_s=60.0)
    entries = {}
    for signature, reply in zip(wanted, replies, strict=True):
        entry = _entry(program, signature, _result(reply))
        if entry is not None:
            entries[signature] = entry
    return entries


def _entry(program: Program, signature: str, landed: Any) -> Entry | None:
    """None for a transaction without an instruction that the audit follows."""
    touch = Touch(
        Signature.from_string(signature),
        landed["slot"],
        landed["meta"]["err"],
        base64.b64decode(landed["transaction"][0]),
        tuple(landed["meta"].get("logMessages") or ()),
    )
    # The last one: a market is opened and gets its first price in one transaction.
    step = next((step for step in reversed(steps_of(program, touch)) if step.instruction in _FOLLOWED), None)
    if step is None:
        return None
    price: Any = None
    if step.instruction == PRICE:
        price = program.coder.decode(step.data)[1]["new_price"]
    return Entry(
        signature=signature,
        slot=landed["slot"],
        time_s=landed["blockTime"],
        name=step.instruction,
        market=step.accounts.get("market"),
        order=step.accounts.get("order"),
        price_1e6=price,
        error=step.error,
    )


def _result(reply: Any) -> Any:
    if isinstance(reply, ChainError) or reply is None:
        raise DemoFailed(f"The chain's ledger can't be read: {reply}")
    return reply
