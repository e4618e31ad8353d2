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
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from solders.hash import Hash
from solders.pubkey import Pubkey

from keeper.domain.orders import Order
from keeper.solana.client import Blockhash
from keeper.solana.transactions import Budget
from keeper.venue.idl import Seed
from keeper.venue.program import WELL_KNOWN, Program

_COMPUTE_BUDGET: Final = bytes(Pubkey.from_string("ComputeBudget111111111111111111111111111111"))
_UNIT_LIMIT: Final = struct.Struct("<BI")
_UNIT_PRICE: Final = struct.Struct("<BQ")
_MOST_DERIVED: Final = 65_536
"""Remembered addresses of margin accounts: users have many orders. About 200 bytes each."""

_PLACES: Final = {name: place for place, name in enumerate(Order._fields)}

_Part = tuple[int, Any]
"""A seed, or an account that is given: how to find it (one of the numbers below), and what by."""
_FIXED, _OF_ORDER, _NUMBER, _FOUND = range(4)
"""These bytes; a public key of the order; a number of the order, as a u64; an account found before, by place."""


@dataclass(frozen=True, slots=True)
class Built:
    """A message to sign, and where the fill's position will be (None when the revision creates none)."""

    message: bytes
    position: Pubkey | None


class Template:
    """One instruction of the program as this keeper sends it. `of` gives None where only the general way will do."""

    def __init__(self, program: Program, name: str, executor: Pubkey) -> None:
        definition = program.idl.instruction(name)
        self._program_id = program.id
        self._names = [account.name for account in definition.accounts]
        given: dict[str, _Part] = {
            "market": (_OF_ORDER, _PLACES["market"]),
            "order": (_OF_ORDER, _PLACES["address"]),
            **{a.name: (_FIXED, bytes(executor)) for a in definition.accounts if a.signer},
        }
        # Each account: how it is given, or its seeds, and whether those hang on the order itself.
        self._steps: list[tuple[_Part | None, list[_Part], bool]] = []
        for account in definition.accounts:
            if account.name in given:
                self._steps.append((given[account.name], [], False))
            elif account.address is not None or account.seeds is None:
                self._steps.append(((_FIXED, bytes(account.address or WELL_KNOWN[account.name])), [], False))
            else:
                parts = [self._seed(seed, program.idl.struct_fields) for seed in account.seeds]
                of_order = any(seed.kind == "account" and seed.path == "order" for seed in account.seeds)
                self._steps.append((None, parts, of_order))
        position = program.creates_position and definition.account("position") is not None
        self._position = self._names.index("position") if position else None
        # Where each account lies: the signer first, then the writable, then the others.
        signers = [a.name for a in definition.accounts if a.signer]
        writable = [a.name for a in definition.accounts if a.writable and not a.signer]
        readonly = [a.name for a in definition.accounts if not a.writable and not a.signer]
        places = [*signers, *writable, *readonly]
        self._listed = itemgetter(*[self._names.index(name) for name in (*writable, *readonly)])
        header = bytes((1, 0, len(readonly) + 2, len(places) + 2)) + bytes(executor)
        programs = _COMPUTE_BUDGET + bytes(program.id)
        indices = bytes(places.index(name) for name in self._names)
        data = definition.discriminator
        units = len(places)
        self._head, self._programs = header, programs
        self._limit, self._price = b"\x03" + bytes((units, 0, 5)), bytes((units, 0, 9))
        self._call = bytes((units + 1, len(indices))) + indices + bytes((len(data),)) + data
        self._distinct = len(places) + 2
        self._always = {_COMPUTE_BUDGET, bytes(program.id)}
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
        found: list[bytes] = []
        terms: tuple[Any, ...] = order
        for given, parts, of_order in self._steps:
            seeds: list[bytes] = []
            for kind, by in (given,) if given is not None else parts:
                if kind == _FIXED:
                    seeds.append(by)
                elif kind == _OF_ORDER:
                    seeds.append(bytes(terms[by]))
                elif kind == _NUMBER:
                    seeds.append(terms[by].to_bytes(8, "little"))
                else:
                    seeds.append(found[by])
            if given is not None:
                found.append(seeds[0])
            elif of_order:
                # An address that hangs on the order itself is asked for once; one that hangs on its user, again.
                found.append(bytes(Pubkey.find_program_address(seeds, self._program_id)[0]))
            else:
                found.append(self._remembered.get(tuple(seeds)) or self._find_again(tuple(seeds)))
        if len(self._always.union(found)) != self._distinct:
            return None
        if self._blockhash[0] != blockhash.value:
            self._blockhash = (blockhash.value, bytes(Hash.from_string(blockhash.value)))
        message = b"".join(
            (
                self._head,
                *self._listed(found),
                self._programs,
                self._blockhash[1],
                self._limit,
                _UNIT_LIMIT.pack(2, budget.unit_limit),
                self._price,
                _UNIT_PRICE.pack(3, budget.unit_price_micro_lamports),
                self._call,
            )
        )
        return Built(message, None if self._position is None else Pubkey(found[self._position]))

    # -- going through the IDL

    def _seed(self, seed: Seed, fields: Mapping[str, Mapping[str, object]]) -> _Part:
        if seed.kind == "const":
            return _FIXED, seed.value
        if seed.kind != "account":
            raise LookupError(f"the seed {seed.path} is an argument")
        name, _, field = seed.path.partition(".")
        if not field:
            if name not in self._names[: len(self._steps)]:
                raise LookupError(f"the seed {seed.path} is not known yet")
            return _FOUND, self._names.index(name)
        if name != "order" or field not in ("user", "market", "order_id"):
            raise LookupError(f"the seed {seed.path} is not known of an order")
        kind = fields.get(seed.of, {}).get(field, "pubkey")
        if kind not in ("pubkey", "publicKey", "u64") or (kind == "u64") is not (field == "order_id"):
            raise LookupError(f"the seed {seed.path} is of type {kind}")
        return (_NUMBER if kind == "u64" else _OF_ORDER), _PLACES[field]

    def _find_again(self, seeds: tuple[bytes, ...]) -> bytes:
        if len(self._remembered) >= _MOST_DERIVED:
            del self._remembered[next(iter(self._remembered))]
        found = self._remembered[seeds] = bytes(Pubkey.find_program_address(list(seeds), self._program_id)[0])
        return found
