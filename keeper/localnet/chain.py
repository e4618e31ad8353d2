"""Blocks, and the fork that they are on: slot numbers, heights, blockhashes, commitment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING

from solders.account import Account
from solders.hash import Hash
from solders.pubkey import Pubkey

from keeper.localnet.commitment import Commitment

if TYPE_CHECKING:
    from keeper.localnet.history import Landed

MAX_BLOCKHASH_AGE = 150
"""Blocks for which a blockhash can be used (MAX_PROCESSING_AGE in solana-clock)."""

FORWARDING_DELAY = 6
"""Blocks that a simulation keeps in hand for the way to the leader (MAX_TRANSACTION_FORWARDING_DELAY)."""

_SLOT_HASHES = 512
_BLOCKHASHES_KEPT = 300


@dataclass(slots=True, eq=False)
class Block:
    """One slot that has a block.

    `time` is unix seconds. `before` holds what each account written in this block was before its first
    write here (None: it did not exist); it is dropped when the block is final.
    """

    slot: int
    parent: int
    height: int
    blockhash: Hash
    time: int
    before: dict[Pubkey, Account | None] = field(default_factory=dict)
    transactions: list[Landed] = field(default_factory=list)
    transaction_count: int = 0
    lowest_price: int | None = None
    lowest_price_by_account: dict[Pubkey, int] = field(default_factory=dict)

    def add(self, landed: Landed, written: Iterable[Pubkey], price: int) -> None:
        """Append a transaction that asked to write `written` and paid `price` micro-lamports per unit."""
        self.transactions.append(landed)
        self.transaction_count += 1
        if self.lowest_price is None or price < self.lowest_price:
            self.lowest_price = price
        lowest = self.lowest_price_by_account
        for address in written:
            if price < lowest.get(address, price + 1):
                lowest[address] = price

    def shrink(self) -> None:
        """Keep of a final block only what is still asked for."""
        self.transactions.clear()
        # An account that costs nothing is like one that nobody wrote.
        lowest = self.lowest_price_by_account
        self.lowest_price_by_account = {address: price for address, price in lowest.items() if price}


class Chain:
    """The fork that this node is on, from the last final block to the tip.

    The tip is the block being filled. `confirmed_lag` and `finalized_lag` are the number of blocks that
    must follow a block before it is confirmed and finalized; both are at least 1, so that only complete
    blocks are. Older blocks keep their slot, height and time for `history_slots`.

    `alpenglow_from` is the slot at which consensus turns from TowerBFT to Alpenglow, None for never. From then on one
    block on top makes a block confirmed and final at once. `alpenglow` is the block that this began with.
    """

    def __init__(self, *, seed: bytes, time: int, confirmed_lag: int, finalized_lag: int, history_slots: int) -> None:
        if not 1 <= confirmed_lag <= finalized_lag:
            raise ValueError("confirmed_slots must be at least 1, and finalized_slots at least confirmed_slots")
        self._seed = seed
        self._confirmed_lag = confirmed_lag
        self._finalized_lag = finalized_lag
        self._history_slots = history_slots
        genesis = Block(0, 0, 0, self._hash(Hash.default(), 0), time)
        self.genesis_hash = genesis.blockhash
        self._fork: deque[Block] = deque([genesis])
        self._confirmed = genesis
        self._by_hash: dict[Hash, Block] = {genesis.blockhash: genesis}
        self._by_slot: dict[int, Block] = {0: genesis}
        self._slot_hashes: deque[tuple[int, Hash]] = deque([(0, genesis.blockhash)], maxlen=_SLOT_HASHES)
        # A fork never gives out a slot number twice.
        self._highest_slot = 0
        self.alpenglow_from: int | None = None
        self.alpenglow: Block | None = None

    def __repr__(self) -> str:
        return f"<Chain slot={self.tip.slot} confirmed={self._confirmed.slot} finalized={self.root.slot}>"

    @property
    def tip(self) -> Block:
        """The block being filled."""
        return self._fork[-1]

    @property
    def complete(self) -> Block:
        """The newest block that gets no more transactions; the tip while there is no other."""
        return self._fork[-2] if len(self._fork) > 1 else self._fork[-1]

    @property
    def root(self) -> Block:
        """The last final block."""
        return self._fork[0]

    @property
    def first_slot(self) -> int:
        """The oldest slot that is still known."""
        return next(iter(self._by_slot))

    @property
    def slot_hashes(self) -> list[tuple[int, Hash]]:
        """Slot and blockhash of the tip and its ancestors, newest first, 512 at most."""
        return list(self._slot_hashes)

    def at(self, commitment: Commitment) -> Block:
        """The newest block of that commitment."""
        if commitment is Commitment.PROCESSED:
            return self._fork[-1]
        return self._confirmed if commitment is Commitment.CONFIRMED else self._fork[0]

    def commitment_of(self, slot: int) -> Commitment:
        """How final a slot of this fork is."""
        if slot <= self._fork[0].slot:
            return Commitment.FINALIZED
        return Commitment.CONFIRMED if slot <= self._confirmed.slot else Commitment.PROCESSED

    def block(self, slot: int) -> Block | None:
        """The block of a slot; None when the slot was skipped, dropped, or is too old or not there yet."""
        return self._by_slot.get(slot)

    def age(self, blockhash: Hash, seen_from: Block) -> int | None:
        """How many blocks before `seen_from` a blockhash was made; None when that block does not know it."""
        origin = self._by_hash.get(blockhash)
        if origin is None or origin.slot > seen_from.slot:
            return None
        return seen_from.height - origin.height

    def recent(self, count: int) -> list[Block]:
        """The newest `count` blocks of this fork that are still known, oldest first."""
        newest_first = list(islice(reversed(self._by_slot.values()), count))
        newest_first.reverse()
        return newest_first

    def slots(self, first: int, last: int) -> list[int]:
        """The slots from `first` to `last` that have a block which is still known, in order."""
        return [slot for slot in self._by_slot if first <= slot <= last]

    def extend(self, time: int, *, skip: int = 0) -> tuple[list[Block], list[Block]]:
        """Close the tip and begin the next block, leaving out `skip` slot numbers.

        Returns the blocks that this made confirmed and those that it made final, oldest first.
        """
        parent = self.tip
        slot = self._highest_slot + 1 + skip
        self._highest_slot = slot
        block = Block(slot, parent.slot, parent.height + 1, self._hash(parent.blockhash, slot), time)
        block.transaction_count = parent.transaction_count
        if self.alpenglow is None and self.alpenglow_from is not None and parent.slot >= self.alpenglow_from:
            self.alpenglow = parent
            self._confirmed_lag = self._finalized_lag = 1
        self._fork.append(block)
        self._by_hash[block.blockhash] = block
        self._by_slot[slot] = block
        self._slot_hashes.appendleft((slot, block.blockhash))
        confirmed = self._confirm()
        final = self._finalize()
        self._forget()
        return confirmed, final

    def drop_after(self, slot: int) -> list[Block]:
        """Leave the fork after `slot`; returns the blocks that are gone, newest first.

        Raises ValueError when `slot` has no block on this fork that a new one could build on.
        """
        if all(block.slot != slot for block in self._fork):
            raise ValueError(f"slot {slot} is not on this fork at or after the final slot {self.root.slot}")
        dropped = []
        while self.tip.slot > slot:
            block = self._fork.pop()
            del self._by_hash[block.blockhash], self._by_slot[block.slot]
            self._slot_hashes.popleft()
            dropped.append(block)
        # A cluster has never undone a confirmed block. A test may; then the level falls back with the fork.
        if self._confirmed.slot > slot:
            self._confirmed = self.tip
        return dropped

    def _confirm(self) -> list[Block]:
        deep = len(self._fork) - 1 - self._confirmed_lag
        confirmed = []
        # The confirmed block is near the tip: walk back from it rather than from the root.
        while deep >= 0 and self._fork[deep].slot > self._confirmed.slot:
            confirmed.append(self._fork[deep])
            deep -= 1
        confirmed.reverse()
        if confirmed:
            self._confirmed = confirmed[-1]
        return confirmed

    def _finalize(self) -> list[Block]:
        final = []
        while len(self._fork) > self._finalized_lag + 1:
            self._fork.popleft()
            final.append(self._fork[0])
        return final

    def _forget(self) -> None:
        while len(self._by_hash) > _BLOCKHASHES_KEPT:
            del self._by_hash[next(iter(self._by_hash))]
        while len(self._by_slot) > self._history_slots:
            del self._by_slot[next(iter(self._by_slot))]

    def _hash(self, parent: Hash, slot: int) -> Hash:
        return Hash(sha256(self._seed + bytes(parent) + slot.to_bytes(8, "little")).digest())
