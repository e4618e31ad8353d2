"""The one place that touches LiteSVM: it executes and simulates, and holds the newest account state.

What LiteSVM does not do is done here or above: signatures are verified by the bank (so that a simulation
can leave it out), blockhashes and duplicates are the bank's, and an account without lamports is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec
from solders.account import Account
from solders.clock import Clock
from solders.epoch_schedule import EpochSchedule
from solders.hash import Hash
from solders.litesvm import FeatureSet, LiteSVM
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, TransactionMetadata

RUNTIME_VERSION = "2.2.0"
"""The Agave release whose runtime crates solders 0.26 is built with; getVersion reports it."""

_FEATURES = sorted(map(bytes, FeatureSet.all_enabled().active))
FEATURE_SET = int.from_bytes(sha256(b"".join(_FEATURES)).digest()[:4], "little")
"""The number that tells a release's list of features from others, made as Agave makes it; getVersion reports it.

All of them are on, and LiteSVM takes no other choice for its runtime. One of them ends deployments with the upgradeable
loader, which no cluster has done yet: over RPC a program can be written to a buffer here, and not deployed from it.
"""

BORN_WITH = tuple(
    Pubkey.from_string(address)
    for address in (
        "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
        "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
        "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL",
        "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr",
        "Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo",
        "ComputeBudget111111111111111111111111111111",
        "AddressLookupTab1e1111111111111111111111111",
        "11111111111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
        "BPFLoader2111111111111111111111111111111111",
        "Vote111111111111111111111111111111111111111",
        "SysvarC1ock11111111111111111111111111111111",
        "SysvarRecentB1ockHashes11111111111111111111",
        "SysvarS1otHashes111111111111111111111111111",
        "SysvarRent111111111111111111111111111111111",
    )
)
"""The programs and sysvars that LiteSVM makes by itself, and cannot list."""

_ELF64_LITTLE = b"\x7fELF\x02\x01"
_SBF_MACHINES = (247, 263)  # EM_BPF and EM_SBPF
_NOTHING = Account(0, b"", Pubkey.default())


class VmPanicError(Exception):
    """The VM gave up on a transaction in a way that is a defect of the VM, not of the transaction."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What running a transaction gave.

    `err` is None or the error in the JSON form of the RPC interface. `post_accounts` is filled by a
    successful simulation only, with the accounts that it wrote.
    """

    err: Any
    meta: TransactionMetadata
    post_accounts: dict[Pubkey, Account]


class Vm:
    """Account state and execution. Not aware of slots, forks, commitment or time but what it is told."""

    def __init__(self) -> None:
        # Signature checks off: the bank makes them, once, and only where the protocol asks for them.
        # History off: LiteSVM's does not reliably refuse a repeated signature; the bank's does.
        self._svm = LiteSVM().with_sigverify(False).with_blockhash_check(False).with_transaction_history(0)
        self.epoch_schedule = EpochSchedule.without_warmup()
        self._svm.set_epoch_schedule(self.epoch_schedule)
        self._epoch = (-1, 0)  # the newest one, and when it began

    def account(self, address: Pubkey) -> Account | None:
        """The newest state of an account; None when it does not exist."""
        account = self._svm.get_account(address)
        return account if account is not None and account.lamports else None

    def balance(self, address: Pubkey) -> int:
        """Lamports of an account, 0 when it does not exist."""
        return self._svm.get_balance(address) or 0

    def put(self, address: Pubkey, account: Account | None) -> None:
        """Overwrite an account; None removes it."""
        self._svm.set_account(address, _NOTHING if account is None else account)

    def add_program(self, program_id: Pubkey, elf: bytes) -> None:
        """Make `elf` executable at `program_id`. Raises ValueError when the VM cannot load it."""
        if not elf.startswith(_ELF64_LITTLE) or int.from_bytes(elf[18:20], "little") not in _SBF_MACHINES:
            raise ValueError("not an ELF file of Solana's machine")
        try:
            self._svm.add_program(program_id, elf)
        except BaseException as exc:
            if not _is_panic(exc):
                raise
            raise ValueError(f"not a program that the VM can load: {exc}") from exc

    def rent_exempt_minimum(self, size: int) -> int:
        """Lamports that an account of `size` bytes must hold."""
        return self._svm.minimum_balance_for_rent_exemption(size)

    def set_time(self, slot: int, unix_timestamp: int) -> None:
        """Set the clock sysvar."""
        schedule = self.epoch_schedule
        epoch = schedule.get_epoch(slot)
        if epoch > self._epoch[0]:
            self._epoch = (epoch, unix_timestamp)
        self._svm.set_clock(
            Clock(
                slot=slot,
                epoch_start_timestamp=self._epoch[1],
                epoch=epoch,
                leader_schedule_epoch=schedule.get_leader_schedule_epoch(slot),
                unix_timestamp=unix_timestamp,
            )
        )

    def begin_block(self, slot: int, unix_timestamp: int, slot_hashes: Sequence[tuple[int, Hash]]) -> None:
        """Set the sysvars of a new block; `slot_hashes` are those of its ancestors, newest first."""
        self.set_time(slot, unix_timestamp)
        # Lookup tables are created and resolved against this sysvar.
        self._svm.set_slot_hashes(slot_hashes)
        # Durable nonces advance to a new value only when LiteSVM's own blockhash moves.
        self._svm.expire_blockhash()

    def execute(self, transaction: VersionedTransaction) -> Outcome:
        """Run a transaction and keep its effects. Raises VmPanicError on a defect of the VM."""
        try:
            result = self._svm.send_transaction(transaction)
        except BaseException as exc:
            raise _translated(exc, "executing a transaction") from exc
        if isinstance(result, FailedTransactionMetadata):
            return Outcome(_error(result), result.meta(), {})
        return Outcome(None, result, {})

    def simulate(self, transaction: VersionedTransaction) -> Outcome:
        """Run a transaction and keep nothing. Raises VmPanicError on a defect of the VM."""
        try:
            result = self._svm.simulate_transaction(transaction)
        except BaseException as exc:
            raise _translated(exc, "simulating a transaction") from exc
        if isinstance(result, FailedTransactionMetadata):
            return Outcome(_error(result), result.meta(), {})
        return Outcome(None, result.meta(), dict(result.post_accounts()))


class _Failure(msgspec.Struct):
    err: Any


_failure_decoder = msgspec.json.Decoder(_Failure)


def _error(result: FailedTransactionMetadata) -> Any:
    # serde writes a TransactionError exactly as the RPC interface shows it.
    return _failure_decoder.decode(result.to_json()).err


def _translated(exc: BaseException, doing: str) -> BaseException:
    """What a caller can catch of an exception that came out of the VM."""
    return VmPanicError(f"the VM panicked while {doing}: {exc}") if _is_panic(exc) else exc


def _is_panic(exc: BaseException) -> bool:
    """A Rust panic arrives as a BaseException of a class that cannot be imported."""
    return type(exc).__name__ == "PanicException"
