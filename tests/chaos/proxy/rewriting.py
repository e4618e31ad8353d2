"""Faults in what JSON-RPC says, rather than in how it travels."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from tests.chaos.proxy.faults import Kind

_LAG_ID = "the-slot-of-a-node-that-lags"
# Where each method takes its configuration; the others have none, or none that a lag changes.
_CONFIG_AT = {
    "getAccountInfo": 1,
    "getBalance": 1,
    "getBlockHeight": 0,
    "getEpochInfo": 0,
    "getLatestBlockhash": 0,
    "getMultipleAccounts": 1,
    "getProgramAccounts": 1,
    "getSlot": 0,
    "getTransaction": 1,
    "simulateTransaction": 1,
}

Document = dict[str, Any] | list[Any]


def calls_of(body: bytes) -> list[dict[str, Any]]:
    """The calls in a request's body; none when it is no JSON-RPC."""
    try:
        document = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return []
    calls = document if isinstance(document, list) else [document]
    return [call for call in calls if isinstance(call, dict)]


def refuse(calls: Sequence[dict[str, Any]], *, batch: bool, code: int, message: str, **data: float) -> bytes:
    """Every call refused with a JSON-RPC error, each under its own id."""
    error: dict[str, Any] = {"code": code, "message": message, **({"data": data} if data else {})}
    replies = [{"jsonrpc": "2.0", "error": error, "id": call.get("id")} for call in calls]
    return msgspec.json.encode(replies if batch else replies[0])


def as_lagging(body: bytes) -> bytes:
    """The request as a node that is behind would understand it: all that it knows is what is final.

    Its newest slot comes along in the same batch, which the chain answers as of one moment.
    """
    calls = calls_of(body)
    for call in calls:
        at = _CONFIG_AT.get(call.get("method", ""))
        if at is None:
            continue
        params = list(call.get("params") or [])
        params += [{}] * (at + 1 - len(params))
        if isinstance(params[at], dict):
            params[at] = {**params[at], "commitment": "finalized"}
        call["params"] = params
    slot = {"jsonrpc": "2.0", "id": _LAG_ID, "method": "getSlot", "params": [{"commitment": "finalized"}]}
    return msgspec.json.encode([*calls, slot])


def from_lagging(body: bytes, calls: Sequence[dict[str, Any]], *, batch: bool) -> bytes:
    """The answers of `as_lagging`'s request: statuses of later slots are not known yet."""
    *replies, last = msgspec.json.decode(body)
    slot = last["result"]
    for call, reply in zip(calls, replies, strict=True):
        if call.get("method") == "getSignatureStatuses" and "result" in reply:
            result = reply["result"]
            result["context"]["slot"] = slot
            result["value"] = [s if s is not None and s["slot"] <= slot else None for s in result["value"]]
    return msgspec.json.encode(replies if batch else replies[0])


def rewritten(kind: Kind, body: bytes, calls: Sequence[dict[str, Any]], rng: random.Random) -> bytes:
    """The reply as this kind of fault leaves it."""
    document: Document = msgspec.json.decode(body)
    replies = document if isinstance(document, list) else [document]
    match kind:
        case Kind.WRONG_ID:
            for reply in replies:
                reply["id"] = 1_000_000 + rng.randrange(1_000)
        case Kind.SHUFFLED:
            rng.shuffle(replies)
        case Kind.REPLY_MISSING:
            if isinstance(document, list):
                del replies[rng.randrange(len(replies))]
        case Kind.LYING:
            methods = {call.get("id"): call.get("method") for call in calls}
            for reply in replies:
                _forget_signatures(methods.get(reply.get("id")), reply)
        case _:
            raise AssertionError(f"{kind} is not a fault of what a reply says")
    return msgspec.json.encode(document)


def _forget_signatures(method: str | None, reply: dict[str, Any]) -> None:
    if "result" not in reply:
        return
    if method == "getSignatureStatuses":
        reply["result"]["value"] = [None] * len(reply["result"]["value"])
    elif method == "getTransaction":
        reply["result"] = None
