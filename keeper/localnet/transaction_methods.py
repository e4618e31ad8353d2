"""RPC methods that send, try and look up transactions."""

from __future__ import annotations

from typing import Any

from solders.account import Account
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.localnet.bank import Bank, Simulation
from keeper.localnet.chain import MAX_BLOCKHASH_AGE
from keeper.localnet.chain_methods import check_health
from keeper.localnet.commitment import Commitment
from keeper.localnet.errors import (
    PREFLIGHT_FAILURE,
    SIGNATURE_VERIFICATION_FAILURE,
    RpcError,
    invalid_params,
)
from keeper.localnet.history import Landed
from keeper.localnet.messages import resolve_keys
from keeper.localnet.params import Config, Params, parse_pubkey, parse_signature
from keeper.localnet.parsed import show_account
from keeper.localnet.transaction_errors import sentence
from keeper.localnet.transactions import (
    ENCODINGS,
    WIRE_ENCODINGS,
    decode_transaction,
    encode_transaction,
    inner_instructions,
    memo_of,
    return_data,
)
from keeper.localnet.view import at_least_confirmed, encoding_or_config, view_of

MAX_SIGNATURE_STATUSES = 256
MAX_SIGNATURES_FOR_ADDRESS = 1_000


def request_airdrop(bank: Bank, params: Params) -> Any:
    """Send lamports from the faucet; the signature."""
    return str(bank.airdrop(params.pubkey(0, "address"), params.number(1, "lamports")))


def send_transaction(bank: Bank, params: Params) -> Any:
    """Take a transaction; its signature, which proves nothing.

    Without skipPreflight it is verified and simulated first, at preflightCommitment. With it, a
    transaction that cannot land gets its signature just so. maxRetries is taken and has no effect: the
    transaction is executed, or refused, at once.
    """
    text, config = params.text(0, "transaction"), params.config(1)
    transaction = decode_transaction(text, config.encoding("base58", WIRE_ENCODINGS))
    config.number("maxRetries")
    skip = config.flag("skipPreflight")
    if skip:
        view_of(bank, config, name="", default=Commitment.PROCESSED)
    else:
        _preflight(bank, transaction, config)
    return str(bank.submit(transaction, verified=not skip))


def simulate_transaction(bank: Bank, params: Params) -> Any:
    """Run a transaction and keep nothing."""
    text, config = params.text(0, "transaction"), params.config(1)
    transaction = decode_transaction(text, config.encoding("base58", WIRE_ENCODINGS))
    view = view_of(bank, config)
    verify, replace = config.flag("sigVerify"), config.flag("replaceRecentBlockhash")
    if replace and verify:
        raise invalid_params("sigVerify may not be used with replaceRecentBlockhash")
    if verify:
        _verify(transaction)
    simulation = bank.simulate(transaction, view.commitment, replace_blockhash=replace)
    result = _simulation(simulation)
    result["accounts"] = _simulated_accounts(bank, transaction, simulation, config, view.commitment)
    if config.flag("innerInstructions"):
        meta = simulation.meta
        keys = () if meta is None else resolve_keys(transaction.message, bank.account).addresses
        result["innerInstructions"] = [] if meta is None else inner_instructions(meta, keys)
    if replace:
        result["replacementBlockhash"] = {
            "blockhash": str(view.block.blockhash),
            "lastValidBlockHeight": view.block.height + MAX_BLOCKHASH_AGE,
        }
    return view.answer(result)


def get_signature_statuses(bank: Bank, params: Params) -> Any:
    """What became of up to 256 signatures; null for one that is unknown here.

    Without searchTransactionHistory only the recent past is looked at. As with a validator, nothing is told of a
    transaction before its block is complete.
    """
    texts = params.texts(0, "signatures", MAX_SIGNATURE_STATUSES)
    signatures = [parse_signature(text) for text in texts]
    search = params.config(1).flag("searchTransactionHistory")
    view = view_of(bank, _PROCESSED)
    oldest = view.block.height - bank.settings.status_cache_blocks
    complete = bank.chain.complete
    statuses = []
    for signature in signatures:
        landed = bank.history.get(signature)
        known = landed is not None and landed.slot <= complete.slot and (search or landed.height >= oldest)
        statuses.append(_status(bank, landed) if landed is not None and known else None)
    return view.answer(statuses)


def get_signatures_for_address(bank: Bank, params: Params) -> Any:
    """Transactions that name an address, newest first, between `before` and `until`."""
    address, config = params.pubkey(0, "address"), params.config(1)
    view = view_of(bank, config)
    at_least_confirmed(view.commitment)
    limit = config.number("limit")
    limit = MAX_SIGNATURES_FOR_ADDRESS if limit is None else limit
    if not 1 <= limit <= MAX_SIGNATURES_FOR_ADDRESS:
        raise invalid_params(f"Invalid limit; max {MAX_SIGNATURES_FOR_ADDRESS}")
    before, until = config.get("before"), config.get("until")
    before = None if before is None else parse_signature(before)
    until = None if until is None else parse_signature(until)
    skipping = before is not None and before in bank.history
    shown: list[dict[str, Any]] = []
    for landed in bank.history.mentioning(address):
        if landed.signature == until or len(shown) == limit:
            break
        if not skipping and landed.slot <= view.block.slot:
            shown.append(
                {
                    "signature": str(landed.signature),
                    "slot": landed.slot,
                    "err": landed.err,
                    "memo": memo_of(landed),
                    "blockTime": landed.time,
                    "confirmationStatus": bank.chain.commitment_of(landed.slot).value,
                }
            )
        if landed.signature == before:
            skipping = False
    return shown


def get_transaction(bank: Bank, params: Params) -> Any:
    """A landed transaction with its meta data, or null."""
    signature, config = params.signature(0, "signature"), encoding_or_config(params, 1)
    view = view_of(bank, config)
    at_least_confirmed(view.commitment)
    landed = bank.history.get(signature)
    if landed is None or landed.slot > view.block.slot:
        return None
    max_version = config.number("maxSupportedTransactionVersion")
    return encode_transaction(landed, config.encoding("json", ENCODINGS), max_version)


_PROCESSED = Config({"commitment": "processed"})


def _preflight(bank: Bank, transaction: VersionedTransaction, config: Config) -> None:
    view = view_of(bank, config, name="preflightCommitment")
    _verify(transaction)
    check_health(bank)
    simulation = bank.simulate(transaction, view.commitment)
    if simulation.err is not None:
        raise RpcError(
            PREFLIGHT_FAILURE,
            f"Transaction simulation failed: {sentence(simulation.err)}",
            _simulation(simulation) | {"accounts": None},
        )


def _verify(transaction: VersionedTransaction) -> None:
    if not all(transaction.verify_with_results()):
        raise RpcError(SIGNATURE_VERIFICATION_FAILURE, "Transaction signature verification failure")


def _simulation(simulation: Simulation) -> dict[str, Any]:
    meta = simulation.meta
    return {
        "err": simulation.err,
        "innerInstructions": None,
        "loadedAccountsDataSize": simulation.loaded_bytes,
        "logs": [] if meta is None else meta.logs(),
        "replacementBlockhash": None,
        "returnData": None if meta is None else return_data(meta),
        "unitsConsumed": 0 if meta is None else meta.compute_units_consumed(),
    }


def _simulated_accounts(
    bank: Bank,
    transaction: VersionedTransaction,
    simulation: Simulation,
    config: Config,
    commitment: Commitment,
) -> list[dict[str, Any] | None] | None:
    wanted = config.get("accounts")
    if wanted is None:
        return None
    if not isinstance(wanted, dict) or not isinstance(wanted.get("addresses"), list):
        raise invalid_params("Invalid params: accounts needs addresses.")
    encoding = Config(wanted).encoding("base64")
    if encoding in ("binary", "base58"):
        raise invalid_params("base58 encoding not supported")
    addresses = Params([wanted["addresses"]]).texts(0, "addresses", 1 << 16)
    most = len(resolve_keys(transaction.message, bank.account).addresses)
    if len(addresses) > most:
        raise invalid_params(f"Too many accounts provided; max {most}")
    if simulation.err is not None:
        return [None] * len(addresses)

    def after(address: Pubkey) -> Account | None:
        return simulation.post_accounts.get(address) or bank.account(address, commitment)

    shown: list[dict[str, Any] | None] = []
    for address in map(parse_pubkey, addresses):
        account = after(address)
        gone = account is None or account.lamports == 0
        shown.append(None if account is None or gone else show_account(address, account, encoding, after))
    return shown


def _status(bank: Bank, landed: Landed) -> dict[str, Any]:
    level = bank.chain.commitment_of(landed.slot)
    final = level is Commitment.FINALIZED
    return {
        "slot": landed.slot,
        "confirmations": None if final else bank.chain.tip.height - landed.height,
        "err": landed.err,
        "status": {"Ok": None} if landed.err is None else {"Err": landed.err},
        "confirmationStatus": level.value,
    }
