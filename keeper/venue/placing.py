"""Unsigned transactions for a user's wallet: place an order, cancel some, or place one instead of another. Pure.

They are legacy messages. A v0 message without lookup tables buys nothing and costs two bytes, and there are
wallets and hardware signers that still read only the older form.

The user is fee payer and only signer, so the keeper's key is in none of them. Each begins with a compute unit
limit and, unless it is 0, a unit price; wallets may change both, which `relay_checks` allows within bounds.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.domain.orders import OrderType, Side, TimeInForce
from keeper.solana.client import Blockhash
from keeper.solana.transactions import Budget
from keeper.venue.program import CANCEL, PLACE, Program

ORDER_ID_BITS: Final = 63
"""Ids that the keeper draws stay below 2**63, so that they survive languages and databases without u64."""

MOST_CANCELS: Final = 16
"""In one transaction, which all land or none does. They leave a third of a packet to what wallets put in."""

BUDGET: Final = Budget(60_000, 0)
"""What a wallet is asked to pay for one instruction, unless it is set otherwise. The limit leaves room above the most
that either revision was measured to use (22,000 units for a placement): finding an order's address costs more for some
wallets than others.
"""
_UNITS_OF_A_CANCEL: Final = 15_000
"""For each beside the first instruction. It derives no address, and was measured to use a tenth of that."""


@dataclass(frozen=True, slots=True)
class OrderTerms:
    """What a user wants, in the program's units (`keeper.domain.orders`). 0 where the type has no such field."""

    user: Pubkey
    market: Pubkey
    order_type: OrderType
    side: Side
    size_1e6: int
    price_1e6: int
    stop_price_1e6: int
    trailing_distance_ppm: int
    leverage: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A transaction that waits for its user's signature. It can land up to `last_valid_block_height` + 1."""

    order: Pubkey
    message: bytes
    blockhash: str
    last_valid_block_height: int


def unsigned_base64(message: bytes) -> str:
    """A one-signer message as a transaction with a zeroed signature, in base64, as wallets take it."""
    transaction = VersionedTransaction.populate(Message.from_bytes(message), [Signature.default()])
    return base64.b64encode(bytes(transaction)).decode()


def new_order_id() -> int:
    """A random order id. Whether it is free is for the caller to look up: two in 2**63 hardly ever meet."""
    return secrets.randbits(ORDER_ID_BITS)


def place(
    program: Program,
    terms: OrderTerms,
    order_id: int | None,
    blockhash: Blockhash,
    budget: Budget,
    *,
    replaces: Pubkey | None = None,
) -> Unsigned:
    """The transaction that places an order, and first cancels the one that it replaces, both or neither. `order_id` is
    None exactly when the revision has no ids (0.1).
    """
    order = program.order_address(terms.user, order_id)
    instruction = program.instruction(
        PLACE,
        _place_arguments(terms, order_id),
        {"market": terms.market, "order": order, "user": terms.user},
    )
    cancels = [] if replaces is None else [_cancel(program, replaces, terms.user)]
    return _unsigned(order, [*cancels, instruction], terms.user, blockhash, budget)


def cancel(program: Program, orders: Sequence[Pubkey], user: Pubkey, blockhash: Blockhash, budget: Budget) -> Unsigned:
    """The transaction with which `user` cancels up to MOST_CANCELS of their orders, all or none."""
    instructions = [_cancel(program, order, user) for order in orders]
    return _unsigned(orders[0], instructions, user, blockhash, budget)


def _cancel(program: Program, order: Pubkey, user: Pubkey) -> Instruction:
    return program.instruction(CANCEL, {}, {"order": order, "user": user})


def _place_arguments(terms: OrderTerms, order_id: int | None) -> Mapping[str, object]:
    ids = {} if order_id is None else {"order_id": order_id}
    return {
        **ids,
        "order_type": terms.order_type,
        "side": terms.side,
        "size": terms.size_1e6,
        "price": terms.price_1e6,
        "stop_price": terms.stop_price_1e6,
        "trailing_distance": terms.trailing_distance_ppm,
        "leverage": terms.leverage,
        "expires_at": terms.expires_at,
        # Icebergs, brackets and TWAPs are not executed by any revision; their fields stay empty.
        "hidden_size": 0,
        "display_size": 0,
        "time_in_force": TimeInForce.GTC,
        "target_price": 0,
        "twap_duration": 0,
        "twap_interval": 0,
    }


def _unsigned(
    order: Pubkey, instructions: Sequence[Instruction], user: Pubkey, blockhash: Blockhash, budget: Budget
) -> Unsigned:
    units = budget.unit_limit + _UNITS_OF_A_CANCEL * (len(instructions) - 1)
    with_budget = [set_compute_unit_limit(units)]
    if budget.unit_price_micro_lamports:
        with_budget.append(set_compute_unit_price(budget.unit_price_micro_lamports))
    message = Message.new_with_blockhash([*with_budget, *instructions], user, Hash.from_string(blockhash.value))
    return Unsigned(order, bytes(message), blockhash.value, blockhash.last_valid_block_height)
