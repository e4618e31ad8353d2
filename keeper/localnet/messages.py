"""Reading messages: which accounts a transaction names and which it may write."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from solders.account import Account
from solders.address_lookup_table_account import AddressLookupTable
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey


class Keys(NamedTuple):
    """All accounts of a message: the static ones, then the writable and the read-only looked-up ones."""

    addresses: tuple[Pubkey, ...]
    writable: tuple[bool, ...]
    loaded_writable: int


def writable_flags(message: Message | MessageV0) -> list[bool]:
    """For each static key of a message whether it is writable, as the message's header says."""
    header, count = message.header, len(message.account_keys)
    signers = header.num_required_signatures
    writable_signers = signers - header.num_readonly_signed_accounts
    writable_end = count - header.num_readonly_unsigned_accounts
    return [index < writable_signers or signers <= index < writable_end for index in range(count)]


def resolve_keys(message: Message | MessageV0, account: Callable[[Pubkey], Account | None]) -> Keys:
    """The accounts of a message, lookup tables read through `account`.

    Raises LookupError with the name of the transaction error when a table does not serve.
    """
    static, writable = message.account_keys, writable_flags(message)
    lookups = message.address_table_lookups if isinstance(message, MessageV0) else ()
    if not lookups:
        return Keys(tuple(static), tuple(writable), 0)
    loaded_writable: list[Pubkey] = []
    loaded_readonly: list[Pubkey] = []
    for lookup in lookups:
        table = account(lookup.account_key)
        if table is None:
            raise LookupError("AddressLookupTableNotFound")
        try:
            addresses = AddressLookupTable.deserialize(table.data).addresses
        except ValueError:
            raise LookupError("InvalidAddressLookupTableData") from None
        try:
            loaded_writable += [addresses[index] for index in lookup.writable_indexes]
            loaded_readonly += [addresses[index] for index in lookup.readonly_indexes]
        except IndexError:
            raise LookupError("InvalidAddressLookupTableIndex") from None
    flags = (*writable, *[True] * len(loaded_writable), *[False] * len(loaded_readonly))
    return Keys((*static, *loaded_writable, *loaded_readonly), flags, len(loaded_writable))
