"""The venue: one perpetuals program as the rest of the keeper sees it.

Three functions at heart: account bytes to facts, an action to a message, a failure to its fate. Whoever would serve
another program writes a second one of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptKind
from keeper.domain.orders import Market, OnchainStatus, Order, OrderFields, Position
from keeper.solana.client import AccountBytes, Blockhash, memcmp
from keeper.solana.transactions import Budget, general_message
from keeper.venue.layouts import (
    MARKET_DISCRIMINATOR,
    ORDER_DISCRIMINATOR,
    STATUS_OFFSET,
    decode_market,
    decode_order,
    decode_position,
    order_fields,
)
from keeper.venue.program import EXECUTE, RATCHET, Program
from keeper.venue.program_errors import ProgramFailure, name_failure, programs_of
from keeper.venue.templates import Built, Template

_EXECUTE: Final = AttemptKind.EXECUTE


class Venue:
    """QuantDesk's program, in the revision that `program`'s IDL describes. `keeper` is the executor in its messages."""

    def __init__(self, program: Program, keeper: Pubkey) -> None:
        self.program = program
        self.keeper = keeper
        self.id = program.id
        self.market_discriminator = MARKET_DISCRIMINATOR
        self.order_discriminator = ORDER_DISCRIMINATOR
        self.pending_filter: Mapping[str, Any] = memcmp(STATUS_OFFSET, bytes((OnchainStatus.PENDING,)))
        self._templates = {
            AttemptKind.EXECUTE: Template.of(program, EXECUTE, keeper),
            AttemptKind.RATCHET: Template.of(program, RATCHET, keeper) if program.can_ratchet else None,
        }

    def __repr__(self) -> str:
        return f"Venue({self.program!r}, keeper {self.keeper})"

    # -- account bytes to facts

    def order(self, account: AccountBytes | None, slot: int) -> Order | None:
        """The order that the account was as of `slot`; None when there is none, or it is not the program's.
        MalformedAccount when it does not decode.
        """
        return None if not self._owns(account) else decode_order(account.address, account.data, slot)

    def market(self, account: AccountBytes | None, slot: int) -> Market | None:
        """The same for a market."""
        if account is None or account.owner != self.id:
            return None
        return decode_market(account.address, account.data, slot)

    def position(self, account: AccountBytes | None, slot: int) -> Position | None:
        """The same for a position."""
        return None if not self._owns(account) else decode_position(account.address, account.data, slot)

    def order_fields(self, address: Pubkey, data: bytes) -> OrderFields:
        """An order's fields, of an account that is known to be the program's. MalformedAccount."""
        return order_fields(address, data)

    def _owns(self, account: AccountBytes | None) -> TypeGuard[AccountBytes]:
        return account is not None and account.owner == self.id

    # -- an action to a message

    def message(self, kind: AttemptKind, order: Order, budget: Budget, blockhash: Blockhash) -> Built:
        """What fills the order (EXECUTE) or moves its stop (RATCHET), to be signed, and where the position will be.
        Misconfigured when the IDL does not say how.
        """
        template = self._templates[kind]
        built = None if template is None else template.build(order, budget, blockhash)
        if built is not None:
            return built
        position = self.position_of(order) if kind is _EXECUTE else None
        return Built(general_message(self.instruction(kind, order), self.keeper, budget, blockhash), position)

    def instruction(self, kind: AttemptKind, order: Order) -> Instruction:
        """The program's instruction alone."""
        return (self.program.execute if kind is _EXECUTE else self.program.ratchet)(order, self.keeper)

    def position_of(self, order: Order) -> Pubkey | None:
        """Where the fill's position will be; None when the revision creates none."""
        return self.program.position_of(order, self.keeper)

    def user_account_of(self, order: Order) -> Pubkey | None:
        """The margin account that a fill draws on; None when the revision's fill takes none."""
        return self.program.user_account_of(order, self.keeper)

    # -- a failure to its fate

    def failure(self, err: object, wire: bytes, logs: Sequence[str] = ()) -> ProgramFailure:
        """A transaction's error, in the RPC's JSON shape, by its name and what it means. `wire` is the transaction."""
        return name_failure(err, programs_of(wire), self.id, self.program.idl, logs)
