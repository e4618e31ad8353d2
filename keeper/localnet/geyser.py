"""Yellowstone gRPC, as a validator with that plugin serves it: accounts and slots by filter, told as they change.

`processed` is told of each write at once. `confirmed` and `finalized` are told of a slot when it gets there, with each
account's last state in that slot. `from_slot` tells the slots again that are complete and still in the buffer; at
processed that leaves out what the slot under way has brought so far, as it does with a validator.
"""

from __future__ import annotations

import errno
from base64 import b64decode
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import anyio
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from google.protobuf.unknown_fields import UnknownFieldSet
from solders.account import Account
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.localnet import base58
from keeper.localnet.bank import Bank
from keeper.localnet.chain import MAX_BLOCKHASH_AGE, Block
from keeper.localnet.commitment import Commitment
from keeper.localnet.history import Landed
from keeper.localnet.vm import RUNTIME_VERSION
from keeper.yellowstone import geyser_pb2 as pb
from keeper.yellowstone import grpc

_PING_EVERY_S: Final = 10.0
_CLOSED: Final = Account(0, b"", Pubkey.default())
_LEVELS: Final = {pb.PROCESSED: Commitment.PROCESSED, pb.CONFIRMED: Commitment.CONFIRMED}
_INTERSLOT: Final = frozenset({pb.SLOT_CREATED_BANK})
_CODE: Final = grpc.StatusCode
_PING: Final = pb.SubscribeUpdate(ping=pb.SubscribeUpdatePing()).SerializeToString()

State = tuple[Pubkey, Account | None]


class _Refusal(Exception):
    """A call that is ended with a status."""

    def __init__(self, code: Any, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


@dataclass(frozen=True, slots=True)
class _AccountFilter:
    """Kinds of conditions must all hold; of several addresses or owners one is enough."""

    addresses: frozenset[Pubkey]
    owners: frozenset[Pubkey]
    sizes: tuple[int, ...]
    memcmps: tuple[tuple[int, bytes], ...]

    def allows(self, address: Pubkey, account: Account) -> bool:
        if self.addresses and address not in self.addresses:
            return False
        if self.owners and account.owner not in self.owners:
            return False
        data = account.data
        return all(len(data) == size for size in self.sizes) and all(
            data[offset : offset + len(wanted)] == wanted for offset, wanted in self.memcmps
        )


@dataclass(slots=True, eq=False)
class _Session:
    """One client's subscription, and what it has not read yet."""

    send: MemoryObjectSendStream[bytes]
    receive: MemoryObjectReceiveStream[bytes]
    commitment: Commitment = Commitment.PROCESSED
    accounts: dict[str, _AccountFilter] = field(default_factory=dict)
    slots: dict[str, pb.SubscribeRequestFilterSlots] = field(default_factory=dict)
    ended: _Refusal | None = None

    def push(self, message: bytes) -> None:
        try:
            self.send.send_nowait(message)
        except anyio.WouldBlock:
            self.end(_Refusal(_CODE.RESOURCE_EXHAUSTED, "the client reads too slowly"))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass  # it is being ended

    def end(self, why: _Refusal) -> None:
        self.ended = self.ended or why
        self.send.close()


class Geyser:
    """The service. Observes the bank; `replay_slots` is how many complete slots its buffer holds.

    A test breaks it: `disconnect` ends every stream, `restart` forgets the buffer as well. `subscribed` counts the
    subscriptions that were taken, `replayed` those of them that asked for a slot, `answers` the answers to pings.
    """

    def __init__(self, bank: Bank, *, token: str | None, queue_messages: int) -> None:
        self._bank = bank
        self._token = token
        self._queue_messages = queue_messages
        self._sessions: dict[_Session, None] = {}
        self._buffer: deque[tuple[int, list[State]]] = deque()
        self._versions = count(1)
        self.replay_slots = 150
        self.subscribed = self.replayed = self.answers = 0
        bank.observe(self)

    def __repr__(self) -> str:
        return f"<Geyser: {len(self._sessions)} clients, {len(self._buffer)} slots>"

    def disconnect(self) -> None:
        """End every stream, as a balancer or a network does."""
        for session in self._sessions:
            session.end(_Refusal(_CODE.UNAVAILABLE, "the server is going away"))

    def restart(self) -> None:
        """Be as a server that was started again: no client, nothing in the buffer."""
        self._buffer.clear()
        self.disconnect()

    def ping(self) -> None:
        """Ping every client."""
        for session in self._sessions:
            session.push(_PING)

    def handlers(self) -> Any:
        """The service's methods."""
        unary = grpc.unary_unary_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            "geyser.Geyser",
            {
                "Subscribe": grpc.stream_stream_rpc_method_handler(
                    self._subscribe, request_deserializer=pb.SubscribeRequest.FromString
                ),
                "Ping": unary(self._pong, pb.PingRequest.FromString, pb.PongResponse.SerializeToString),
                "GetLatestBlockhash": unary(
                    self._latest_blockhash,
                    pb.GetLatestBlockhashRequest.FromString,
                    pb.GetLatestBlockhashResponse.SerializeToString,
                ),
                "GetSlot": unary(self._slot, pb.GetSlotRequest.FromString, pb.GetSlotResponse.SerializeToString),
                "GetVersion": unary(
                    self._version, pb.GetVersionRequest.FromString, pb.GetVersionResponse.SerializeToString
                ),
            },
        )

    # -- what the bank tells ------------------------------------------------------------------------

    def received(self, signature: Signature) -> None:
        """See Observer."""

    def landed(self, landed: Landed) -> None:
        """See Observer."""

    def written(self, slot: int, accounts: Mapping[Pubkey, Account | None]) -> None:
        """See Observer."""
        self._tell(Commitment.PROCESSED, slot, accounts.items())

    def advanced(self, tip: Block, confirmed: Sequence[Block], final: Sequence[Block]) -> None:
        """See Observer."""
        full = self._bank.chain.complete
        while self._buffer and self._buffer[-1][0] >= full.slot:  # a fork took them away
            self._buffer.pop()
        self._buffer.append((full.slot, self._states_after(full)))
        while len(self._buffer) > self.replay_slots:
            self._buffer.popleft()
        self._tell_slot(full, pb.SLOT_PROCESSED)
        self._tell_slot(tip, pb.SLOT_CREATED_BANK)
        for level, status, blocks in (
            (Commitment.CONFIRMED, pb.SLOT_CONFIRMED, confirmed),
            (Commitment.FINALIZED, pb.SLOT_FINALIZED, final),
        ):
            for block in blocks:
                self._tell(level, block.slot, self._states_after(block))
                self._tell_slot(block, status)

    def reverted(self, tip: Block, accounts: Mapping[Pubkey, Account | None], confirmed: bool) -> None:
        """See Observer. A fork is told of by the slots and writes that follow it."""

    def _states_after(self, block: Block) -> list[State]:
        return [(address, self._bank.account_at(address, block.slot)) for address in block.before]

    def _tell(self, level: Commitment, slot: int, states: Iterable[State]) -> None:
        sessions = [session for session in self._sessions if session.commitment is level]
        if sessions:
            for address, account in states:
                for session in sessions:
                    for message in self._news(session, slot, address, account or _CLOSED):
                        session.push(message)

    def _tell_slot(self, block: Block, status: pb.SlotStatus) -> None:
        for session in self._sessions:
            for message in _slot_news(session, block.slot, block.parent, status):
                session.push(message)

    def _news(self, session: _Session, slot: int, address: Pubkey, account: Account) -> Iterator[bytes]:
        names = [name for name, wanted in session.accounts.items() if wanted.allows(address, account)]
        if names:
            info = pb.SubscribeUpdateAccountInfo(
                pubkey=bytes(address),
                lamports=account.lamports,
                owner=bytes(account.owner),
                executable=account.executable,
                rent_epoch=account.rent_epoch,
                data=account.data,
                write_version=next(self._versions),
            )
            update = pb.SubscribeUpdateAccount(account=info, slot=slot)
            yield pb.SubscribeUpdate(filters=names, account=update).SerializeToString()

    # -- the calls ----------------------------------------------------------------------------------

    async def _subscribe(self, requests: AsyncIterator[pb.SubscribeRequest], context: Any) -> None:
        session = _Session(*anyio.create_memory_object_stream[bytes](self._queue_messages))
        try:
            self._admit(context)
            # Some clients wait for this before they say what they want.
            await context.send_initial_metadata(())
            async for request in requests:
                again = self._apply(session, request)
                break
            else:
                return
            self._sessions[session] = None
            for message in again:
                await context.write(message)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen, session, requests)
                async for message in session.receive:
                    await context.write(message)
                tasks.cancel_scope.cancel()
        except _Refusal as refusal:
            session.ended = refusal
        finally:
            self._sessions.pop(session, None)
            session.send.close()
            session.receive.close()
        if session.ended is not None:
            await context.abort(session.ended.code, session.ended.details)

    async def _listen(self, session: _Session, requests: AsyncIterator[pb.SubscribeRequest]) -> None:
        """What else the client says: other wishes, and pings, or answers to ours."""
        try:
            async for request in requests:
                for message in self._apply(session, request):
                    session.push(message)
        except _Refusal as refusal:
            session.end(refusal)

    def _apply(self, session: _Session, request: pb.SubscribeRequest) -> list[bytes]:
        """What a request says is so from now on; what it asks to be told again."""
        if request.HasField("ping"):
            self.answers += 1
            return [pb.SubscribeUpdate(pong=pb.SubscribeUpdatePong(id=request.ping.id)).SerializeToString()]
        if len(UnknownFieldSet(request)):
            raise _Refusal(_CODE.UNIMPLEMENTED, "this server tells of accounts and slots alone")
        session.commitment = _LEVELS.get(request.commitment, Commitment.FINALIZED)
        session.accounts = {name: _account_filter(wanted) for name, wanted in request.accounts.items()}
        session.slots = dict(request.slots)
        self.subscribed += 1
        if not request.HasField("from_slot"):
            return []
        self.replayed += 1
        first = self._buffer[0][0] if self._buffer else self._bank.chain.tip.slot
        if request.from_slot < first:
            raise _Refusal(_CODE.OUT_OF_RANGE, f"slot {request.from_slot} is not available, the first one is {first}")
        return list(self._again(session, request.from_slot))

    def _again(self, session: _Session, from_slot: int) -> Iterator[bytes]:
        newest = min(self._bank.chain.at(session.commitment).slot, self._bank.chain.complete.slot)
        status = {Commitment.PROCESSED: pb.SLOT_PROCESSED, Commitment.CONFIRMED: pb.SLOT_CONFIRMED}
        for slot, states in self._buffer:
            if from_slot <= slot <= newest:
                for address, account in states:
                    yield from self._news(session, slot, address, account or _CLOSED)
                yield from _slot_news(session, slot, None, status.get(session.commitment, pb.SLOT_FINALIZED))

    def _admit(self, context: Any) -> None:
        if self._token is not None and dict(context.invocation_metadata() or ()).get("x-token") != self._token:
            raise _Refusal(_CODE.UNAUTHENTICATED, "no valid x-token")

    async def _pong(self, request: pb.PingRequest, context: Any) -> pb.PongResponse:
        return pb.PongResponse(count=request.count)

    async def _latest_blockhash(
        self, request: pb.GetLatestBlockhashRequest, context: Any
    ) -> pb.GetLatestBlockhashResponse:
        block = await self._block(request, context)
        return pb.GetLatestBlockhashResponse(
            slot=block.slot,
            blockhash=str(block.blockhash),
            last_valid_block_height=block.height + MAX_BLOCKHASH_AGE,
        )

    async def _slot(self, request: pb.GetSlotRequest, context: Any) -> pb.GetSlotResponse:
        return pb.GetSlotResponse(slot=(await self._block(request, context)).slot)

    async def _version(self, request: pb.GetVersionRequest, context: Any) -> pb.GetVersionResponse:
        return pb.GetVersionResponse(version=f'{{"package":"keeper-localnet","solana":"{RUNTIME_VERSION}"}}')

    async def _block(self, request: pb.GetSlotRequest | pb.GetLatestBlockhashRequest, context: Any) -> Block:
        try:
            self._admit(context)
        except _Refusal as refusal:
            await context.abort(refusal.code, refusal.details)
        return self._bank.chain.at(_LEVELS.get(request.commitment, Commitment.FINALIZED))


async def serve_geyser(
    geyser: Geyser, address: str, port: int, *, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; started, with its port, when calls are taken. OSError when the port is taken."""
    # One port for one server: or a second process would share it, and get some of the calls.
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers((geyser.handlers(),))
    host = f"[{address}]" if ":" in address else address
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as exc:
        raise OSError(errno.EADDRINUSE, f"cannot listen on {address} port {port}") from exc
    await server.start()
    try:
        task_status.started(bound)
        while True:
            await anyio.sleep(_PING_EVERY_S)
            geyser.ping()
    finally:
        with anyio.CancelScope(shield=True):
            geyser.disconnect()
            await server.stop(0.2)


def _slot_news(session: _Session, slot: int, parent: int | None, status: pb.SlotStatus) -> Iterator[bytes]:
    of_level = {
        Commitment.PROCESSED: pb.SLOT_PROCESSED,
        Commitment.CONFIRMED: pb.SLOT_CONFIRMED,
        Commitment.FINALIZED: pb.SLOT_FINALIZED,
    }[session.commitment]
    names = [
        name
        for name, wanted in session.slots.items()
        if (wanted.interslot_updates if status in _INTERSLOT else not wanted.filter_by_commitment or status == of_level)
    ]
    if names:
        update = pb.SubscribeUpdateSlot(slot=slot, parent=parent, status=status)
        yield pb.SubscribeUpdate(filters=names, slot=update).SerializeToString()


def _account_filter(wanted: pb.SubscribeRequestFilterAccounts) -> _AccountFilter:
    sizes, memcmps = [], []
    try:
        for condition in wanted.filters:
            match condition.WhichOneof("filter"):
                case "datasize":
                    sizes.append(condition.datasize)
                case "memcmp":
                    memcmps.append((condition.memcmp.offset, _bytes_of(condition.memcmp)))
                case _:
                    raise _Refusal(_CODE.UNIMPLEMENTED, "this server filters by datasize and memcmp alone")
        return _AccountFilter(
            addresses=frozenset(map(Pubkey.from_string, wanted.account)),
            owners=frozenset(map(Pubkey.from_string, wanted.owner)),
            sizes=tuple(sizes),
            memcmps=tuple(memcmps),
        )
    except ValueError as exc:
        raise _Refusal(_CODE.INVALID_ARGUMENT, f"a filter is malformed: {exc}") from exc


def _bytes_of(memcmp: pb.SubscribeRequestFilterAccountsFilterMemcmp) -> bytes:
    kind = memcmp.WhichOneof("data")
    if kind == "base58":
        return base58.decode(memcmp.base58)
    if kind == "base64":
        return b64decode(memcmp.base64, validate=True)
    return memcmp.bytes
