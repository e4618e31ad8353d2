"""The witness: sees every transaction that leaves the keeper, and judges it by the chain's own record.

It stands in the proxies, before any fault: a transaction that is then lost was sent all the same. What it checks
needs no model of the keeper, only the bank and the journal's file.
"""

from __future__ import annotations

import base64
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import AttemptKind
from keeper.journal import Queries
from keeper.localnet import Bank, Commitment


@dataclass(frozen=True, slots=True)
class FirstSend:
    """The first time that a signature was seen, with what the journal said of it at that moment."""

    signature: Signature
    wire: bytes
    order: Pubkey
    kind: AttemptKind
    last_valid_block_height: int
    at: float
    slot: int


class AnyWitness(ABC):
    """Judges sends. `violations` are sentences; `sends` is the record, for people who look into one.
    `newest` is the last signature that was seen for the first time.

    `journal` is asked at the moment of each first send, so what it says then was committed before the send.
    """

    def __init__(self) -> None:
        self.journal: Queries | None = None
        self.violations: list[str] = []
        self.sends: list[dict[str, Any]] = []
        self.newest: FirstSend | None = None
        self._seen: dict[Signature, FirstSend] = {}
        self._by_order: dict[Pubkey, list[FirstSend]] = {}

    def __repr__(self) -> str:
        return f"<Witness of {len(self._seen)} signatures, {len(self.violations)} violations>"

    def on_calls(self, endpoint: str, calls: Sequence[Mapping[str, Any]]) -> None:
        """A request has arrived at a proxy."""
        for call in calls:
            if call.get("method") == "sendTransaction":
                self._sent(endpoint, base64.b64decode(call["params"][0]))

    def _sent(self, endpoint: str, wire: bytes) -> None:
        signature = Signature.from_bytes(wire[1:65])
        slot = self._slot()
        self.sends.append({"at": time.time(), "slot": slot, "endpoint": endpoint, "signature": str(signature)})
        before = self._seen.get(signature)
        if before is not None:
            if before.wire != wire:
                self._violation(f"{signature} was sent again with other bytes")
            return
        assert self.journal is not None, "the keeper runs, so it has a journal"
        attempt = self.journal.attempt(signature)
        if attempt is None:
            self._violation(f"{signature} was sent and the journal did not hold it (promise 1)")
            return
        if attempt.wire != wire:
            self._violation(f"{signature} was sent with other bytes than the journal holds")
        first = FirstSend(
            signature,
            wire,
            attempt.order,
            attempt.kind,
            attempt.last_valid_block_height,
            time.time(),
            slot,
        )
        self._seen[signature] = self.newest = first
        self._check_last_valid_height(first)
        if first.kind is AttemptKind.RELAY:
            return
        others = self._by_order.setdefault(first.order, [])
        for other in others:
            doubt = self._could_still_matter(other, first)
            if doubt:
                self._violation(
                    f"order {first.order}: {signature} was sent while {other.signature} {doubt} (promise 2)"
                )
        others.append(first)

    @abstractmethod
    def _slot(self) -> int:
        """The chain's newest slot, as far as it is known here."""

    @abstractmethod
    def _check_last_valid_height(self, first: FirstSend) -> None:
        """The journal must not believe that a signature dies earlier than it does."""

    @abstractmethod
    def _could_still_matter(self, first: FirstSend, second: FirstSend) -> str | None:
        """Why a second signature is not allowed yet; None when the first one is settled, by the chain's record."""

    def _violation(self, sentence: str) -> None:
        self.violations.append(sentence)


class Witness(AnyWitness):
    """The witness of an embedded chain: it knows the chain's own record at the moment of each send."""

    def __init__(self, bank: Bank) -> None:
        super().__init__()
        self._bank = bank

    def _slot(self) -> int:
        return self._bank.chain.tip.slot

    def _check_last_valid_height(self, first: FirstSend) -> None:
        chain = self._bank.chain
        age = chain.age(_blockhash(first.wire), chain.tip)
        if age is None:
            return  # too old, or of a fork that is no more
        lands_until = chain.tip.height - age + 151
        if first.last_valid_block_height + 1 < lands_until:
            self._violation(
                f"{first.signature}: the journal says it is valid to height {first.last_valid_block_height}, "
                f"the chain takes it to {lands_until}"
            )

    def _could_still_matter(self, first: FirstSend, second: FirstSend) -> str | None:
        chain = self._bank.chain
        landed = self._bank.history.get(first.signature)
        if landed is None:
            # It can land up to its last valid height plus one.
            if chain.root.height > first.last_valid_block_height + 1:
                return None
            return (
                f"could still land: valid to height {first.last_valid_block_height + 1}, "
                f"and the finalized height was {chain.root.height}"
            )
        if chain.commitment_of(landed.slot) is Commitment.PROCESSED:
            return "had only been processed"
        if landed.err is None and first.kind is AttemptKind.EXECUTE:
            return "had succeeded"
        return None


def _blockhash(wire: bytes) -> Hash:
    return VersionedTransaction.from_bytes(wire).message.recent_blockhash
