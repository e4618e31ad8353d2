"""JSON-RPC 2.0: the table of methods, and from the bytes of a request to those of its reply."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from keeper.localnet import account_methods, block_methods, chain_methods, token_methods, transaction_methods
from keeper.localnet.bank import Bank
from keeper.localnet.errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    RpcError,
)
from keeper.localnet.params import Params

Method = Callable[[Params], Any]

BANK_METHODS: Mapping[str, Callable[[Bank, Params], Any]] = {
    "getAccountInfo": account_methods.get_account_info,
    "getBalance": account_methods.get_balance,
    "getMultipleAccounts": account_methods.get_multiple_accounts,
    "getProgramAccounts": account_methods.get_program_accounts,
    "getTokenAccountBalance": token_methods.get_token_account_balance,
    "getTokenAccountsByDelegate": token_methods.get_token_accounts_by_delegate,
    "getTokenAccountsByOwner": token_methods.get_token_accounts_by_owner,
    "getTokenLargestAccounts": token_methods.get_token_largest_accounts,
    "getTokenSupply": token_methods.get_token_supply,
    "getBlock": block_methods.get_block,
    "getBlocks": block_methods.get_blocks,
    "getBlocksWithLimit": block_methods.get_blocks_with_limit,
    "getClusterNodes": block_methods.get_cluster_nodes,
    "getEpochSchedule": block_methods.get_epoch_schedule,
    "getRecentPerformanceSamples": block_methods.get_recent_performance_samples,
    "getSupply": block_methods.get_supply,
    "getVoteAccounts": block_methods.get_vote_accounts,
    "getAgGenesisCert": chain_methods.get_ag_genesis_cert,
    "getBlockHeight": chain_methods.get_block_height,
    "getBlockTime": block_methods.get_block_time,
    "getEpochInfo": chain_methods.get_epoch_info,
    "getFeeForMessage": chain_methods.get_fee_for_message,
    "getFirstAvailableBlock": chain_methods.get_first_available_block,
    "minimumLedgerSlot": chain_methods.get_first_available_block,
    "getGenesisHash": chain_methods.get_genesis_hash,
    "getHealth": chain_methods.get_health,
    "getIdentity": chain_methods.get_identity,
    "getLatestBlockhash": chain_methods.get_latest_blockhash,
    "getMinimumBalanceForRentExemption": chain_methods.get_minimum_balance_for_rent_exemption,
    "getRecentPrioritizationFees": chain_methods.get_recent_prioritization_fees,
    "getSlot": chain_methods.get_slot,
    "getSlotLeader": chain_methods.get_slot_leader,
    "getTransactionCount": chain_methods.get_transaction_count,
    "getVersion": chain_methods.get_version,
    "isBlockhashValid": chain_methods.is_blockhash_valid,
    "getSignatureStatuses": transaction_methods.get_signature_statuses,
    "getSignaturesForAddress": transaction_methods.get_signatures_for_address,
    "getTransaction": transaction_methods.get_transaction,
    "requestAirdrop": transaction_methods.request_airdrop,
    "sendTransaction": transaction_methods.send_transaction,
    "simulateTransaction": transaction_methods.simulate_transaction,
}

_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_NULL = b"null"


class Call(msgspec.Struct):
    """One request. Everything is Any, so that what is wrong with it is ours to say."""

    method: Any = None
    params: Any = None
    jsonrpc: Any = None
    # Kept as the client wrote it, and handed back so.
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_calls = msgspec.json.Decoder(list[Call] | Call)


class Dispatcher:
    """Answers requests with one table of methods."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods

    def handle(self, body: bytes | str) -> bytes:
        """The reply to a request or a batch; empty when it holds notifications only. Never raises."""
        try:
            return self._handle(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _failure(_NULL, RpcError(PARSE_ERROR, "Parse error"))

    def _handle(self, body: bytes | str) -> bytes:
        try:
            request = _calls.decode(body)
        except msgspec.ValidationError:
            return self._handle_odd(body)
        if isinstance(request, Call):
            return self._answer(request)
        if not request:
            return _failure(_NULL, RpcError(INVALID_REQUEST, "Invalid request"))
        replies = [reply for call in request if (reply := self._answer(call))]
        return b"[" + b",".join(replies) + b"]" if replies else b""

    def _handle_odd(self, body: bytes | str) -> bytes:
        """A JSON document that is no request, or a batch in which some elements are none."""
        document = _decoder.decode(body)
        invalid = _failure(_NULL, RpcError(INVALID_REQUEST, "Invalid request"))
        if not isinstance(document, list):
            return invalid
        replies = [
            self._handle(_encoder.encode(element)) if isinstance(element, dict) else invalid for element in document
        ]
        return b"[" + b",".join(filter(None, replies)) + b"]"

    def _answer(self, call: Call) -> bytes:
        silent = isinstance(call.id, msgspec.UnsetType)
        call_id = _NULL if isinstance(call.id, msgspec.UnsetType) else bytes(call.id)
        try:
            result = self._call(call, call_id)
        except RpcError as error:
            invalid = error.code == INVALID_REQUEST and silent
            return b"" if silent and not invalid else _failure(call_id, error)
        except Exception:
            # A defect of ours: the client gets an honest error and the log gets the trace.
            _log.exception("the method %r failed", call.method)
            return b"" if silent else _failure(call_id, RpcError(INTERNAL_ERROR, "Internal error"))
        if silent:
            return b""
        return b'{"jsonrpc":"2.0","result":' + _encoder.encode(result) + b',"id":' + call_id + b"}"

    def _call(self, call: Call, call_id: bytes) -> Any:
        # An id is a string, a number or null.
        if call.jsonrpc != "2.0" or not isinstance(call.method, str) or call_id[:1] in b"{[":
            raise RpcError(INVALID_REQUEST, "Invalid request")
        method = self._methods.get(call.method)
        if method is None:
            raise RpcError(METHOD_NOT_FOUND, "Method not found")
        if call.params is None:
            return method(Params([]))
        if not isinstance(call.params, list):
            raise RpcError(INVALID_PARAMS, "Invalid params: parameters must be positional.")
        return method(Params(call.params))


def bank_dispatcher(bank: Bank) -> Dispatcher:
    """The methods of the HTTP endpoint."""

    def bound(function: Callable[[Bank, Params], Any]) -> Method:
        return lambda params: function(bank, params)

    return Dispatcher({name: bound(function) for name, function in BANK_METHODS.items()})


def _failure(call_id: bytes, error: RpcError) -> bytes:
    return b'{"jsonrpc":"2.0","error":' + _encoder.encode(error.as_json()) + b',"id":' + call_id + b"}"
