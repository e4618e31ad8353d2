"""What the bank tells those who listen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from solders.account import Account
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.localnet.chain import Block
from keeper.localnet.history import Landed


class Observer(Protocol):
    """What wants to know of changes. Called at once, on the bank's thread; must not block or raise."""

    def received(self, signature: Signature) -> None:
        """A transaction arrived; whether it lands is not known."""

    def written(self, slot: int, accounts: Mapping[Pubkey, Account | None]) -> None:
        """These accounts were stored in the tip `slot`; None means closed."""

    def landed(self, landed: Landed) -> None:
        """A transaction is in the tip block, failed or not."""

    def advanced(self, tip: Block, confirmed: Sequence[Block], final: Sequence[Block]) -> None:
        """A block began; the others became confirmed or final, oldest first, and can still be read."""

    def reverted(self, tip: Block, accounts: Mapping[Pubkey, Account | None], confirmed: bool) -> None:
        """A fork took blocks away: these accounts are as they were before. `confirmed`: even that level was."""
