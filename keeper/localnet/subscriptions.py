"""Who wants to hear of what: the subscriptions of all clients, and the notifications they get.

`processed` is told of accounts and logs at once, on execution, where a validator waits for the end of the slot: an
account that is written twice in a slot is told twice. Of a signature it is told at the end of the slot, as a
validator tells it: clients ask for the status of what they have just sent, and take a failure that is there already
for another. `confirmed` and `finalized` are told when the slot gets there, with the last state in that slot. As with
a validator, a program subscription says nothing when an account is closed, leaves the program, or is restored by a
fork; an account subscription says all of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import msgspec
from solders.account import Account
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.localnet.accounts import Filters, address_text
from keeper.localnet.bank import Bank
from keeper.localnet.chain import Block
from keeper.localnet.commitment import Commitment
from keeper.localnet.history import Landed
from keeper.localnet.parsed import show_account
from keeper.localnet.tokens import Reader

_encoder = msgspec.json.Encoder()
_CLOSED = Account(0, b"", Pubkey.default())

Topic = tuple[Any, ...]


class Client(Protocol):
    """Where notifications go."""

    def push(self, message: bytes) -> None:
        """Queue a message; must not block or raise."""


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One wish of one client. `topic` is what it is found by, its first element the kind."""

    id: int
    client: Client
    topic: Topic
    commitment: Commitment = Commitment.PROCESSED
    encoding: str = "base64"
    filters: Filters = field(default_factory=Filters)
    received_too: bool = False


class Subscriptions:
    """The subscriptions of all clients; observes the bank and pushes what they asked for."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self._ids = count(1)
        self._by_topic: defaultdict[Topic, dict[int, Subscription]] = defaultdict(dict)
        self._by_client: defaultdict[Client, dict[int, Subscription]] = defaultdict(dict)
        bank.observe(self)

    def __repr__(self) -> str:
        total = sum(map(len, self._by_client.values()))
        return f"<Subscriptions: {total} of {len(self._by_client)} clients>"

    # -- the wishes ---------------------------------------------------------------------------------

    def add(self, client: Client, topic: Topic, **wish: Any) -> Subscription:
        """Subscribe; `wish` holds the other fields of a Subscription."""
        subscription = Subscription(next(self._ids), client, topic, **wish)
        self._by_topic[topic][subscription.id] = subscription
        self._by_client[client][subscription.id] = subscription
        return subscription

    def remove(self, client: Client, subscription_id: int, kind: str) -> bool:
        """End a subscription of that kind; whether the client had it."""
        subscription = self._by_client.get(client, {}).get(subscription_id)
        if subscription is None or subscription.topic[0] != kind:
            return False
        self._end(subscription)
        return True

    def remove_client(self, client: Client) -> None:
        """End all subscriptions of a client that is gone."""
        for subscription in list(self._by_client.get(client, {}).values()):
            self._end(subscription)

    def tell_status(self, subscription: Subscription) -> None:
        """Tell a new signature subscription what is known already."""
        landed = self._bank.history.get(subscription.topic[1])
        chain = self._bank.chain
        slot = min(chain.at(subscription.commitment).slot, chain.complete.slot)
        if landed is not None and landed.slot <= slot:
            self._tell_signature(subscription, slot, landed)

    # -- what the bank tells ------------------------------------------------------------------------

    def received(self, signature: Signature) -> None:
        """See Observer."""
        for subscription in self._of(("signature", signature)):
            if subscription.received_too:
                slot = self._bank.chain.tip.slot
                self._push(subscription, _result(slot, b'"receivedSignature"'))

    def written(self, slot: int, accounts: Mapping[Pubkey, Account | None]) -> None:
        """See Observer."""
        self._tell_accounts(Commitment.PROCESSED, slot, accounts.items(), programs=True)

    def landed(self, landed: Landed) -> None:
        """See Observer."""
        self._tell_logs(Commitment.PROCESSED, landed.slot, landed)

    def advanced(self, tip: Block, confirmed: Sequence[Block], final: Sequence[Block]) -> None:
        """See Observer."""
        full = self._bank.chain.complete
        for landed in full.transactions:
            self._tell_signatures(Commitment.PROCESSED, full.slot, landed)
        for commitment, blocks in ((Commitment.CONFIRMED, confirmed), (Commitment.FINALIZED, final)):
            for block in blocks:
                states = self._states_after(block)
                self._tell_accounts(commitment, block.slot, states, programs=True)
                for landed in block.transactions:
                    self._tell_signatures(commitment, block.slot, landed)
                    self._tell_logs(commitment, block.slot, landed)
        for subscription in self._of(("slot",)):
            root = self._bank.chain.root.slot
            self._push(subscription, _encoder.encode({"parent": tip.parent, "root": root, "slot": tip.slot}))
        if updates := self._of(("slotsUpdates",)):
            for update in self._slots_updates(tip, confirmed, final):
                for subscription in updates:
                    self._push(subscription, update)
        for subscription in self._of(("root",)):
            for block in final:
                self._push(subscription, _encoder.encode(block.slot))

    def reverted(self, tip: Block, accounts: Mapping[Pubkey, Account | None], confirmed: bool) -> None:
        """See Observer."""
        levels = [Commitment.PROCESSED, Commitment.CONFIRMED] if confirmed else [Commitment.PROCESSED]
        for commitment in levels:
            self._tell_accounts(commitment, tip.slot, accounts.items(), programs=False)

    def _slots_updates(self, tip: Block, confirmed: Sequence[Block], final: Sequence[Block]) -> Iterator[bytes]:
        """What became of slots, as a validator's own leader sees it."""
        now_ms = self._bank.now_ms()

        def update(kind: str, slot: int, **more: Any) -> bytes:
            return _encoder.encode({"slot": slot, "timestamp": now_ms, "type": kind} | more)

        full = self._bank.chain.block(tip.parent)
        if full is not None:
            failed = sum(landed.err is not None for landed in full.transactions)
            stats = {
                "maxTransactionsPerEntry": min(1, len(full.transactions)),
                "numFailedTransactions": failed,
                "numSuccessfulTransactions": len(full.transactions) - failed,
                "numTransactionEntries": len(full.transactions),
            }
            yield update("completed", full.slot)
            yield update("frozen", full.slot, stats=stats)
        yield update("createdBank", tip.slot, parent=tip.parent)
        for block in confirmed:
            yield update("optimisticConfirmation", block.slot)
        for block in final:
            yield update("root", block.slot)

    # -- inside -------------------------------------------------------------------------------------

    def _states_after(self, block: Block) -> Iterator[tuple[Pubkey, Account | None]]:
        for address in block.before:
            yield address, self._bank.account_at(address, block.slot)

    def _tell_accounts(
        self,
        commitment: Commitment,
        slot: int,
        states: Iterable[tuple[Pubkey, Account | None]],
        *,
        programs: bool,
    ) -> None:
        for address, account in states:
            shown = _Encodings(slot, address, account or _CLOSED, self._bank.reader(commitment))
            for subscription in self._of(("account", address, commitment)):
                self._push(subscription, shown.account(subscription.encoding))
            if account is None or not programs:
                continue
            for subscription in self._of(("program", account.owner, commitment)):
                if subscription.filters.allow(account):
                    self._push(subscription, shown.keyed(subscription.encoding))

    def _tell_signatures(self, commitment: Commitment, slot: int, landed: Landed) -> None:
        for subscription in self._of(("signature", landed.signature)):
            if subscription.commitment is commitment:
                self._tell_signature(subscription, slot, landed)

    def _tell_logs(self, commitment: Commitment, slot: int, landed: Landed) -> None:
        wanting = self._of(("logs", None, commitment))
        for address in landed.keys:
            wanting += self._of(("logs", address, commitment))
        if wanting:
            value = {"signature": str(landed.signature), "err": landed.err, "logs": landed.meta.logs()}
            message = _result(slot, _encoder.encode(value))
            for subscription in wanting:
                self._push(subscription, message)

    def _tell_signature(self, subscription: Subscription, slot: int, landed: Landed) -> None:
        self._push(subscription, _result(slot, _encoder.encode({"err": landed.err})))
        # It has said all that it ever will.
        self._end(subscription)

    def _of(self, topic: Topic) -> list[Subscription]:
        found = self._by_topic.get(topic)
        return list(found.values()) if found else []

    def _end(self, subscription: Subscription) -> None:
        same_topic = self._by_topic[subscription.topic]
        del same_topic[subscription.id]
        if not same_topic:
            del self._by_topic[subscription.topic]
        same_client = self._by_client[subscription.client]
        del same_client[subscription.id]
        if not same_client:
            del self._by_client[subscription.client]

    def _push(self, subscription: Subscription, result: bytes) -> None:
        subscription.client.push(
            b'{"jsonrpc":"2.0","method":"%bNotification","params":{"result":%b,"subscription":%d}}'
            % (subscription.topic[0].encode(), result, subscription.id)
        )


class _Encodings:
    """An account as a notification's result; each form is made once, however many want it."""

    def __init__(self, slot: int, address: Pubkey, account: Account, read: Reader) -> None:
        self._slot = slot
        self._read = read
        self._address = address
        self._account = account
        self._made: dict[tuple[str, bool], bytes] = {}

    def account(self, encoding: str) -> bytes:
        """For an account subscription."""
        return self._get(encoding, keyed=False, value=lambda shown: shown)

    def keyed(self, encoding: str) -> bytes:
        """For a program subscription."""
        return self._get(
            encoding, keyed=True, value=lambda shown: {"pubkey": address_text(self._address), "account": shown}
        )

    def _get(self, encoding: str, *, keyed: bool, value: Callable[[dict[str, Any]], Any]) -> bytes:
        made = self._made.get((encoding, keyed))
        if made is None:
            shown = show_account(self._address, self._account, encoding, self._read)
            made = _result(self._slot, _encoder.encode(value(shown)))
            self._made[encoding, keyed] = made
        return made


def _result(slot: int, value: bytes) -> bytes:
    return b'{"context":{"slot":%d},"value":%b}' % (slot, value)
