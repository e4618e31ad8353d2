"""The methods of the WebSocket endpoint: subscribe and unsubscribe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keeper.localnet.accounts import parse_filters
from keeper.localnet.errors import invalid_params
from keeper.localnet.params import Params, parse_pubkey
from keeper.localnet.rpc import Dispatcher, Method
from keeper.localnet.subscriptions import Client, Subscriptions


class Session:
    """One client's side of the subscriptions.

    What a new subscription is to be told at once waits in `afterwards`, so that the reply with its id
    goes first; run it when the reply is on its way.
    """

    def __init__(self, subscriptions: Subscriptions, client: Client) -> None:
        self._subscriptions = subscriptions
        self._client = client
        self._afterwards: list[Callable[[], None]] = []
        methods: dict[str, Method] = {
            f"{kind}Subscribe": self._subscriber(kind, subscribe) for kind, subscribe in _KINDS.items()
        }
        methods |= {f"{kind}Unsubscribe": self._unsubscriber(kind) for kind in _KINDS}
        self._dispatcher = Dispatcher(methods)

    def handle(self, message: bytes | str) -> None:
        """Answer a message of the client, by pushing."""
        reply = self._dispatcher.handle(message)
        if reply:
            self._client.push(reply)
        afterwards, self._afterwards = self._afterwards, []
        for tell in afterwards:
            tell()

    def close(self) -> None:
        """The client is gone."""
        self._subscriptions.remove_client(self._client)

    def _subscriber(self, kind: str, wish: Callable[[Params], dict[str, Any]]) -> Method:
        def subscribe(params: Params) -> int:
            wanted = wish(params)
            subscription = self._subscriptions.add(self._client, **wanted)
            if kind == "signature":
                self._afterwards.append(lambda: self._subscriptions.tell_status(subscription))
            return subscription.id

        return subscribe

    def _unsubscriber(self, kind: str) -> Method:
        def unsubscribe(params: Params) -> bool:
            if not self._subscriptions.remove(self._client, params.number(0, "subscription"), kind):
                raise invalid_params("Invalid subscription id.")
            return True

        return unsubscribe


def _account(params: Params) -> dict[str, Any]:
    address, config = params.pubkey(0, "address"), params.config(1)
    commitment = config.commitment()
    return {
        "topic": ("account", address, commitment),
        "commitment": commitment,
        "encoding": config.encoding("binary"),
    }


def _program(params: Params) -> dict[str, Any]:
    program, config = params.pubkey(0, "program"), params.config(1)
    commitment = config.commitment()
    return {
        "topic": ("program", program, commitment),
        "commitment": commitment,
        "encoding": config.encoding("binary"),
        "filters": parse_filters(config.get("filters")),
    }


def _signature(params: Params) -> dict[str, Any]:
    signature, config = params.signature(0, "signature"), params.config(1)
    return {
        "topic": ("signature", signature),
        "commitment": config.commitment(),
        "received_too": config.flag("enableReceivedNotification"),
    }


def _logs(params: Params) -> dict[str, Any]:
    commitment = params.config(1).commitment()
    match params.value(0, "filter"):
        case "all" | "allWithVotes":
            address = None
        case {"mentions": [str(text)]}:
            address = parse_pubkey(text)
        case {"mentions": [*_]}:
            raise invalid_params("Invalid Request: Only 1 address supported")
        case other:
            raise invalid_params(f"Invalid params: unknown logs filter {other!r}.")
    return {"topic": ("logs", address, commitment), "commitment": commitment}


def _slot(params: Params) -> dict[str, Any]:
    return {"topic": ("slot",)}


def _slots_updates(params: Params) -> dict[str, Any]:
    return {"topic": ("slotsUpdates",)}


def _root(params: Params) -> dict[str, Any]:
    return {"topic": ("root",)}


_KINDS: Mapping[str, Callable[[Params], dict[str, Any]]] = {
    "account": _account,
    "logs": _logs,
    "program": _program,
    "root": _root,
    "signature": _signature,
    "slot": _slot,
    "slotsUpdates": _slots_updates,
}
