"""Accounts for what is concluded for good when one is not there: no node is believed alone that says so.

A node behind a load balancer, or one that lost an index, answers null for an account that exists. Taken for the truth
that closes an order which is there, or makes an alarm of a fill whose position is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.base58 import base58
from keeper.domain.errors import ChainError, Transient
from keeper.solana.client import ACCOUNTS_PER_CALL, CONFIRMED, AccountBytes, ChainClient, accounts_in

_WITHIN_S: Final = 2.0


async def accounts_or_gone(
    client: ChainClient, addresses: Sequence[Pubkey], *, min_context_slot: int | None = None
) -> tuple[int, list[AccountBytes | None]]:
    """As `client.accounts` at confirmed. What that finds not to be there every endpoint is asked for once more, the one
    that said so too, at a slot as new: it is there if any of them has it. Raises ChainError when none answers.
    """
    slot, found = await client.accounts(addresses, min_context_slot=min_context_slot)
    missing = [i for i, account in enumerate(found) if account is None]
    for start in range(0, len(missing), ACCOUNTS_PER_CALL):
        asked = missing[start : start + ACCOUNTS_PER_CALL]
        config = {"commitment": CONFIRMED, "encoding": "base64", "minContextSlot": slot}
        params = [base58(addresses[i]) for i in asked], config
        answered = False
        for reply in await client.pool.each("getMultipleAccounts", *params, deadline_s=_WITHIN_S):
            with suppress(ChainError):
                told_at, told = accounts_in(reply, [addresses[i] for i in asked])
                if told_at < slot:
                    continue  # a node that is behind
                for i, account in zip(asked, told, strict=True):
                    found[i] = account or found[i]
                answered = True
        if not answered:
            raise Transient("one node says that accounts are not there, and none confirms it")
    return slot, found
