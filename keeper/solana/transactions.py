"""Building and signing the keeper's own transactions, with a recent blockhash that is always at hand.

Layout, always: compute unit limit, compute unit price, then what the program is asked for, then the tip, if there is
one; so nothing is paid that the program refuses. The compute unit price differs between two attempts at one order,
so that two attempts never share a signature even on one blockhash.
"""

from __future__ import annotations

import contextlib
import hmac
import time
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import TaskStatus
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from keeper.domain.errors import ChainError, Transient
from keeper.domain.turns import Turns
from keeper.solana.client import BLOCKHASH_BLOCKS, Blockhash, ChainClient

MOST_UNITS: Final = 1_400_000
"""The most compute units that a transaction may ask for."""
SIGNATURE_FEE_LAMPORTS: Final = 5_000
"""What a transaction pays for each of its signatures."""
_ASK_AGAIN_S: Final = 0.2
_OLD_BLOCKS: Final = BLOCKHASH_BLOCKS // 2
_REFRESH_BLOCKS: Final = BLOCKHASH_BLOCKS // 10


@dataclass(frozen=True, slots=True)
class Budget:
    """What a transaction may use and pays: a limit in compute units and a price in micro-lamports a unit."""

    unit_limit: int
    unit_price_micro_lamports: int


@dataclass(frozen=True, slots=True)
class Tip:
    """What a transaction pays a sender for carrying it, if it succeeds: the last thing that it does."""

    account: Pubkey
    lamports: int

    def instruction(self, payer: Pubkey) -> Instruction:
        """The transfer."""
        return transfer(TransferParams(from_pubkey=payer, to_pubkey=self.account, lamports=self.lamports))


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """Signed bytes, ready for the journal and then for the wire. Only these exact bytes are ever sent."""

    signature: Signature
    wire: bytes
    blockhash: Blockhash


def general_message(payer: Pubkey, budget: Budget, blockhash: Blockhash, *wanted: Instruction) -> bytes:
    """The message of these instructions with their budget, by solders' own compiler. About 0.1 ms."""
    instructions = [
        set_compute_unit_limit(budget.unit_limit),
        set_compute_unit_price(budget.unit_price_micro_lamports),
        *wanted,
    ]
    return bytes(Message.new_with_blockhash(instructions, payer, Hash.from_string(blockhash.value)))


class Signer:
    """The keeper's key. Its repr shows the address; the secret has no way out but through the signatures, and through
    what `secret_for` makes of it.
    """

    def __init__(self, keypair: Keypair) -> None:
        self.__keypair = keypair
        self.address: Pubkey = keypair.pubkey()

    def __repr__(self) -> str:
        return f"Signer({self.address})"

    def secret_for(self, purpose: str) -> bytes:
        """32 bytes for the purpose, which whoever has this key can make, and nobody else. They do not tell the key."""
        return hmac.digest(self.__keypair.secret(), b"quantdesk-keeper " + purpose.encode(), "sha256")

    def sign_prepared(self, message: Message | MessageV0) -> bytes:
        """A message with this address as its one signer, signed and serialized."""
        return bytes(VersionedTransaction(message, [self.__keypair]))

    def sign_message(self, message: bytes, blockhash: Blockhash) -> SignedTransaction:
        """A serialized message with this key as its only signer."""
        signature = self.__keypair.sign_message(message)
        return SignedTransaction(signature, b"\x01" + bytes(signature) + message, blockhash)

    def sign_with(self, second: Signer, message: bytes, blockhash: Blockhash) -> SignedTransaction:
        """A serialized message whose second signer is `second`; or whose only one is, because both are this key."""
        if second.address == self.address:
            return self.sign_message(message, blockhash)
        signature, other = (key.sign_message(message) for key in (self.__keypair, second.__keypair))
        return SignedTransaction(signature, b"\x02" + bytes(signature) + bytes(other) + message, blockhash)


class Blockhashes:
    """Keeps the latest confirmed blockhash, fetched every `refresh_every_s`, or more often where blocks are quick.

    `current` refuses one of which half the life has passed: signing with it would shorten the time to land, and a node
    that gives none is a node that may not take the transaction either. What blocks are in seconds, the pool measures.
    """

    def __init__(self, client: ChainClient, *, refresh_every_s: float = 2.0) -> None:
        self._client = client
        self._refresh_every_s = refresh_every_s
        self._latest: Blockhash | None = None
        self._fetched_at = 0.0
        self.turns = Turns("blockhashes")

    def __repr__(self) -> str:
        return f"Blockhashes(latest={self._latest})"

    def current(self) -> Blockhash:
        """The latest blockhash. Transient when there is none fresh enough."""
        if self._latest is None or time.monotonic() - self._fetched_at > self._blocks_s(_OLD_BLOCKS):
            raise Transient("no recent blockhash: the RPC endpoints have not given one lately")
        return self._latest

    def lives_s(self) -> float:
        """Seconds for which a transaction with the latest one can still land, about: the block height decides."""
        return max(0.0, self._fetched_at + self._blocks_s(BLOCKHASH_BLOCKS) - time.monotonic())

    @property
    def undone_blocks(self) -> int:
        """So many blocks on top of a confirmed one, and it is not undone any more, by the chain's consensus."""
        return self._client.consensus.undone_blocks

    def _blocks_s(self, blocks: int) -> float:
        return blocks * self._client.pool.pace.slot_s

    async def wait(self, turns: Turns) -> None:
        """Wait until there is a current one, while the loop of `turns` counts as going round."""
        while True:
            await turns.turn()
            with contextlib.suppress(Transient):
                self.current()
                return
            await anyio.sleep(_ASK_AGAIN_S)

    async def refresh(self) -> Blockhash:
        """Fetch one now."""
        self._latest = await self._client.latest_blockhash()
        self._fetched_at = time.monotonic()
        return self._latest

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep it fresh. Ready when the first was asked for, answered or not: `current` tells which."""
        started = False
        while True:
            await self.turns.turn()
            # The pool counts a failure; `current` refuses once the last one is too old.
            with contextlib.suppress(ChainError):
                await self.refresh()
            if not started:
                started = True
                task_status.started()
            await anyio.sleep(min(self._refresh_every_s, self._blocks_s(_REFRESH_BLOCKS)))
