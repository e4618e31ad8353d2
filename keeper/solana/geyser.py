"""Yellowstone gRPC as a source of news: accounts and slots of a validator's Geyser plugin, as they are processed.

What was missed is told again, at the commitment confirmed. Not at processed: there a server tells only the slots again
that were complete, and what it had told of the slot under way when somebody subscribed is lost, without a word. A
confirmed slot comes whole. So the stream begins where the chain is, and beside it a second one tells the gap.

The server's own words are in no error: they may repeat the token, or name the host.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from google.protobuf.message import DecodeError
from solders.pubkey import Pubkey

from keeper.domain.errors import ChainError, NotServed, RateLimited, Transient
from keeper.solana.client import PROCESSED, AccountBytes
from keeper.solana.pool import RpcPool
from keeper.solana.sockets import Notification, Silence
from keeper.solana.sources import SLOTS, Single, Wanted
from keeper.yellowstone import geyser_pb2 as pb
from keeper.yellowstone import grpc

OVERLAP_SLOTS: Final = 16
"""So many slots before a gap and after it are told again as well, for forks and for a server whose parts lag."""
_CONNECT_S: Final = 10.0
_MOST_BYTES: Final = 32 * 1024 * 1024
_MOST_UNREADABLE: Final = 100
"""In a row; then it speaks something else."""
_MOST_REPEATING: Final = 4_096
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MOST_BYTES),
    # Or a new channel would inherit the pauses of the one before, and `Backoff` does that.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)
_PONG: Final = pb.SubscribeRequest(ping=pb.SubscribeRequestPing(id=1))
_CODE: Final = grpc.StatusCode
_SAID: Final = {
    _CODE.UNAUTHENTICATED: (NotServed, "the server refuses the token"),
    _CODE.PERMISSION_DENIED: (NotServed, "the server refuses the token"),
    _CODE.UNIMPLEMENTED: (NotServed, "the server does not speak Yellowstone gRPC"),
    _CODE.RESOURCE_EXHAUSTED: (RateLimited, "the server asks for fewer calls, or was read too slowly"),
    _CODE.UNAVAILABLE: (Transient, "the server can't be reached, or has ended the stream"),
    _CODE.OUT_OF_RANGE: (Transient, "the server does not have that slot any more"),
}


@dataclass(slots=True)
class GeyserStream:
    """An open stream; see `keeper.solana.sources.Stream`. `first_slot` is that of its first news."""

    label: str
    silence_s: float
    _call: Any = field(repr=False)
    _single: bool
    _repeating: frozenset[str]
    malformed: int = 0
    first_slot: int = 0
    _first: Notification | None = None
    _unreadable: int = 0
    _last: dict[bytes, bytes] = field(default_factory=dict, repr=False)

    async def begin(self) -> None:
        """Wait for the first news, which shows that the server has taken the subscription."""
        with _translated(self.label):
            while self._first is None:
                self._first = await self._next()
        self.first_slot = self._first.slot

    async def notifications(self) -> AsyncGenerator[Notification, None]:
        """News as it arrives. Ends with ChainError when the stream ends, or brings no news for `silence_s`: a server
        whose node stands still goes on with its pings.
        """
        if self._first is not None:
            yield self._first
        silence = Silence(self.silence_s, self._call.cancel)
        now = asyncio.get_running_loop().time
        silence.waits_since = now()
        try:
            with _translated(self.label):
                while True:
                    news = await self._next()
                    if news is not None:
                        silence.waits_since = None
                        yield news
                        silence.waits_since = now()
        except (asyncio.CancelledError, ChainError):  # it may have been answering a ping when it was ended
            if not silence.over:
                raise
            raise Transient(f"{self.label}: the stream was silent for {self.silence_s:g} s") from None
        finally:
            silence.stop()

    async def _next(self) -> Notification | None:
        """The next message, if it is news. A ping is answered: some balancers end a stream whose client is silent."""
        raw = await self._call.read()
        if raw is grpc.aio.EOF:
            raise Transient(f"{self.label}: the server has ended the stream")
        try:
            update = pb.SubscribeUpdate.FromString(raw)
        except DecodeError:
            self._skip()
            return None
        kind = update.WhichOneof("update_oneof")
        if kind == "account":
            return self._account(update.filters, update.account)
        if kind == "slot":
            self._unreadable = 0
            return Notification(SLOTS, update.slot.slot, None)
        if kind == "ping":
            await self._call.write(_PONG)
        elif kind is None:
            self._skip()
        return None

    def _account(self, filters: Sequence[str], news: pb.SubscribeUpdateAccount) -> Notification | None:
        raw = news.account
        if len(raw.pubkey) != 32 or len(raw.owner) != 32 or not filters:
            self._skip()
            return None
        self._unreadable = 0
        tag = filters[0]
        if tag in self._repeating:
            # The slot is part of it: at another slot the same bytes are news.
            said = b"%d %b" % (news.slot, raw.data)
            if self._last.get(raw.pubkey) == said:
                return None
            if len(self._last) >= _MOST_REPEATING:
                self._last.clear()
            self._last[raw.pubkey] = said
        address = Pubkey.from_bytes(raw.pubkey)
        account = AccountBytes(address, Pubkey.from_bytes(raw.owner), raw.lamports, raw.data, raw.executable)
        return Notification(str(address) if self._single else tag, news.slot, account)

    def _skip(self) -> None:
        self.malformed += 1
        self._unreadable += 1
        if self._unreadable >= _MOST_UNREADABLE:
            raise NotServed(f"{self.label}: what the server sends is not Yellowstone gRPC")


@dataclass(slots=True)
class GeyserSource:
    """A Yellowstone gRPC server at `target` (host:port), over TLS or not. `token` goes along as x-token."""

    label: str
    target: str = field(repr=False)
    tls: bool
    token: str | None = field(repr=False)
    _opened_at: int = 0
    _blockhash: pb.GetLatestBlockhashResponse = field(default_factory=pb.GetLatestBlockhashResponse, repr=False)
    _known: bool = False

    @asynccontextmanager
    async def open(self, wanted: Sequence[Wanted], silence_s: float) -> AsyncIterator[GeyserStream]:
        """See Source."""
        async with self._channel() as channel:
            # First, because a call says why it is refused, where a stream that is refused while its request is on the
            # way says INTERNAL: gRPC's Python keeps its own failure to send, and not the server's word.
            self._blockhash = await self._latest_blockhash(channel)
            async with self._stream(channel, _request(wanted, pb.PROCESSED), wanted, silence_s) as stream:
                self._opened_at = stream.first_slot
                yield stream

    async def _latest_blockhash(self, channel: Any) -> pb.GetLatestBlockhashResponse:
        call = channel.unary_unary(
            "/geyser.Geyser/GetLatestBlockhash",
            request_serializer=pb.GetLatestBlockhashRequest.SerializeToString,
            response_deserializer=pb.GetLatestBlockhashResponse.FromString,
        )
        # A finalized one: a node that is somewhat behind the other knows it, too.
        request = pb.GetLatestBlockhashRequest(commitment=pb.FINALIZED)
        with _translated(self.label):
            told: pb.GetLatestBlockhashResponse = await call(request, timeout=_CONNECT_S, metadata=self._metadata())
        return told

    async def identify(self, pool: RpcPool) -> int | None:
        """See Source: a blockhash of this server, as of when it was opened, is one of the pool's chain."""
        told = self._blockhash
        try:
            answer = await pool.call("isBlockhashValid", told.blockhash, {"commitment": PROCESSED})
        except ChainError:
            if self._known:  # it was asked before, and the stream may be well when the calls are not
                return None
            raise
        self._known = isinstance(answer, dict) and answer.get("value") is True
        if not self._known:
            raise Transient(f"{self.label}: the RPC knows nothing of its blockhash: is it on another chain?")
        return int(told.slot)

    async def replay(
        self, wanted: Sequence[Wanted], since: int, silence_s: float
    ) -> AsyncGenerator[Notification, None]:
        """See Source. A server begins where it was asked to, or its buffer does not go back that far."""
        until = self._opened_at + OVERLAP_SLOTS
        request = _request(wanted, pb.CONFIRMED)
        request.from_slot = max(1, since - OVERLAP_SLOTS)
        async with (
            self._channel() as channel,
            self._stream(channel, request, wanted, silence_s) as stream,
            aclosing(stream.notifications()) as told,
        ):
            if stream.first_slot > since:
                raise Transient(f"{self.label}: it tells again from slot {stream.first_slot} on, not from {since}")
            async for news in told:
                yield news
                if news.account is None and news.slot >= until:
                    return

    @asynccontextmanager
    async def _stream(
        self, channel: Any, request: pb.SubscribeRequest, wanted: Sequence[Wanted], silence_s: float
    ) -> AsyncIterator[GeyserStream]:
        call = channel.stream_stream(
            "/geyser.Geyser/Subscribe", request_serializer=pb.SubscribeRequest.SerializeToString
        )(metadata=self._metadata())
        try:
            single = any(isinstance(wish, Single) for wish in wanted)
            repeating = frozenset(w.tag for w in wanted if not isinstance(w, Single) and w.repeats)
            stream = GeyserStream(self.label, silence_s, call, single, repeating)
            try:
                with anyio.fail_after(_CONNECT_S):
                    with _translated(self.label):
                        await call.write(request)
                    await stream.begin()
            except TimeoutError:
                raise Transient(f"{self.label}: no news within {_CONNECT_S:g} s") from None
            yield stream
        finally:
            call.cancel()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self.token is None else (("x-token", self.token),)

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[Any]:
        if self.tls:
            channel = grpc.aio.secure_channel(self.target, grpc.ssl_channel_credentials(), options=_OPTIONS)
        else:
            channel = grpc.aio.insecure_channel(self.target, options=_OPTIONS)
        try:
            yield channel
        finally:
            with anyio.CancelScope(shield=True):
                await channel.close()


def _request(wanted: Sequence[Wanted], commitment: pb.CommitmentLevel) -> pb.SubscribeRequest:
    request = pb.SubscribeRequest(commitment=commitment)
    request.slots[SLOTS].filter_by_commitment = True
    for wish in wanted:
        if isinstance(wish, Single):
            request.accounts["accounts"].account.append(str(wish.address))
        else:
            filters = request.accounts[wish.tag]
            filters.owner.append(str(wish.program))
            filters.filters.add().memcmp.bytes = wish.prefix
    return request


@contextmanager
def _translated(label: str) -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as e:
        kind, said = _SAID.get(e.code(), (Transient, "the call failed"))
        raise kind(f"{label}: {said} ({e.code().name})") from None
    except (grpc.aio.UsageError, asyncio.InvalidStateError):
        raise Transient(f"{label}: the stream has ended") from None
