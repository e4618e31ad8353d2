"""What a watch needs of the venue: what accounts mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from solders.pubkey import Pubkey

from keeper.domain.orders import Market, OrderFields
from keeper.solana.client import AccountBytes


class Reader(Protocol):
    """What the watched program's accounts mean: `keeper.venue.Venue` is one. Each raises MalformedAccount.

    An account's type is told by its first eight bytes. `pending_filter` is the RPC filter for orders that are pending.
    """

    id: Pubkey
    market_discriminator: bytes
    order_discriminator: bytes
    pending_filter: Mapping[str, Any]

    def market(self, account: AccountBytes | None, slot: int) -> Market | None:
        """The market that the account was as of `slot`."""
        ...

    def order_fields(self, address: Pubkey, data: bytes) -> OrderFields:
        """An order's fields."""
        ...
