"""RPC methods that read accounts."""

from __future__ import annotations

from typing import Any

from keeper.localnet.accounts import address_text, check_base58_size, parse_filters
from keeper.localnet.bank import Bank
from keeper.localnet.params import Params, parse_pubkey
from keeper.localnet.parsed import show_account
from keeper.localnet.view import view_of

MAX_MULTIPLE_ACCOUNTS = 100


def get_balance(bank: Bank, params: Params) -> Any:
    """Lamports of an account; 0 when it does not exist."""
    address = params.pubkey(0, "address")
    view = view_of(bank, params.config(1))
    account = bank.account(address, view.commitment)
    return view.answer(0 if account is None else account.lamports)


def get_account_info(bank: Bank, params: Params) -> Any:
    """One account, or null."""
    address = params.pubkey(0, "address")
    config = params.config(1)
    view = view_of(bank, config)
    encoding, data_slice = config.encoding("binary"), config.data_slice()
    account = bank.account(address, view.commitment)
    if account is None:
        return view.answer(None)
    check_base58_size(account, encoding, data_slice)
    return view.answer(show_account(address, account, encoding, bank.reader(view.commitment), data_slice))


def get_multiple_accounts(bank: Bank, params: Params) -> Any:
    """Up to 100 accounts in the order asked for, null for those that do not exist."""
    addresses = [parse_pubkey(text) for text in params.texts(0, "addresses", MAX_MULTIPLE_ACCOUNTS)]
    config = params.config(1)
    view = view_of(bank, config)
    encoding, data_slice = config.encoding("base64"), config.data_slice()
    shown: list[dict[str, Any] | None] = []
    read = bank.reader(view.commitment)
    for address in addresses:
        account = bank.account(address, view.commitment)
        if account is None:
            shown.append(None)
            continue
        check_base58_size(account, encoding, data_slice)
        shown.append(show_account(address, account, encoding, read, data_slice))
    return view.answer(shown)


def get_program_accounts(bank: Bank, params: Params) -> Any:
    """The accounts that a program owns and the filters allow."""
    program = params.pubkey(0, "program")
    config = params.config(1)
    filters = parse_filters(config.get("filters"))
    view = view_of(bank, config)
    encoding, data_slice = config.encoding("binary"), config.data_slice()
    shown = []
    read = bank.reader(view.commitment)
    for address, account in bank.owned_by(program, view.commitment):
        if filters.allow(account):
            check_base58_size(account, encoding, data_slice)
            data = show_account(address, account, encoding, read, data_slice)
            shown.append({"pubkey": address_text(address), "account": data})
    return view.answer(shown) if config.flag("withContext") else shown
