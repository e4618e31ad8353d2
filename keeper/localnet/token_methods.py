"""RPC methods about token accounts and mints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from solders.account import Account
from solders.pubkey import Pubkey
from solders.token.state import TokenAccount

from keeper.localnet.accounts import address_text, check_base58_size
from keeper.localnet.bank import Bank
from keeper.localnet.errors import invalid_params
from keeper.localnet.params import Params, parse_pubkey
from keeper.localnet.parsed import show_account
from keeper.localnet.tokens import PROGRAMS, decimals_of, mint, token_account, ui_amount
from keeper.localnet.view import View, view_of

_MOST_LARGEST: Final = 20


def get_token_account_balance(bank: Bank, params: Params) -> Any:
    """The amount that a token account holds."""
    address = params.pubkey(0, "address")
    view = view_of(bank, params.config(1))
    held = token_account(bank.account(address, view.commitment))
    if held is None:
        raise invalid_params("Invalid param: not a Token account")
    decimals = decimals_of(held.mint, bank.reader(view.commitment))
    if decimals is None:
        raise invalid_params("Invalid param: mint could not be unpacked")
    return view.answer(ui_amount(held.amount, decimals))


def get_token_supply(bank: Bank, params: Params) -> Any:
    """The amount that a mint has issued."""
    address = params.pubkey(0, "mint")
    view = view_of(bank, params.config(1))
    found = mint(bank.account(address, view.commitment))
    if found is None:
        raise invalid_params("Invalid param: not a Token mint")
    return view.answer(ui_amount(found.supply, found.decimals))


def get_token_largest_accounts(bank: Bank, params: Params) -> Any:
    """The 20 token accounts of a mint that hold most."""
    address = params.pubkey(0, "mint")
    view = view_of(bank, params.config(1))
    found = mint(bank.account(address, view.commitment))
    if found is None:
        raise invalid_params("Invalid param: not a Token mint")
    held = [(token.amount, str(key)) for key, _, token in _token_accounts(bank, view) if token.mint == address]
    held.sort(key=lambda entry: (-entry[0], entry[1]))
    return view.answer([{"address": key} | ui_amount(amount, found.decimals) for amount, key in held[:_MOST_LARGEST]])


def get_token_accounts_by_owner(bank: Bank, params: Params) -> Any:
    """The token accounts of an owner, of one mint or one token program."""
    return _found(bank, params, lambda token: token.owner)


def get_token_accounts_by_delegate(bank: Bank, params: Params) -> Any:
    """The token accounts that a delegate may spend from, of one mint or one token program."""
    return _found(bank, params, lambda token: token.delegate)


def _found(bank: Bank, params: Params, who: Callable[[TokenAccount], Pubkey | None]) -> Any:
    address, wanted, config = params.pubkey(0, "address"), params.value(1, "filter"), params.config(2)
    view = view_of(bank, config)
    of_mint, of_program = _filter(bank, view, wanted)
    encoding, data_slice = config.encoding("binary"), config.data_slice()
    shown = []
    for key, account, token in _token_accounts(bank, view):
        if who(token) != address or of_mint not in (None, token.mint) or of_program not in (None, account.owner):
            continue
        check_base58_size(account, encoding, data_slice)
        data = show_account(key, account, encoding, bank.reader(view.commitment), data_slice)
        shown.append({"pubkey": address_text(key), "account": data})
    return view.answer(shown)


def _filter(bank: Bank, view: View, wanted: Any) -> tuple[Pubkey | None, Pubkey | None]:
    """The mint and the program that are asked for; one of them is None."""
    match wanted:
        case {"mint": str(text)}:
            address = parse_pubkey(text)
            if mint(bank.account(address, view.commitment)) is None:
                raise invalid_params("Invalid param: Token mint could not be unpacked")
            return address, None
        case {"programId": str(text)}:
            program = parse_pubkey(text)
            if program not in PROGRAMS:
                raise invalid_params("Invalid param: unrecognized Token program id")
            return None, program
    raise invalid_params("Invalid params: the filter needs a mint or a programId.")


def _token_accounts(bank: Bank, view: View) -> Iterator[tuple[Pubkey, Account, TokenAccount]]:
    for program in PROGRAMS:
        for key, account in bank.owned_by(program, view.commitment):
            token = token_account(account)
            if token is not None:
                yield key, account, token
