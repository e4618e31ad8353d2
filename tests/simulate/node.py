"""One endpoint of the simulated network: the chain's own RPC methods, its weather, and what it says wrongly."""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from keeper.localnet.bank import Bank
from keeper.localnet.rpc import bank_dispatcher
from keeper.localnet.subscriptions import Subscriptions
from tests.chaos.proxy.faults import Faults

_BEHIND_S: Final = (1.0, 20.0)


class Lie(enum.StrEnum):
    """What a node says wrongly, beyond the kinds of the campaign."""

    OLD_REPLY = "old_reply"
    """An earlier reply to the same question, with its older slot."""
    NO_ACCOUNT = "no_account"
    """Null for an account that exists; of each one once."""
    PARTIAL_LIST = "partial_list"
    """A list lacks some of its accounts."""
    BEHIND = "behind"
    """For some seconds the node knows of signatures what it knew at one slot, and says which: its database stands."""
    DOUBLED = "doubled"
    """The request arrives twice."""


class Node:
    """One endpoint. `faults` is its weather; `lies` the chance of each lie at each request, until `lies_until`."""

    def __init__(self, label: str, seed: str, bank: Bank, subscriptions: Subscriptions) -> None:
        self.label = label
        self.dice = random.Random(seed)
        self.ask = bank_dispatcher(bank).handle
        self.subscriptions = subscriptions
        self.faults: Faults | None = None
        self.lies: dict[Lie, float] = {}
        self.lies_until = 0.0
        self.behind_until, self.behind_slot = 0.0, 0
        self.slow_s = 0.02
        self.denied: set[str] = set()
        self._said: dict[bytes, deque[bytes]] = {}

    def lie(self, now: float) -> Lie | None:
        """Which lie comes next, if any."""
        if now >= self.lies_until:
            return None
        if now < self.behind_until:
            return Lie.BEHIND
        number = self.dice.random()
        for lie, chance in self.lies.items():
            number -= chance
            if number < 0:
                if lie is Lie.BEHIND:
                    self.behind_until, self.behind_slot = now + self.dice.uniform(*_BEHIND_S), 0
                return lie
        return None

    def delay_s(self) -> float:
        """One way."""
        return self.slow_s * (0.2 + self.dice.random())

    def remembered(self, calls: Sequence[dict[str, Any]], body: bytes) -> bytes | None:
        """An earlier reply to the same calls, under these calls' ids; `body` is remembered for later."""
        key = msgspec.json.encode([(call.get("method"), call.get("params")) for call in calls])
        known = self._said.setdefault(key, deque(maxlen=6))
        old = known[self.dice.randrange(len(known))] if known else None
        known.append(body)
        if len(self._said) > 64:
            self._said.pop(next(iter(self._said)))
        if old is None:
            return None
        document = msgspec.json.decode(old)
        for call, reply in zip(calls, document if isinstance(document, list) else [document], strict=False):
            reply["id"] = call.get("id")
        return msgspec.json.encode(document)


def twisted(lie: Lie, reply: bytes, calls: Sequence[dict[str, Any]], node: Node) -> bytes | None:
    """The reply with this lie in it."""
    document, dice = msgspec.json.decode(reply), node.dice
    replies = document if isinstance(document, list) else [document]
    asked = {call.get("id"): call for call in calls}
    for each in replies:
        call, result = asked.get(each.get("id"), {}), each.get("result")
        if not isinstance(result, dict):
            continue
        method, value = call.get("method"), result.get("value")
        if lie is Lie.NO_ACCOUNT and method == "getMultipleAccounts" and value:
            i = dice.randrange(len(value))
            address = call["params"][0][i]
            if value[i] is not None and address not in node.denied:
                node.denied.add(address)
                value[i] = None
        elif lie is Lie.BEHIND and method == "getSignatureStatuses":
            slot = node.behind_slot = result["context"]["slot"] = node.behind_slot or result["context"]["slot"]
            result["value"] = [None if status and status["slot"] > slot else status for status in value or ()]
        elif lie is Lie.PARTIAL_LIST and method == "getProgramAccounts" and value:
            del value[dice.randrange(len(value))]
    return msgspec.json.encode(document)
