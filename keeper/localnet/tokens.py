"""Token accounts and mints of SPL Token and Token-2022, as the RPC interface shows them.

Both programs lay an account and a mint out alike at their beginning. Token-2022 puts a byte that says which it is
behind the longest of the two, and extensions behind that; the extensions are not read here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from solders.account import Account
from solders.pubkey import Pubkey
from solders.token.state import Mint, TokenAccount, TokenAccountState

from keeper.localnet.accounts import address_text

TOKEN_PROGRAM: Final = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
PROGRAMS: Final = {
    TOKEN_PROGRAM: "spl-token",
    Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"): "spl-token-2022",
}
"""The token programs, and the names that parsed accounts give them."""

NATIVE_MINT: Final = Pubkey.from_string("So11111111111111111111111111111111111111112")
"""The mint of wrapped SOL."""

_MINT_BYTES: Final = 82
_ACCOUNT_BYTES: Final = 165
_IS_MINT, _IS_ACCOUNT = 1, 2
_NATIVE_DECIMALS: Final = 9
_STATES: Final = {
    int(TokenAccountState.Uninitialized): "uninitialized",
    int(TokenAccountState.Initialized): "initialized",
    int(TokenAccountState.Frozen): "frozen",
}

Reader = Callable[[Pubkey], Account | None]


def native_mint() -> Account:
    """The account of the mint of wrapped SOL, which a validator's genesis has."""
    data = bytearray(_MINT_BYTES)
    data[44], data[45] = _NATIVE_DECIMALS, 1  # decimals, and that it is initialized; it has no authorities
    return Account(1_000_000_000, bytes(data), TOKEN_PROGRAM)


def token_account(account: Account | None) -> TokenAccount | None:
    """The token account in an account; None when there is none."""
    if account is None or not _is(account, _ACCOUNT_BYTES, _IS_ACCOUNT):
        return None
    parsed = TokenAccount.from_bytes(account.data[:_ACCOUNT_BYTES])
    return None if int(parsed.state) == int(TokenAccountState.Uninitialized) else parsed


def mint(account: Account | None) -> Mint | None:
    """The mint in an account; None when there is none."""
    if account is None or not _is(account, _MINT_BYTES, _IS_MINT):
        return None
    parsed = Mint.from_bytes(account.data[:_MINT_BYTES])
    return parsed if parsed.is_initialized else None


def ui_amount(amount: int, decimals: int) -> dict[str, Any]:
    """An amount in the smallest unit, and as people read it."""
    whole, part = divmod(amount, 10**decimals)
    text = f"{whole}.{part:0{decimals}}".rstrip("0").rstrip(".") if decimals else str(whole)
    return {"amount": str(amount), "decimals": decimals, "uiAmount": amount / 10**decimals, "uiAmountString": text}


def parsed_token(account: Account, read: Reader) -> dict[str, Any] | None:
    """What jsonParsed shows of a token account or a mint; None where a validator would show bytes, too.

    `read` finds the mint, whose decimals a token account does not hold.
    """
    if (found := mint(account)) is not None:
        return {
            "type": "mint",
            "info": {
                "decimals": found.decimals,
                "freezeAuthority": _text(found.freeze_authority),
                "isInitialized": True,
                "mintAuthority": _text(found.mint_authority),
                "supply": str(found.supply),
            },
        }
    held = token_account(account)
    if held is None or (decimals := decimals_of(held.mint, read)) is None:
        return None
    info: dict[str, Any] = {
        "isNative": held.is_native is not None,
        "mint": address_text(held.mint),
        "owner": address_text(held.owner),
        "state": _STATES[int(held.state)],
        "tokenAmount": ui_amount(held.amount, decimals),
    }
    if held.delegate is not None:
        info |= {
            "delegate": address_text(held.delegate),
            "delegatedAmount": ui_amount(held.delegated_amount, decimals),
        }
    if held.close_authority is not None:
        info["closeAuthority"] = address_text(held.close_authority)
    if held.is_native is not None:
        info["rentExemptReserve"] = ui_amount(held.is_native, decimals)
    return {"type": "account", "info": info}


def decimals_of(address: Pubkey, read: Reader) -> int | None:
    """How many decimals amounts of this mint have; None when it is no mint."""
    if address == NATIVE_MINT:
        return _NATIVE_DECIMALS
    found = mint(read(address))
    return None if found is None else found.decimals


def names_a_token_program(keys: Sequence[Pubkey]) -> bool:
    """Whether a transaction with these accounts can move tokens: only then are its balances recorded."""
    return any(program in keys for program in PROGRAMS)


def token_balances(keys: Sequence[Pubkey], read: Reader) -> list[dict[str, Any]]:
    """The token balances of a transaction's accounts, as `preTokenBalances` and `postTokenBalances` show them."""
    shown = []
    for index, key in enumerate(keys):
        account = read(key)
        held = token_account(account)
        if account is None or held is None or (decimals := decimals_of(held.mint, read)) is None:
            continue
        amount = ui_amount(held.amount, decimals)
        # A ledger keeps nothing for an empty account's number, and shows null.
        amount["uiAmount"] = amount["uiAmount"] or None
        shown.append(
            {
                "accountIndex": index,
                "mint": address_text(held.mint),
                "owner": address_text(held.owner),
                "programId": address_text(account.owner),
                "uiTokenAmount": amount,
            }
        )
    return shown


def _is(account: Account, size: int, kind: int) -> bool:
    if account.owner not in PROGRAMS:
        return False
    data = account.data
    # With extensions, the byte behind the room of a token account says which of the two it is.
    return len(data) == size or (len(data) > _ACCOUNT_BYTES and data[_ACCOUNT_BYTES] == kind)


def _text(address: Pubkey | None) -> str | None:
    return None if address is None else address_text(address)
