"""What a transaction pays: a fixed fee per signature, and the priority fee that its author offers."""

from __future__ import annotations

from dataclasses import dataclass

from solders.message import Message, MessageV0
from solders.pubkey import Pubkey

LAMPORTS_PER_SIGNATURE = 5_000
MAX_UNITS = 1_400_000
_UNITS_PER_INSTRUCTION = 200_000
_UNITS_PER_BUILTIN = 3_000  # since SIMD-0170 a builtin program is not given a whole program's budget

_COMPUTE_BUDGET = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
_BUILTINS = frozenset(
    Pubkey.from_string(address)
    for address in (
        "11111111111111111111111111111111",
        "AddressLookupTab1e1111111111111111111111111",
        "BPFLoader1111111111111111111111111111111111",
        "BPFLoader2111111111111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
        "ComputeBudget111111111111111111111111111111",
        "LoaderV411111111111111111111111111111111111",
        "Vote111111111111111111111111111111111111111",
    )
)
_SET_UNIT_LIMIT = 2
_SET_UNIT_PRICE = 3


@dataclass(frozen=True, slots=True)
class Fee:
    """`price` is micro-lamports for each requested compute unit; the rest is lamports."""

    base: int
    price: int
    priority: int

    @property
    def total(self) -> int:
        """Lamports that the fee payer loses."""
        return self.base + self.priority


def fee_of(message: Message | MessageV0) -> Fee:
    """The fee of a message, as a validator charges it: requested units, not used ones, are paid for."""
    base = LAMPORTS_PER_SIGNATURE * message.header.num_required_signatures
    keys = message.account_keys
    if _COMPUTE_BUDGET not in keys:
        return Fee(base, 0, 0)
    price, limit, default_limit = 0, None, 0
    for instruction in message.instructions:
        program, data = keys[instruction.program_id_index], instruction.data
        default_limit += _UNITS_PER_BUILTIN if program in _BUILTINS else _UNITS_PER_INSTRUCTION
        if program != _COMPUTE_BUDGET or not data:
            continue
        if data[0] == _SET_UNIT_LIMIT and len(data) >= 5:
            limit = int.from_bytes(data[1:5], "little")
        elif data[0] == _SET_UNIT_PRICE and len(data) >= 9:
            price = int.from_bytes(data[1:9], "little")
    units = min(default_limit if limit is None else limit, MAX_UNITS)
    return Fee(base, price, -(-price * units // 1_000_000))
