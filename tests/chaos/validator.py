"""The stage on a real solana-test-validator: network and keeper break as on the embedded chain, and the chain can't.

What the chain says is read over its RPC, so nothing is known at the moment at which it happens. The witness therefore
judges two signatures for one order later, by what the chain had at most reached when the second one left.
"""

from __future__ import annotations

import base64
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import anyio
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.demo.errors import DemoFailed
from keeper.demo.sending import Sender, connected
from keeper.demo.validator import Validator, started_validator
from keeper.demo.world import deposit, open_account
from keeper.domain.attempts import AttemptKind
from keeper.domain.errors import ChainError
from keeper.domain.orders import Market, Order, OrderType, Position, Side
from keeper.solana.client import CONFIRMED, ChainClient, SignatureStatus
from keeper.solana.rpc import Call
from keeper.solana.transactions import Budget
from keeper.venue.placing import OrderTerms, place
from keeper.venue.program import CANCEL
from keeper.venue.venue import decode_market, decode_order, decode_position
from tests.chaos.invariants import Landing, Record
from tests.chaos.lives import Lives
from tests.chaos.proxy import FaultProxy
from tests.chaos.scenario import Event
from tests.chaos.stage import SOL, Stage
from tests.chaos.witness import AnyWitness, FirstSend
from tests.support import PROGRAM, Refused, Trader
from tests.validator.cluster import Address, Cluster
from tests.validator.cluster import Market as Listed

_CLOCK: Final = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
_TIME_AT: Final = 32
"""Where the clock's account holds its time, an i64."""
_POLL_S: Final = 0.1
_READINGS: Final = 10


class Reached(NamedTuple):
    """How far the chain was: asked for after `asked_at`, a time of day."""

    asked_at: float
    slot: int
    confirmed_slot: int
    finalized_height: int


class LateWitness(AnyWitness):
    """Keeps the pairs of signatures for one order, for `judge`, and how far the chain was, as it is polled."""

    def __init__(self) -> None:
        super().__init__()
        self.reached: list[Reached] = []
        self.pairs: list[tuple[FirstSend, FirstSend]] = []

    def _slot(self) -> int:
        return self.reached[-1].slot if self.reached else 0

    def _check_last_valid_height(self, first: FirstSend) -> None:
        """An attempt that landed after it was called expired is found at the end."""

    def _could_still_matter(self, first: FirstSend, second: FirstSend) -> str | None:
        self.pairs.append((first, second))
        return None

    def judge(self, first: FirstSend, second: FirstSend, landed: SignatureStatus | None) -> str | None:
        """Why the second one was sent too early; None when it was not, or when that is not certain."""
        later = bisect_left(self.reached, second.at, key=lambda reached: reached.asked_at)
        if later == len(self.reached):
            return None
        most = self.reached[later]
        doubt = None
        if landed is None:
            if most.finalized_height <= first.last_valid_block_height + 1:
                doubt = f"could still land: the finalized height was at most {most.finalized_height}"
        elif most.confirmed_slot < landed.slot:
            doubt = "had not been confirmed"
        elif landed.err is None and first.kind is AttemptKind.EXECUTE:
            doubt = "had succeeded"
        if doubt is None:
            return None
        return f"order {first.order}: {second.signature} was sent while {first.signature} {doubt} (promise 2)"


class Fetched(NamedTuple):
    """A transaction of the ledger."""

    signature: Signature
    slot: int
    time: int
    err: Any
    keys: tuple[Pubkey, ...]
    transaction: VersionedTransaction


@dataclass(slots=True)
class Chronicle:
    """What was read over RPC: a `Record`. The accounts did not change while the ledger was read. An order that was not
    read is as one that is not there.
    """

    slot: int
    time: int
    accounts: Mapping[Pubkey, bytes | None]
    histories: Mapping[Pubkey, Sequence[Fetched]] = field(default_factory=dict)
    statuses: Mapping[Signature, SignatureStatus | None] = field(default_factory=dict)

    def order(self, address: Pubkey) -> Order | None:
        data = self.accounts.get(address)
        return None if data is None else decode_order(address, data, self.slot)

    def position(self, order: Pubkey) -> Position | None:
        address = _position_of(order)
        data = self.accounts[address]
        return None if data is None else decode_position(address, data, self.slot)

    def market_state(self, address: Pubkey) -> Market:
        data = self.accounts[address]
        assert data is not None, f"there is no market {address}"
        return decode_market(address, data, self.slot)

    def history(self, address: Pubkey) -> Sequence[Fetched]:
        return self.histories[address]

    def landed(self, signature: Signature) -> Landing | None:
        return self.statuses.get(signature)

    def is_final(self, slot: int) -> bool:
        return any(s is not None and s.slot == slot and s.confirmation == "finalized" for s in self.statuses.values())

    def now(self) -> int:
        return self.time


class ValidatorStage(Stage):
    """Made by `open`. A plan's second takes twelve here: a slot is twenty times as long as on the embedded chain."""

    pace = 12.0
    settle_within_s = 200.0
    """A blockhash lives about a minute, and finality takes 13 s more."""
    sure_after_s = 5.0
    """The ledger is read in parts, and the journal beside it."""
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "rpc": {"deadline_s": 4.0, "silence_s": 5.0, "snapshot_every_s": 5.0, "probe_every_s": 2.0},
        "execution": {
            "resend_every_s": 1.0,
            "finality_every_s": 1.0,
            "account_every_s": 2.0,
            "first_pause_s": 0.5,
            "longest_pause_s": 4.0,
            "attempts_per_hour": 1_000,
            "retry_budget": 8,
        },
        "trigger": {"breaker_trip": 1.0},
    }

    def __init__(
        self, cluster: Cluster, client: ChainClient, proxies: Sequence[FaultProxy], lives: Lives, folder: Path
    ) -> None:
        self.late = LateWitness()
        super().__init__(proxies, lives, self.late, folder)
        self._cluster = cluster
        self._client = client
        self._sender = Sender(client)
        self._fetched: dict[str, Fetched] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, validator: Validator, *, seed: str) -> AsyncIterator[Stage]:
        """Start a validator, and build it there. The files of its keepers are in `folder`."""
        async with started_validator(validator, PROGRAM.id, folder) as chain, Lives.open() as lives:
            address = Address(chain.ready["rpc_url"], chain.ready["ws_url"], PROGRAM.id)
            async with Cluster.open(address, PROGRAM) as cluster, connected(address.rpc_url) as client:
                stage = cls(cluster, client, (), lives, folder)
                async with (
                    cls.ways(address.rpc_url, address.ws_url, stage.witness, seed) as stage.proxies,
                    anyio.create_task_group() as tasks,
                ):
                    tasks.start_soon(stage._follow)
                    await stage._sender.airdrop([stage.key.pubkey(), stage.rival.pubkey()], 1_000 * SOL)
                    async with stage.playing():
                        yield stage
                    tasks.cancel_scope.cancel()

    async def _follow(self) -> None:
        calls = [
            Call("getSlot", ({"commitment": "processed"},)),
            Call("getSlot", ({"commitment": "confirmed"},)),
            Call("getBlockHeight", ({"commitment": "finalized"},)),
        ]
        while True:
            asked_at = time.time()
            replies = await self._client.pool.batch(calls)
            slot, confirmed, height = replies
            if isinstance(slot, int) and isinstance(confirmed, int) and isinstance(height, int):
                self.late.reached.append(Reached(asked_at, slot, confirmed, height))
            await anyio.sleep(_POLL_S)

    # -- the chain

    async def _land(self, *instructions: Instruction, signer: Keypair) -> None:
        await self._wait([await self._sender.sign(instructions, signer)])

    async def _wait(self, wires: Sequence[bytes]) -> None:
        try:
            await self._sender.send_and_wait(wires)
        except DemoFailed as e:
            raise Refused(str(e)) from e

    async def markets(self, count: int, *, price_1e6: int) -> Sequence[Pubkey]:
        return [(await self._cluster.market(price_1e6=price_1e6)).address for _ in range(count)]

    async def traders(self, collateral_1e6: Mapping[str, int | None]) -> dict[str, Trader]:
        traders = {name: Trader(Keypair()) for name in collateral_1e6}
        await self._sender.airdrop([trader.address for trader in traders.values()], 10 * SOL)
        wires = []
        for name, amount in collateral_1e6.items():
            if amount is not None:
                opening = [open_account(PROGRAM, traders[name].address)]
                opening += [deposit(PROGRAM, traders[name].address, amount)] if amount else []
                wires.append(await self._sender.sign(opening, traders[name].key))
        await self._wait(wires)
        return traders

    async def set_price(self, market: Pubkey, price_1e6: int) -> None:
        await self._cluster.set_price(Listed("", market), price_1e6)

    async def place(self, trader: Trader, market: Pubkey, order_type: OrderType, side: Side, **terms: int) -> Pubkey:
        fields = {"price_1e6": 0, "stop_price_1e6": 0, "trailing_distance_ppm": 0, "expires_at": 0, **terms}
        wanted = OrderTerms(trader.address, market, order_type, side, size_1e6=1_000_000, leverage=5, **fields)
        blockhash = await self._client.latest_blockhash()
        unsigned = place(PROGRAM, wanted, next(trader.ids), blockhash, Budget(100_000, 0))
        await self._wait([bytes(VersionedTransaction(Message.from_bytes(unsigned.message), [trader.key]))])
        return unsigned.order

    async def execute(self, order: Pubkey) -> None:
        slot, [account] = await self._client.accounts([order])
        if account is not None:
            known = decode_order(order, account.data, slot)
            await self._land(PROGRAM.execute(known, self.rival.pubkey()), signer=self.rival)

    async def cancel(self, trader: Trader, order: Pubkey) -> None:
        accounts = {"order": order, "user": trader.address}
        await self._land(PROGRAM.instruction(CANCEL, {}, accounts), signer=trader.key)

    async def take_back(self, orders: Mapping[Pubkey, Trader]) -> None:
        """Whatever can be cancelled still; what is ended stays, for nobody lists it."""
        wires = []
        for order, trader in orders.items():
            accounts = {"order": order, "user": trader.address}
            wires.append(await self._sender.sign([PROGRAM.instruction(CANCEL, {}, accounts)], trader.key))
        if wires:
            await self._sender.send(wires)

    async def deposit(self, trader: Trader, amount_1e6: int) -> None:
        await self._land(deposit(PROGRAM, trader.address, amount_1e6), signer=trader.key)

    async def now(self) -> int:
        _, [clock] = await self._client.accounts([_CLOCK])
        assert clock is not None
        return int.from_bytes(clock.data[_TIME_AT : _TIME_AT + 8], "little")

    async def act(self, event: Event) -> None:
        """A real chain has no forks, losses and jumps to order."""

    # -- what it says

    async def read(self, markets: Sequence[Pubkey], orders: Iterable[Pubkey]) -> Record:
        addresses = list(orders)
        # Orders of the episodes before that rest still have armed attempts.
        others = {attempt.order for attempt in self.journal.open_attempts()}.difference(addresses)
        wanted = [*markets, *addresses, *map(_position_of, addresses), *others]
        before = await self._accounts(wanted)
        for _ in range(_READINGS):
            histories = {order: await self._history(order) for order in addresses}
            signatures = {attempt.signature for order in addresses for attempt in self.journal.attempts_of(order)}
            statuses = await self._statuses(signatures)
            after = await self._accounts(wanted)
            if all(after.accounts[address] == before.accounts[address] for address in wanted[len(markets) :]):
                return Chronicle(after.slot, after.time, after.accounts, histories, statuses)
            before = after
        raise AssertionError("the orders' accounts changed faster than they could be read")

    async def judge(self) -> Sequence[str]:
        pairs = self.late.pairs
        statuses = await self._statuses({first.signature for first, _ in pairs})
        found = [self.late.judge(first, second, statuses[first.signature]) for first, second in pairs]
        pairs.clear()
        del self.late.reached[:-1]
        return [sentence for sentence in found if sentence]

    async def _accounts(self, addresses: Sequence[Pubkey]) -> Chronicle:
        slot, [clock, *found] = await self._client.accounts([_CLOCK, *addresses], commitment=CONFIRMED)
        assert clock is not None
        data = [None if account is None else bytes(account.data) for account in found]
        seconds = int.from_bytes(clock.data[_TIME_AT : _TIME_AT + 8], "little")
        return Chronicle(slot, seconds, dict(zip(addresses, data, strict=True)))

    async def _statuses(self, signatures: Iterable[Signature]) -> dict[Signature, SignatureStatus | None]:
        asked = list(signatures)
        _, found = await self._client.statuses(asked, search_history=True)
        for status in found:
            if isinstance(status, ChainError):
                raise status
        return {s: status for s, status in zip(asked, found, strict=True) if not isinstance(status, ChainError)}

    async def _history(self, order: Pubkey) -> list[Fetched]:
        rows = await self._client.pool.call("getSignaturesForAddress", str(order), {"commitment": "confirmed"})
        return [await self._transaction(row["signature"]) for row in rows]

    async def _transaction(self, signature: str) -> Fetched:
        found = self._fetched.get(signature)
        if found is None:
            config = {"commitment": "confirmed", "encoding": "base64", "maxSupportedTransactionVersion": 0}
            landed = await self._client.pool.call("getTransaction", signature, config)
            transaction = VersionedTransaction.from_bytes(base64.b64decode(landed["transaction"][0]))
            keys = tuple(transaction.message.account_keys)
            slot, seconds, err = landed["slot"], landed["blockTime"], landed["meta"]["err"]
            found = Fetched(Signature.from_string(signature), slot, seconds, err, keys, transaction)
            self._fetched[signature] = found
        return found


def _position_of(order: Pubkey) -> Pubkey:
    return Pubkey.find_program_address([b"position", bytes(order)], PROGRAM.id)[0]
