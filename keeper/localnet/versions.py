"""Account state as of earlier slots, and which accounts a program owns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from solders.account import Account
from solders.pubkey import Pubkey

from keeper.localnet.chain import Block
from keeper.localnet.vm import Vm


class Versions:
    """Answers reads as of any block from the final one to the tip.

    The VM holds the newest state only. Each block keeps what its accounts were before it (`Block.before`),
    and here each such account has its list of (slot, state before that slot), oldest first. An entry is
    needed while a read or a fork could go back behind its slot: until that block is final.
    """

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._before: dict[Pubkey, list[tuple[int, Account | None]]] = {}
        self._owner_of: dict[Pubkey, Pubkey] = {}
        # Inner dicts are ordered sets: replies come in a stable order.
        self._owned_by: dict[Pubkey, dict[Pubkey, None]] = {}

    def __repr__(self) -> str:
        return f"<Versions of {len(self._owner_of)} accounts, {len(self._before)} changed since the final slot>"

    def at(self, address: Pubkey, slot: int) -> Account | None:
        """The account as it was at the end of `slot`; None when it did not exist."""
        for changed_in, before in self._before.get(address, ()):
            if changed_in > slot:
                return before
        return self._vm.account(address)

    def changed_after(self, addresses: Iterable[Pubkey], slot: int) -> dict[Pubkey, Account | None]:
        """Those of `addresses` that changed after `slot`, with their state at `slot`."""
        old: dict[Pubkey, Account | None] = {}
        for address in addresses:
            for changed_in, before in self._before.get(address, ()):
                if changed_in > slot:
                    old[address] = before
                    break
        return old

    def owned_by(self, program: Pubkey, slot: int) -> Iterator[tuple[Pubkey, Account]]:
        """Accounts that `program` owned at the end of `slot`."""
        now = self._owned_by.get(program, {})
        for address in now:
            account = self.at(address, slot)
            if account is not None and account.owner == program:
                yield address, account
        for address in self._before:
            if address not in now:  # it may have left the program after `slot`
                account = self.at(address, slot)
                if account is not None and account.owner == program:
                    yield address, account

    def written(self, block: Block, address: Pubkey, before: Account | None) -> Account | None:
        """Note that `address` was written in `block`, `before` being its earlier state; returns its new one."""
        if address not in block.before:
            block.before[address] = before
            self._before.setdefault(address, []).append((block.slot, before))
        after = self._vm.account(address)
        self._index(address, after)
        return after

    def index(self, address: Pubkey) -> None:
        """Learn of an account that no transaction wrote."""
        self._index(address, self._vm.account(address))

    def finalize(self, block: Block) -> None:
        """Nobody can read behind `block` any more."""
        for address in block.before:
            changes = self._before[address]
            # Blocks become final in order, so it is the first entry.
            changes.pop(0)
            if not changes:
                del self._before[address]
        block.before.clear()

    def undo(self, block: Block) -> list[Pubkey]:
        """Put the accounts of the newest block back; returns their addresses."""
        for address, before in block.before.items():
            changes = self._before[address]
            changes.pop()
            if not changes:
                del self._before[address]
            self._vm.put(address, before)
            self._index(address, before)
        return list(block.before)

    def _index(self, address: Pubkey, account: Account | None) -> None:
        owner = None if account is None else account.owner
        known = self._owner_of.get(address)
        if owner == known:
            return
        if known is not None:
            del self._owned_by[known][address]
        if owner is None:
            self._owner_of.pop(address, None)
        else:
            self._owner_of[address] = owner
            self._owned_by.setdefault(owner, {})[address] = None
