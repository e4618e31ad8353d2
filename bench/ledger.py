"""What the chain itself saw, with times: the keeper under test is not asked how fast it was.

It observes the bank in the benchmark's own process. A transaction's time is taken when the bank has it (received),
when it is in a block (landed), and when that block is confirmed. Seconds by `time.perf_counter`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from solders.account import Account
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.localnet import Bank
from keeper.localnet.chain import Block
from keeper.localnet.history import Landed


@dataclass(slots=True)
class Ledger:
    """Follows the transactions that `keeper` pays for.

    `executed` counts the successes by order; one above 1 is a duplicate. `order_at` is the order's place among
    the accounts of an execution.
    """

    keeper: Pubkey
    orders: AbstractSet[Pubkey]
    received_at: dict[Signature, float] = field(default_factory=dict)
    landed_at: dict[Pubkey, float] = field(default_factory=dict)
    confirmed_at: dict[Pubkey, float] = field(default_factory=dict)
    signature_of: dict[Pubkey, Signature] = field(default_factory=dict)
    executed: Counter[Pubkey] = field(default_factory=Counter)
    failed: int = 0

    @classmethod
    def of(cls, bank: Bank, keeper: Keypair, orders: Sequence[Pubkey]) -> Ledger:
        """Begin to watch."""
        ledger = cls(keeper.pubkey(), frozenset(orders))
        bank.observe(ledger)
        return ledger

    @property
    def all_landed(self) -> bool:
        """Every order has a successful execution in a block."""
        return len(self.landed_at) == len(self.orders)

    @property
    def all_confirmed(self) -> bool:
        """Every order's execution is in a confirmed block."""
        return len(self.confirmed_at) == len(self.orders)

    @property
    def duplicates(self) -> int:
        """Successful executions beyond the first of each order."""
        return sum(count - 1 for count in self.executed.values())

    # -- the bank's observer

    def received(self, signature: Signature) -> None:
        """See Observer."""
        self.received_at.setdefault(signature, time.perf_counter())

    def landed(self, landed: Landed) -> None:
        """See Observer."""
        if landed.keys[0] != self.keeper:
            return
        if landed.err is not None:
            self.failed += 1
            return
        now = time.perf_counter()
        for key in landed.keys:
            if key in self.orders:
                self.executed[key] += 1
                self.landed_at.setdefault(key, now)
                self.signature_of[key] = landed.signature

    def written(self, slot: int, accounts: Mapping[Pubkey, Account | None]) -> None:
        """See Observer."""

    def advanced(self, tip: Block, confirmed: Sequence[Block], final: Sequence[Block]) -> None:
        """See Observer."""
        now = time.perf_counter()
        for block in confirmed:
            for landed in block.transactions:
                if landed.keys[0] == self.keeper and landed.err is None:
                    for key in landed.keys:
                        if key in self.orders:
                            self.confirmed_at.setdefault(key, now)

    def reverted(self, tip: Block, accounts: Mapping[Pubkey, Account | None], confirmed: bool) -> None:
        """See Observer."""
