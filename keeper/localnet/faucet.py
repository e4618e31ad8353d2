"""Where free lamports come from."""

from __future__ import annotations

from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

FAUCET_LAMPORTS = 500_000_000 * 1_000_000_000


class Faucet:
    """A rich wallet. It gives by a transaction like any other, that can be looked up and subscribed to."""

    def __init__(self, key: Keypair) -> None:
        self._key = key
        self.address = key.pubkey()
        self._given = 0

    def gift(self, to: Pubkey, lamports: int, blockhash: Hash) -> VersionedTransaction:
        """A signed transfer; never the same one twice, though the wishes may be the same."""
        self._given += 1
        instructions = [
            # What makes it another one: a limit that is large enough and never the last one.
            set_compute_unit_limit(1_000 + self._given % 1_000_000),
            transfer(TransferParams(from_pubkey=self.address, to_pubkey=to, lamports=lamports)),
        ]
        message = Message.new_with_blockhash(instructions, self.address, blockhash)
        return VersionedTransaction(message, [self._key])
