"""The keeper's own transactions: what leaves the process before the journal holds it can't land."""

from __future__ import annotations

from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from keeper.solana.client import Blockhash
from keeper.solana.transactions import Budget, Signer, without_signature


def test_1_a_rehearsal_carries_the_message_and_no_signature() -> None:
    key = Keypair()
    instruction = transfer(TransferParams(from_pubkey=key.pubkey(), to_pubkey=Pubkey.new_unique(), lamports=1))
    signed = Signer(key).sign(instruction, Budget(1_000, 1), Blockhash(str(Hash.new_unique()), 150, 1))
    original = VersionedTransaction.from_bytes(signed.wire)
    assert original.verify_with_results() == [True]

    rehearsed = VersionedTransaction.from_bytes(without_signature(signed.wire))

    assert rehearsed.message == original.message
    assert rehearsed.signatures == [Signature.default()]
    assert rehearsed.verify_with_results() == [False]
    assert bytes(signed.signature) not in without_signature(signed.wire)
