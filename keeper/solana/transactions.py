"""Building and signing the keeper's own transactions.

Layout, always: compute unit limit, compute unit price, then the program's instruction; so the instruction that
can fail by the program's doing is the last. The compute unit price differs between two attempts at one order,
so that two attempts never share a signature even on one blockhash.
"""

from __future__ import annotations

from dataclasses import dataclass

from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.solana.client import Blockhash


@dataclass(frozen=True, slots=True)
class Budget:
    """What a transaction may use and pays: a limit in compute units and a price in micro-lamports a unit."""

    unit_limit: int
    unit_price_micro_lamports: int

    @property
    def priority_fee_lamports(self) -> int:
        """The fee on top of the signature's: price x REQUESTED units, rounded up as the chain does."""
        return -(-self.unit_limit * self.unit_price_micro_lamports // 1_000_000)


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """Signed bytes, ready for the journal and then for the wire. Only these exact bytes are ever sent."""

    signature: Signature
    wire: bytes
    blockhash: Blockhash


def general_message(instruction: Instruction, payer: Pubkey, budget: Budget, blockhash: Blockhash) -> bytes:
    """The message of one instruction with its budget, by solders' own compiler. About 0.1 ms."""
    instructions = [
        set_compute_unit_limit(budget.unit_limit),
        set_compute_unit_price(budget.unit_price_micro_lamports),
        instruction,
    ]
    return bytes(Message.new_with_blockhash(instructions, payer, Hash.from_string(blockhash.value)))


class Signer:
    """The keeper's key. Its repr shows the address; the secret has no way out but through the signatures."""

    def __init__(self, keypair: Keypair) -> None:
        self.__keypair = keypair
        self.address: Pubkey = keypair.pubkey()

    def __repr__(self) -> str:
        return f"Signer({self.address})"

    def sign_prepared(self, message: Message | MessageV0) -> bytes:
        """A message with this address as its one signer, signed and serialized."""
        return bytes(VersionedTransaction(message, [self.__keypair]))

    def sign_message(self, message: bytes, blockhash: Blockhash) -> SignedTransaction:
        """A serialized message with this key as its only signer."""
        signature = self.__keypair.sign_message(message)
        return SignedTransaction(signature, b"\x01" + bytes(signature) + message, blockhash)
