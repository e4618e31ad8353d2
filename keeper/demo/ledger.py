"""What the chain's ledger says happened: the program's transactions, decoded, in their order."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.demo.errors import DemoFailed
from keeper.domain.errors import ChainError
from keeper.domain.orders import Order, Position
from keeper.solana.client import CONFIRMED, ChainClient, memcmp
from keeper.solana.rpc import Call
from keeper.venue.program import CANCEL, EXECUTE, PLACE, RATCHET, Program
from keeper.venue.program_errors import name_failure, programs_of
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
    config = {"commitment": "confirmed", "encoding": "base64", "maxSupportedTransactionVersion": 1}
    replies = await client.pool.batch([Call("getTransaction", (s, config)) for s in wanted], deadline_s=60.0)
    entries = {}
    for signature, reply in zip(wanted, replies, strict=True):
        entry = _entry(program, signature, _result(reply))
        if entry is not None:
            entries[signature] = entry
    return entries


def _entry(program: Program, signature: str, landed: Any) -> Entry | None:
    """None for a transaction without an instruction that the audit follows."""
    wire = base64.b64decode(landed["transaction"][0])
    message = VersionedTransaction.from_bytes(wire).message
    keys, err = message.account_keys, landed["meta"]["err"]
    # The last one: a market is opened and gets its first price in one transaction.
    for instruction in reversed(message.instructions):
        definition = next(
            (d for d in program.idl.instructions.values() if bytes(instruction.data[:8]) == d.discriminator), None
        )
        if keys[instruction.program_id_index] != program.id or definition is None or definition.name not in _FOLLOWED:
            continue
        pairs = zip(definition.accounts, bytes(instruction.accounts), strict=False)
        accounts = {account.name: keys[index] for account, index in pairs}
        price: Any = None
        if definition.name == PRICE:
            price = program.coder.decode(bytes(instruction.data))[1]["new_price"]
        error = None
        if err is not None:
            logs = landed["meta"].get("logMessages") or ()
            error = name_failure(err, programs_of(wire), program.id, program.idl, logs).name
        return Entry(
            signature=signature,
            slot=landed["slot"],
            time_s=landed["blockTime"],
            name=definition.name,
            market=accounts.get("market"),
            order=accounts.get("order"),
            price_1e6=price,
            error=error,
        )
    return None


def _result(reply: Any) -> Any:
    if isinstance(reply, ChainError) or reply is None:
        raise DemoFailed(f"The chain's ledger can't be read: {reply}")
    return reply
