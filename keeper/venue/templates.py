"""The keeper's own messages, put together from a template: a tenth of the time of compiling each from its accounts.

What `execute_conditional_order` needs is the same for every order but for a few addresses, of which at most two have
to be derived. So the IDL is gone through once: which account is the order, its market, the signer, a fixed address or
a derived one, and where each lies in the message. Building one is then joining bytes. `Program.execute` and solders'
own compiler remain the reference, and a test holds the two equal.

Layout (legacy message): header; addresses, the payer first, then the writable ones, then the others; blockhash;
set_compute_unit_limit, set_compute_unit_price, the program's instruction. Indices and lengths are below 128, so that
each takes one byte of compact-u16.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from solders.hash import Hash
from solders.pubkey import Pubkey

from keeper.domain.orders import Order
from keeper.solana.client import Blockhash
from keeper.solana.transactions import Budget
from keeper.venue.idl import AccountDef, Seed, seed_bytes
from keeper.venue.program import WELL_KNOWN, Program

_COMPUTE_BUDGET: Final = bytes(Pubkey.from_string("ComputeBudget111111111111111111111111111111"))
_UNIT_LIMIT: Final = struct.Struct("<BI")
_UNIT_PRICE: Final = struct.Struct("<BQ")
_MOST_DERIVED: Final = 65_536
"""Remembered addresses of margin accounts: users have many orders. About 200 bytes each."""

Found = dict[str, bytes]
_Step = Callable[[Order, Found], bytes]


@dataclass(frozen=True, slots=True)
class Built:
    """A message to sign, and where the fill's position will be (None when the revision creates none)."""

    message: bytes
    position: Pubkey | None


class Template:
    """One instruction of the program as this keeper sends it. `of` gives None where only the general way will do."""

    def __init__(self, program: Program, name: str, executor: Pubkey) -> None:
        definition = program.idl.instruction(name)
        fields = program.idl.struct_fields
        self._steps: list[tuple[str, _Step]] = []
        self._program_id = program.id
        given: Mapping[str, _Step] = {
            "market": lambda order, _: bytes(order.market),
            "order": lambda order, _: bytes(order.address),
            **{a.name: lambda _, __: bytes(executor) for a in definition.accounts if a.signer},
        }
        for account in definition.accounts:
            self._steps.append((account.name, given.get(account.name) or self._derived(account, fields)))
        self._gives_position = program.creates_position and definition.account("position") is not None
        # Where each account lies: the signer first, then the writable, then the others.
        signers = [a.name for a in definition.accounts if a.signer]
        self._writable = [a.name for a in definition.accounts if a.writable and not a.signer]
        self._readonly = [a.name for a in definition.accounts if not a.writable and not a.signer]
        places = [*signers, *self._writable, *self._readonly]
        self._unit_program = len(places)
        own_program = len(places) + 1
        self._header = bytes((1, 0, len(self._readonly) + 2, len(places) + 2)) + bytes(executor)
        self._programs = _COMPUTE_BUDGET + bytes(program.id)
        indices = bytes(places.index(a.name) for a in definition.accounts)
        data = definition.discriminator
        self._call = bytes((own_program, len(indices))) + indices + bytes((len(data),)) + data
        self._distinct = len(places) + 2
        self._blockhash = ("", b"")
        self._remembered: dict[tuple[bytes, ...], bytes] = {}

    @classmethod
    def of(cls, program: Program, name: str, executor: Pubkey) -> Template | None:
        """The template; None when the instruction takes arguments, several signers, or an account that it can't find
        from the order alone.
        """
        definition = program.idl.instruction(name)
        if definition.args or sum(account.signer for account in definition.accounts) != 1:
            return None
        try:
            return cls(program, name, executor)
        except LookupError:
            return None

    def build(self, order: Order, budget: Budget, blockhash: Blockhash) -> Built | None:
        """The message for one order. None when two of its accounts are the same, which a message lists once."""
        found: Found = {}
        for name, step in self._steps:
            found[name] = step(order, found)
        addresses = [found[name] for name in self._writable]
        addresses += [found[name] for name in self._readonly]
        if len({*found.values(), _COMPUTE_BUDGET, bytes(self._program_id)}) != self._distinct:
            return None
        if self._blockhash[0] != blockhash.value:
            self._blockhash = (blockhash.value, bytes(Hash.from_string(blockhash.value)))
        message = b"".join(
            (
                self._header,
                *addresses,
                self._programs,
                self._blockhash[1],
                b"\x03",
                bytes((self._unit_program, 0, 5)),
                _UNIT_LIMIT.pack(2, budget.unit_limit),
                bytes((self._unit_program, 0, 9)),
                _UNIT_PRICE.pack(3, budget.unit_price_micro_lamports),
                self._call,
            )
        )
        return Built(message, Pubkey(found["position"]) if self._gives_position else None)

    # -- going through the IDL

    def _derived(self, account: AccountDef, fields: Mapping[str, Mapping[str, object]]) -> _Step:
        if account.address is not None or account.seeds is None:
            address = bytes(account.address or WELL_KNOWN[account.name])
            return lambda _, __: address
        parts = [self._seed(seed, fields) for seed in account.seeds]
        # An address that hangs on the order itself is asked for once; one that hangs on its user, again and again.
        if any(seed.kind == "account" and seed.path == "order" for seed in account.seeds):
            return lambda order, found: self._find([part(order, found) for part in parts])
        return lambda order, found: self._find_again(tuple([part(order, found) for part in parts]))

    def _seed(self, seed: Seed, fields: Mapping[str, Mapping[str, object]]) -> _Step:
        if seed.kind == "const":
            return lambda _, __: seed.value
        if seed.kind != "account":
            raise LookupError(f"the seed {seed.path} is an argument")
        name, _, field = seed.path.partition(".")
        if not field:
            if name not in dict(self._steps):
                raise LookupError(f"the seed {seed.path} is not known yet")
            return lambda _, found: found[name]
        if name != "order" or field not in ("user", "market", "order_id"):
            raise LookupError(f"the seed {seed.path} is not known of an order")
        kind = fields.get(seed.of, {}).get(field, "pubkey")
        return lambda order, _: seed_bytes(getattr(order, field), kind)

    def _find(self, seeds: list[bytes]) -> bytes:
        return bytes(Pubkey.find_program_address(seeds, self._program_id)[0])

    def _find_again(self, seeds: tuple[bytes, ...]) -> bytes:
        known = self._remembered.get(seeds)
        if known is None:
            if len(self._remembered) >= _MOST_DERIVED:
                del self._remembered[next(iter(self._remembered))]
            known = self._remembered[seeds] = self._find(list(seeds))
        return known
