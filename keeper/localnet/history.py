"""Transactions that landed: their statuses, their details, and which addresses they mention."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import TransactionMetadata


@dataclass(frozen=True, slots=True, eq=False)
class Landed:
    """A transaction that is in a block, failed ones included.

    `err` is None or the error in the RPC interface's JSON form; `fee` and balances are lamports, balances
    in the order of `keys`: the static ones, then those from lookup tables, of which the first
    `loaded_writable` are writable. `time` is unix seconds. Token balances are in the RPC interface's form.
    """

    signature: Signature
    transaction: VersionedTransaction
    slot: int
    height: int
    time: int
    err: Any
    meta: TransactionMetadata
    fee: int
    keys: tuple[Pubkey, ...]
    loaded_writable: int
    pre_balances: tuple[int, ...]
    post_balances: tuple[int, ...]
    pre_tokens: list[dict[str, Any]]
    post_tokens: list[dict[str, Any]]


class History:
    """Landed transactions in order, newest last.

    Bounded to `limit` transactions, but never forgets one that is younger than `recent_blocks`, because a
    repeated signature must be refused for as long as its blockhash lives.
    """

    def __init__(self, *, limit: int, recent_blocks: int) -> None:
        self._limit = limit
        self.recent_blocks = recent_blocks
        self._by_signature: dict[Signature, Landed] = {}
        self._by_address: dict[Pubkey, deque[Landed]] = {}
        self._by_slot: dict[int, deque[Landed]] = {}
        self.complete_from = 0
        """From this slot on every transaction of a block is here."""

    def __len__(self) -> int:
        return len(self._by_signature)

    def __contains__(self, signature: Signature) -> bool:
        return signature in self._by_signature

    def __repr__(self) -> str:
        return f"<History of {len(self)} transactions, limit {self._limit}>"

    def get(self, signature: Signature) -> Landed | None:
        """The transaction with that first signature."""
        return self._by_signature.get(signature)

    def add(self, landed: Landed) -> None:
        """Append a transaction."""
        self._by_signature[landed.signature] = landed
        self._by_slot.setdefault(landed.slot, deque()).append(landed)
        for key in landed.keys:
            mentions = self._by_address.get(key)
            if mentions is None:
                self._by_address[key] = mentions = deque()
            mentions.append(landed)

    def drop_last(self, landed: Landed) -> None:
        """Take the newest transaction back: a fork did not have it."""
        del self._by_signature[landed.signature]
        _shorten(self._by_slot, landed.slot, newest=True)
        for key in landed.keys:
            _shorten(self._by_address, key, newest=True)

    def forget(self, tip_height: int) -> None:
        """Drop the oldest transactions beyond the limit."""
        while len(self._by_signature) > self._limit:
            oldest = next(iter(self._by_signature.values()))
            if tip_height - oldest.height <= self.recent_blocks:
                return
            del self._by_signature[oldest.signature]
            _shorten(self._by_slot, oldest.slot, newest=False)
            self.complete_from = oldest.slot + 1
            for key in oldest.keys:
                _shorten(self._by_address, key, newest=False)

    def mentioning(self, address: Pubkey) -> Iterator[Landed]:
        """Transactions that name `address`, newest first."""
        return reversed(self._by_address.get(address, deque()))

    def of_slot(self, slot: int) -> Sequence[Landed]:
        """The transactions of a slot, in their order."""
        return self._by_slot.get(slot, ())


def _shorten(index: dict[Any, deque[Landed]], key: Any, *, newest: bool) -> None:
    entries = index[key]
    if newest:
        entries.pop()
    else:
        entries.popleft()
    if not entries:
        del index[key]
