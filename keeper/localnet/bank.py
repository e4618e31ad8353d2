"""The bank: one chain on one VM. Everything the RPC server says is asked here.

It is synchronous, knows no sockets and no event loop, and is not thread-safe: use it from the thread that
runs the server. A test that runs the chain in its own process can move it by hand.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from solders.account import Account
from solders.epoch_schedule import EpochSchedule
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import TransactionMetadata

from keeper.localnet.chain import FORWARDING_DELAY, MAX_BLOCKHASH_AGE, Block, Chain
from keeper.localnet.commitment import Commitment
from keeper.localnet.faucet import FAUCET_LAMPORTS, Faucet
from keeper.localnet.fees import fee_of
from keeper.localnet.history import History, Landed
from keeper.localnet.messages import resolve_keys
from keeper.localnet.observer import Observer
from keeper.localnet.tokens import NATIVE_MINT, names_a_token_program, native_mint, token_balances
from keeper.localnet.versions import Versions
from keeper.localnet.vm import BORN_WITH, Outcome, Vm, VmPanicError

_LOADED_BASE = 64  # what each loaded account counts beside its data (TRANSACTION_ACCOUNT_BASE_SIZE)


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a transaction would do on top of `block`. `meta` is None when it was refused before it ran.

    `loaded_bytes` is the size of the accounts that it loads, as their limit counts it (SIMD-0186).
    """

    block: Block
    err: Any
    meta: TransactionMetadata | None
    post_accounts: Mapping[Pubkey, Account]
    loaded_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BankSettings:
    """How the chain behaves.

    `confirmed_slots` and `finalized_slots`: how many blocks follow a block before it has that commitment.
    `status_cache_blocks`: how long getSignatureStatuses finds a signature without searching the history.
    `history_transactions` and `history_slots` bound the memory of what is past. `seed` makes the genesis
    hash, the blockhashes and the node's keys repeatable; None draws one.
    """

    confirmed_slots: int = 1
    finalized_slots: int = 31
    status_cache_blocks: int = 300
    history_transactions: int = 50_000
    history_slots: int = 10_000
    seed: int | None = None
    clock: Callable[[], float] = field(default=time.time)


class Bank:
    """Slots, transactions and accounts of one chain, with commitment levels and forks.

    A transaction runs at once, in the block being filled. The node sends once and never rebroadcasts:
    what a fork drops is gone until somebody sends it again. Durable nonces are not honoured: a blockhash
    that no recent block has is BlockhashNotFound.
    """

    def __init__(self, settings: BankSettings | None = None) -> None:
        self.settings = settings or BankSettings()
        seed = os.urandom(32) if self.settings.seed is None else b"%d" % self.settings.seed
        self._clock = self.settings.clock
        self._clock_offset_s = 0.0
        self._vm = Vm()
        self.chain = Chain(
            seed=seed,
            time=int(self._clock()),
            confirmed_lag=self.settings.confirmed_slots,
            finalized_lag=self.settings.finalized_slots,
            history_slots=self.settings.history_slots,
        )
        self.history = History(
            limit=self.settings.history_transactions,
            recent_blocks=max(self.settings.status_cache_blocks, MAX_BLOCKHASH_AGE + 2),
        )
        self._versions = Versions(self._vm)
        for address in BORN_WITH:
            self._versions.index(address)
        self.identity = Keypair.from_seed(sha256(b"identity" + seed).digest())
        self._faucet = Faucet(Keypair.from_seed(sha256(b"faucet" + seed).digest()))
        self._observers: list[Observer] = []
        self._held: list[VersionedTransaction] | None = None
        self._to_lose = 0
        self.slots_behind: int | None = None
        """Set it to make the node call itself unhealthy by that many slots; None is healthy."""
        self.genesis_lamports = FAUCET_LAMPORTS
        self.set_account(self._faucet.address, Account(FAUCET_LAMPORTS, b"", Pubkey.default()))
        self.set_account(NATIVE_MINT, native_mint())
        self._vm.begin_block(0, self.chain.tip.time, self.chain.slot_hashes)

    def __repr__(self) -> str:
        return f"<Bank {self.chain!r} {self.history!r}>"

    # -- time ---------------------------------------------------------------------------------------

    def advance(self, *, skip: int = 0) -> Block:
        """Begin the next block and return it; `skip` slot numbers before it get none."""
        if self.chain.tip is self.chain.root:
            self._versions.finalize(self.chain.root)  # nobody reads behind genesis
        confirmed, final = self.chain.extend(self._now(), skip=skip)
        tip = self.chain.tip
        self._vm.begin_block(tip.slot, tip.time, self.chain.slot_hashes)
        for observer in self._observers:
            observer.advanced(tip, confirmed, final)
        for block in final:
            self._versions.finalize(block)
            block.shrink()
        self.history.forget(tip.height)
        return tip

    def advance_clock(self, seconds: float) -> None:
        """Move the chain's time ahead of (or back towards) wall time, from the next block on and at once."""
        self._clock_offset_s += seconds
        self.chain.tip.time = self._now()
        self._vm.set_time(self.chain.tip.slot, self.chain.tip.time)

    def drop_slots_after(self, slot: int) -> list[Signature]:
        """Take a fork: the blocks after `slot` never were, and a new block follows it.

        Accounts are as they were at the end of `slot`; the dropped transactions are unknown again and may
        land again while their blockhash is one of this fork's. Returns their signatures, in order. As with a
        validator, account subscriptions report the restored states; program subscriptions say nothing.

        Raises ValueError when `slot` is not a block of this fork at or after the final one.
        """
        before = self.chain.at(Commitment.CONFIRMED)
        dropped = self.chain.drop_after(slot)
        restored: dict[Pubkey, None] = {}
        gone: list[Signature] = []
        for block in dropped:
            restored.update(dict.fromkeys(self._versions.undo(block)))
            for landed in reversed(block.transactions):
                self.history.drop_last(landed)
                gone.append(landed.signature)
        tip = self.advance()
        if dropped:
            accounts = {address: self._vm.account(address) for address in restored}
            for observer in self._observers:
                observer.reverted(tip, accounts, before.slot > slot)
        gone.reverse()
        return gone

    def _now(self) -> int:
        parent = self.chain.block(self.chain.tip.parent)
        return max(int(self._clock() + self._clock_offset_s), parent.time if parent else 0)

    # -- accounts -----------------------------------------------------------------------------------

    def account(self, address: Pubkey, commitment: Commitment = Commitment.PROCESSED) -> Account | None:
        """The account at that commitment; None when it does not exist."""
        if commitment is Commitment.PROCESSED:
            return self._vm.account(address)
        return self._versions.at(address, self.chain.at(commitment).slot)

    def reader(self, commitment: Commitment) -> Callable[[Pubkey], Account | None]:
        """What reads accounts at that commitment, for those who need several."""
        return partial(self.account, commitment=commitment)

    def account_at(self, address: Pubkey, slot: int) -> Account | None:
        """The account at the end of `slot`, which must not be before the final slot."""
        return self._versions.at(address, slot)

    def owned_by(
        self, program: Pubkey, commitment: Commitment = Commitment.PROCESSED
    ) -> Iterator[tuple[Pubkey, Account]]:
        """The accounts that a program owns at that commitment. Consume it before the chain moves."""
        return self._versions.owned_by(program, self.chain.at(commitment).slot)

    def set_account(self, address: Pubkey, account: Account | None) -> None:
        """Write an account by fiat, in the tip block; None closes it. Subscribers hear of it."""
        before = self._vm.account(address)
        self._vm.put(address, account)
        after = self._versions.written(self.chain.tip, address, before)
        for observer in self._observers:
            observer.written(self.chain.tip.slot, {address: after})

    def add_program(self, program_id: Pubkey, program: Path | bytes) -> None:
        """Deploy an SBF program from its `.so`. Raises ValueError when it is none, OSError when unreadable."""
        self._vm.add_program(program_id, program if isinstance(program, bytes) else program.read_bytes())
        self._versions.index(program_id)

    def now_ms(self) -> int:
        """The chain's time in unix milliseconds, finer than a block's."""
        return int((self._clock() + self._clock_offset_s) * 1000)

    @property
    def epoch_schedule(self) -> EpochSchedule:
        """How slots make epochs."""
        return self._vm.epoch_schedule

    def rent_exempt_minimum(self, size: int) -> int:
        """Lamports that an account of `size` bytes must hold to stay."""
        return self._vm.rent_exempt_minimum(size)

    # -- transactions -------------------------------------------------------------------------------

    def submit(self, transaction: VersionedTransaction, *, verified: bool = False) -> Signature:
        """Take a transaction as the network would: its signature comes back whether it lands or not.

        The transaction must be sanitized. `verified`: its signatures were checked already.
        """
        signature = transaction.signatures[0]
        for observer in self._observers:
            observer.received(signature)
        if self._to_lose:
            self._to_lose -= 1
        elif self._held is not None:
            self._held.append(transaction)
        else:
            self.land(transaction, verified=verified)
        return signature

    def land(self, transaction: VersionedTransaction, *, verified: bool = False) -> Landed | str:
        """Run a transaction in the tip block.

        Returns it when it is in the block, even as a failed one. Otherwise the name of the error that kept
        it out: it left no trace and paid nothing.
        """
        refusal = self._refusal(transaction, verified=verified)
        if refusal is not None:
            return refusal
        message, tip, vm = transaction.message, self.chain.tip, self._vm
        try:
            keys, writable, loaded_writable = resolve_keys(message, vm.account)
        except LookupError as exc:
            return str(exc)
        payer, fee = keys[0], fee_of(message)
        before = {key: vm.account(key) for key, writes in zip(keys, writable, strict=True) if writes}
        pre_balances = tuple([vm.balance(key) for key in keys])
        moves_tokens = names_a_token_program(keys)
        pre_tokens = token_balances(keys, vm.account) if moves_tokens else []
        if fee.priority:
            # LiteSVM charges the base fee only: take the priority fee first, as a validator takes both.
            if pre_balances[0] < fee.total:
                return "InsufficientFundsForFee"
            vm.put(payer, _less(before[payer], fee.priority))
        try:
            outcome = vm.execute(transaction)
        except VmPanicError:
            vm.put(payer, before[payer])
            raise
        if outcome.err is not None and vm.balance(payer) == pre_balances[0] - fee.priority:
            # It could not even pay: no validator would put it in a block.
            vm.put(payer, before[payer])
            return outcome.err if isinstance(outcome.err, str) else str(next(iter(outcome.err)))
        # A failed transaction stores its fee payer and nothing else.
        stored = before if outcome.err is None else (payer,)
        after = {key: self._versions.written(tip, key, before[key]) for key in stored}
        landed = Landed(
            signature=transaction.signatures[0],
            transaction=transaction,
            slot=tip.slot,
            height=tip.height,
            time=tip.time,
            err=outcome.err,
            meta=outcome.meta,
            fee=fee.total,
            keys=keys,
            loaded_writable=loaded_writable,
            pre_balances=pre_balances,
            post_balances=tuple([vm.balance(key) for key in keys]),
            pre_tokens=pre_tokens,
            post_tokens=token_balances(keys, vm.account) if moves_tokens else [],
        )
        self.history.add(landed)
        tip.add(landed, before, fee.price)
        for observer in self._observers:
            observer.written(tip.slot, after)
            observer.landed(landed)
        return landed

    def simulate(
        self,
        transaction: VersionedTransaction,
        commitment: Commitment = Commitment.PROCESSED,
        *,
        replace_blockhash: bool = False,
    ) -> Simulation:
        """Run a transaction on the state at `commitment` and keep nothing. Signatures are not looked at.

        A blockhash must be known at that commitment and have six blocks more to live than when landing,
        as with a validator, which keeps them for the way to the leader.
        """
        block = self.chain.at(commitment)
        message = transaction.message
        if not replace_blockhash:
            age = self.chain.age(message.recent_blockhash, block)
            if age is None or age > MAX_BLOCKHASH_AGE - FORWARDING_DELAY:
                return Simulation(block, "BlockhashNotFound", None, {})
            known = self.history.get(transaction.signatures[0])
            if known is not None and known.slot <= block.slot:
                return Simulation(block, "AlreadyProcessed", None, {})
        try:
            keys = resolve_keys(message, self._vm.account).addresses
        except LookupError as exc:
            return Simulation(block, str(exc), None, {})
        with self._as_of(block, keys):
            loaded = sum(_LOADED_BASE + len(found.data) for key in keys if (found := self._vm.account(key)) is not None)
            outcome = self._simulate_with_fee(transaction, keys[0])
        return Simulation(block, outcome.err, outcome.meta, outcome.post_accounts, loaded)

    def airdrop(self, address: Pubkey, lamports: int) -> Signature:
        """Send lamports from the faucet, in a transaction like any other; returns its signature."""
        gift = self._faucet.gift(address, lamports, self.chain.tip.blockhash)
        return self.submit(gift, verified=True)

    # -- faults -------------------------------------------------------------------------------------

    def lose_transactions(self, count: int) -> None:
        """The next `count` transactions get their OK and are never heard of again."""
        self._to_lose = count

    def hold_transactions(self) -> None:
        """From now on transactions get their OK and wait on the way."""
        if self._held is None:
            self._held = []

    def release_transactions(self) -> list[Landed | str]:
        """Let what was held arrive now, in order, and hold no longer. The results are those of `land`."""
        held, self._held = self._held or [], None
        return [self.land(transaction) for transaction in held]

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of every change from now on."""
        self._observers.append(observer)

    # -- inside -------------------------------------------------------------------------------------

    def _refusal(self, transaction: VersionedTransaction, *, verified: bool) -> str | None:
        """Why a transaction may not even be tried; None when it may."""
        age = self.chain.age(transaction.message.recent_blockhash, self.chain.tip)
        # The tip is not complete, and its own height does not count yet: a hash taken at height h still
        # lands at h + 151, one above the lastValidBlockHeight that goes with it.
        if age is None or age > MAX_BLOCKHASH_AGE + 1:
            return "BlockhashNotFound"
        if transaction.signatures[0] in self.history:
            return "AlreadyProcessed"
        # Last, because it is what costs: most of a transaction's time goes here.
        if not (verified or all(transaction.verify_with_results())):
            return "SignatureFailure"
        return None

    def _simulate_with_fee(self, transaction: VersionedTransaction, payer: Pubkey) -> Outcome:
        priority = fee_of(transaction.message).priority
        before = self._vm.account(payer) if priority else None
        if before is None:
            return self._vm.simulate(transaction)
        self._vm.put(payer, _less(before, min(priority, before.lamports)))
        try:
            return self._vm.simulate(transaction)
        finally:
            self._vm.put(payer, before)

    @contextmanager
    def _as_of(self, block: Block, addresses: Sequence[Pubkey]) -> Iterator[None]:
        """Let the VM see these accounts, and the clock, as they were at the end of `block`."""
        tip = self.chain.tip
        if block is tip:
            yield
            return
        old = self._versions.changed_after(addresses, block.slot)
        now = {address: self._vm.account(address) for address in old}
        for address, account in old.items():
            self._vm.put(address, account)
        self._vm.set_time(block.slot, block.time)
        try:
            yield
        finally:
            for address, account in now.items():
                self._vm.put(address, account)
            self._vm.set_time(tip.slot, tip.time)


def _less(account: Account | None, lamports: int) -> Account | None:
    if account is None:
        return None
    return Account(account.lamports - lamports, account.data, account.owner, account.executable, account.rent_epoch)
