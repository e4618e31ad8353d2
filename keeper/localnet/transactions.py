"""Transactions as the RPC interface takes and shows them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Any

from solders.instruction import CompiledInstruction
from solders.message import Message, MessageV0, from_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import TransactionMetadata

from keeper.localnet import base58
from keeper.localnet.errors import invalid_params, unsupported_transaction_version
from keeper.localnet.history import Landed
from keeper.localnet.messages import writable_flags
from keeper.localnet.parsed_instructions import MEMO_PROGRAMS, parse_instruction

MAX_TRANSACTION_BYTES = 1_232
WIRE_ENCODINGS = ("base58", "base64")
ENCODINGS = ("json", "jsonParsed", "base58", "base64")

_MAX_TEXT = {"base58": 1_683, "base64": 1_644}


def decode_transaction(text: str, encoding: str) -> VersionedTransaction:
    """The sanitized transaction of a wire text. Raises RpcError, worded as Agave does."""
    wire = _decode_wire(text, encoding, "VersionedTransaction")
    try:
        transaction = VersionedTransaction.from_bytes(wire)
    except Exception as exc:
        raise invalid_params(f"failed to deserialize VersionedTransaction: {exc}") from exc
    try:
        transaction.sanitize()
    except Exception as exc:
        raise invalid_params(f"invalid transaction: {exc}") from exc
    return transaction


def decode_message(text: str) -> Message | MessageV0:
    """The message of a base64 text. Raises RpcError."""
    wire = _decode_wire(text, "base64", "VersionedMessage")
    try:
        message = from_bytes_versioned(wire)
        unsigned = [Signature.default()] * message.header.num_required_signatures
        VersionedTransaction.populate(message, unsigned).sanitize()
    except Exception as exc:
        raise invalid_params(f"failed to deserialize VersionedMessage: {exc}") from exc
    return message


def version_of(transaction: VersionedTransaction) -> str | int:
    """`legacy` or the version number."""
    return "legacy" if isinstance(transaction.message, Message) else 0


def encode_transaction(landed: Landed, encoding: str, max_version: int | None) -> dict[str, Any]:
    """A landed transaction with its meta data, as getTransaction shows it.

    Raises RpcError when the transaction has a version that the caller does not take.
    """
    return _shown(landed, max_version, _meta(landed, encoding), _transaction(landed, encoding))


def transaction_accounts(landed: Landed, max_version: int | None) -> dict[str, Any]:
    """A landed transaction's accounts and balances alone, as getBlock shows it. Raises RpcError as above."""
    keys = {"accountKeys": _parsed_keys(landed), "signatures": [str(s) for s in landed.transaction.signatures]}
    return _shown(landed, max_version, _outcome(landed), keys)


def _shown(landed: Landed, max_version: int | None, meta: dict[str, Any], transaction: Any) -> dict[str, Any]:
    version = version_of(landed.transaction)
    if isinstance(version, int) and (max_version is None or version > max_version):
        raise unsupported_transaction_version(version)
    shown = {"blockTime": landed.time, "meta": meta, "slot": landed.slot, "transaction": transaction}
    if max_version is not None:
        shown["version"] = version
    return shown


def inner_instructions(
    meta: TransactionMetadata, keys: Sequence[Pubkey], encoding: str = "jsonParsed"
) -> list[dict[str, Any]]:
    """The instructions that programs called, grouped by the outer instruction; groups without any left out."""
    return [
        {
            "index": index,
            "instructions": [
                _instruction(inner.instruction(), keys, encoding, inner.stack_height())  # type: ignore[attr-defined]  # solders has it, its stub does not
                for inner in group
            ],
        }
        for index, group in enumerate(meta.inner_instructions())
        if group
    ]


def return_data(meta: TransactionMetadata) -> dict[str, Any] | None:
    """What the last program returned, or None when it returned nothing."""
    returned = meta.return_data()  # type: ignore[attr-defined]  # the stub has another name
    data = bytes(returned.data)
    if not data:
        return None
    return {"programId": str(returned.program_id), "data": [b64encode(data).decode(), "base64"]}


def memo_of(landed: Landed) -> str | None:
    """The memos of a transaction, each as `[length] text`, joined by semicolons."""
    if MEMO_PROGRAMS.isdisjoint(landed.keys):
        return None
    memos = [
        bytes(instruction.data).decode(errors="replace")
        for instruction in landed.transaction.message.instructions
        if landed.keys[instruction.program_id_index] in MEMO_PROGRAMS
    ]
    return "; ".join(f"[{len(memo.encode())}] {memo}" for memo in memos) or None


def _decode_wire(text: str, encoding: str, kind: str) -> bytes:
    longest = _MAX_TEXT[encoding]
    if len(text) > longest:
        raise invalid_params(
            f"{encoding} encoded {kind} too large: {len(text)} bytes "
            f"(max: encoded/raw {longest}/{MAX_TRANSACTION_BYTES})"
        )
    try:
        wire = b64decode(text, validate=True) if encoding == "base64" else base58.decode(text)
    except (ValueError, Base64Error) as exc:
        raise invalid_params(f"invalid {encoding} encoding: {exc}") from exc
    if len(wire) > MAX_TRANSACTION_BYTES:
        raise invalid_params(f"decoded {kind} too large: {len(wire)} bytes (max: {MAX_TRANSACTION_BYTES} bytes)")
    return wire


def _meta(landed: Landed, encoding: str) -> dict[str, Any]:
    meta = landed.meta
    static = len(landed.transaction.message.account_keys)
    readonly_from = static + landed.loaded_writable
    shown = _outcome(landed) | {
        "computeUnitsConsumed": meta.compute_units_consumed(),
        "innerInstructions": inner_instructions(meta, landed.keys, encoding),
        "logMessages": meta.logs(),
    }
    if encoding != "jsonParsed":  # there the key list says it
        shown["loadedAddresses"] = {
            "writable": [str(key) for key in landed.keys[static:readonly_from]],
            "readonly": [str(key) for key in landed.keys[readonly_from:]],
        }
    if (returned := return_data(meta)) is not None:
        shown["returnData"] = returned
    return shown


def _outcome(landed: Landed) -> dict[str, Any]:
    """The error, the fee, and each account's lamports and tokens before and after."""
    return {
        "err": landed.err,
        "fee": landed.fee,
        "postBalances": landed.post_balances,
        "postTokenBalances": landed.post_tokens,
        "preBalances": landed.pre_balances,
        "preTokenBalances": landed.pre_tokens,
        "rewards": [],
        "status": {"Ok": None} if landed.err is None else {"Err": landed.err},
    }


def _transaction(landed: Landed, encoding: str) -> Any:
    transaction = landed.transaction
    if encoding == "base64":
        return [b64encode(bytes(transaction)).decode(), "base64"]
    if encoding == "base58":
        return [base58.encode(bytes(transaction)), "base58"]
    return {
        "signatures": [str(signature) for signature in transaction.signatures],
        "message": _message(landed, encoding),
    }


def _message(landed: Landed, encoding: str) -> dict[str, Any]:
    message = landed.transaction.message
    parsed = encoding == "jsonParsed"
    shown: dict[str, Any] = {
        "accountKeys": _parsed_keys(landed) if parsed else [str(key) for key in message.account_keys],
        "instructions": [_instruction(instruction, landed.keys, encoding, 1) for instruction in message.instructions],
        "recentBlockhash": str(message.recent_blockhash),
    }
    if not parsed:
        header = message.header
        shown["header"] = {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        }
    if isinstance(message, MessageV0):
        shown["addressTableLookups"] = [
            {
                "accountKey": str(lookup.account_key),
                "writableIndexes": list(lookup.writable_indexes),
                "readonlyIndexes": list(lookup.readonly_indexes),
            }
            for lookup in message.address_table_lookups
        ]
    return shown


def _parsed_keys(landed: Landed) -> list[dict[str, Any]]:
    message = landed.transaction.message
    static = len(message.account_keys)
    flags = writable_flags(message)
    return [
        {
            "pubkey": str(key),
            "signer": index < message.header.num_required_signatures,
            "source": "transaction" if index < static else "lookupTable",
            "writable": flags[index] if index < static else index < static + landed.loaded_writable,
        }
        for index, key in enumerate(landed.keys)
    ]


def _instruction(
    instruction: CompiledInstruction, keys: Sequence[Pubkey], encoding: str, stack_height: int | None
) -> dict[str, Any]:
    data = base58.encode(bytes(instruction.data))
    if encoding == "jsonParsed":
        program, accounts = keys[instruction.program_id_index], [keys[i] for i in bytes(instruction.accounts)]
        said = parse_instruction(program, accounts, bytes(instruction.data))
        said = said or {"accounts": [str(account) for account in accounts], "data": data}
        return said | {"programId": str(program), "stackHeight": stack_height}
    return {
        "accounts": list(bytes(instruction.accounts)),
        "data": data,
        "programIdIndex": instruction.program_id_index,
        "stackHeight": stack_height,
    }
